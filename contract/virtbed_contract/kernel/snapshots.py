"""Crash-safe snapshots of host settings, valid for the current boot.

The next boot begins with the host's own settings, and with the CPUs that it then has: to restore
older ones would do harm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .files import write_text

BOOT = Path("/proc/sys/kernel/random/boot_id")


def keep(snapshot: Path, values: dict[str, Any], boot: Path = BOOT) -> None:
    """Write a snapshot, and its folder; a crash leaves the old one or the new one, whole."""
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    write_text(snapshot, json.dumps({"boot": boot.read_text().strip(), "values": values}))


def kept(snapshot: Path, boot: Path = BOOT) -> dict[str, Any]:
    """Return the values of a snapshot of this boot.

    Returns:
        {} without a snapshot. One of another boot is removed, and counts as none.
    """
    if not snapshot.exists():
        return {}
    document = json.loads(snapshot.read_text())
    if document["boot"] != boot.read_text().strip():
        snapshot.unlink()
        return {}
    values: dict[str, Any] = document["values"]
    return values
