"""Tables that fit the width of a terminal without breaking numbers.

Values that all rows have in common are printed once, above the table. Texts are wrapped, numbers
never. Measured columns that do not fit next to each other follow in a second part, which repeats
the columns that name the rows. If even that does not fit, rows are printed as lists of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import TextWrapper

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from virtbed_contract.json_file import plain

_GAP = "  "
_BOUND = "\N{NO-BREAK SPACE}"
_SHORT = 12  # texts of up to this many cells are not wrapped
_WIDE = 20  # longer pieces of text may be cut
_PIECES = re.compile(r" +|(?<=[^\W\d_][_/-])(?=[^\W\d_])")  # where text may be wrapped
Cell = tuple[str, str]
"""A text, and its style for rich."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: Its heading.
        number: Whether it has numbers, which are right-aligned and never wrapped.
        measured: Whether it has values of a row. Other columns name the row; if all rows have the
            same text there, it is printed above the table instead.
        section: Whether it names sections: its text is printed as a line above the section's rows.
    """

    heading: str
    number: bool
    measured: bool
    section: bool


class Table:
    """Rows under headings, formatted for the console that prints it.

    Args:
        title: Printed above the table; empty for none.
        apart: Whether rows are separated by blank lines, for long texts.
    """

    def __init__(self, title: str = "", *, apart: bool = False) -> None:
        self.title = title
        self.apart = apart
        self.columns: list[Column] = []
        self.rows: list[list[Cell]] = []

    def add_column(
        self, heading: str, *, number: bool = False, measured: bool = False, section: bool = False
    ) -> None:
        """Add a column; see `Column`. Rows of one section must be added one after another."""
        self.columns.append(Column(_line(heading), number, measured, section))

    def add_row(self, *cells: str | Text) -> None:
        """Add a row with one cell per column; a `Text` keeps its style."""
        self.rows.append([_cell(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table's lines, none wider than the console."""
        width = options.max_width
        if self.title:
            yield from (Text(line, "bold") for line in wrapped(_line(self.title), width))
        shown, same = self._shared()
        if same:
            yield from map(Text, wrapped(f"For all: {'; '.join(same)}.", width))
        line = "-" if options.ascii_only else "\u2500"
        for number, part in enumerate(self._parts(shown, width)):
            if number:
                yield Text()
            if part:
                sections = [n for n in shown if self.columns[n].section]
                yield from self._grid(part, sections, width, line)
            else:
                yield from self._records(shown, width)

    def _shared(self) -> tuple[list[int], list[str]]:
        """Return the columns to print, and the texts that all rows have in common."""
        shown, same = [], []
        for number, column in enumerate(self.columns):
            values = {row[number][0] for row in self.rows}
            if values == {""}:
                continue
            if column.measured or len(values) != 1 or len(self.rows) < 2:
                shown.append(number)
            else:
                same.append(f"{column.heading} {values.pop()}")
        return shown, same

    def _parts(self, shown: Sequence[int], width: int) -> list[list[int]]:
        """Return the columns of each part; a single empty part if a part does not fit."""
        kept = [number for number in shown if not self.columns[number].section]
        keys = [number for number in kept if not self.columns[number].measured]
        measured = [number for number in kept if self.columns[number].measured]
        parts: list[list[int]] = [[*keys]]
        for number in measured:
            if self._least([*parts[-1], number]) > width and len(parts[-1]) > len(keys):
                parts.append([*keys])
            parts[-1].append(number)
        return parts if all(self._least(part) <= width for part in parts) else [[]]

    def _least(self, part: Sequence[int]) -> int:
        """Return the least width of some columns next to each other."""
        return sum(self._narrow(number) for number in part) + len(_GAP) * (len(part) - 1)

    def _narrow(self, number: int) -> int:
        """Return the least width of a column."""
        texts = [row[number][0] for row in self.rows]
        if self.columns[number].number:
            return max([_longest(self.columns[number].heading), *map(cell_len, texts)])
        needed = min(_WIDE, max(map(_longest, [self.columns[number].heading, *texts])))
        whole = (piece for text in texts for piece in text.split(" ") if _BOUND in piece)
        needed = max(needed, *map(cell_len, whole), 0)
        short = max(map(cell_len, texts), default=0)
        return max(needed, short) if short <= _SHORT else needed

    def _wide(self, number: int) -> int:
        """Return the width of a column in which no text is wrapped."""
        texts = [self.columns[number].heading, *(row[number][0] for row in self.rows)]
        return max(map(cell_len, texts))

    def _grid(
        self, part: Sequence[int], sections: Sequence[int], width: int, line: str
    ) -> Iterator[Text]:
        """Yield the lines of one part: headings, a rule, and rows by section."""
        widths = self._widths(part, width)
        headings = [(self.columns[number].heading, "bold") for number in part]
        yield from self._lines(part, headings, widths)
        yield Text(_GAP.join(line * room for room in widths))
        before: list[str] = []
        for number, row in enumerate(self.rows):
            named = [row[column][0] for column in sections]
            if number and (self.apart or named != before):
                yield Text()
            if named != before:
                yield from (Text(heading, "bold") for heading in wrapped(", ".join(named), width))
            before = named
            yield from self._lines(part, [row[column] for column in part], widths)

    def _widths(self, part: Sequence[int], width: int) -> list[int]:
        """Return the width of each column: at least what it needs, more while there is room."""
        widths = [self._narrow(number) for number in part]
        wanted = [self._wide(number) for number in part]
        room = width - sum(widths) - len(_GAP) * (len(part) - 1)
        for _ in range(room):
            short = max(range(len(part)), key=lambda n: wanted[n] / widths[n])
            if wanted[short] <= widths[short]:
                break
            widths[short] += 1
        return widths

    def _lines(
        self, part: Sequence[int], cells: Sequence[Cell], widths: Sequence[int]
    ) -> Iterator[Text]:
        """Yield the lines of one row, as many as its highest cell has."""
        texts = [wrapped(text, room) for (text, _), room in zip(cells, widths, strict=True)]
        for height in range(max(map(len, texts), default=0)):
            line = Text()
            for place, number in enumerate(part):
                text = texts[place][height] if height < len(texts[place]) else ""
                fill = " " * (widths[place] - cell_len(text))
                gap = _GAP if place else ""
                before, after = (fill, "") if self.columns[number].number else ("", fill)
                shown = text.replace(_BOUND, " ")
                line.append(gap + before).append(shown, cells[place][1] or None).append(after)
            line.rstrip()
            yield line

    def _records(self, shown: Sequence[int], width: int) -> Iterator[Text]:
        """Yield each row as a list of lines, "heading: value"."""
        for row in self.rows:
            yield Text()
            for number in shown:
                entry = f"{self.columns[number].heading}: {row[number][0]}"
                lines = (line.replace(_BOUND, " ") for line in wrapped(entry, width))
                yield from (Text(line, row[number][1]) for line in lines)


def _cell(cell: str | Text) -> Cell:
    """Return a cell's text on one line, and its style."""
    text, style = (cell.plain, str(cell.style)) if isinstance(cell, Text) else (cell, "")
    return _line(text), style


def _line(text: str) -> str:
    return plain(text.strip().replace("\n", " ").replace("\t", " "))


def _longest(text: str) -> int:
    return max(map(cell_len, _PIECES.split(text)), default=0)


def bound(text: str) -> str:
    """Return a text that a table never wraps, such as a number with its interval."""
    return text.replace(" ", _BOUND)


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a text of one paragraph.

    Lines end at spaces, or within names after "_", "-" or "/" between letters. Only a piece that is
    wider than a line is cut.

    Args:
        text: The text.
        width: Width of a line, in cells of the terminal.
    """
    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for word in text.split(" "):
        if cell_len(joined := f"{lines[-1]} {word}".lstrip()) <= width:
            lines[-1] = joined
            continue
        if cell_len(word) <= width:
            lines.append(word)
            continue
        start = True
        for piece in _PIECES.split(word):
            glue = " " if start and lines[-1] else ""
            start = False
            if cell_len(lines[-1] + glue + piece) <= width:
                lines[-1] += glue + piece
            else:
                lines += chop_cells(piece, width)
    return [line for line in lines if line]


def prose(text: str, width: int) -> str:
    """Wrap a text at spaces; paths and other long words stay whole."""
    wrapper = TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in text.split("\n"))
