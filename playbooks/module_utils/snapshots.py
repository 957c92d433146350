"""Knows alone, among the modules, how what a host was like is kept through a crash.

A snapshot holds for the boot it was made in: the next one begins with the host's own settings, and
with the CPUs it then has, and to put older ones back would do harm.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

BOOT = Path("/proc/sys/kernel/random/boot_id")


def keep(snapshot: Path, values: dict[str, Any]) -> None:
    """Write a snapshot so that a crash leaves the old one or the new one, whole."""
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    temporary = snapshot.with_name(f".{snapshot.name}")
    with temporary.open("w") as file:
        json.dump({"boot": BOOT.read_text().strip(), "values": values}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(snapshot)
    folder = os.open(snapshot.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def kept(snapshot: Path) -> dict[str, Any]:
    """Return what a snapshot of this boot holds; remove one of another, and return nothing."""
    if not snapshot.exists():
        return {}
    document = json.loads(snapshot.read_text())
    if document["boot"] != BOOT.read_text().strip():
        snapshot.unlink()
        return {}
    values: dict[str, Any] = document["values"]
    return values
