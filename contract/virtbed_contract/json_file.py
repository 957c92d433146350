"""Reader of JSON files from untrusted sources, with bounds, and safe to print.

Whatever a file contains, reading it returns a mapping or raises `DocumentError`. It raises no other
exception, does not wait for the writer of a FIFO, and takes no more memory than a large result
does. It refuses numbers that 64 bits or other readers of JSON cannot represent, and duplicate keys.
Strings that it returns cannot control a terminal.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import Any

from .codec import DocumentError, Json

MOST_BYTES = 256 * 2**20
"""Largest file that is read; a result of a million samples has 200 MB."""
MOST_WIDE_BYTES = 32 * 2**20
"""Largest file that is not ASCII: Python may need four times its size. Our own files are ASCII."""
MOST_VALUES = 12_000_000
"""Most values; a million samples have 8 million. A short value needs 20 times its length in memory.
"""
MOST_DEPTH = 64
"""Most levels of nested objects and lists; our documents have 9."""
LARGEST = 2**63 - 1
"""Largest whole number of a 64-bit column."""
_LONG = re.compile(r"\d{19}")  # shorter whole numbers cannot exceed LARGEST
# Texts that `plain` may have to rewrite, escaped or not. A false positive only costs time.
_ESCAPED = re.compile(r"\\[bfr]|\\u(?:00|0[46]|1[78]|20|d[89a-f]|e|f[0-8ef])", re.IGNORECASE)
_UNUSUAL = re.compile(
    "[\x7f-\x9f\xad\u0600-\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\uf8ff\ufeff\U000e0000-\U0010ffff]"
)
_SHOWN = ("\n", "\t")
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def read(path: Path) -> Json:
    """Return the JSON object in a regular file.

    Raises:
        DocumentError: The file is not a regular file (a link, a FIFO, a folder), is too large, is
            not UTF-8 text, or has no object that `parse` accepts. The message has the file's name
            and what was found.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer, perhaps for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DocumentError(f"no {path.name} in its folder") from None
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise DocumentError(f"{path.name} cannot be read: {why}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError(f"{path.name} cannot be read: it is no regular file")
        if status.st_size > MOST_BYTES:
            raise DocumentError(
                f"{path.name} has {status.st_size >> 20} MiB, "
                f"at most {MOST_BYTES >> 20} MiB are read"
            )
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return parse_bytes(file.read(MOST_BYTES + 1), path.name)
    except OSError as error:
        raise DocumentError(f"{path.name} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise DocumentError(
            f"{path.name} cannot be read: it takes more memory than is left"
        ) from None
    finally:
        os.close(descriptor)


def parse_bytes(content: bytes, name: str = "the document") -> Json:
    """Return the object of a JSON text in UTF-8.

    Args:
        content: The text.
        name: Name of the document, for messages.

    Raises:
        DocumentError: The text is too large, is not UTF-8, or `parse` refuses it.
    """
    most = MOST_BYTES if content.isascii() else MOST_WIDE_BYTES
    if len(content) > most:
        raise DocumentError(
            f"{name} has {len(content) >> 20} MiB, at most {most >> 20} MiB"
            f"{'' if most == MOST_BYTES else ' of text that is not ASCII'} are read"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{name} is not UTF-8 text: byte {error.start}") from None
    del content  # as large as the text
    return parse(text, name)


def parse(text: str, name: str = "the document") -> Json:
    """Return the object of a JSON text; invisible characters in strings are escaped (see `plain`).

    Args:
        text: The JSON text.
        name: Name of the document, for messages.

    Raises:
        DocumentError: The text is not JSON or not an object, is nested too deeply, has a duplicate
            key or too many values, or has NaN, Infinity or a number that 64 bits cannot represent.
    """
    values = text.count(",") + text.count("[") + text.count("{")
    if values > MOST_VALUES:
        raise DocumentError(f"{name} holds {values} values, at most {MOST_VALUES} are read")
    try:
        document = json.loads(
            text,
            object_pairs_hook=_each_once,
            parse_constant=_not_json,
            parse_float=_finite,
            parse_int=_bounded if _LONG.search(text) else None,
        )
        if _too_deep(document):
            raise RecursionError
        if ("\\" in text and _ESCAPED.search(text)) or (
            not text.isascii() and _UNUSUAL.search(text)
        ):
            document = _visible(document)
    except json.JSONDecodeError as error:
        raise DocumentError(
            f"{name} is not JSON, cut short perhaps: "
            f"{error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise DocumentError(
            f"{name} is nested too deeply: at most {MOST_DEPTH} objects and lists within each "
            "other are read"
        ) from None
    except _Refused as error:
        raise DocumentError(f"{name} {error}{_place(text, error.token)}") from None
    except ValueError as error:
        raise DocumentError(f"{name} {error}") from None
    if not isinstance(document, dict):
        raise DocumentError(f"{name} holds a {type(document).__name__}, an object is needed")
    return document


class _Refused(ValueError):
    """A part of a JSON text that is refused; `token` is the text of that part."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token


def _place(text: str, token: str) -> str:
    """Return the line and column of a refused token; empty if the token is not unique."""
    if text.count(token) != 1:
        return ""
    at = text.index(token)
    return f" (line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)})"


def _each_once(pairs: list[tuple[str, Any]]) -> Json:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"has the key {_short(ascii(twice))} twice in one object, once is needed")
    return mapping


def _too_deep(document: Any) -> bool:
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(MOST_DEPTH + 1):
        level = [  # type() takes half the time of isinstance(), which matters for a million samples
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def plain(text: str) -> str:
    """Return a text with control, formatting and unassigned characters escaped, as in ``\\x1b``.

    Line feeds and tabs are kept.

    >>> plain("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in _SHOWN or unicodedata.category(character) not in _UNSEEN
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_visible(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): _visible(item) for key, item in value.items()}
    return value


def _not_json(text: str) -> Any:
    raise _Refused(f"holds {text}, which is no number of JSON", text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"holds the number {_short(text)}, larger than any that can be read", text)
    return value


def _bounded(text: str) -> int:
    # Check the length first, since int() raises for thousands of digits.
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise _Refused(
            f"holds the number {_short(text)}, {LARGEST} is the largest that is read", text
        )
    return int(text)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
