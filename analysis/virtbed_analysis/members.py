"""Safe reading of zip archives from untrusted sources: names, kinds and sizes of members.

The directory of a zip file states names and sizes that may be wrong or harmful. `faults` checks
them before any member is opened, and no more bytes are unpacked than stated. `crate` uses it.
"""

from __future__ import annotations

import hashlib
import lzma
import mmap
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.reading import plain

MOST_BYTES = 16 * 2**30
"""The largest accepted unpacked size, beyond that of any sweep."""
MOST_FILES = 400_000
MOST_MEMBER_BYTES = 2**30
MOST_RATIO = 100
"""The largest accepted compression ratio; results of equal samples, the most regular, reach 50."""
_SMALL = 2**20  # bytes: a smaller member is harmless at any compression ratio
_LONGEST_NAME, _LONGEST_PART = 1000, 255
PART = 2**20  # bytes at a time
_ENTRY = b"PK\x01\x02"
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    NotImplementedError, ValueError, KeyError, IndexError, OverflowError, MemoryError,
)  # fmt: skip
"""The exceptions that zipfile raises on damaged files."""


def opened(file: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises:
        AnalysisError: it is not a zip file, or has more than `MOST_FILES` members.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise AnalysisError(f"{file}: not an archive of virtbed: not a regular file")
        if (entries := _entries(file)) > MOST_FILES:
            raise AnalysisError(
                f"{file}: {entries} members or more found, at most {MOST_FILES} accepted"
            )
        return zipfile.ZipFile(file)
    except AnalysisError:
        raise
    except UNREADABLE as error:
        raise AnalysisError(f"{file}: not an archive of virtbed: {plain(str(error))}") from error


def _entries(file: Path) -> int:
    """Return the number of directory entries of a zip file, without loading the directory."""
    if not file.stat().st_size:
        return 0
    entries, at = 0, -1
    with (
        file.open("rb") as content,
        mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        while entries <= MOST_FILES and (at := text.find(_ENTRY, at + 1)) >= 0:
            entries += 1
    return entries


def faults(file: Path, packed: zipfile.ZipFile) -> Iterator[str]:
    """Yield each reason not to unpack an archive.

    Args:
        file: The path of the archive.
        packed: The same archive, opened.
    """
    members = packed.infolist()
    unpacked, size = sum(info.file_size for info in members), file.stat().st_size
    if unpacked > MOST_BYTES:
        yield f"unpacks to {unpacked >> 30} GiB, at most {MOST_BYTES >> 30} GiB are accepted"
    # Compared with the file's own size, since members may share bytes and state any packed size.
    elif unpacked > max(MOST_RATIO * size, _SMALL):
        yield f"unpacks to {unpacked // size} times its size, at most {MOST_RATIO} times accepted"
    for name, times in Counter(info.filename for info in members).items():
        if times > 1:
            yield f"{plain(name)} occurs {times} times"
    for info in members:
        if why := fault(info):
            yield f"{plain(info.filename)[:200]} {why}"


def fault(info: zipfile.ZipInfo) -> str:
    """Return the reason not to unpack a member, by its name, kind and sizes; empty if none."""
    parts = info.filename.split("/")
    if info.filename.startswith("/") or ".." in parts or "\\" in info.filename:
        return "would be unpacked outside of its folder"
    if any(part in {"", "."} for part in parts):
        return "is not the name of a file"
    if not info.filename.isprintable():
        return "has unprintable characters in its name"
    if len(info.filename) > _LONGEST_NAME or max(len(p.encode()) for p in parts) > _LONGEST_PART:
        return "has a name that is too long for a file"
    # Archives from other systems have no file type there (0), which is accepted.
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        return "is a link" if kind == stat.S_IFLNK else "is not a regular file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"is packed by method {info.compress_type}, stored or deflated needed"
    if info.file_size > MOST_MEMBER_BYTES:
        return f"has {info.file_size >> 20} MiB, at most {MOST_MEMBER_BYTES >> 20} MiB are accepted"
    if info.file_size > max(MOST_RATIO * info.compress_size, _SMALL):
        return f"unpacks to more than {MOST_RATIO} times its size"
    return ""


def digest(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Return the SHA-256 of a member, read in parts; raises one of `UNREADABLE`."""
    hasher = hashlib.sha256()
    for part in _parts(packed, info):
        hasher.update(part)
    return hasher.hexdigest()


def text_of(packed: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> str:
    """Return a member's text; raises one of `UNREADABLE`, also if it has more than `most` bytes."""
    if info.file_size > most:
        raise ValueError(f"{info.file_size} bytes found, at most {most} are accepted")
    return b"".join(_parts(packed, info)).decode("utf-8")


def unpack(packed: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> None:
    """Write a member to its path below a folder; raises one of `UNREADABLE`."""
    path = place.joinpath(*info.filename.split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(info) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, PART)


def _parts(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    source: IO[bytes]
    with packed.open(info) as source:
        while part := source.read(PART):
            yield part
