"""Documents out of JSON that nobody vouches for: read, bounded, and fit to be shown.

Whatever a file is, or holds, the outcome is a mapping or a `DocumentError`: no other exception, no
wait for the writer of a FIFO, no number that 64 bits or another reader of JSON cannot hold, no key
twice, no text that moves a terminal's cursor, and no more memory than a large result takes.
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
"""A result of a million samples has 200 MB."""
MOST_WIDE_BYTES = 32 * 2**20
"""Of a text that is not ASCII, as all of ours is: Python takes four times as much room for it."""
MOST_VALUES = 12_000_000
"""A million samples are 8 million values; a short value takes twenty times its length in memory."""
MOST_DEPTH = 64
"""Objects and lists within each other; our documents have 9."""
LARGEST = 2**63 - 1
"""The largest whole number of a 64-bit column."""
_LONG = re.compile(r"\d{19}")  # only then can a whole number be larger
# What `plain` may have to rewrite, escaped or not; a false alarm costs a pass, no more.
_ESCAPED = re.compile(r"\\[bfr]|\\u(?:00|0[46]|1[78]|20|d[89a-f]|e|f[0-8ef])", re.IGNORECASE)
_UNUSUAL = re.compile(
    "[\x7f-\x9f\xad\u0600-\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\uf8ff\ufeff\U000e0000-\U0010ffff]"
)
_SHOWN = ("\n", "\t")
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def read(path: Path) -> Json:
    """Return the JSON object that a regular file holds.

    Raises:
        DocumentError: it is no regular file (a link, a FIFO, a folder), is too large, is no text,
            or holds no object that `parse` takes; the message names the file and what was found.
    """
    try:
        # Without O_NONBLOCK a FIFO is opened when somebody writes to it: never, perhaps.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DocumentError(f"no {path.name} in its folder") from None
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise DocumentError(f"{path.name} cannot be read: {why}") from None
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise DocumentError(f"{path.name} cannot be read: it is no regular file")
        if found.st_size > MOST_BYTES:
            raise DocumentError(
                f"{path.name} has {found.st_size >> 20} MiB, "
                f"at most {MOST_BYTES >> 20} MiB are read"
            )
        with os.fdopen(os.dup(opened), "rb") as file:
            return parse_bytes(file.read(MOST_BYTES + 1), path.name)
    except OSError as error:
        raise DocumentError(f"{path.name} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise DocumentError(
            f"{path.name} cannot be read: it takes more memory than is left"
        ) from None
    finally:
        os.close(opened)


def parse_bytes(content: bytes, name: str = "the document") -> Json:
    """Return the object of a JSON text in UTF-8; see `parse`."""
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
    """Return the object of a JSON text; what its texts hide is made visible (see `plain`).

    Raises:
        DocumentError: it is not JSON, not an object, nested too deeply, has a key twice or too many
            values, or holds NaN, Infinity or a number outside of what 64 bits hold.
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
    """What is no JSON of ours, and the token that shows it."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token


def _place(text: str, token: str) -> str:
    """Return where a token stands that was refused; nothing if it stands there several times."""
    if text.count(token) != 1:
        return ""
    at = text.index(token)
    return f" (line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)})"


def _each_once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"has the key {_short(ascii(twice))} twice in one object, once is needed")
    return found


def _too_deep(document: Any) -> bool:
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(MOST_DEPTH + 1):
        level = [  # of a million samples: type() takes half the time of isinstance()
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def plain(text: str) -> str:
    """Return a text whose control, formatting and unassigned characters are escapes: ``\\x1b``.

    Line feeds and tabs stay.
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
    # The length first: Python refuses to convert a text of thousands of digits.
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise _Refused(
            f"holds the number {_short(text)}, {LARGEST} is the largest that is read", text
        )
    return int(text)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
