"""Comments, docstrings, messages and pages use plain words, and one word per concept."""

from __future__ import annotations

import ast
import re

import pytest
from tests.pages import NAMES, text
from tests.prose import NOT_OURS, prose

from virtbed.checkout import REPOSITORY

# Words that the project's style replaces (regular expressions), and what to write instead.
INSTEAD = {
    "a hair": "slightly",
    "anew": "again; or a verb with re-: rebuild, rewrite",
    "begun": "started",
    "behind our back": "during the sweep",
    "beside": "next to, besides, during",
    "came": "was, arrived, was read",
    "dearer": "slower, more expensive",
    "has it that": "requires, states",
    "holds? together": "are simultaneous",
    "in vain": "without success",
    "laid": "placed, planned, formatted",
    "lest": "so that … not",
    "no ground for": "no reason to",
    "of then": "of that time",
    "quieten(s|ed|ing)?": "make quiet",
    "thereof": "of it",
    "told": "said, given, reported, known; cannot be distinguished",
}
REPLACED = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)
# This file contains the words of INSTEAD itself.
ITSELF = "tests/contract/test_words.py"
# Files with programs inside texts, whose names are not prose.
PROGRAMS = {
    "tests/contract/test_registries.py",
    "tests/contract/test_role_modules.py",
}


def replaced(pieces: list[tuple[int, str]]) -> list[str]:
    """Return a sentence for each replaced word: its line, the word, and what to write instead."""
    found = [(line, m[0].lower()) for line, piece in pieces for m in REPLACED.finditer(piece)]
    write = {
        word: next(instead for pattern, instead in INSTEAD.items() if re.fullmatch(pattern, word))
        for _, word in found
    }
    return [f"line {line}: {word} (write: {write[word]})" for line, word in found]


def ours() -> list[str]:
    """Return the text files of the checkout whose words are the project's."""
    return [
        name
        for name in NAMES
        if (REPOSITORY / name).is_file()
        and not (REPOSITORY / name).is_symlink()
        and not NOT_OURS.search(name)
        and b"\0" not in (REPOSITORY / name).read_bytes()  # no binary file
    ]


@pytest.mark.parametrize("folder", sorted({name.partition("/")[0] for name in ours()}))
def test_no_text_has_a_word_that_the_style_replaces(folder: str) -> None:
    names = [n for n in ours() if n.partition("/")[0] == folder and n not in {ITSELF, *PROGRAMS}]
    assert {name: lines for name in names if (lines := replaced(prose(name)))} == {}


def test_a_replaced_word_is_found() -> None:
    pieces = [(1, "What was begun; these hold together."), (7, "Quietened"), (9, "a toldo beside")]
    assert [line.split(" (")[0] for line in replaced(pieces)] == [
        "line 1: begun",
        "line 1: hold together",
        "line 7: quietened",
        "line 9: beside",
    ]


def test_prose_consists_of_comments_texts_and_pages_without_code(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tests.pages.REPOSITORY", tmp_path)
    text.cache_clear()
    code = '"""One\n`told` two."""\nx = told["told"]  # three\ny = f"four {told} five"\n'
    (tmp_path / "a.py").write_text(code)
    (tmp_path / "b.md").write_text("One `told`\n```\ntold\n```\ntwo\n")
    read = [" ".join(piece for _, piece in prose(name)) for name in ("a.py", "b.md")]
    text.cache_clear()
    assert "told" not in " ".join(read)
    assert all(word in read[0] for word in ("One two.", "three", "four … five"))
    assert read[1].split() == ["One", "two"]


@pytest.mark.parametrize("folder", sorted({name.partition("/")[0] for name in ours()}))
def test_no_name_is_a_word_that_the_style_replaces(folder: str) -> None:
    """Names of variables, parameters, attributes, functions and tests: `report`, not `told`."""
    wrong = {
        f"{name}: {word}"
        for name in ours()
        if name.partition("/")[0] == folder and name.endswith(".py")
        for word in names_of(text(name))
        if any(REPLACED.fullmatch(part) for part in word.split("_"))
    }
    assert wrong == set()


def names_of(source: str) -> set[str]:
    """Return the names that a Python file defines."""
    tree = list(ast.walk(ast.parse(source)))
    return {
        *(n.id for n in tree if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)),
        *(n.attr for n in tree if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)),
        *(n.arg for n in tree if isinstance(n, ast.arg)),
        *(n.name for n in tree if isinstance(n, (ast.FunctionDef, ast.ClassDef))),
        *(n.asname for n in tree if isinstance(n, ast.alias) and n.asname),
    }


def test_every_kind_of_name_is_checked() -> None:
    source = "import a as b\nclass C:\n    def d(self, *e):\n        f = 1\n        self.g = f\n"
    assert names_of(source) == {"b", "C", "d", "self", "e", "f", "g"}


def test_no_docstring_begins_with_knows() -> None:
    found = [
        name
        for name in ours()
        if name.endswith(".py")
        for node in ast.walk(ast.parse(text(name)))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and (ast.get_docstring(node) or "").startswith("Knows")
    ]
    assert found == []
