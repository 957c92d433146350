"""The members of an archive that nobody vouches for: names, kinds and sizes, before any is opened.

A zip file says of itself what it unpacks to, and under which names. None of that is believed: what
is unpacked is what these rules let through, and never more bytes than were stated.
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
"""No sweep has so much; a file that unpacks to more is none."""
MOST_FILES = 400_000
MOST_MEMBER_BYTES = 2**30
MOST_RATIO = 100
"""Results of equal samples, the most regular that there are, are packed to a fiftieth."""
_SMALL = 2**20  # what unpacks to less does no harm, however much it was packed
_LONGEST_NAME, _LONGEST_PART = 1000, 255
_PART = 2**20  # bytes at a time
_ENTRY = b"PK\x01\x02"
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    NotImplementedError, ValueError, KeyError, IndexError, OverflowError, MemoryError,
)  # fmt: skip
"""What zipfile raises, on one damaged file or another."""


def opened(file: Path) -> zipfile.ZipFile:
    """Return an archive with no more members than one of ours has.

    Raises:
        AnalysisError: it is no zip file, or has more.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise AnalysisError(f"{file}: no archive of virtbed's: it is no regular file")
        if (entries := _entries(file)) > MOST_FILES:
            raise AnalysisError(f"{file}: {entries} files or more in it, at most {MOST_FILES} read")
        return zipfile.ZipFile(file)
    except AnalysisError:
        raise
    except UNREADABLE as error:
        raise AnalysisError(f"{file}: no archive of virtbed's: {plain(str(error))}") from error


def _entries(file: Path) -> int:
    """Return how many entries of a directory a file holds, without reading any into memory."""
    if not file.stat().st_size:
        return 0
    found, at = 0, -1
    with (
        file.open("rb") as content,
        mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        while found <= MOST_FILES and (at := text.find(_ENTRY, at + 1)) >= 0:
            found += 1
    return found


def faults(file: Path, packed: zipfile.ZipFile) -> Iterator[str]:
    """Give why an archive is not to be unpacked: nothing of it is, if anything is given."""
    members = packed.infolist()
    unpacked, there = sum(info.file_size for info in members), file.stat().st_size
    if unpacked > MOST_BYTES:
        yield f"{unpacked >> 30} GiB unpacked found, at most {MOST_BYTES >> 30} GiB are unpacked"
    # By the file itself, for members may share their bytes, and say of them what they like.
    elif unpacked > max(MOST_RATIO * there, _SMALL):
        yield f"unpacks to {unpacked // there} times its size, at most {MOST_RATIO} times is taken"
    for name, times in Counter(info.filename for info in members).items():
        if times > 1:
            yield f"{plain(name)} is in it {times} times"
    for info in members:
        if why := _fault(info):
            yield f"{plain(info.filename)[:200]} {why}"


def _fault(info: zipfile.ZipInfo) -> str:
    parts = info.filename.split("/")
    if info.filename.startswith("/") or ".." in parts or "\\" in info.filename:
        return "would be unpacked outside of its folder"
    if any(part in {"", "."} for part in parts):
        return "is no file's name"
    if not info.filename.isprintable():
        return "has a name with characters that cannot be seen"
    if len(info.filename) > _LONGEST_NAME or max(len(p.encode()) for p in parts) > _LONGEST_PART:
        return "has a name that is too long for a file"
    # Other systems keep other attributes there; what is neither file nor unknown is refused.
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        return "is a link" if kind == stat.S_IFLNK else "is no regular file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"is packed by method {info.compress_type}, stored or deflated needed"
    if info.file_size > MOST_MEMBER_BYTES:
        return f"has {info.file_size >> 20} MiB, at most {MOST_MEMBER_BYTES >> 20} MiB are unpacked"
    if info.file_size > max(MOST_RATIO * info.compress_size, _SMALL):
        return f"unpacks to more than {MOST_RATIO} times its size"
    return ""


def digest(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Return a member's SHA-256, a part at a time; raises one of `UNREADABLE`."""
    made = hashlib.sha256()
    for part in _parts(packed, info):
        made.update(part)
    return made.hexdigest()


def text_of(packed: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> str:
    """Return a member's text; raises one of `UNREADABLE`, also where it has more bytes."""
    if info.file_size > most:
        raise ValueError(f"{info.file_size} bytes found, at most {most} are read")
    return b"".join(_parts(packed, info)).decode("utf-8")


def unpack(packed: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> None:
    """Write a member below a folder; raises one of `UNREADABLE`."""
    path = place.joinpath(*info.filename.split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(info) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, _PART)


def _parts(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    source: IO[bytes]
    with packed.open(info) as source:
        while part := source.read(_PART):
            yield part
