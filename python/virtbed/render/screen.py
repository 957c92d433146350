"""The console of the command line: all output to a terminal or a pipe passes through it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment

from virtbed.render.table import prose
from virtbed_contract.json_file import plain

PIPED = 80
"""Line width if the output is not a terminal and COLUMNS is not set."""
_LABELLED = 6  # texts of fewer words (a label and a path) are never wrapped, for scripts


class Screen(Console):
    """A console that prints escape sequences and markup as visible text.

    Texts are wrapped at spaces. If the output is not a terminal, there are no colours, and a line
    has 80 columns.

    Args:
        wrap: Whether to wrap texts.
        **options: Options of rich's Console.
    """

    def __init__(self, *, wrap: bool = True, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})
        self._wrap = wrap
        if "width" not in options:
            self._width = None  # rich keeps the value that COLUMNS has now; `size` reads it later

    @property
    def size(self) -> ConsoleDimensions:
        """The number of columns and lines."""
        dimensions = super().size
        if self.is_terminal or self._width is not None or "COLUMNS" in self._environ:
            return dimensions
        return ConsoleDimensions(PIPED, dimensions.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, wrapped at spaces unless `soft_wrap` is set, or renderables of rich."""
        whole = options.get("soft_wrap", not self._wrap)
        kept = [self._text(thing, whole) if isinstance(thing, str) else thing for thing in objects]
        if all(isinstance(thing, str) for thing in objects):
            options["soft_wrap"] = True
        super().print(*kept, **options)

    def _text(self, text: str, whole: bool) -> str:
        """Return a text as it is printed: control characters visible, and wrapped."""
        shown = plain(text)
        return shown if whole or len(shown.split()) < _LABELLED else prose(shown, self.width)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with control characters in texts of any origin made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)
