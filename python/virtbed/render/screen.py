"""The one place where the command line prints to a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment

from virtbed.render.table import prose
from virtbed_contract.json_file import plain

PIPED = 80
"""Columns of what is not a terminal, unless COLUMNS says otherwise."""
_LABELLED = 6  # fewer words are a label and a path: one line, for scripts


class Screen(Console):
    """A console on which nothing printed is obeyed: no escape sequence, no markup.

    A text is wrapped at spaces. Off a terminal there is no colour, and a line has 80 columns.
    """

    def __init__(self, *, wrap: bool = True, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})
        self._wrap = wrap

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        found = super().size
        if self.is_terminal or self._width is not None or "COLUMNS" in self._environ:
            return found
        return ConsoleDimensions(PIPED, found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, wrapped at spaces unless `soft_wrap` is set, or what else Rich can show."""
        whole = options.get("soft_wrap", not self._wrap)
        kept = [self._text(thing, whole) if isinstance(thing, str) else thing for thing in objects]
        if all(isinstance(thing, str) for thing in objects):
            options["soft_wrap"] = True
        super().print(*kept, **options)

    def _text(self, text: str, whole: bool) -> str:
        shown = plain(text)
        return shown if whole or len(shown.split()) < _LABELLED else prose(shown, self.width)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with what would be obeyed made visible, whoever made it."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)
