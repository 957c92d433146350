"""Writes and checks archives: one zip file per sweep.

An archive is a Research Object Crate (https://w3id.org/ro/crate). It has the results folder under
the sweep's name, the hash locks, RO-Crate's metadata, and a manifest of SHA-256 digests. Equal
input gives equal bytes. `virtbed archive` and `virtbed verify` use it; members are checked in
`members` before any is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rocrate.rocrate import ROCrate

from virtbed_analysis import members
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_whole
from virtbed_analysis.frames import named
from virtbed_analysis.page import report
from virtbed_analysis.reading import plain

METADATA, MANIFEST = "ro-crate-metadata.json", "manifest-sha256.txt"
_MADE = (1980, 1, 1, 0, 0, 0)  # fixed, for equal bytes: the earliest date of a zip file
_KINDS = {
    ".json": "application/json",
    ".html": "text/html",
    ".yml": "application/yaml",
    ".txt": "text/plain",
}
_MOST_MANIFEST = 128 * 2**20
# The sweep's ledger: the results have everything of it that an archive needs.
_LEFT_OUT = ("ledger.sqlite",)
_LOCKS = "locks"


def archive(folder: Path, output: Path, locks: Mapping[str, Path]) -> int:
    """Write a sweep's report again, then all its files into an archive.

    Args:
        folder: The results folder.
        output: The archive to write.
        locks: The locks from which the software was installed, by name.

    Returns:
        The number of files in the archive, without metadata and manifest.

    Raises:
        AnalysisError: The folder does not exist, its results are unlike (see `unlike.TABLE`), or it
            has a link that leads out of it, or something that is neither a file nor a folder.

    Example:
        >>> archive(Path("results/quick"), Path("quick.zip"), {}) > 30
        True
        >>> list(problems(Path("quick.zip")))
        []
    """
    name, started = named(folder)
    list(_files(folder))  # refused before anything is written
    report(folder)
    files = {f"{name}/{inside}": path for inside, path in _files(folder)}
    files |= {f"{_LOCKS}/{name}": path for name, path in sorted(locks.items())}
    metadata = _metadata(name, started, files)
    write_whole(output, lambda temporary: _write(folder, temporary, files, metadata))
    return len(files)


def problems(file: Path) -> Iterator[str]:
    """Yield the faults of an archive; none if it is whole.

    Every digest is compared, no member may be missing or added, and the analysis of the unpacked
    results must give the report of the archive, byte for byte.

    Raises:
        AnalysisError: The file is no archive.

    Example:
        >>> Path("none.zip").touch()
        >>> list(problems(Path("none.zip")))
        Traceback (most recent call last):
            ...
        virtbed_analysis.errors.AnalysisError: ...
    """
    with members.opened(file) as packed, tempfile.TemporaryDirectory(prefix="virtbed-verify-") as p:
        place, names = Path(p), packed.namelist()
        if MANIFEST not in names:
            raise AnalysisError(f"{file}: no {MANIFEST} in it; virtbed archive writes one")
        wrong = list(members.faults(file, packed)) or list(_unlike(packed))
        yield from wrong
        if wrong:
            return  # a changed archive is not unpacked, and its report would prove nothing
        try:
            for info in packed.infolist():
                members.unpack(packed, info, place)
        except members.UNREADABLE as error:
            yield f"cannot be unpacked: {plain(str(error))}"
            return
        yield from _not_described(place, names)
        yield from _other_report(place)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.name.startswith(_LEFT_OUT):
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise AnalysisError(
                plain(
                    f"{folder}: {name} is a link to {path.readlink()}, outside the sweep's folder; "
                )
                + "replace it by the file itself, or remove the link"
            )
        if path.is_file():
            member = zipfile.ZipInfo(name)
            member.file_size = member.compress_size = path.stat().st_size
            _check(folder, member)
            yield name, path
        elif not path.is_dir():
            raise AnalysisError(
                plain(f"{folder}: {name} is neither a file nor a folder; ") + "remove it"
            )


def _check(folder: Path, member: zipfile.ZipInfo) -> None:
    """Raise AnalysisError if `problems` would refuse an archive of a folder for a member."""
    if why := members.fault(member):
        raise AnalysisError(
            plain(f"{folder}: the file {member.filename[:200]} {why}; virtbed verify refuses such ")
            + "an archive: remove the file, or rename or shorten it"
        )


def _metadata(name: str, published: str | None, files: Mapping[str, Path]) -> str:
    crate = ROCrate()
    crate.name = f"virtbed sweep {name}"
    crate.description = "What each platform costs: results, evidence, plan, locks and report."
    for inside, path in files.items():
        kind = _KINDS.get(path.suffix, "application/octet-stream")
        crate.add_file(path, inside, properties={"name": path.name, "encodingFormat": kind})
    document: dict[str, Any] = crate.metadata.generate()
    for entity in document["@graph"]:
        # rocrate sets today's date, and equal input would not give equal bytes.
        if entity.pop("datePublished", None) and published:
            entity["datePublished"] = published
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _write(folder: Path, output: Path, files: Mapping[str, Path], metadata: str) -> None:
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo(METADATA, _MADE), metadata, zipfile.ZIP_DEFLATED)
        lines = [f"{hashlib.sha256(metadata.encode()).hexdigest()}  {METADATA}\n"]
        for name, path in files.items():
            info = zipfile.ZipInfo(name, _MADE)
            info.compress_type = zipfile.ZIP_DEFLATED
            lines.append(f"{_pack(packed, info, path)}  {name}\n")
            _check(folder, info)  # only now is its packed size known
        packed.writestr(zipfile.ZipInfo(MANIFEST, _MADE), "".join(lines), zipfile.ZIP_DEFLATED)


def _pack(packed: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> str:
    """Add a file to an archive, in parts; return its SHA-256.

    Raises:
        AnalysisError: It has become a FIFO or a folder since it was listed.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb") as file:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise AnalysisError(f"{plain(str(path))} is not a regular file; remove it")
        hasher = hashlib.sha256()
        info.file_size = status.st_size  # zipfile decides by it whether the sizes need 64 bits
        with packed.open(info, "w") as member:
            while part := file.read(members.PART):
                hasher.update(part)
                member.write(part)
        return hasher.hexdigest()


def _unlike(packed: zipfile.ZipFile) -> Iterator[str]:
    """Yield the differences between an archive's members and its manifest."""
    present = {info.filename: info for info in packed.infolist()}
    wanted = {}
    try:
        manifest = members.text_of(packed, present[MANIFEST], _MOST_MANIFEST)
    except members.UNREADABLE as error:
        yield f"{MANIFEST} cannot be read: {plain(str(error))}"
        return
    for line in manifest.splitlines():
        digest, _, name = line.partition("  ")
        wanted[name] = digest
    for name in sorted(wanted.keys() - present.keys()):
        yield f"{plain(name)} is missing"
    for name in sorted(present.keys() - wanted.keys() - {MANIFEST}):
        yield f"{plain(name)} was added: {MANIFEST} does not name it"
    for name in sorted(present.keys() & wanted.keys()):
        try:
            digest = members.digest(packed, present[name])
        except members.UNREADABLE as error:
            yield f"{name} cannot be read: {plain(str(error))}"
            continue
        if digest != wanted[name]:
            yield (
                f"{name} was changed: SHA-256 {digest[:16]} found, {plain(wanted[name][:16])} "
                "needed"
            )


def _not_described(place: Path, names: list[str]) -> Iterator[str]:
    try:
        described = {entity.id for entity in ROCrate(place).get_entities()}
    except Exception as error:  # rocrate has no error of its own for metadata that is none
        yield f"{METADATA} does not describe a crate: {plain(str(error))}"
        return
    for name in sorted(set(names) - described - {MANIFEST, METADATA}):
        yield f"{name} is not in {METADATA}"


def _other_report(place: Path) -> Iterator[str]:
    reports = sorted(place.glob("*/report.json"))
    if len(reports) != 1:
        yield f"{len(reports)} reports of sweeps found in the archive, one needed"
    with_one = {kept.parent.name for kept in reports} | {_LOCKS}
    for folder in sorted(path.name for path in place.iterdir() if path.is_dir()):
        if folder not in with_one:
            yield f"the archive has no report of {folder}"
    for kept in reports:
        try:
            if not kept.with_suffix(".html").is_file():
                raise AnalysisError("no report.html found, one needed")
            # Including the reports of the single hosts, if these are not alike.
            pages = [*kept.parent.glob("report*.html"), *kept.parent.glob("report*.json")]
            texts = {path: path.read_bytes() for path in sorted(pages)}
            report(kept.parent)
        except (AnalysisError, OSError) as error:
            where = plain(kept.parent.name)
            yield f"{where}: its report cannot be made again: {plain(str(error))}"
            continue
        for path, text in texts.items():
            if not path.exists() or path.read_bytes() != text:
                yield (
                    f"{path.relative_to(place)} is not what this version of the analysis makes of "
                    "the results; the report's provenance names the version that made it"
                )
