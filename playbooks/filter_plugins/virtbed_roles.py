"""What the roles of platforms.yml need of a host, given the programs that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Roles = Mapping[str, Mapping[str, Any]]


def found(lines: Iterable[str]) -> dict[str, dict[str, bool]]:
    """Return what a host has, out of lines such as "program docker yes".

    Returns:
        Whether it is there, by name, by kind: ``program``, ``daemon`` and ``path``.
    """
    things: dict[str, dict[str, bool]] = {"program": {}, "daemon": {}, "path": {}}
    for line in lines:
        kind, name, answer = line.split()
        things[kind][name] = answer == "yes"
    return things


def usable(roles: Roles, programs: Mapping[str, bool]) -> list[str]:
    """Return the names of the roles all of whose engines are installed, in order.

    Args:
        roles: Properties by name, as the lookup virtbed_platforms gives them.
        programs: Whether the host has each, as `found` gives it.
    """
    return [
        name
        for name, role in roles.items()
        if all(_installed(engine, programs) for engine in role["engines"].values())
    ]


def packages(roles: Roles, programs: Mapping[str, bool], init: str) -> list[str]:
    """Return the Debian packages to install for all roles, sorted.

    Args:
        roles: Properties by name.
        programs: Whether the host has each: what comes from elsewhere is not installed again.
        init: What ``{init}`` in a package's name stands for: ``systemd`` or ``sysv``.
    """
    names = {name.format(init=init) for role in roles.values() for name in role["packages"]}
    for role in roles.values():
        for engine in role["engines"].values():
            if engine["package"] and not _installed(engine, programs):
                names.add(engine["package"])
    return sorted(names)


def settings(roles: Roles, before: Mapping[str, Mapping[str, bool]]) -> dict[str, str]:
    """Return the files, path to content, that are virtbed's to write and to remove.

    Args:
        roles: Properties by name.
        before: What the host had before virtbed, as `found` gives it: where a role's engines were
            there, or the file, its settings are its owner's.
    """
    theirs = usable(roles, before["program"])
    return {
        path: content
        for name, role in roles.items()
        for path, content in role["settings"].items()
        if name not in theirs and not before["path"][path]
    }


def _installed(engine: Mapping[str, Any], programs: Mapping[str, bool]) -> bool:
    return all(any(programs[name] for name in names) for names in engine["programs"])


class FilterModule:
    """The filters by the names that playbooks use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {
            "virtbed_found": found,
            "virtbed_usable": usable,
            "virtbed_packages": packages,
            "virtbed_settings": settings,
        }
