"""Crash-safe snapshots of host settings, valid for the current boot.

After a reboot the host has its own settings again, and perhaps other CPUs, so restoring values from
before the reboot would do harm.
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
    """Write a snapshot atomically; create its folder if needed.

    Args:
        snapshot: File of the snapshot.
        values: Values of the host's settings, by name.
        boot: File with the id of the current boot.
    """
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    write_text(snapshot, json.dumps({"boot": boot.read_text().strip(), "values": values}))


def kept(snapshot: Path, boot: Path = BOOT) -> dict[str, Any]:
    """Return the values in a snapshot of this boot; remove a snapshot of another boot.

    Returns:
        The values by name; {} if there is no snapshot of this boot.

    Raises:
        DocumentError: The file is not a snapshot.
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
            f"{snapshot}: {error}: it is not a snapshot of the host's settings; restore them by "
            "hand, then remove the file (a reboot restores them, too)"
        ) from None
    if of != boot.read_text().strip():
        snapshot.unlink()
        return {}
    return values
