"""Write the files of a trial: checked against their JSON Schema, and complete or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from virtbed.ledger import Digests
from virtbed_contract.codec import json_schema
from virtbed_contract.kernel.files import write_text as write_whole_text
from virtbed_contract.objections import Planned, objections
from virtbed_contract.result import Result
from virtbed_contract.sweep import Evidence


class RecordError(ValueError):
    """A document breaks its JSON Schema, or cannot be trusted; the message gives the reason."""


def now() -> str:
    """Return the time in UTC, to the second, in the format of all records."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document atomically: a reader, or a crash, leaves all of it or nothing.

    Each element of a top-level list becomes one line; at most one line is in memory as text.
    """
    write_text(path, lines(document))


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text of a document in parts, as `write_json` writes it."""
    for number, key in enumerate(sorted(document)):
        value = document[key]
        yield f"{',' if number else '{'}\n {json.dumps(key)}: "
        if isinstance(value, list) and value:
            for row, element in enumerate(value):
                yield f"{',' if row else '['}\n  {json.dumps(element, sort_keys=True)}"
            yield "\n ]"
        else:
            yield json.dumps(value, indent=1, sort_keys=True).replace("\n", "\n ")
    yield "\n}\n" if document else "{}\n"


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a file atomically, and create its folder if necessary.

    Args:
        path: The file.
        text: Its content, or an iterable of its parts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole_text(path, text)


def check_result(document: Mapping[str, Any]) -> None:
    """Raise RecordError unless the document satisfies the schema of results."""
    for error in _validator().iter_errors(document):
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
        raise RecordError(f"result.json: ${place}: {error.message}")


def check_trust(result: Mapping[str, Any], proof: Evidence, planned: Planned) -> None:
    """Raise RecordError if the report would leave out a result that satisfies its schema.

    Args:
        result: The result.
        proof: The evidence of its trial.
        planned: What the sweep's design plans.
    """
    if reasons := objections(dict(result), proof, planned):
        raise RecordError(f"result.json: the report would leave it out: {'; '.join(reasons)}")


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json_schema(Result))


def digests(folder: Path) -> Digests:
    """Return the digests of a trial's result.json and evidence.json as they are on the disk.

    Raises:
        OSError: one cannot be read, is missing, or is no regular file.
    """
    return Digests(digest(folder / "result.json"), digest(folder / "evidence.json"))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read, is missing, or is no regular file.
    """
    # O_NONBLOCK: opening a FIFO would wait for a writer.
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        with os.fdopen(os.dup(opened), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        os.close(opened)


def write_trial(
    folder: Path,
    result: Mapping[str, Any],
    evidence: Mapping[str, Any],
    files: Mapping[str, str],
) -> None:
    """Write the files of a successful trial.

    The result is written last: its presence marks the trial as successful.

    Args:
        folder: The trial's folder.
        result: The result document.
        evidence: The evidence document.
        files: Logs by file name.

    Raises:
        RecordError: the result does not satisfy its schema; nothing is written.
    """
    check_result(result)
    (folder / "failure.json").unlink(missing_ok=True)
    for name, text in files.items():
        write_text(folder / Path(name).name, text)
    write_json(folder / "evidence.json", evidence)
    write_json(folder / "result.json", result)


def write_failure(
    folder: Path,
    failure: Mapping[str, Any],
    evidence: Mapping[str, Any] | None,
    *,
    keep_result: bool = False,
) -> None:
    """Write the files of a failed trial: the failure, and the evidence if there is any.

    Args:
        folder: The trial's folder.
        failure: The failure document.
        evidence: The evidence document, if there is one.
        keep_result: Whether to keep the result and evidence of an earlier attempt; otherwise they
            are removed.
    """
    if keep_result:
        write_json(folder / "failure.json", failure)
        return
    (folder / "result.json").unlink(missing_ok=True)
    (folder / "evidence.json").unlink(missing_ok=True)  # of an earlier attempt
    if evidence is not None:
        write_json(folder / "evidence.json", evidence)
    write_json(folder / "failure.json", failure)
