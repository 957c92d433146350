"""Prose of the files of the checkout: comments, docstrings, messages, pages; for tests."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.pages import FENCE, text

# Files whose words are not the project's: written by others, recorded, or locked.
NOT_OURS = re.compile(
    r"(^|/)(LICENSE|CODE_OF_CONDUCT\.md|requirements/.*\.txt|passages/|topologies/|recorded/)"
    r"|\.(csv|png|xml|json|xz|zst|gz|vocab|wav|jpg)$"
)


def _sentence(value: object) -> bool:
    """Return whether a constant is prose; keys, paths and file names contain no space."""
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
    """Return the pieces of prose of a file, each with the number of its first line.

    In Python these are the comments (one piece per line) and the texts; in any other file, the
    lines. Code between backticks is left out.
    """
    source = text(name)
    if name.endswith(".py"):
        pieces: list[tuple[int, str]] = list(_python(source))
    else:
        plain = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), source)
        pieces = list(enumerate(plain.splitlines(), 1))
    return [(line, " ".join(re.sub(r"`+[^`]*`+", "", piece).split())) for line, piece in pieces]
