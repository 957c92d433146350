"""Identity and hardware of a machine, to recognize one machine and compare several."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from .files import fields, read

BOOT = Path("proc/sys/kernel/random/boot_id")
# The machine-id of systemd, then that of D-Bus, which is older.
_IDS = (Path("etc/machine-id"), Path("var/lib/dbus/machine-id"))
_DMI = Path("sys/class/dmi/id")
_PURPOSE = b"virtbed"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# UUIDs that many boards have, because their vendors left the firmware's example, with either order
# of the first bytes. UUIDs of one repeated digit are no identity, either.
_EXAMPLES = {
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
}
_NAMES = {"product": "the firmware's UUID", "id": "machine-id"}


def identity(root: Path) -> dict[str, Optional[str]]:
    """Return digests {id, boot, product} of a machine, by which machines are distinguished.

    `id` is the installed system's machine-id, `boot` the running kernel's boot id, `product` the
    UUID that the firmware reports, which only root can read. A value is None if the machine has no
    such id.

    They are digests since machine-id(5) requires that the id itself be kept secret, and reports are
    passed on to others.
    """
    ids = (read(root / path) for path in _IDS)
    return {
        "id": digest(next((text for text in ids if text), None)),
        "boot": digest(read(root / BOOT)),
        "product": digest(_product(root)),
    }


def _product(root: Path) -> Optional[str]:
    """Return the UUID of the firmware; None if it is missing or no identity."""
    uuid = (read(root / _DMI / "product_uuid") or "").lower()
    known = _UUID.fullmatch(uuid) and len(set(uuid) - {"-"}) > 1 and uuid not in _EXAMPLES
    return uuid if known else None


def digest(text: Optional[str]) -> Optional[str]:
    """Return the digest of one of a machine's ids, as in `identity`; None if there is no id."""
    return hmac.new(text.encode(), _PURPOSE, hashlib.sha256).hexdigest()[:32] if text else None


def one_by(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return by which ids two names belong to one machine, in words; empty if they do not.

    If both have a firmware's UUID, it decides: cloned systems have the same machine-id on different
    machines, a container that acts as a machine has another one on the same machine. Otherwise the
    boot ids must be equal, since each belongs to one running kernel; and if both have a machine-id,
    these must be equal, too.

    Args:
        first: An identity, as `identity` returns it, read at the same time as the second.
        second: Another identity.
    """
    if first.get("product") and second.get("product"):
        return _NAMES["product"] if first["product"] == second["product"] else ""
    if not first.get("boot") or first.get("boot") != second.get("boot"):
        return ""
    ids = {first.get("id"), second.get("id")} - {None}
    return "machine-id and boot id" if len(ids) < 2 else ""


def are_cloned(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether different machines have one machine-id, as after copying an installed disk."""
    same = first.get("id") and first.get("id") == second.get("id")
    return bool(same) and not one_by(first, second)


def two_by(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return by which id two identities belong to different machines, in words; else empty.

    They may have been read at different times, so boot ids are not compared.
    """
    for name, words in _NAMES.items():
        if first.get(name) and second.get(name):
            return words if first[name] != second[name] else ""
    return ""


def hardware(root: Path) -> dict[str, Optional[str]]:
    """Return {model, firmware, microcode} of a machine; None for unknown values."""

    def joined(*names: str) -> Optional[str]:
        return " ".join(filter(None, (read(root / _DMI / name) for name in names))) or None

    return {
        "model": joined("sys_vendor", "product_name", "product_version"),
        "firmware": joined("bios_vendor", "bios_version", "bios_date"),
        "microcode": fields(read(root / "proc/cpuinfo")).get("microcode") or None,
    }
