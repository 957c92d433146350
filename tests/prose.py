"""The prose of the tree: comments, docstrings, messages and pages, without code; for tests."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.pages import FENCE, text

# Written by others, recorded, or locked: not ours to word.
NOT_OURS = re.compile(
    r"(^|/)(LICENSE|CODE_OF_CONDUCT\.md|requirements/.*\.txt|passages/|topologies/|recorded/)"
    r"|\.(csv|png|xml|json|xz|zst|gz|vocab|wav|jpg)$"
)


def _sentence(value: object) -> bool:
    """Return whether a constant is for people: a key, a path or a file's name has no space."""
    return isinstance(value, str) and " " in value.strip()


def _python(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and _sentence(node.value):
            yield node.lineno, str(node.value)


def prose(name: str) -> list[tuple[int, str]]:
    """Return each piece of prose of a file, with the line that it begins on.

    Of Python the comments (a block of them by its lines) and the texts; of any other file each
    line. What stands between backticks is code.
    """
    source = text(name)
    if name.endswith(".py"):
        pieces: list[tuple[int, str]] = list(_python(source))
    else:
        plain = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), source)
        pieces = list(enumerate(plain.splitlines(), 1))
    return [(line, " ".join(re.sub(r"`+[^`]*`+", "", piece).split())) for line, piece in pieces]
