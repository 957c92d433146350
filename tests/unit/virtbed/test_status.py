"""What `virtbed status` tells of ledgers, hosts and locks, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from virtbed import ansible, host_lock, host_status
from virtbed import bench as benches
from virtbed.cli import app
from virtbed.cli import status as command
from virtbed.design import design
from virtbed.host_status import HostStatus
from virtbed.lease import Holder
from virtbed.ledger import NAME, Ledger, LedgerError
from virtbed.ledger_view import Row, look
from virtbed.plan import Plan
from virtbed.records import write_json
from virtbed.render.status import left
from virtbed.status import grouped, status_of
from virtbed_contract import standing as contract
from virtbed_contract.codec import encode
from virtbed_contract.kernel import snapshots
from virtbed_contract.standing import standing

from .conftest import DIGEST, PLATFORMS, report, small

NOTHING: dict[str, Any] = {
    "instances": [], "processes": [], "overlays": [], "changed": [], "unseen": [],
}  # fmt: skip


def guess(*_: object) -> float:
    return 100.0


@pytest.fixture
def part_done(tmp_path: Path, plan: Plan) -> Path:
    """A sweep of six trials: two done in 10 s each, one failed, one leased, two to do."""
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


def test_counts_eta_failures_and_who_carries_it_out(part_done: Path) -> None:
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


def test_it_tells_also_while_the_ledger_is_being_written(part_done: Path) -> None:
    with Ledger(part_done / NAME) as ledger:
        ledger.lease([row.id for row in look(part_done / NAME).rows if row.status == "todo"])
        assert status_of(part_done, guess).counts["leased"] == 3


def test_a_controller_that_is_gone_holds_nothing(part_done: Path) -> None:
    with Ledger(part_done / NAME) as ledger:
        ledger._db.execute("UPDATE holder SET started = '1'")
    found = status_of(part_done, guess)
    assert not found.holder and found.left_by and found.counts["leased"] == 0
    assert found.counts["todo"] == 3 and " UTC" not in left(found)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"x" * 5000)])
def test_a_ledger_that_cannot_be_read_is_said(part_done: Path, spoil: Any) -> None:
    spoil(part_done / NAME)
    with pytest.raises(LedgerError, match=NAME):
        status_of(part_done, guess)


def test_failures_that_differ_in_names_and_numbers_are_one_reason() -> None:
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


def test_what_stands_is_found_by_label_by_mark_and_by_files_and_left(tmp_path: Path) -> None:
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
    assert len(found["unseen"]) == 1 and "what enclosure_b keeps is not seen" in found["unseen"][0]
    assert content(tmp_path) == before


def test_an_engine_that_hangs_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "ASK_S", 0.2)
    found = standing({"enclosure_a": ["sleep", "60"]}, tmp_path, tmp_path)
    assert "sleep gives no answer within" in found["unseen"][0]


def run(monkeypatch: pytest.MonkeyPatch, results: Path, found: HostStatus, *words: str) -> Any:
    monkeypatch.setattr(command, "REPOSITORY", results.parent)
    monkeypatch.setattr(command, "host_status", lambda *_: [found])
    return CliRunner().invoke(app, ["status", *words], env={"COLUMNS": "80"})


@pytest.mark.parametrize(
    ("host", "said", "code"),
    [
        (HostStatus("b", NOTHING, "process 7 on ctl (x) since t"), "measured by process 7", 1),
        (HostStatus("b", NOTHING | {"unseen": ["it"]}, ""), "nothing stands, of what was seen", 1),
        (HostStatus("b", NOTHING | {"overlays": ["vm-1"]}, ""), "`virtbed clear` removes it", 1),
    ],
)
def test_the_command_prints_all_of_it_in_80_columns(
    part_done: Path, monkeypatch: pytest.MonkeyPatch, host: HostStatus, said: str, code: int
) -> None:
    done = run(monkeypatch, part_done.parent, host)
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.split())
    assert "has 3 [red]x" in " ".join(done.output.split()) and "process" in done.output
    assert max(map(len, done.output.splitlines())) <= 80
    printed = json.loads(run(monkeypatch, part_done.parent, host, "--json").stdout)
    assert printed["sweeps"][0]["counts"] == {"todo": 2, "leased": 1, "done": 2, "failed": 1}
    assert printed["hosts"][0]["left_over"] == host.left_over


def test_the_exit_status_says_what_is_wrong(
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
    assert done.exit_code == 2 and "rebuilds a damaged one" in done.output


def test_this_machine_is_read_without_a_playbook_and_off_the_measured_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that keeps to its last CPU holds the lock: whoever looks keeps to it, too."""
    hosts = {"here": {"ansible_connection": "local", "virtbed_state_dir": str(tmp_path)}}
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: hosts)
    monkeypatch.setattr(ansible, "play", lambda *_, **__: pytest.fail("a playbook ran"))
    monkeypatch.setattr(benches, "RUN", tmp_path)
    monkeypatch.setattr(host_status, "RUN", tmp_path)
    monkeypatch.setattr(host_lock, "FOLDER", str(tmp_path / "none"))
    monkeypatch.setattr(host_status, "standing", lambda *_: NOTHING)
    monkeypatch.setattr(host_status.Seen, "read", lambda execute: read(execute, str(tmp_path)))
    (alone,) = [max(os.sched_getaffinity(0))]
    holder = subprocess.Popen(["sleep", "60"])
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(holder.pid, {alone})
        me = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01")
        started = (Path("/proc") / str(holder.pid) / "stat").read_text().rpartition(")")[2].split()
        claim = replace(me, pid=holder.pid, started=started[19])
        (tmp_path / "lock").write_text(str(claim))
        (found,) = host_status.host_status(benches.Bench(), PLATFORMS)
        assert found.holder == claim.words and os.sched_getaffinity(0) == {alone}
        (tmp_path / "lock").write_text(str(replace(claim, started="1")))
        (found,) = host_status.host_status(benches.Bench(), PLATFORMS)
        assert found.holder == ""
    finally:
        os.sched_setaffinity(0, before)
        holder.kill()
        holder.wait()


read = host_lock.Seen.read


def test_a_remote_host_is_asked_by_a_playbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtbed.events import Ended, TaskOk

    claim = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01")
    seen = {"name": "far", "boot": "b", "uptime": 5, "note": f"{claim}\n99 b"}
    asked: list[Mapping[str, Any]] = []

    def play(playbook: str, variables: Mapping[str, Any], *_: Any, **__: Any) -> Any:
        asked.append(variables)
        yield TaskOk("far", "host_standing", {"standing": NOTHING, "seen": seen})
        yield Ended("successful")

    monkeypatch.setattr(ansible, "play", play)
    monkeypatch.setattr(ansible, "bench_variables", lambda *_: {"far": {"ansible_host": "x"}})
    (found,) = host_status.host_status(benches.Bench(), PLATFORMS)
    assert (found.host, found.holder) == ("far", claim.words) and not found.left_over
    assert asked[0]["host_doctor_note"] == "/run/virtbed/sweep"
    assert all(argv for argv in asked[0]["host_doctor_standing"].values())


def test_clear_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(app, ["clear"])
    assert done.exit_code == 2 and "root (0) needed to remove instances" in done.output


def test_keys_of_guests_that_were_kept_are_forgotten(
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
