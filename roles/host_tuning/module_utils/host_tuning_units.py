"""Timers and services of systemd that may start during a trial: when, stopped, started again.

The units come from systemd; the contract lists the running services that may be stopped.
Under another init the setting is not available, because nothing reports what is due. Standard
library only, as it runs on the managed host.
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

# Stopping takes long only if a service is just upgrading packages.
_PATIENCE_S = 100.0
# A job that a timer has just started mostly ends within this time.
_SETTLED_S = 60.0
_LOOK_S = 0.5
_PROPERTIES = (
    "Id,ActiveState,SubState,LoadState,Transient,RefuseManualStart,RefuseManualStop,TriggeredBy"
)
_AT_REST = {"inactive", "failed"}
OWN = Path("proc/self/cgroup")
"""Control groups of this process: below the unit that started the sweep, if on this host."""
_SELF = "the sweep itself runs in it, and would end with it"
_UNTOUCHED = "runs, and is not stopped: only you know whether it may be"


class _Unknown(TuningError):
    """Systemd cannot be queried; the message has the reason."""


@dataclass(frozen=True)
class Unit:
    """A unit in its present state.

    Attributes:
        name: For example "fstrim.timer".
        state: systemd's ActiveState, for example "active" or "activating"; `sub` its SubState.
        loaded: Whether the unit's file exists.
        fixed: Why it cannot be stopped and started; empty if it can.
        triggers: Names of the units that start it.
        activates: Of a timer, the unit that it starts.
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
        """Return whether it is active, or changes between active and inactive."""
        return self.state not in _AT_REST

    @property
    def on_its_way(self) -> bool:
        """Return whether it is starting or stopping; a oneshot job is starting until it ends."""
        return self.state in {"activating", "deactivating"}

    @property
    def works(self) -> bool:
        """Return whether it has running processes."""
        return self.on_its_way or self.sub == "running"


def systemctl(*arguments: str) -> str:
    """Run systemctl and return its output.

    Raises:
        OSError, subprocess.SubprocessError: It is not installed, fails, or does not end in time.
    """
    return subprocess.run(
        ["systemctl", "--no-pager", *arguments],
        check=True, capture_output=True, text=True, timeout=_PATIENCE_S,
        env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
    ).stdout  # fmt: skip


@lru_cache
def units(root: Path) -> dict[str, Unit]:
    """Return every timer, every running service, and the units that start these, by name.

    Cached, because several methods use the same answer.

    Raises:
        _Unknown: systemd is not the init here, or too old.
    """
    if not (root / "run/systemd/system").is_dir():  # the test that sd_booted(3) documents
        init = read(root / "proc/1/comm") or "no process 1"
        raise _Unknown(
            f"the init is {init}, not systemd, which would list what is due; stop by hand what "
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
        listed = _shown(sorted(names | {row["unit"] for row in running}), due, _own(root))
        starters = {name for unit in listed.values() for name in unit.triggers}
        return {**listed, **_shown(sorted(starters - listed.keys()), {}, _own(root))}
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        problem = (getattr(error, "stderr", "") or str(error)).strip()
        raise _Unknown(
            f"systemctl cannot list units: {problem}; systemd 246 or newer needed, which lists "
            "timers as JSON"
        ) from error


def _own(root: Path) -> frozenset[str]:
    """Return the units in which this process runs, from its control groups."""
    return frozenset((read(root / OWN) or "").replace("\n", "/").split("/"))


def _shown(
    names: Iterable[str],
    due: Mapping[str, Mapping[str, Any]],
    own: frozenset[str] = frozenset(),
) -> dict[str, Unit]:
    """Return units by name.

    Args:
        names: Names of the units.
        due: Rows of ``systemctl list-timers``, by timer.
        own: Units in which this process runs, which must not be stopped.
    """
    requested = list(names)
    if not requested:  # without names, systemctl shows the manager
        return {}
    result = {}
    for block in systemctl("show", f"--property={_PROPERTIES}", "--", *requested).split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" not in shown:
            continue
        row = due.get(shown["Id"], {})
        result[shown["Id"]] = Unit(
            name=shown["Id"],
            state=shown["ActiveState"],
            sub=shown.get("SubState", ""),
            loaded=shown.get("LoadState") != "not-found",
            fixed=_SELF if shown["Id"] in own else _fixed(shown),
            triggers=tuple(shown.get("TriggeredBy", "").split()),
            activates=row.get("activates") or "",
            next_us=row.get("next"),
        )
    return result


def _fixed(shown: Mapping[str, str]) -> str:
    if shown.get("Transient") == "yes":
        return "it is transient, and could not be started again"
    if "yes" in (shown.get("RefuseManualStop"), shown.get("RefuseManualStart")):
        return "it refuses to be stopped or started by hand"
    return ""


def _quiet(known: Mapping[str, Unit]) -> Iterator[Unit]:
    """Yield the units to stop: the wakers, and the units that would start them again."""
    wakers = [unit for unit in known.values() if why_quiet(unit.name) is not None]
    starters = {name for unit in wakers if unit.runs for name in unit.triggers}
    yield from wakers
    yield from (unit for name, unit in known.items() if name in starters and unit not in wakers)


@dataclass(frozen=True)
class Units(Setting):
    """Timers, and services that start by themselves: running or stopped."""

    def read(self, root: Path) -> dict[str, str]:
        """Return "running" or "stopped" per unit; empty if systemd cannot be queried."""
        try:
            return {unit.name: _value(unit) for unit in _quiet(units(root)) if not unit.fixed}
        except _Unknown:
            return {}

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Stop and start units, and wait until jobs that timers have just started end."""
        # Read before stopping: systemd forgets which unit a stopped timer starts.
        timers = units(root).values() if "stopped" in values.values() else ()
        units.cache_clear()
        for value, verb in (("stopped", "stop"), ("running", "start")):
            names = [name for name, wanted in values.items() if wanted == value]
            if names:
                _command(verb, names)
        # Not for this process's own unit: a timer may have started this sweep.
        _settle({timer.activates for timer in timers} - {""} - _own(root))
        return {}

    def confirm(self, root: Path, places: Iterable[str]) -> dict[str, str]:
        """Query each unit by name, because systemd no longer lists a stopped one."""
        return {name: _value(unit) for name, unit in _shown(places, {}).items()}

    def gone(self, root: Path, places: Iterable[str]) -> set[str]:
        """Return the units whose files no longer exist, as after the removal of a package."""
        return {name for name, unit in _shown(places, {}).items() if not unit.loaded}

    def exempt(self, root: Path) -> dict[str, str]:
        """Return the running units that cannot be stopped, with the reason."""
        try:
            return {u.name: u.fixed for u in _quiet(units(root)) if u.fixed and u.runs}
        except _Unknown:
            return {}

    def missing(self, root: Path) -> str:
        """Return why systemd cannot be queried, or that no unit may start by itself."""
        try:
            units(root)
        except _Unknown as error:
            return str(error)
        return "no timer or service runs here that may start by itself"

    def in_words(self, values: Mapping[str, str]) -> str:
        """Return the names of the running units."""
        running = [name for name, value in values.items() if value != self.wanted]
        return f"running: {named(running)}" if running else super().in_words(values)


def waking(root: Path, others: Mapping[str, str]) -> tuple[list[WakingRow], str]:
    """Return the timers and services that may start, earliest first, and why they are unknown.

    Args:
        root: Root of the file system.
        others: Daemons that another setting stops, each with the reason.

    Returns:
        One row per unit, and "" or the reason why there is none.
    """
    try:
        known = units(root)
    except _Unknown as error:
        return [], str(error)
    stopped = {unit.name: unit for unit in _quiet(known)}
    by_others = {f"{daemon}.service": why for daemon, why in others.items()}
    rows: list[WakingRow] = []
    for name, unit in known.items():
        if not unit.runs or not (name in stopped or unit.works):
            continue
        stops = name in by_others or (name in stopped and not unit.fixed)
        starts = [u.name for u in stopped.values() if name in u.triggers]
        why = why_quiet(name, unit.activates) or (f"starts {named(starts)}" if starts else "")
        reason = why or by_others.get(name) or _reason_left(name)
        if why and unit.fixed:
            reason = f"{why}; left: {unit.fixed}"
        rows.append(WakingRow(name, _utc(unit.next_us), stops, reason))
    return sorted(rows, key=lambda row: (row.next is None, row.next or "", row.name)), ""


def _utc(since_1970_us: int | None) -> str | None:
    if not since_1970_us:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since_1970_us // 10**6))


def _reason_left(name: str) -> str:
    if name.startswith("user@"):
        return "has a user's own timers and services, which tuning does not stop"
    return _UNTOUCHED


def _value(unit: Unit) -> str:
    return "running" if unit.runs else "stopped"


def _command(verb: str, names: list[str]) -> None:
    try:
        systemctl(verb, "--", *names)
    except subprocess.TimeoutExpired as error:
        raise TuningError(
            f"systemctl {verb} of {named(names)} took more than {error.timeout:.0f} s; wait until "
            "its jobs have ended: systemctl list-jobs"
        ) from error
    except subprocess.CalledProcessError as error:
        raise TuningError(f"systemctl {verb} of {named(names)}: {error.stderr.strip()}") from error


def _settle(started: set[str]) -> None:
    """Wait for the jobs that timers have started: an unfinished job could not be restored.

    Raises:
        TuningError: A job does not end in time.
    """
    deadline = time.monotonic() + _SETTLED_S
    while busy := sorted(u.name for u in _shown(sorted(started), {}).values() if u.on_its_way):
        if time.monotonic() > deadline:
            raise TuningError(
                f"{named(busy)}, started by a timer, still running after {_SETTLED_S:.0f} s, ended "
                f"needed; wait for its end, or stop it: systemctl stop {' '.join(busy)}"
            )
        time.sleep(_LOOK_S)
