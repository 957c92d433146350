"""Timers and services of systemd that may wake up: when they are due, stopped, started again.

What is there is asked of systemd; the contract's list only says which running services are no loss.
A host with another init says so, as nothing there knows what is due. Standard library only: it runs
on the managed host.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.module_utils.host_tuning_settings import Setting, TuningError, named
from ansible.module_utils.virtbed_contract.kernel.files import read
from ansible.module_utils.virtbed_contract.quiet import why_quiet
from ansible.module_utils.virtbed_contract.sweep import WakingRow

# Stopping is quick, but for a service that upgrades packages right now.
_PATIENCE_S = 100.0
# What a timer has just started ends by itself, within this or not before long.
_SETTLED_S = 60.0
_LOOK_S = 0.5
_PROPERTIES = (
    "Id,ActiveState,SubState,LoadState,Transient,RefuseManualStart,RefuseManualStop,TriggeredBy"
)
_AT_REST = {"inactive", "failed"}
OWN = Path("proc/self/cgroup")
"""Where this process runs: below the unit that started the sweep, if it is of this host."""
_SELF = "the sweep itself runs in it, and would end"
_UNTOUCHED = "runs, and is left: whether it may be stopped only you know"


class _Unknown(TuningError):
    """Systemd cannot be asked; the message says why."""


@dataclass(frozen=True)
class Unit:
    """A unit as systemd has it now.

    Attributes:
        name: Such as "fstrim.timer".
        state: Such as "active" or "activating"; `sub` is the finer one.
        fixed: Why nobody may stop and start it; empty if one may.
        triggers: Names of the units that start it.
        activates: Of a timer, what it starts.
        next_us: When a timer is due, in microseconds since 1970; None where it is not.
    """

    name: str
    state: str
    sub: str
    loaded: bool
    fixed: str
    triggers: tuple[str, ...]
    activates: str = ""
    next_us: int | None = None

    @property
    def runs(self) -> bool:
        """Return whether it is active, or on its way."""
        return self.state not in _AT_REST

    @property
    def on_its_way(self) -> bool:
        """Return whether it starts or stops: a job that ends by itself does so until then."""
        return self.state in {"activating", "deactivating"}

    @property
    def works(self) -> bool:
        """Return whether processes of it run now."""
        return self.on_its_way or self.sub == "running"


def systemctl(*arguments: str) -> str:
    """Return what systemctl prints.

    Raises:
        OSError, subprocess.SubprocessError: it is not there, fails, or does not end in time.
    """
    return subprocess.run(
        ["systemctl", "--no-pager", *arguments],
        check=True, capture_output=True, text=True, timeout=_PATIENCE_S,
        env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
    ).stdout  # fmt: skip


@lru_cache
def units(root: Path) -> dict[str, Unit]:
    """Return every timer, every service that runs, and what starts these, by name.

    Kept: several questions are asked of one answer.

    Raises:
        _Unknown: systemd is not the init here, or too old.
    """
    if not (root / "run/systemd/system").is_dir():  # the test that sd_booted(3) documents
        init = read(root / "proc/1/comm") or "no process 1"
        raise _Unknown(
            f"the init is {init}, not systemd, so nobody can tell what is due; stop by hand what "
            "may wake up, such as cron"
        )
    try:
        timers = json.loads(systemctl("list-timers", "--all", "--output=json"))
        running = json.loads(
            systemctl("list-units", "--type=service", "--state=active,activating,reloading",
                      "--output=json")
        )  # fmt: skip
        names = {unit for row in timers for unit in (row["unit"], row["activates"]) if unit}
        due = {row["unit"]: row for row in timers}
        found = _shown(sorted(names | {row["unit"] for row in running}), due, _own(root))
        starters = {name for unit in found.values() for name in unit.triggers}
        return {**found, **_shown(sorted(starters - found.keys()), {}, _own(root))}
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise _Unknown(
            f"systemctl does not tell: {said}; systemd 246 or newer needed, which lists timers as "
            "JSON"
        ) from error


def _own(root: Path) -> frozenset[str]:
    """Return the units in which this process runs: those of its control groups."""
    return frozenset((read(root / OWN) or "").replace("\n", "/").split("/"))


def _shown(
    names: Iterable[str],
    due: Mapping[str, Mapping[str, Any]],
    own: frozenset[str] = frozenset(),
) -> dict[str, Unit]:
    """Return units by name; `due` has the rows of list-timers. Nobody may stop those of `own`."""
    asked = list(names)
    if not asked:  # systemctl would show the manager
        return {}
    found = {}
    for block in systemctl("show", f"--property={_PROPERTIES}", "--", *asked).split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" not in shown:
            continue
        row = due.get(shown["Id"], {})
        found[shown["Id"]] = Unit(
            name=shown["Id"],
            state=shown["ActiveState"],
            sub=shown.get("SubState", ""),
            loaded=shown.get("LoadState") != "not-found",
            fixed=_SELF if shown["Id"] in own else _fixed(shown),
            triggers=tuple(shown.get("TriggeredBy", "").split()),
            activates=row.get("activates") or "",
            next_us=row.get("next"),
        )
    return found


def _fixed(shown: Mapping[str, str]) -> str:
    if shown.get("Transient") == "yes":
        return "it is transient: stopped, it would be gone"
    if "yes" in (shown.get("RefuseManualStop"), shown.get("RefuseManualStart")):
        return "it refuses to be stopped or started by hand"
    return ""


def _quiet(found: Mapping[str, Unit]) -> Iterator[Unit]:
    """Give the units that would be stopped: wakers, and what would start them again."""
    wakers = [unit for unit in found.values() if why_quiet(unit.name) is not None]
    starters = {name for unit in wakers if unit.runs for name in unit.triggers}
    yield from wakers
    yield from (unit for name, unit in found.items() if name in starters and unit not in wakers)


@dataclass(frozen=True)
class Units(Setting):
    """Timers, and services that wake up by themselves: running or stopped."""

    def read(self, root: Path) -> dict[str, str]:
        """Return whether each runs, by its name; nothing where systemd cannot be asked."""
        try:
            return {unit.name: _value(unit) for unit in _quiet(units(root)) if not unit.fixed}
        except _Unknown:
            return {}

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Stop and start units, and wait for what their timers have just started to end."""
        # Before: of a timer that is stopped systemd forgets what it starts.
        timers = units(root).values() if "stopped" in values.values() else ()
        units.cache_clear()
        for value, verb in (("stopped", "stop"), ("running", "start")):
            names = [name for name, wanted in values.items() if wanted == value]
            if names:
                _command(verb, names)
        # The job that a timer has started may be this very sweep.
        _settle({timer.activates for timer in timers} - {""} - _own(root))
        return {}

    def confirm(self, root: Path, places: Iterable[str]) -> dict[str, str]:
        """Ask for each by name, as systemd forgets a unit that is stopped."""
        return {name: _value(unit) for name, unit in _shown(places, {}).items()}

    def gone(self, root: Path, places: Iterable[str]) -> set[str]:
        """Return the units whose files are gone, with a package that was removed."""
        return {name for name, unit in _shown(places, {}).items() if not unit.loaded}

    def exempt(self, root: Path) -> dict[str, str]:
        """Return the units that run and nobody may stop."""
        try:
            return {u.name: u.fixed for u in _quiet(units(root)) if u.fixed and u.runs}
        except _Unknown:
            return {}

    def missing(self, root: Path) -> str:
        """Return why systemd cannot be asked, or that it has nothing that may wake up."""
        try:
            units(root)
        except _Unknown as error:
            return str(error)
        return "nothing runs here that may wake up by itself"

    def in_words(self, values: Mapping[str, str]) -> str:
        """Return which run."""
        running = [name for name, value in values.items() if value != self.wanted]
        return f"running: {named(running)}" if running else super().in_words(values)


def waking(root: Path, others: Mapping[str, str]) -> tuple[list[WakingRow], str]:
    """Return what may wake up, the earliest first, and why that is unknown, or nothing.

    Args:
        root: Root of the file system.
        others: Daemons that another setting stops, each with why.
    """
    try:
        found = units(root)
    except _Unknown as error:
        return [], str(error)
    stopped = {unit.name: unit for unit in _quiet(found)}
    by_others = {f"{daemon}.service": why for daemon, why in others.items()}
    rows: list[WakingRow] = []
    for name, unit in found.items():
        if not unit.runs or not (name in stopped or unit.works):
            continue
        stops = name in by_others or (name in stopped and not unit.fixed)
        starts = [u.name for u in stopped.values() if name in u.triggers]
        why = why_quiet(name, unit.activates) or (f"starts {named(starts)}" if starts else "")
        reason = why or by_others.get(name) or _left(name)
        if why and unit.fixed:
            reason = f"{why}; left: {unit.fixed}"
        rows.append(WakingRow(name, _utc(unit.next_us), stops, reason))
    return sorted(rows, key=lambda row: (row.next is None, row.next or "", row.name)), ""


def _utc(since_1970_us: int | None) -> str | None:
    if not since_1970_us:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since_1970_us // 10**6))


def _left(name: str) -> str:
    if name.startswith("user@"):
        return "has a user's own timers and services, which tuning leaves"
    return _UNTOUCHED


def _value(unit: Unit) -> str:
    return "running" if unit.runs else "stopped"


def _command(verb: str, names: list[str]) -> None:
    try:
        systemctl(verb, "--", *names)
    except subprocess.TimeoutExpired as error:
        raise TuningError(
            f"systemctl {verb} of {named(names)} took more than {error.timeout:.0f} s; wait until "
            "what it does has ended: systemctl list-jobs"
        ) from error
    except subprocess.CalledProcessError as error:
        raise TuningError(f"systemctl {verb} of {named(names)}: {error.stderr.strip()}") from error


def _settle(started: set[str]) -> None:
    """Wait for the jobs that timers have started; half done, they could not be put back.

    Raises:
        TuningError: one does not end.
    """
    deadline = time.monotonic() + _SETTLED_S
    while busy := sorted(u.name for u in _shown(sorted(started), {}).values() if u.on_its_way):
        if time.monotonic() > deadline:
            raise TuningError(
                f"{named(busy)}, started by a timer, still at work after {_SETTLED_S:.0f} s, at "
                f"rest needed; wait for its end, or end it: systemctl stop {' '.join(busy)}"
            )
        time.sleep(_LOOK_S)
