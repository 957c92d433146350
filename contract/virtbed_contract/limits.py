"""How much room on its disks a sweep needs, before it begins and at each block: every threshold.

What building an image takes is the image's own: images.yml.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .codec import described

TMP = "/tmp"  # nosec B108 # asked for its room; nothing is written there
"""Where modules and engines put temporary files."""


@dataclass(frozen=True)
class Room:
    """Free space that a folder must have, and what to do where it has less."""

    what: str
    needed_mib: int
    remedy: str


ROOMS = {
    # A result of the most samples takes 200 MB.
    "results": Room(
        "results", 256, "free some, or make results/ a link to a folder of a larger file system"
    ),
    # A guest's overlay; an image that is built already stands there.
    "state": Room(
        "images and instances", 1024, "free some, or set virtbed_state_dir to a larger file system"
    ),
    "tmp": Room("temporary files", 64, "free some, or set TMPDIR to a larger file system"),
    # Containers write nothing but their engine's notes of them.
    "store": Room("a container engine's store", 128, "free some, or move the engine's store"),
}


@dataclass(frozen=True)
class DiskFree:
    """What is free on the file system of a folder."""

    kind: str = described("Which of the rooms: results, state, tmp or store.")
    path: str = described("The folder.")
    free_mib: int = described("What is free there for this user, MiB.")

    @property
    def lack(self) -> str:
        """What is missing, in words: found, needed, what to do; empty if nothing is."""
        room = ROOMS[self.kind]
        if self.free_mib >= room.needed_mib:
            return ""
        return (
            f"{self.free_mib} MiB free for {self.path} ({room.what}), {room.needed_mib} MiB "
            f"needed; {room.remedy}"
        )


def free_mib(path: Path) -> int:
    """Return what is free for this user where a folder is, or would be made, in MiB."""
    nearest = next(found for found in (path, *path.parents) if found.exists())
    stat = os.statvfs(nearest)
    return stat.f_bavail * stat.f_frsize // 2**20


def look(kind: str, path: Path) -> DiskFree:
    """Return what is free for a kind of room at a folder of this machine."""
    return DiskFree(kind, str(path), free_mib(path))


SCRIPT = """\
for path; do
  free=$(stat --file-system --format '%a %S' "$path" 2>/dev/null) || free='- -'
  echo "free $free"
done
"""
"""POSIX sh that prints a line for each folder among its arguments; `parse` reads them."""


def parse(lines: Iterable[str], rooms: Iterable[tuple[str, str]]) -> tuple[DiskFree, ...]:
    """Return what `SCRIPT` printed of folders; those that are not there are left out.

    Args:
        lines: What it printed, and perhaps others.
        rooms: (kind, path) of each folder, in its order.
    """
    printed = [line.split()[1:] for line in lines if line.startswith("free ")]
    found = []
    for (kind, path), words in zip(rooms, printed):
        free = _mib(words)
        if free is not None:
            found.append(DiskFree(kind, path, free))
    return tuple(found)


def _mib(words: list[str]) -> Optional[int]:
    try:
        blocks, size = map(int, words)
    except ValueError:
        return None
    return blocks * size // 2**20
