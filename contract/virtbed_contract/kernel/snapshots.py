"""Crash-safe snapshots of host settings, valid for the current boot.

The next boot begins with the host's own settings, and with the CPUs that it then has: to restore
older ones would do harm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import json_file
from ..codec import DocumentError
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

    Raises:
        DocumentError: what is there is no snapshot.
    """
    if not snapshot.exists():
        return {}
    try:
        document = json_file.read(snapshot)
        values, of = document.get("values"), document.get("boot")
        if not isinstance(values, dict) or not isinstance(of, str):
            raise DocumentError("no boot and values found in it, both needed")
    except DocumentError as error:
        raise DocumentError(
            f"{snapshot}: {error}: no snapshot of the host's settings; put them back by hand, then "
            "remove that file (a reboot puts them back, too)"
        ) from None
    if of != boot.read_text().strip():
        snapshot.unlink()
        return {}
    return values
