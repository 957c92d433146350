"""Timers and services of systemd, with a fake systemctl that answers as version 252."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

from virtbed_contract.codec import decode, encode
from virtbed_contract.kernel.snapshots import kept
from virtbed_contract.sweep import WakingRow

from .conftest import REPOSITORY, module

# Ansible ships a role's module_utils next to its own: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_tuning/module_utils"))

from ansible.module_utils import host_tuning_units as units  # noqa: E402 - after the line above

tuning = module("host_tuning", "host_tuning")
SETTINGS = [setting for setting in tuning.SETTINGS if isinstance(setting, units.Units)]
DUE_US = 1785967200000000  # 2026-08-05 22:00:00 UTC


@dataclass
class Recorded:
    """A fake of systemctl; `states` has the (ActiveState, SubState) of each unit."""

    states: dict[str, tuple[str, str]]
    timers: dict[str, str]  # the service that each starts
    transient: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    triggered: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)  # units that do not stop
    calls: list[list[str]] = field(default_factory=list)

    def __call__(self, *arguments: str) -> str:
        self.calls.append(list(arguments))
        verb, names = arguments[0], [a for a in arguments[1:] if not a.startswith("-")]
        if verb == "list-timers":
            return json.dumps([self.row(name) for name in self.timers])
        if verb == "list-units":
            return json.dumps(
                [
                    {"unit": n, "load": "loaded", "active": a, "sub": s, "description": n}
                    for n, (a, s) in self.states.items()
                    if n.endswith(".service") and a in {"active", "activating", "reloading"}
                ]
            )
        if verb == "show":
            return "\n\n".join(map(self.shown, names)) + "\n"
        for name in names:
            if name in self.gone:
                raise subprocess.CalledProcessError(
                    5, verb, stderr=f"Failed to {verb} {name}: Unit {name} not loaded.\n"
                )
            if name not in self.deaf:
                active = "waiting" if name in self.timers else "running"
                self.states[name] = {"start": ("active", active), "stop": ("inactive", "dead")}[
                    verb
                ]
        return ""

    def row(self, name: str) -> dict[str, Any]:
        due = DUE_US if self.states[name][0] == "active" else None
        return {"next": due, "left": due, "last": 0, "passed": 0, "unit": name,
                "activates": self.timers[name]}  # fmt: skip

    def shown(self, name: str) -> str:
        state, sub = self.states.get(name, ("inactive", "dead"))
        yes = {True: "yes", False: "no"}
        return "\n".join(
            [
                f"Id={name}",
                f"TriggeredBy={self.triggered.get(name, '')}",
                f"LoadState={'not-found' if name in self.gone else 'loaded'}",
                f"ActiveState={state}",
                f"SubState={sub}",
                f"RefuseManualStart={yes[name in self.refusing]}",
                "RefuseManualStop=no",
                f"Transient={yes[name in self.transient]}",
            ]
        )

    def running(self) -> set[str]:
        return {name for name, (state, _) in self.states.items() if state == "active"}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """A server with timers of Debian and one of its site, and services of several kinds."""
    timers = {
        "apt-daily.timer": "apt-daily.service",
        "fstrim.timer": "fstrim.service",
        "site-backup.timer": "site-backup.service",
        "man-db.timer": "man-db.service",  # its package's preset leaves it off here
        "run-r1.timer": "run-r1.service",
    }
    states = {
        **dict.fromkeys(timers, ("active", "waiting")),
        "man-db.timer": ("inactive", "dead"),
        "cron.service": ("active", "running"),
        "snapd.service": ("active", "running"),
        "snapd.socket": ("active", "running"),
        "kdump-tools.service": ("active", "exited"),
        "ssh.service": ("active", "running"),
        "networking.service": ("active", "exited"),
        "user@1000.service": ("active", "running"),
        "irqbalance.service": ("active", "running"),
    }
    fake = Recorded(
        states, timers, transient={"run-r1.timer"},
        triggered={"snapd.service": "snapd.socket", "apt-daily.service": "apt-daily.timer"},
    )  # fmt: skip
    monkeypatch.setattr(units, "systemctl", fake)
    monkeypatch.setattr(units.time, "sleep", lambda _: units.units.cache_clear())
    units.units.cache_clear()
    return fake


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "state/tuning.json"


QUIET = {"apt-daily.timer", "fstrim.timer", "site-backup.timer", "cron.service", "snapd.service",
         "snapd.socket", "kdump-tools.service"}  # fmt: skip


def tune(root: Path, snapshot: Path) -> bool:
    units.units.cache_clear()
    done: bool = tuning.tune(root, snapshot, SETTINGS)
    return done


def restore(root: Path, snapshot: Path) -> bool:
    units.units.cache_clear()
    done: bool = tuning.restore(root, snapshot, SETTINGS)
    return done


def test_units_that_may_start_are_stopped_and_restored(
    systemd: Recorded, root: Path, snapshot: Path
) -> None:
    before = systemd.running()
    assert tune(root, snapshot) is True
    assert systemd.running() == before - QUIET
    assert set(kept(snapshot)["timers and services"]) == QUIET
    (row,) = tuning.show(root, SETTINGS)
    assert row.value == row.wanted == "stopped"
    assert row.exempt == ("run-r1.timer: it is transient, and could not be started again",)
    assert restore(root, snapshot) is True
    # man-db.timer did not run before, so it is not started.
    assert systemd.running() == before and not snapshot.exists()


def test_units_are_restored_after_a_killed_sweep(
    systemd: Recorded, root: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = systemd.running()
    tune(root, snapshot)
    systemd("start", "fstrim.timer")
    tune(root, snapshot)
    restore(root, snapshot)
    assert systemd.running() == before

    def killed(*_: Any) -> None:
        systemd("stop", "cron.service", "apt-daily.timer")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(units, "_command", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(root, snapshot)
    assert systemd.running() < before
    assert restore(root, snapshot) is True
    assert systemd.running() == before


def test_a_timer_that_runs_again_is_shown(systemd: Recorded, root: Path, snapshot: Path) -> None:
    tune(root, snapshot)
    systemd("start", "fstrim.timer")
    units.units.cache_clear()
    (row,) = tuning.show(root, SETTINGS)
    assert row.value == "running: fstrim.timer" != row.wanted


def test_a_unit_that_does_not_stop_is_an_error(
    systemd: Recorded, root: Path, snapshot: Path
) -> None:
    systemd.deaf = {"cron.service"}
    with pytest.raises(tuning.TuningError, match=r"cron\.service is running, stopped needed"):
        tune(root, snapshot)
    assert snapshot.exists()


def test_a_unit_whose_package_was_removed_is_not_started(
    systemd: Recorded, root: Path, snapshot: Path
) -> None:
    before = systemd.running()
    tune(root, snapshot)
    systemd.gone = {"cron.service"}
    assert restore(root, snapshot) is True
    assert systemd.running() == before - {"cron.service"}


def test_a_job_that_a_timer_has_just_started_may_end(
    systemd: Recorded, root: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 5:
            systemd.states["apt-daily.service"] = ("inactive", "dead")

    monkeypatch.setattr(units.time, "sleep", sleep)
    monkeypatch.setattr(units.time, "monotonic", lambda: now[0])
    systemd.states["apt-daily.service"] = ("activating", "start")
    assert tune(root, snapshot) is True
    assert 5 < now[0] < 6
    assert not any(call[0] == "stop" and "apt-daily.service" in call for call in systemd.calls)

    monkeypatch.setattr(units.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    restore(root, snapshot)
    systemd.states["apt-daily.service"] = ("activating", "start")
    with pytest.raises(tuning.TuningError, match=r"apt-daily\.service, started by a timer, still"):
        tune(root, snapshot)
    # Restoring does not wait, because the restored timers may start the job again.
    started = now[0]
    assert restore(root, snapshot) is True and now[0] == started


def test_a_sweep_started_by_cron_or_a_timer_neither_ends_nor_awaits_itself(
    systemd: Recorded, root: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = root / units.OWN
    own.parent.mkdir(parents=True)
    own.write_text("0::/system.slice/cron.service\n")
    before = systemd.running()
    assert tune(root, snapshot) is True
    assert systemd.running() == before - QUIET | {"cron.service"}
    (row,) = tuning.show(root, SETTINGS)
    assert row.value == row.wanted and "cron.service: the sweep itself runs in it" in row.exempt[0]
    (left,) = (row for row in units.waking(root, {})[0] if row.name == "cron.service")
    assert not left.stopped and left.reason.endswith("runs in it, and would end with it")
    restore(root, snapshot)

    now = [0.0]
    monkeypatch.setattr(units.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(units.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    # A oneshot service is "activating" while its command runs. cgroup v1 has a line per hierarchy.
    own.write_text("2:cpu:/\n1:name=systemd:/system.slice/site-backup.service\n")
    systemd.states["site-backup.service"] = ("activating", "start")
    assert tune(root, snapshot) is True
    assert now[0] == 0.0


def test_units_that_may_start_are_listed_with_their_times(systemd: Recorded, root: Path) -> None:
    rows, unknown = units.waking(root, {"irqbalance": "moves"})
    assert unknown == ""
    assert [encode(decode(WakingRow, encode(row))) for row in rows] == list(map(encode, rows))
    assert {row.name for row in rows if row.stopped} == QUIET | {"irqbalance.service"}
    left = {row.name: row.reason for row in rows if not row.stopped}
    assert left.keys() == {"run-r1.timer", "ssh.service", "user@1000.service"}
    assert "only you know" in left["ssh.service"]
    assert "transient" in left["run-r1.timer"] and "user's own" in left["user@1000.service"]
    due = {row.name: row.next for row in rows}
    assert due["site-backup.timer"] == "2026-08-05T22:00:00Z" and due["cron.service"] is None
    assert "starts snapd.service" in {row.name: row.reason for row in rows}["snapd.socket"]
    # Those that are due come first.
    assert [row.next is None for row in rows] == sorted(row.next is None for row in rows)


def test_with_another_init_the_setting_is_not_available(
    systemd: Recorded, tmp_path: Path, snapshot: Path
) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/comm").write_text("runit\n")
    rows, unknown = units.waking(tmp_path, {})
    assert rows == [] and "the init is runit, not systemd" in unknown and "by hand" in unknown
    (row,) = tuning.show(tmp_path, SETTINGS)
    assert not row.available and row.reason == unknown
    assert tune(tmp_path, snapshot) is False and systemd.calls == []


@pytest.mark.parametrize("answer", ["NEXT LEFT\n0 timers listed.\n", "[{}]", "{"])
def test_a_systemd_without_json_lists_is_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(units, "systemctl", lambda *_: answer)
    units.units.cache_clear()
    rows, unknown = units.waking(root, {})
    assert rows == [] and "systemd 246 or newer needed" in unknown


def test_a_message_names_only_the_first_units() -> None:
    assert units.named(f"u{n}" for n in range(40)) == "u0, u1, u2, u3, u4, u5 and 34 more"
