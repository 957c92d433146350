"""`virtbed status`: what it prints about ledgers, hosts and locks, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from virtbed import ansible, host_lock, host_status, ledger_view, scratch
from virtbed import bench as benches
from virtbed.bench import BenchError
from virtbed.cli import app
from virtbed.cli import status as command
from virtbed.design import design
from virtbed.events import Ended, TaskFailed, TaskOk
from virtbed.fleet_ledger import FleetLedger
from virtbed.host_status import HostStatus
from virtbed.lease import Holder
from virtbed.ledger import NAME, Ledger, LedgerError
from virtbed.ledger_view import Row, look
from virtbed.plan import Plan
from virtbed.records import write_json
from virtbed.render.status import left, status_lines
from virtbed.status import grouped, status_of
from virtbed_contract import standing as contract
from virtbed_contract.codec import encode
from virtbed_contract.kernel import snapshots
from virtbed_contract.standing import standing

from ..roles.conftest import module
from .conftest import DIGEST, PLATFORMS, report, small

NOTHING: dict[str, Any] = {
    "instances": [], "processes": [], "overlays": [], "changed": [], "unseen": [],
}  # fmt: skip

HERE = {"here": {"ansible_connection": "local", "virtbed_state_dir": "/nosuch"}}


def guess(*_: object) -> float:
    return 100.0


@pytest.fixture
def part_done(tmp_path: Path, plan: Plan) -> Path:
    """Return a sweep of six trials: two done in 10 s each, one failed, one leased, two to do."""
    folder = tmp_path / "results" / "demo"
    designed = design(small(plan), report(), PLATFORMS)
    write_json(folder / "design.json", encode(designed.document(plan, DIGEST, PLATFORMS, [])))
    with Ledger(folder / NAME) as ledger:
        ledger.begin(
            {"plan": "x"}, [(t.id, t.position, t.instance.platform) for t in designed.trials]
        )
        for trial in designed.trials[:2]:
            ledger.attempt(trial.id)
            ledger.close(trial.id, "done", 10.0)
        ledger.attempt(designed.trials[2].id)
        ledger.close(
            designed.trials[2].id, "failed", 1.0, reason=f"{designed.trials[2].id} has 3 [red]x"
        )
        ledger.take(Holder.here(), time.time() + 1000)
        ledger.lease([designed.trials[3].id])
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_status_has_counts_time_left_failures_and_the_controller(part_done: Path) -> None:
    before = content(part_done)
    found = status_of(part_done, guess)
    assert content(part_done) == before
    assert found.counts == {"todo": 2, "leased": 1, "done": 2, "failed": 1}
    assert found.holder == f"process {os.getpid()} on {os.uname().nodename}" and not found.left_by
    with Ledger(part_done / NAME) as ledger:
        seen = ledger.seconds()
    assert found.left_s is not None and 30 <= found.left_s <= 300
    assert found.left_s == sum(
        seen.get(row.platform, 100.0) for row in look(part_done / NAME).rows
        if row.status in ("todo", "leased")
    )  # fmt: skip
    assert [(f.count, f.attempts) for f in found.failures] == [(1, 1)]
    assert "about" in left(found) and " UTC" in left(found)


def test_a_ledger_is_read_while_it_is_being_written(part_done: Path) -> None:
    with Ledger(part_done / NAME) as ledger:
        ledger.lease([row.id for row in look(part_done / NAME).rows if row.status == "todo"])
        assert status_of(part_done, guess).counts["leased"] == 3


def test_a_controller_that_has_ended_does_not_hold_the_sweep(part_done: Path) -> None:
    with Ledger(part_done / NAME) as ledger:
        ledger._db.execute("UPDATE holder SET started = '1'")
    found = status_of(part_done, guess)
    assert not found.holder and found.left_by and found.counts["leased"] == 0
    assert found.counts["todo"] == 3 and " UTC" not in left(found)


def test_each_of_several_hosts_is_shown_with_what_it_does(part_done: Path) -> None:
    alone = status_of(part_done, guess)
    with FleetLedger(part_done / NAME) as ledger:
        ledger.note("bench01", 2)
        ledger.note("bench02")
        ledger.note("bench03", aside="it was lost")
    found = status_of(part_done, guess)
    assert alone.left_s and found.left_s == alone.left_s / 2  # two take part
    assert list(status_lines(found))[1:] == [
        "demo: bench01 carries out replicate 2",
        "demo: bench02 carries out nothing",
        "demo: bench03 is set aside: it was lost",
    ]
    with FleetLedger(part_done / NAME) as ledger:
        ledger.forget_notes()  # as the next call begins
    assert status_of(part_done, guess).hosts == ()


def test_a_host_that_cannot_be_examined_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = host_status.Seen("a", "boot", 1, "")

    def play(*_: Any, **__: Any) -> tuple[Ended, list[Any]]:
        found = {"seen": asdict(seen), "standing": NOTHING}
        events = [TaskOk("a", "host_standing", found), TaskFailed("b", "Look", "no route")]
        return Ended("failed", "no route"), events

    monkeypatch.setattr(ansible, "bench_variables", lambda *_: {"a": {}, "b": {}})
    monkeypatch.setattr(benches.Bench, "play", play)
    problems: list[str] = []
    (found,) = host_status.host_status(benches.Bench(("x",)), PLATFORMS, problems)
    assert found.host == "a" and problems == ["b could not be examined: no route"]


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"x" * 5000)])
def test_a_ledger_that_cannot_be_read_is_reported(part_done: Path, spoil: Any) -> None:
    spoil(part_done / NAME)
    with pytest.raises(LedgerError, match=NAME):
        status_of(part_done, guess)


def test_a_locked_ledger_is_not_called_damaged(
    part_done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_view, "_WAIT_S", 0.1)
    other = sqlite3.connect(part_done / NAME, isolation_level=None)
    with closing(other):
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        done = run(monkeypatch, part_done.parent, HostStatus("b", NOTHING, ""))
    assert done.exit_code == 2 and "locked" in done.output and "rebuilds" not in done.output


def test_failures_that_differ_only_in_ids_and_numbers_are_one_reason() -> None:
    reasons = [
        "virtbed-cn-pinned-c01-r01 has CPUs 0, 1 needed",
        "virtbed-vm-vanilla-c02-r02 has CPUs 3, 4 needed",
        "the port is taken",
        "",
    ]
    rows = [Row(f"t{n}", "cn", "failed", n, reason) for n, reason in enumerate(reasons)]
    found = grouped([*rows, Row("good", "cn", "done", 1, "")])
    assert [(f.count, f.trial) for f in found] == [(2, "t0"), (1, "t2"), (1, "t3")]
    assert found[0].reason == reasons[0] and found[2].reason == "no reason is known"


def process(proc: Path, pid: int, cmdline: bytes, environ: bytes = b"") -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_bytes(cmdline)
    (proc / str(pid) / "environ").write_bytes(environ)


def test_leftovers_are_found_by_label_mark_and_files_and_are_not_changed(tmp_path: Path) -> None:
    proc, state = tmp_path / "proc", tmp_path / "state"
    process(proc, 10, b"python3\0", b"A=1\0VIRTBED_INSTANCE=cn-pinned-c01-r01\0")
    process(proc, 11, b"qemu\0guest=virtbed-vm-pinned-c01-r01,debug\0")
    process(proc, 12, b"vim\0virtbed-notes\0")
    (state / "instances" / "vm-pinned-c01-r01").mkdir(parents=True)
    snapshots.keep(state / "tuning.json", {"turbo": 1, "governor": {}})
    (state / "old.json").write_text(json.dumps({"boot": "another", "values": {"x": 1}}))
    (state / "host.json").write_text("{}")
    before = content(tmp_path)
    roles = {
        "enclosure_a": ["printf", "virtbed-b\\nother\\nvirtbed-a\\n"],
        "enclosure_b": ["false"],
        "enclosure_c": ["no-such-engine"],
    }
    found = standing(roles, state, proc)
    assert found["instances"] == [
        {"role": "enclosure_a", "name": "virtbed-a"}, {"role": "enclosure_a", "name": "virtbed-b"},
    ]  # fmt: skip
    assert found["processes"] == [
        {"pid": 10, "name": "cn-pinned-c01-r01"}, {"pid": 11, "name": "vm-pinned-c01-r01"},
    ]  # fmt: skip
    assert found["overlays"] == ["vm-pinned-c01-r01"]
    assert found["changed"] == [
        {"snapshot": str(state / "tuning.json"), "settings": ["governor", "turbo"]}
    ]
    (unseen,) = found["unseen"]
    assert "instances of enclosure_b are not seen" in unseen
    assert content(tmp_path) == before


def test_an_engine_that_hangs_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "ASK_S", 0.2)
    found = standing({"enclosure_a": ["sleep", "600"]}, tmp_path, tmp_path)
    assert "sleep gives no answer within" in found["unseen"][0]


def run(monkeypatch: pytest.MonkeyPatch, results: Path, found: HostStatus, *words: str) -> Any:
    monkeypatch.setattr(command, "REPOSITORY", results.parent)
    monkeypatch.setattr(command, "host_status", lambda *_: [found])
    return CliRunner().invoke(app, ["status", *words], env={"COLUMNS": "80"})


@pytest.mark.parametrize(
    ("host", "expected", "code"),
    [
        (HostStatus("b", NOTHING, "process 7 on ctl (x) since t"), "measured by process 7", 1),
        (HostStatus("b", NOTHING | {"unseen": ["it"]}, ""), "no leftovers in what", 1),
        (HostStatus("b", NOTHING | {"overlays": ["vm-1"]}, ""), "`virtbed clear` removes", 1),
    ],
)
def test_the_command_prints_sweeps_and_hosts_within_80_columns(
    part_done: Path, monkeypatch: pytest.MonkeyPatch, host: HostStatus, expected: str, code: int
) -> None:
    done = run(monkeypatch, part_done.parent, host)
    assert done.exit_code == code, done.output
    assert expected in " ".join(done.output.split())
    assert "has 3 [red]x" in " ".join(done.output.split()) and "process" in done.output
    assert max(map(len, done.output.splitlines())) <= 80
    printed = json.loads(run(monkeypatch, part_done.parent, host, "--json").stdout)
    assert printed["sweeps"][0]["counts"] == {"todo": 2, "leased": 1, "done": 2, "failed": 1}
    assert printed["hosts"][0]["left_over"] == host.left_over


def test_the_exit_status_shows_failures_leftovers_and_unreadable_ledgers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = HostStatus("b", NOTHING, "")
    (tmp_path / "results").mkdir()
    assert run(monkeypatch, tmp_path / "results", none).exit_code == 0
    left_over = replace(none, standing=NOTHING | {"instances": [{"role": "r", "name": "n"}]})
    assert run(monkeypatch, tmp_path / "results", left_over).exit_code == 1
    used = replace(left_over, holder="process 7")
    assert run(monkeypatch, tmp_path / "results", used).exit_code == 0
    (tmp_path / "results" / "torn").mkdir()
    (tmp_path / "results" / "torn" / NAME).write_bytes(b"x" * 5000)
    done = run(monkeypatch, tmp_path / "results", none)
    assert done.exit_code == 2 and "virtbed sweep rebuilds it" in done.output


def test_this_machine_is_read_without_a_playbook_and_off_the_measured_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller bound to the last CPU holds the lock, so the command binds itself to it, too."""
    hosts = {"here": {"ansible_connection": "local", "virtbed_state_dir": str(tmp_path)}}
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: hosts)
    monkeypatch.setattr(ansible, "play", lambda *_, **__: pytest.fail("a playbook ran"))
    monkeypatch.setattr(benches, "RUN", tmp_path)
    monkeypatch.setattr(host_status, "RUN", tmp_path)
    monkeypatch.setattr(host_lock, "FOLDER", str(tmp_path / "none"))
    monkeypatch.setattr(host_status, "standing", lambda *_: NOTHING)
    monkeypatch.setattr(host_status.Seen, "read", lambda execute: read(execute, str(tmp_path)))
    (alone,) = [max(os.sched_getaffinity(0))]
    holder = subprocess.Popen(["sleep", "600"])
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(holder.pid, {alone})
        me = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01")
        started = (Path("/proc") / str(holder.pid) / "stat").read_text().rpartition(")")[2].split()
        claim = replace(me, pid=holder.pid, started=started[19])
        (tmp_path / "lock").write_text(str(claim))
        (found,) = host_status.host_status(benches.Bench(), PLATFORMS, [])
        assert found.holder == claim.words and os.sched_getaffinity(0) == {alone}
        (tmp_path / "lock").write_text(str(replace(claim, started="1")))
        (found,) = host_status.host_status(benches.Bench(), PLATFORMS, [])
        assert found.holder == ""
    finally:
        os.sched_setaffinity(0, before)
        holder.kill()
        holder.wait()


read = host_lock.Seen.read


def test_a_remote_host_is_read_by_a_playbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01")
    seen = {"name": "far", "boot": "b", "uptime": 5, "note": f"{claim}\n99 b"}
    passed: list[Mapping[str, Any]] = []

    def play(playbook: str, variables: Mapping[str, Any], *_: Any, **__: Any) -> Any:
        passed.append(variables)
        yield TaskOk("far", "host_standing", {"standing": NOTHING, "seen": seen})
        yield Ended("successful")

    monkeypatch.setattr(ansible, "play", play)
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: {"far": {"ansible_host": "x"}})
    (found,) = host_status.host_status(benches.Bench(), PLATFORMS, [])
    assert (found.host, found.holder) == ("far", claim.words) and not found.left_over
    assert passed[0]["host_doctor_note"] == "/run/virtbed/sweep"


def test_clear_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(app, ["clear"])
    assert done.exit_code == 2 and "root (0) needed to remove instances" in done.output


def test_clear_removes_the_keys_of_guests_that_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benches, "RUN", tmp_path)
    with benches.keys("demo", keep=lambda: True) as folder:
        (folder / "id_ed25519").touch()
    assert (folder / "id_ed25519").exists()
    (tmp_path / "gvisor").mkdir()
    (tmp_path / "lock").touch()
    benches.forget_keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gvisor", "lock"]


CRAFTED = [
    "UPDATE trial SET reason = x'ff00' WHERE status = 'failed'",
    "UPDATE trial SET attempts = 'many' WHERE status = 'failed'",
    "UPDATE trial SET status = 'lost' WHERE status = 'done'",
    "UPDATE trial SET platform = x'07' WHERE status = 'done'",
    "UPDATE trial SET seconds = 9e999 WHERE status = 'done'",
    "UPDATE trial SET id = NULL WHERE status = 'done'",
    "UPDATE holder SET expires = 'never'",
    "UPDATE holder SET pid = 'x'",
    "UPDATE holder SET host = x'01'",
    "DROP TABLE trial; CREATE VIEW trial AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id "
    "FROM n) SELECT id, id AS position, id AS platform, id AS status, 0 AS leased, 0 AS attempts, "
    "id AS reason, 1.0 AS seconds FROM n",
]


@pytest.mark.parametrize("crafted", CRAFTED)
def test_a_forged_ledger_causes_neither_a_traceback_nor_a_wait(
    part_done: Path, monkeypatch: pytest.MonkeyPatch, crafted: str
) -> None:
    """Its tables accept values of any type, unlike those of virtbed's own ledgers."""
    monkeypatch.setattr(ledger_view, "MOST_S", 0.5)
    with sqlite3.connect(part_done / NAME) as db:
        for table in ("trial", "holder"):
            db.execute(f"CREATE TABLE loose AS SELECT * FROM {table}")
            db.execute(f"DROP TABLE {table}")
            db.execute(f"ALTER TABLE loose RENAME TO {table}")
        db.executescript(crafted)
    with pytest.raises(LedgerError, match="cannot be read"):
        status_of(part_done, guess)


def test_grouping_a_long_reason_is_fast_and_words_are_not_taken_for_numbers() -> None:
    began = time.monotonic()
    reasons = ["1" * 200_000 + "g", "a bad face 0x1f", "a bad face 0xff3", "a bad fade 12"]
    found = grouped([Row(f"t{n}", "cn", "failed", 1, reason) for n, reason in enumerate(reasons)])
    assert [f.count for f in found] == [2, 1, 1] and time.monotonic() - began < 5


def test_a_very_late_end_and_a_missing_platform_cause_no_traceback(
    part_done: Path,
) -> None:
    with Ledger(part_done / NAME) as ledger:
        ledger._db.execute("UPDATE trial SET seconds = 1e200 WHERE status = 'done'")
    found = status_of(part_done, lambda *_: 1e200)
    assert found.holder and left(found).startswith("about ") and "UTC" not in left(found)

    def unknown(platform: str, emulated: bool) -> float:
        raise KeyError(platform)

    with Ledger(part_done / NAME) as ledger:
        ledger._db.execute("UPDATE trial SET seconds = NULL")
    assert "no design.json with known platforms" in left(status_of(part_done, unknown))


def test_without_root_no_engine_is_queried_and_the_status_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman would list the user's own containers, of which there are none, and create folders."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = standing({"enclosure_a": ["touch", str(tmp_path / "made")]}, tmp_path, tmp_path)
    assert found["unseen"] == ["instances of enclosure_a are not seen: root is needed"]
    assert not (tmp_path / "made").exists()


def test_a_users_process_with_an_instances_mark_does_not_count_as_an_instances(
    tmp_path: Path,
) -> None:
    process(tmp_path, 10, b"sh\0", b"VIRTBED_INSTANCE=\x1b[2Jcn-pinned-c01\0")
    assert standing({}, tmp_path / "state", tmp_path)["processes"] == []


def far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Mapping[str, Any]
) -> HostStatus:  # fmt: skip
    def play(*_: Any, **__: Any) -> Any:
        yield TaskOk("far", "host_standing", result)
        yield Ended("successful")

    monkeypatch.setattr(ansible, "play", play)
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: {"far": {"ansible_host": "x"}})
    (found,) = host_status.host_status(benches.Bench(), PLATFORMS, [])
    return found


@pytest.mark.parametrize(("started", "held"), [("7", True), ("8", False), (None, False)])
def test_a_controller_on_the_remote_host_itself_is_known_to_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str | None, held: bool
) -> None:
    claim = replace(
        host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01"), host="far", boot="b",
        started="7",
    )  # fmt: skip
    seen = {"name": "far", "boot": "b", "uptime": 5, "note": f"{claim}\n99 b"}
    result = {"standing": NOTHING | {"overlays": ["x"]}, "seen": seen, "started": started}
    found = far(tmp_path, monkeypatch, result)
    assert bool(found.holder) == held and found.left_over != held


@pytest.mark.parametrize(
    "result",
    [
        {"standing": NOTHING},
        {"standing": NOTHING, "seen": {"name": "far"}},
        {"standing": {}, "seen": {"name": "far", "boot": "b", "uptime": 5, "note": ""}},
        {
            "standing": NOTHING | {"instances": ["x"]},
            "seen": {"name": "far", "boot": "b", "uptime": 5, "note": ""},
        },
    ],
)
def test_an_unexpected_result_of_a_remote_host_causes_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    with pytest.raises(BenchError, match="in the result of host_standing"):
        far(tmp_path, monkeypatch, result)


def test_the_module_returns_when_the_notes_process_started(tmp_path: Path) -> None:
    standing_module = module("host_doctor", "host_standing")
    claim = host_lock.here("x", tmp_path, "2026-01-01")
    assert standing_module.started(f"{claim}\n99 b") == claim.started
    assert standing_module.started(f"{replace(claim, pid=2**22 + 1)}\n99 b") is None
    for garbage in ("", "{", "[]", '{"pid": "1"}', '{"pid": true}'):
        assert standing_module.started(garbage) is None


@pytest.mark.parametrize("kind", ["fifo", "link", "endless"])
def test_another_users_file_in_place_of_a_lock_causes_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In /tmp any user can create the folder of a user who is not logged in."""
    lock = tmp_path / "lock"
    if kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to("/dev/zero" if kind == "endless" else tmp_path / "claim")
        (tmp_path / "claim").write_text(str(host_lock.here("x", tmp_path, "2026-01-01")))
    monkeypatch.setattr(host_status, "RUN", tmp_path)
    monkeypatch.setattr(host_lock, "FOLDER", str(tmp_path / "none"))
    began = time.monotonic()
    assert host_status._own_lock(read(host_status._execute, str(tmp_path))) is None
    assert time.monotonic() - began < 5


def test_a_note_that_is_no_text_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").write_bytes(b"\xff\xfe\n1 x")
    monkeypatch.setattr(host_status, "_locks", list)  # a sweep of this machine holds them
    monkeypatch.setattr(host_status.Seen, "read", lambda execute: read(execute, str(tmp_path)))
    host_status.stay_aside()
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: HERE)
    assert (
        host_status.host_status(benches.Bench(), PLATFORMS, [])[0].holder == ""
    )  # of another boot
    (tmp_path / "sweep").write_bytes(b"\xff\xfe\n")
    with pytest.raises(BenchError, match="remove that file there"):
        host_status.host_status(benches.Bench(), PLATFORMS, [])


def test_only_a_controller_on_this_machine_has_its_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of this machine may have the number of another machine's controller."""
    me = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01")
    seen = read(host_status._execute, str(tmp_path))
    kept: list[Any] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: kept.append((pid, {*cpus})))
    monkeypatch.setattr(host_status, "_look", lambda: (seen, replace(me, host="far")))
    host_status.stay_aside()
    assert kept == []
    monkeypatch.setattr(host_status, "_look", lambda: (seen, me))
    host_status.stay_aside()
    assert kept == [(0, os.sched_getaffinity(me.pid))]


def test_a_lock_that_may_not_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    monkeypatch.setattr(host_status, "RUN", tmp_path)
    monkeypatch.setattr(host_lock, "FOLDER", str(tmp_path / "none"))
    monkeypatch.setattr(host_status.Seen, "read", lambda execute: read(execute, str(tmp_path)))
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: HERE)
    monkeypatch.setattr(host_status, "standing", lambda *_: NOTHING | {"unseen": []})
    monkeypatch.setattr(os, "access", lambda *_: False)
    (found,) = host_status.host_status(benches.Bench(), PLATFORMS, [])
    assert found.standing["unseen"] == [
        f"whether a process holds {tmp_path}/lock: root is needed to see it"
    ]


def test_a_teardown_removes_the_controllers_keys_and_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for module_of_it in (benches, scratch):
        monkeypatch.setattr(module_of_it, "RUN", run)
    benches.forget_killed()
    assert not run.exists()
    (run / "keys" / "demo").mkdir(parents=True)
    (run / "plays" / "4194305-1-x").mkdir(parents=True)
    run.chmod(0o711)
    benches.forget_killed()
    assert list(run.rglob("*")) == [run / "plays"]
    theirs = tmp_path / "theirs"
    (theirs / "keys").mkdir(parents=True)
    (run / "plays").rmdir()
    run.rmdir()
    run.symlink_to(theirs)
    with pytest.raises(OSError, match="no other user can write needed"):
        benches.forget_killed()
    assert (theirs / "keys").exists()
