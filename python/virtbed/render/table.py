"""A table that fits a terminal: no line is wider, and no number is broken.

What all rows have in common is said once, above. Text is wrapped, numbers never are; measured
columns that do not fit side by side follow in a second part, which repeats the columns that name
the rows. A terminal too narrow for any of this gets a list of records.
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
_SHORT = 12  # texts up to this are not wrapped
_WIDE = 20  # a longer piece of text is cut rather than given so much room
_PIECES = re.compile(r" +|(?<=[^\W\d_][_/-])(?=[^\W\d_])")  # where text may be wrapped
Cell = tuple[str, str]
"""A text and its style."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: What it is called.
        number: Whether it holds numbers: they stand on the right, and are never wrapped.
        measured: Whether it says what was found of a row; the others name the row, and are said
            above the table where all rows have the same.
        section: Whether it names sections: its text is a line of its own, above the rows of one.
    """

    heading: str
    number: bool
    measured: bool
    section: bool


class Table:
    """Rows under headings, formatted for the console that prints it.

    Args:
        title: Said above; empty for none.
        apart: Whether a blank line stands between rows: for long texts.
    """

    def __init__(self, title: str = "", *, apart: bool = False) -> None:
        self.title = title
        self.apart = apart
        self.columns: list[Column] = []
        self.rows: list[list[Cell]] = []

    def add_column(
        self, heading: str, *, number: bool = False, measured: bool = False, section: bool = False
    ) -> None:
        """Add a column; see `Column`. Rows of one section are added one after another."""
        self.columns.append(Column(_line(heading), number, measured, section))

    def add_row(self, *cells: str | Text) -> None:
        """Add a row of as many cells as there are columns; of a `Text` the style is kept."""
        self.rows.append([_cell(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the table's lines, each within the width."""
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
        """Return the columns to show, and what all rows have in common."""
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
        """Return the columns of each part; one empty part where even one does not fit."""
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
        """Return the narrowest width of some columns side by side."""
        return sum(self._narrow(number) for number in part) + len(_GAP) * (len(part) - 1)

    def _narrow(self, number: int) -> int:
        texts = [row[number][0] for row in self.rows]
        if self.columns[number].number:
            return max([_longest(self.columns[number].heading), *map(cell_len, texts)])
        needed = min(_WIDE, max(map(_longest, [self.columns[number].heading, *texts])))
        whole = (piece for text in texts for piece in text.split(" ") if _BOUND in piece)
        needed = max(needed, *map(cell_len, whole), 0)
        short = max(map(cell_len, texts), default=0)
        return max(needed, short) if short <= _SHORT else needed

    def _wide(self, number: int) -> int:
        texts = [self.columns[number].heading, *(row[number][0] for row in self.rows)]
        return max(map(cell_len, texts))

    def _grid(
        self, part: Sequence[int], sections: Sequence[int], width: int, line: str
    ) -> Iterator[Text]:
        """Give the lines of one part: headings, a rule, and rows by section."""
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
        """Return what each column gets: what it needs, or more as long as there is room."""
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
        """Give the lines of one row, as many as its highest cell has."""
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
        """Give each row as lines of a heading and its value."""
        for row in self.rows:
            yield Text()
            for number in shown:
                said = f"{self.columns[number].heading}: {row[number][0]}"
                lines = (line.replace(_BOUND, " ") for line in wrapped(said, width))
                yield from (Text(line, row[number][1]) for line in lines)


def _cell(cell: str | Text) -> Cell:
    text, style = (cell.plain, str(cell.style)) if isinstance(cell, Text) else (cell, "")
    return _line(text), style


def _line(text: str) -> str:
    return plain(text.strip().replace("\n", " ").replace("\t", " "))


def _longest(text: str) -> int:
    return max(map(cell_len, _PIECES.split(text)), default=0)


def bound(text: str) -> str:
    """Return text that a table keeps on one line within a cell: a number with its interval."""
    return text.replace(" ", _BOUND)


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text of one paragraph, at most so many cells wide.

    Lines end at spaces, else within names (after "_", "-" or "/" between letters); only a piece
    that is wider than the line is cut.
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
    """Return text whose lines end at spaces; a path or another long word stays whole."""
    wrapper = TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in text.split("\n"))
