"""Filters for host_packages: what the platforms' roles need on a host that has some programs.

``Roles`` are the properties of roles by name, as the lookup virtbed_platforms returns them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Roles = Mapping[str, Mapping[str, Any]]


def found(lines: Iterable[str]) -> dict[str, dict[str, bool]]:
    """Parse lines such as "program docker yes", one per thing that a host may have.

    Returns:
        Whether the host has it, by name, for each kind: ``program``, ``daemon``, ``unit`` and
        ``path``. A unit is a systemd socket that starts a daemon; the host has it if it is active.
    """
    things: dict[str, dict[str, bool]] = {"program": {}, "daemon": {}, "unit": {}, "path": {}}
    for line in lines:
        kind, name, answer = line.split()
        things[kind][name] = answer == "yes"
    return things


def usable(roles: Roles, programs: Mapping[str, bool]) -> list[str]:
    """Return the names of the roles whose engines are all installed, in the order of `roles`.

    Args:
        roles: Properties by name.
        programs: Whether the host has each program, as `found` returns it.
    """
    return [
        name
        for name, role in roles.items()
        if all(_installed(engine, programs) for engine in role["engines"].values())
    ]


def packages(roles: Roles, programs: Mapping[str, bool], init: str) -> list[str]:
    """Return the Debian packages to install for all roles, sorted.

    An entry ``a | b`` means a or, if there is no a, b.

    Args:
        roles: Properties by name.
        programs: Whether the host has each program. An engine that the host has, from wherever, is
            not installed again.
        init: The value of ``{init}`` in a package's name: ``systemd`` or ``sysv``.
    """
    names = {name.format(init=init) for role in roles.values() for name in role["packages"]}
    for role in roles.values():
        for engine in role["engines"].values():
            if engine["package"] and not _installed(engine, programs):
                names.update(name.strip() for name in engine["package"].split(","))
    return sorted(names)


def alternatives(names: Iterable[str]) -> list[str]:
    """Return the packages in alternatives (``a | b``), sorted, for a query which of them exist."""
    return sorted({each for name in names if "|" in name for each in _each(name)})


def chosen(names: Iterable[str], policy: str) -> list[str]:
    """Return packages, sorted, with each ``a | b`` replaced by the first that exists.

    Args:
        names: Packages as `packages` returns them.
        policy: The output of ``apt-cache policy`` for their alternatives, in English.

    Raises:
        ValueError: The host's distribution has none of the packages of an alternative.
    """
    available = {
        about.split(":")[0]
        for about, candidate in re.findall(r"^(\S+):\n(?:  .*\n)*?  Candidate: (.+)$", policy, re.M)
        if candidate != "(none)"
    }
    picked = set()
    for name in names:
        if "|" not in name:
            picked.add(name)
        elif existing := [each for each in _each(name) if each in available]:
            picked.add(existing[0])
        else:
            raise ValueError(
                f"host_packages: none of {', '.join(_each(name))} found in the package lists, one "
                "needed; add the distribution's main archive to its sources.list"
            )
    return sorted(picked)


def _each(name: str) -> list[str]:
    """Return the packages of an alternative ``a | b``."""
    return [each.strip() for each in name.split("|")]


def settings(roles: Roles, before: Mapping[str, Mapping[str, bool]]) -> dict[str, str]:
    """Return the settings files that virtbed may write and remove, content by path.

    Args:
        roles: Properties by name.
        before: What the host had before virtbed, as `found` returns it. If it had a role's engines,
            or the file, the settings belong to the host's owner, and virtbed leaves them alone.
    """
    theirs = usable(roles, before["program"])
    return {
        path: content
        for name, role in roles.items()
        for path, content in role["settings"].items()
        if name not in theirs and not before["path"][path]
    }


def _installed(engine: Mapping[str, Any], programs: Mapping[str, bool]) -> bool:
    """Return whether a host has one program of each of an engine's alternatives."""
    return all(any(programs[name] for name in names) for names in engine["programs"])


class FilterModule:
    """The filters by the names that playbooks use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return {
            "virtbed_found": found,
            "virtbed_usable": usable,
            "virtbed_packages": packages,
            "virtbed_alternatives": alternatives,
            "virtbed_chosen": chosen,
            "virtbed_settings": settings,
        }
