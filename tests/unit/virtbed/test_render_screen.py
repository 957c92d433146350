"""What is printed is not obeyed, and a text is wrapped at spaces."""

from __future__ import annotations

import io

import pytest

from virtbed.render.screen import PIPED, Screen

TEXT = " ".join(["word"] * 40)


def printed(thing: object, environment: dict[str, str] | None = None, **options: bool) -> str:
    file = io.StringIO()
    Screen(file=file, _environ=environment or {}, **options).print(thing)
    return file.getvalue()


def test_escape_sequences_and_markup_are_shown() -> None:
    assert printed("a \x1b[2J [bold]b[/bold] :smile:") == "a \\x1b[2J [bold]b[/bold] :smile:\n"


def test_off_a_terminal_a_text_has_80_columns_unless_asked_otherwise() -> None:
    lines = printed(TEXT).splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= PIPED
    assert " ".join(lines) == TEXT
    narrow = printed(TEXT, {"COLUMNS": "30"}).splitlines()
    assert max(map(len, narrow)) <= 30


@pytest.mark.parametrize("text", [TEXT, "report: " + "x" * 200])
def test_what_scripts_look_for_stays_on_one_line(text: str) -> None:
    """A label with a path always; anything where the screen does not wrap, as refusals do."""
    wraps = text == TEXT
    assert printed(text, wrap=not wraps).splitlines() == [text]
