"""The platforms of platforms.yml, with the properties of their roles (meta/virtbed.yml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from virtbed import yaml_file
from virtbed.checkout import REPOSITORY, require
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.documents import Platform, RoleProperties

Document = TypeVar("Document")


# Words for the ways to limit CPUs. On metal "count" means the number of CPUs that stay online.
_LIMITS = {
    "quota": "CPU quota",
    "set": "pinned",
    "count": "other CPUs offline",
    "none": "no limit of CPUs",
}


class PlatformError(ValueError):
    """platforms.yml, images.yml or the properties of a role cannot be used."""


@dataclass(frozen=True)
class Platforms:
    """All platforms of a checkout, and the properties of their roles.

    Attributes:
        entries: The platforms by name, in the order of platforms.yml.
        machines: The properties of each machine that a platform uses, by name.
        enclosures: The properties of each enclosure that a platform uses, by name.
    """

    entries: Mapping[str, Platform]
    machines: Mapping[str, RoleProperties]
    enclosures: Mapping[str, RoleProperties]

    @property
    def roles(self) -> dict[str, RoleProperties]:
        """The properties of every role by its full name, ``machine_NAME`` or ``enclosure_NAME``."""
        return {
            **{f"machine_{name}": own for name, own in self.machines.items()},
            **{f"enclosure_{name}": own for name, own in self.enclosures.items()},
        }

    def parts(self, platform: str) -> tuple[RoleProperties, RoleProperties]:
        """Return the properties of a platform's machine and of its enclosure."""
        entry = self.entries[platform]
        return self.machines[entry.machine], self.enclosures[entry.enclosure]

    def host_roles(self, platform: str) -> list[str]:
        """Return the roles whose engines a platform needs on the bench host, machine first.

        An enclosure inside a guest needs none: its engine is in the image.
        """
        entry = self.entries[platform]
        machine = [f"machine_{entry.machine}"]
        if self.machines[entry.machine].own_kernel:
            return machine
        return [*machine, f"enclosure_{entry.enclosure}"]

    def trial_s(self, platform: str, emulated: bool) -> float:
        """Return the assumed seconds per trial on a platform, until a host has measured any."""
        seconds = (part.trial_s for part in self.parts(platform))
        return sum((s["emulated"] if emulated else s["real"] for s in seconds), 0.0)


def load_platforms(repository: Path = REPOSITORY) -> Platforms:
    """Read platforms.yml and the meta/virtbed.yml of each role that it names.

    Raises:
        PlatformError: a file is missing, is no YAML, or does not satisfy its document.
        CheckoutError: there is no checkout.
    """
    require(repository)
    path = repository / "platforms.yml"
    entries = {
        str(name): decoded(Platform, {"name": name, **_mapping(f"{path}: {name}", entry)}, path)
        for name, entry in read_mapping(path).items()
    }

    def properties(kind: str) -> dict[str, RoleProperties]:
        by_name = {}
        for name in dict.fromkeys(getattr(entry, kind) for entry in entries.values()):
            file = repository / "roles" / f"{kind}_{name}" / "meta" / "virtbed.yml"
            by_name[name] = decoded(RoleProperties, read_mapping(file), file)
        return by_name

    machines, enclosures = properties("machine"), properties("enclosure")
    for name, entry in entries.items():
        modes = _modes(machines[entry.machine], enclosures[entry.enclosure])
        entries[name] = replace(entry, modes={**modes, **entry.modes})
    return Platforms(entries, machines, enclosures)


def _modes(machine: RoleProperties, enclosure: RoleProperties) -> dict[str, str]:
    """Return each mode in words: the enclosure's way to limit CPUs, else the machine's."""
    inner = {mode: limit for mode, limit in enclosure.limits.items() if limit != "none"}
    words = _LIMITS | ({"count": "floating vCPUs"} if machine.own_kernel else {})
    return {mode: words[limit] for mode, limit in {**machine.limits, **inner}.items()}


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of the checkout.

    Raises:
        PlatformError: the file is missing, or has no mapping.
    """
    try:
        return yaml_file.read(path)
    except yaml_file.YamlError as error:
        raise PlatformError(str(error)) from error


def _mapping(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PlatformError(f"{where}: {type(value).__name__} found, a mapping needed")
    return value


def decoded(kind: type[Document], value: dict[str, Any], path: Path) -> Document:
    """Return the content of a file as a document.

    Args:
        kind: The document's class.
        value: The content.
        path: The file, for the message.

    Raises:
        PlatformError: the content does not satisfy the document.
    """
    try:
        return decode(kind, value, f"{path}")
    except DocumentError as error:
        raise PlatformError(str(error)) from error
