"""Identity and hardware of a machine, to recognize one machine and compare several."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from .files import fields, read

BOOT = Path("proc/sys/kernel/random/boot_id")
# The machine-id of systemd, then that of D-Bus, which is older.
_IDS = (Path("etc/machine-id"), Path("var/lib/dbus/machine-id"))
_DMI = Path("sys/class/dmi/id")
_PURPOSE = b"virtbed"


def identity(root: Path) -> dict[str, Optional[str]]:
    """Return digests {id, boot} of a machine, by which two names of one machine are recognized.

    They are digests since machine-id(5) requires that the id itself be kept secret, and reports are
    passed on to others. A value is None if the machine has no such id.
    """
    ids = (read(root / path) for path in _IDS)
    return {
        "id": _digest(next((text for text in ids if text), None)),
        "boot": _digest(read(root / BOOT)),
    }


def _digest(text: Optional[str]) -> Optional[str]:
    return hmac.new(text.encode(), _PURPOSE, hashlib.sha256).hexdigest()[:32] if text else None


def are_one(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two identities belong to the same machine.

    The boot ids must be equal: each belongs to one running kernel, even if machines were cloned
    with their machine-id. If both have a machine-id, these must be equal, too: containers that act
    as machines share the kernel, but have their own.

    Args:
        first: An identity, as `identity` returns it.
        second: Another identity.
    """
    if not first.get("boot") or first.get("boot") != second.get("boot"):
        return False
    ids = {first.get("id"), second.get("id")} - {None}
    return len(ids) < 2


def hardware(root: Path) -> dict[str, Optional[str]]:
    """Return {model, firmware, microcode} of a machine; None for unknown values."""

    def joined(*names: str) -> Optional[str]:
        return " ".join(filter(None, (read(root / _DMI / name) for name in names))) or None

    return {
        "model": joined("sys_vendor", "product_name", "product_version"),
        "firmware": joined("bios_vendor", "bios_version", "bios_date"),
        "microcode": fields(read(root / "proc/cpuinfo")).get("microcode") or None,
    }
