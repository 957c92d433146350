"""The platforms of platforms.yml, and what the roles behind them say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from virtbed.checkout import REPOSITORY, require
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.documents import Platform, RoleProperties

Document = TypeVar("Document")


# How a reader calls a way to limit CPUs. On metal a number of CPUs is what is left online.
_LIMITS = {
    "quota": "CPU quota",
    "set": "pinned",
    "count": "other CPUs offline",
    "none": "no limit of CPUs",
}


class PlatformError(ValueError):
    """platforms.yml, or the properties of a role that it names, cannot be used."""


@dataclass(frozen=True)
class Platforms:
    """Every platform of a checkout, in order, and the properties of their roles.

    Attributes:
        entries: The platforms by name, in the order of platforms.yml.
        machines: The properties of each machine that one of them names.
        enclosures: The properties of each enclosure that one of them names.
    """

    entries: Mapping[str, Platform]
    machines: Mapping[str, RoleProperties]
    enclosures: Mapping[str, RoleProperties]

    @property
    def roles(self) -> dict[str, RoleProperties]:
        """The properties of every role by its full name, ``machine_NAME`` or ``enclosure_NAME``."""
        return {
            **{f"machine_{name}": found for name, found in self.machines.items()},
            **{f"enclosure_{name}": found for name, found in self.enclosures.items()},
        }

    def parts(self, platform: str) -> tuple[RoleProperties, RoleProperties]:
        """Return the properties of a platform's machine and of its enclosure."""
        entry = self.entries[platform]
        return self.machines[entry.machine], self.enclosures[entry.enclosure]

    def host_roles(self, platform: str) -> list[str]:
        """Return the roles whose engines a platform needs on the bench host, machine first.

        What runs in a guest comes with the image.
        """
        entry = self.entries[platform]
        machine = [f"machine_{entry.machine}"]
        if self.machines[entry.machine].own_kernel:
            return machine
        return [*machine, f"enclosure_{entry.enclosure}"]

    def trial_s(self, platform: str, emulated: bool) -> float:
        """Return the seconds that a trial takes on a platform before a host has shown its own."""
        seconds = (part.trial_s for part in self.parts(platform))
        return sum((s["emulated"] if emulated else s["real"] for s in seconds), 0.0)


def load_platforms(repository: Path = REPOSITORY) -> Platforms:
    """Read platforms.yml and the meta/virtbed.yml of each role that it names.

    Raises:
        PlatformError: a file is missing, no YAML, or not as its document says.
        CheckoutError: there is no checkout.
    """
    require(repository)
    path = repository / "platforms.yml"
    entries = {
        str(name): decoded(Platform, {"name": name, **_mapping(f"{path}: {name}", entry)}, path)
        for name, entry in read_mapping(path).items()
    }

    def properties(kind: str) -> dict[str, RoleProperties]:
        found = {}
        for name in dict.fromkeys(getattr(entry, kind) for entry in entries.values()):
            file = repository / "roles" / f"{kind}_{name}" / "meta" / "virtbed.yml"
            found[name] = decoded(RoleProperties, read_mapping(file), file)
        return found

    machines, enclosures = properties("machine"), properties("enclosure")
    for name, entry in entries.items():
        modes = _modes(machines[entry.machine], enclosures[entry.enclosure])
        entries[name] = replace(entry, modes={**modes, **entry.modes})
    return Platforms(entries, machines, enclosures)


def _modes(machine: RoleProperties, enclosure: RoleProperties) -> dict[str, str]:
    """Return each mode in words: by the enclosure's limit of CPUs, if it has one."""
    inner = {mode: limit for mode, limit in enclosure.limits.items() if limit != "none"}
    words = _LIMITS | ({"count": "floating vCPUs"} if machine.own_kernel else {})
    return {mode: words[limit] for mode, limit in {**machine.limits, **inner}.items()}


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file of the checkout holds.

    Raises:
        PlatformError: it is missing, or holds none.
    """
    try:
        return _mapping(str(path), yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlatformError(f"{path}: not readable as YAML: {error}") from error


def _mapping(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PlatformError(f"{where}: {type(value).__name__} found, a mapping needed")
    return value


def decoded(kind: type[Document], value: dict[str, Any], path: Path) -> Document:
    """Return what a file holds as its document.

    Raises:
        PlatformError: it is not as the document says.
    """
    try:
        return decode(kind, value, f"{path}")
    except DocumentError as error:
        raise PlatformError(str(error)) from error
