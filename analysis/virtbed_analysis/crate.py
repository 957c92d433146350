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
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rocrate.rocrate import ROCrate

from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_whole
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import report, report_of

METADATA, MANIFEST = "ro-crate-metadata.json", "manifest-sha256.txt"
_MADE = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip file can hold: ours has none
_KINDS = {
    ".json": "application/json",
    ".html": "text/html",
    ".yml": "application/yaml",
    ".txt": "text/plain",
}
# A sweep's journal: what is in it of the results is in the results.
_LEFT_OUT = ("ledger.sqlite",)


def archive(folder: Path, output: Path, locks: Mapping[str, Path]) -> int:
    """Write a sweep's report anew, and all of its files into one; return how many there are.

    Args:
        folder: The results folder.
        output: The file to write.
        locks: The locks that the software was installed from, by their names.

    Raises:
        AnalysisError: the folder does not exist, or its results come from different images.
    """
    sweep = read_sweep(folder)
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
    except (OSError, zipfile.BadZipFile) as error:
        raise AnalysisError(f"{file}: no archive of virtbed's: {error}") from error
    with opened as packed, tempfile.TemporaryDirectory(prefix="virtbed-verify-") as place:
        names = packed.namelist()
        if MANIFEST not in names:
            raise AnalysisError(f"{file}: no {MANIFEST} in it; virtbed archive writes one")
        wrong = list(_unlike(packed, names))
        yield from wrong
        if wrong:
            return  # nothing of it is unpacked, and no report of it means anything
        packed.extractall(place)
        yield from _not_described(Path(place), names)
        yield from _other_report(Path(place))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not path.name.startswith(_LEFT_OUT):
            yield path.relative_to(folder).as_posix(), path


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
    for line in packed.read(MANIFEST).decode().splitlines():
        digest, _, name = line.partition("  ")
        wanted[name] = digest
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{name} is in it {times} times"
    for name in sorted(wanted.keys() - set(names)):
        yield f"{name} is missing"
    for name in sorted(set(names) - wanted.keys() - {MANIFEST}):
        yield f"{name} was added: {MANIFEST} does not name it"
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"{name} would be unpacked outside of its folder"
        elif name in wanted:
            try:
                digest = hashlib.sha256(packed.read(name)).hexdigest()
            except zipfile.BadZipFile as error:
                yield f"{name} cannot be read: {error}"
                continue
            if digest != wanted[name]:
                yield f"{name} was changed: SHA-256 {digest[:16]} found, {wanted[name][:16]} needed"


def _not_described(place: Path, names: list[str]) -> Iterator[str]:
    described = {entity.id for entity in ROCrate(place).get_entities()}
    for name in sorted(set(names) - described - {MANIFEST, METADATA}):
        yield f"{name} is not in {METADATA}"


def _other_report(place: Path) -> Iterator[str]:
    for kept in sorted(place.glob("*/report.json")):
        texts = {path: path.read_bytes() for path in (kept, kept.with_suffix(".html"))}
        report(kept.parent)
        for path, text in texts.items():
            if path.read_bytes() != text:
                yield (
                    f"{path.relative_to(place)} is not what this version of the analysis makes of "
                    "the results; the version that made it stands in its provenance"
                )
