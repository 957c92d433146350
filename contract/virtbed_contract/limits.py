"""Thresholds of free disk space that a sweep needs before it starts and at each block.

The space that building an image takes is not here but in images.yml.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .codec import described

TMP = "/tmp"  # nosec B108 # only its free space is read; nothing is written there
"""Folder in which modules and engines put temporary files."""


@dataclass(frozen=True)
class Room:
    """Free space that a folder must have, and the remedy if it has less.

    Attributes:
        what: What the folder is for, in words.
        needed_mib: Free space needed, in MiB.
        remedy: How to get more.
    """

    what: str
    needed_mib: int
    remedy: str


ROOMS = {
    # A result with the most samples takes 200 MB.
    "results": Room(
        "results", 256, "free some, or make results/ a link to a folder of a larger file system"
    ),
    # For a guest's overlay; the image is already in the folder.
    "state": Room(
        "images and instances", 1024, "free some, or set virtbed_state_dir to a larger file system"
    ),
    "tmp": Room("temporary files", 64, "free some, or set TMPDIR to a larger file system"),
    # For the engine's own files about a container; containers themselves write nothing.
    "store": Room("a container engine's store", 128, "free some, or move the engine's store"),
}


@dataclass(frozen=True)
class DiskFree:
    """Free space on the file system of a folder."""

    kind: str = described("Purpose of the folder: results, state, tmp or store.")
    path: str = described("Path of the folder.")
    free_mib: int = described("Space that is free for this user, in MiB.")

    @property
    def lack(self) -> str:
        """Message with the space found, the space needed and a remedy; empty if there is enough."""
        room = ROOMS[self.kind]
        if self.free_mib >= room.needed_mib:
            return ""
        return (
            f"{self.free_mib} MiB free for {self.path} ({room.what}), {room.needed_mib} MiB "
            f"needed; {room.remedy}"
        )


def free_mib(path: Path) -> int:
    """Return the space free for this user at a folder that may not exist yet, in MiB."""
    nearest = next(found for found in (path, *path.parents) if found.exists())
    stat = os.statvfs(nearest)
    return stat.f_bavail * stat.f_frsize // 2**20


def look(kind: str, path: Path) -> DiskFree:
    """Return the free space at a folder of this machine.

    Args:
        kind: Purpose of the folder, a key of `ROOMS`.
        path: The folder; it may not exist yet.
    """
    return DiskFree(kind, str(path), free_mib(path))


SCRIPT = """\
for path; do
  free=$(stat --file-system --format '%a %S' "$path" 2>/dev/null) || free='- -'
  echo "free $free"
done
"""
"""POSIX sh script that prints one line per folder among its arguments, for `parse`."""


def parse(lines: Iterable[str], rooms: Iterable[tuple[str, str]]) -> tuple[DiskFree, ...]:
    """Return the free space that `SCRIPT` printed; folders that do not exist are left out.

    Args:
        lines: Lines that the script printed; other lines are ignored.
        rooms: (kind, path) of each folder, in the order of the script's arguments.
    """
    printed = [line.split()[1:] for line in lines if line.startswith("free ")]
    disks = []
    for (kind, path), words in zip(rooms, printed):
        free = _mib(words)
        if free is not None:
            disks.append(DiskFree(kind, path, free))
    return tuple(disks)


def _mib(words: list[str]) -> Optional[int]:
    try:
        blocks, size = map(int, words)
    except ValueError:
        return None
    return blocks * size // 2**20
