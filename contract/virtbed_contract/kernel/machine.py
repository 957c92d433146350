"""Which machine a kernel runs on, and what tells whether two machines are alike."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from .files import fields, read

BOOT = Path("proc/sys/kernel/random/boot_id")
# systemd's, then D-Bus's own, which is older.
_IDS = (Path("etc/machine-id"), Path("var/lib/dbus/machine-id"))
_DMI = Path("sys/class/dmi/id")
_PURPOSE = b"virtbed"


def identity(root: Path) -> dict[str, Optional[str]]:
    """Return {id, boot} of a machine, by which two names for one are recognized.

    Digests, for machine-id(5) asks that the number itself be kept from others, and reports are
    handed on. None where there is no such number.
    """
    found = (read(root / path) for path in _IDS)
    return {
        "id": _digest(next((text for text in found if text), None)),
        "boot": _digest(read(root / BOOT)),
    }


def _digest(text: Optional[str]) -> Optional[str]:
    return hmac.new(text.encode(), _PURPOSE, hashlib.sha256).hexdigest()[:32] if text else None


def are_one(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two identities are of one machine.

    One boot id is one kernel, so machines that were cloned with their machine-id are two. Where
    both tell a machine-id, it must be the same as well: containers that stand for machines have one
    of their own.
    """
    if not first.get("boot") or first.get("boot") != second.get("boot"):
        return False
    ids = {first.get("id"), second.get("id")} - {None}
    return len(ids) < 2


def hardware(root: Path) -> dict[str, Optional[str]]:
    """Return {model, firmware, microcode} of a machine; None where its kernel does not tell."""

    def joined(*names: str) -> Optional[str]:
        return " ".join(filter(None, (read(root / _DMI / name) for name in names))) or None

    return {
        "model": joined("sys_vendor", "product_name", "product_version"),
        "firmware": joined("bios_vendor", "bios_version", "bios_date"),
        "microcode": fields(read(root / "proc/cpuinfo")).get("microcode") or None,
    }
