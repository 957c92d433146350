"""Files of a results folder, read so that a bad one is named and does no harm."""

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
"""Between a trial's id and the attempt, where an earlier attempt's result is read, too."""
_LONGEST = 600  # characters of a reason


@dataclass(frozen=True)
class Rejected:
    """A file that was left out: its path below the sweep's folder, and why."""

    file: str
    reason: str


class Unfit(Exception):
    """Why one file is left out."""


def left_out(file: str, reason: object) -> Rejected:
    """Return the line of a file that is left out: fit to be printed, and of bounded length."""
    shown = plain(str(reason)).replace("\n", " ").replace("\t", " ")
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 3]}..."
    return Rejected(plain(file).replace("\n", "\\n").replace("\t", "\\t"), shown)


def read(path: Path, schema: str) -> Json:
    """Return the document that a file holds.

    Raises:
        Unfit: it cannot be read, or is of another schema or version.
    """
    try:
        document = json_file.read(path)
    except DocumentError as error:
        raise Unfit(str(error)) from None
    found = document.get("schema")
    if found != schema:
        shown = repr(found)[:60]
        raise Unfit(f"{path.name} has schema {shown}, this version reads {schema!r}")
    return document
