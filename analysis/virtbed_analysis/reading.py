"""Reading of untrusted files of a results folder: a bad file raises `Unfit` with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.json_file import plain as plain

Json = dict[str, Any]
EARLIER = "earlier"
MARK = "@"
"""Separates a trial's id and the attempt in the id of an earlier result, "ID@ATTEMPT"."""
_LONGEST = 600  # characters of a reason


@dataclass(frozen=True)
class Rejected:
    """A file that was left out: its path below the results folder, and the reason."""

    file: str
    reason: str


class Unfit(Exception):
    """A file cannot be used; the message gives the reason."""


def left_out(file: str, reason: object) -> Rejected:
    """Return a `Rejected` whose texts are printable, on one line, and of bounded length."""
    shown = plain(str(reason)).replace("\n", " ").replace("\t", " ")
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 3]}..."
    return Rejected(plain(file).replace("\n", "\\n").replace("\t", "\\t"), shown)


def read(path: Path, schema: str) -> Json:
    """Read a JSON document and check its `schema`.

    Raises:
        Unfit: the file cannot be read, or has another schema or version.
    """
    try:
        document = json_file.read(path)
    except DocumentError as error:
        raise Unfit(str(error)) from None
    found = document.get("schema")
    if found != schema:
        shown = repr(found)[:60]
        raise Unfit(f"{path.name} has schema {shown}, {schema!r} needed by this version")
    return document
