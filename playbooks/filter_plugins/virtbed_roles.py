"""What the roles of platforms.yml need of a host, given the programs that it has."""

from __future__ import annotations

import re
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
    """Return the Debian packages to install for all roles, sorted; some are `a | b`, a or else b.

    Args:
        roles: Properties by name.
        programs: Whether the host has each: what comes from elsewhere is not installed again.
        init: What ``{init}`` in a package's name stands for: ``systemd`` or ``sysv``.
    """
    names = {name.format(init=init) for role in roles.values() for name in role["packages"]}
    for role in roles.values():
        for engine in role["engines"].values():
            if engine["package"] and not _installed(engine, programs):
                names.update(name.strip() for name in engine["package"].split(","))
    return sorted(names)


def alternatives(names: Iterable[str]) -> list[str]:
    """Return the packages of which apt must be asked whether there are any, sorted."""
    return sorted({each for name in names if "|" in name for each in _each(name)})


def chosen(names: Iterable[str], policy: str) -> list[str]:
    """Return packages with the first that there is in place of `a | b`, sorted.

    Args:
        names: As `packages` gives them.
        policy: What ``apt-cache policy`` prints of their alternatives, in English.

    Raises:
        ValueError: the host's distribution has none of an alternative's.
    """
    there = {
        about.split(":")[0]
        for about, candidate in re.findall(r"^(\S+):\n(?:  .*\n)*?  Candidate: (.+)$", policy, re.M)
        if candidate != "(none)"
    }
    picked = set()
    for name in names:
        if "|" not in name:
            picked.add(name)
        elif found := [each for each in _each(name) if each in there]:
            picked.add(found[0])
        else:
            raise ValueError(
                f"host_packages: none of {', '.join(_each(name))} found in the package lists, one "
                "needed; add the distribution's main archive to its sources.list"
            )
    return sorted(picked)


def _each(name: str) -> list[str]:
    return [each.strip() for each in name.split("|")]


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
            "virtbed_alternatives": alternatives,
            "virtbed_chosen": chosen,
            "virtbed_settings": settings,
        }
