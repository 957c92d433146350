"""The one file that a sweep is kept and handed on as: how it is made, and how it is checked.

A zip file, a Research Object Crate (https://w3id.org/ro/crate): the results folder under its
sweep's name, the hash locks, RO-Crate's metadata, and a manifest of SHA-256 digests. Equal input
gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rocrate.rocrate import ROCrate

from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_whole
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import report, report_of
from virtbed_analysis.reading import plain

METADATA, MANIFEST = "ro-crate-metadata.json", "manifest-sha256.txt"
_MADE = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip file can hold: ours has none
_KINDS = {
    ".json": "application/json",
    ".html": "text/html",
    ".yml": "application/yaml",
    ".txt": "text/plain",
}
MOST_BYTES = 16 * 2**30
"""No sweep has so much; a file that unpacks to more is none."""
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
# A sweep's journal: what is in it of the results is in the results.
_LEFT_OUT = ("ledger.sqlite",)


def archive(folder: Path, output: Path, locks: Mapping[str, Path]) -> int:
    """Write a sweep's report again, and all of its files into one; return how many there are.

    Args:
        folder: The results folder.
        output: The file to write.
        locks: The locks that the software was installed from, by their names.

    Raises:
        AnalysisError: the folder does not exist, its results are unlike (see `unlike.TABLE`), or it
            holds a link that leads out of it, or what is no file.
    """
    sweep = read_sweep(folder)
    list(_files(folder))  # refused before anything is written
    report_of(sweep, folder)
    files = {f"{sweep.name}/{name}": path for name, path in _files(folder)}
    files |= {f"locks/{name}": path for name, path in sorted(locks.items())}
    started = sweep.trials["started_at"].sort()
    metadata = _metadata(sweep.name, None if started.is_empty() else str(started[-1]), files)
    write_whole(output, lambda temporary: _write(temporary, files, metadata))
    return len(files)


def problems(file: Path) -> Iterator[str]:
    """Give what is wrong with an archive, as it is found; nothing if it is whole.

    Every digest is compared, nothing may be missing or added, and the analysis of the unpacked
    results must give the report that is in it, to the last byte.

    Raises:
        AnalysisError: it is no archive.
    """
    try:
        opened = zipfile.ZipFile(file)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise AnalysisError(f"{file}: no archive of virtbed's: {error}") from error
    with opened as packed, tempfile.TemporaryDirectory(prefix="virtbed-verify-") as place:
        names = packed.namelist()
        if MANIFEST not in names:
            raise AnalysisError(f"{file}: no {MANIFEST} in it; virtbed archive writes one")
        unpacked = sum(info.file_size for info in packed.infolist())
        if unpacked > MOST_BYTES:
            raise AnalysisError(
                f"{file}: {unpacked >> 30} GiB unpacked, at most {MOST_BYTES >> 30} are checked"
            )
        wrong = list(_unlike(packed, names))
        yield from wrong
        if wrong:
            return  # nothing of it is unpacked, and no report of it means anything
        try:
            packed.extractall(place)
        except OSError as error:
            yield f"cannot be unpacked: {plain(str(error))}"
            return
        yield from _not_described(Path(place), names)
        yield from _other_report(Path(place))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.name.startswith(_LEFT_OUT):
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise AnalysisError(
                plain(
                    f"{folder}: {name} is a link to {path.readlink()}, which is not of the sweep; "
                )
                + "put the file itself there, or remove the link"
            )
        if path.is_file():
            yield name, path
        elif not path.is_dir():
            raise AnalysisError(
                plain(f"{folder}: {name} is neither a file nor a folder; ") + "remove it"
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
        # That of today, if not given: equal input would not give equal bytes.
        if entity.pop("datePublished", None) and published:
            entity["datePublished"] = published
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _write(output: Path, files: Mapping[str, Path], metadata: str) -> None:
    lines = []
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in _contents(files, metadata):
            packed.writestr(zipfile.ZipInfo(name, _MADE), content, zipfile.ZIP_DEFLATED)
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        packed.writestr(zipfile.ZipInfo(MANIFEST, _MADE), "".join(lines), zipfile.ZIP_DEFLATED)


def _contents(files: Mapping[str, Path], metadata: str) -> Iterator[tuple[str, bytes]]:
    yield METADATA, metadata.encode()
    for name, path in files.items():
        yield name, path.read_bytes()


def _unlike(packed: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    wanted = {}
    try:
        manifest = packed.read(MANIFEST).decode()
    except (*_UNREADABLE, UnicodeDecodeError) as error:
        yield f"{MANIFEST} cannot be read: {error}"
        return
    for line in manifest.splitlines():
        digest, _, name = line.partition("  ")
        wanted[name] = digest
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{plain(name)} is in it {times} times"
    for name in sorted(wanted.keys() - set(names)):
        yield f"{plain(name)} is missing"
    for name in sorted(set(names) - wanted.keys() - {MANIFEST}):
        yield f"{plain(name)} was added: {MANIFEST} does not name it"
    for name in names:
        told = plain(name)
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"{told} would be unpacked outside of its folder"
        elif name in wanted:
            try:
                digest = hashlib.sha256(packed.read(name)).hexdigest()
            except _UNREADABLE as error:
                yield f"{told} cannot be read: {error}"
                continue
            if digest != wanted[name]:
                yield f"{told} was changed: SHA-256 {digest[:16]} found, {wanted[name][:16]} needed"


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
    if not reports:
        yield "no report is in it"
    for kept in reports:
        try:
            texts = {path: path.read_bytes() for path in (kept, kept.with_suffix(".html"))}
            report(kept.parent)
        except (AnalysisError, OSError) as error:
            where = plain(kept.parent.name)
            yield f"{where}: its report cannot be made again: {plain(str(error))}"
            continue
        for path, text in texts.items():
            if path.read_bytes() != text:
                yield (
                    f"{path.relative_to(place)} is not what this version of the analysis makes of "
                    "the results; the version that made it stands in its provenance"
                )
