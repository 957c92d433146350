"""The console makes control characters and markup visible, and wraps texts at spaces."""

from __future__ import annotations

import io

import pytest

from virtbed.render.screen import PIPED, Screen

TEXT = " ".join(["word"] * 40)


def printed(thing: object, environment: dict[str, str] | None = None, **options: bool) -> str:
    file = io.StringIO()
    Screen(file=file, _environ=environment or {}, **options).print(thing)
    return file.getvalue()


def test_escape_sequences_and_markup_are_printed_as_visible_text() -> None:
    assert printed("a \x1b[2J [bold]b[/bold] :smile:") == "a \\x1b[2J [bold]b[/bold] :smile:\n"


def test_without_a_terminal_a_text_has_80_columns_unless_columns_is_set() -> None:
    lines = printed(TEXT).splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= PIPED
    assert " ".join(lines) == TEXT
    narrow = printed(TEXT, {"COLUMNS": "30"}).splitlines()
    assert max(map(len, narrow)) <= 30


@pytest.mark.parametrize("text", [TEXT, "report: " + "x" * 200])
def test_texts_that_scripts_match_stay_on_one_line(text: str) -> None:
    """A label with a path is never wrapped, nor any text if wrapping is off (refusals)."""
    wraps = text == TEXT
    assert printed(text, wrap=not wraps).splitlines() == [text]
