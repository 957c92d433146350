from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import split_host_pattern

from virtbed import ansible
from virtbed import bench as benches
from virtbed.bench import Bench, BenchError, alone
from virtbed.events import Ended, Event, TaskFailed, TaskOk
from virtbed_contract.codec import encode
from virtbed_contract.sweep import TuningRow

from .conftest import MARK, report


@pytest.mark.parametrize(("emulated", "limit_s"), [(False, 60.0), (True, 360.0)])
def test_playbooks_may_take_longer_on_an_emulated_host(
    monkeypatch: pytest.MonkeyPatch, emulated: bool, limit_s: float
) -> None:
    limits: list[float] = []

    def play(playbook: str, *_: Any, deadline: ansible.Deadline, **__: Any) -> Iterator[Event]:
        limits.append(deadline.limit_s)
        result = {"report": encode(replace(report(), emulated=emulated))}
        yield TaskOk("bench", "host_doctor", result)
        yield Ended("successful", "")

    monkeypatch.setattr(ansible, "play", play)
    bench = Bench(hung_after_s=60)
    for _ in range(2):  # however often it is examined
        bench.examine(restore=False)
    bench.play("clear")
    assert limits == [60, limit_s, limit_s]


def is_root_needed(inventory: Path, **options: Any) -> bool:
    try:
        Bench((str(inventory),), **options).require_root("to examine the host")
    except BenchError as error:
        assert "user id 1000 found, root (0) needed to examine the host" in str(error)
        assert "Without root remain:" in str(error)
        return True
    return False


def test_root_is_needed_only_if_the_selected_host_is_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    inventory = tmp_path / "hosts.yml"
    hosts = {"here": {"ansible_connection": "local"}, "there": {"ansible_user": "root"}}
    inventory.write_text(json.dumps({"bench": {"hosts": hosts}}))
    assert is_root_needed(inventory)
    assert is_root_needed(inventory, limit="here")
    assert not is_root_needed(inventory, limit="there")


@pytest.mark.parametrize(("becomes", "needed"), [("false", True), ("no", True), ("true", False)])
def test_ansible_become_false_as_a_text_counts_as_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str, needed: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    inventory = tmp_path / "hosts"
    inventory.write_text(f"[bench]\nhere ansible_connection=local ansible_become={becomes}\n")
    assert is_root_needed(inventory) == needed


def test_ansible_inventory_runs_for_every_inventory_but_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[object] = []

    def listed(inventories: Any, limit: object) -> dict[str, Any]:
        limits.append(limit)
        return {"a": {}, "b": {}}

    monkeypatch.setattr(ansible, "bench_variables", listed)
    assert Bench().hosts() == ("localhost",) and limits == []  # it would take a second
    several = Bench(("x",), limit="a:b")
    assert several.hosts() == several.hosts() == ("a", "b") and limits == ["a:b"]
    one = several.one_of("b")
    assert (one.name, one.limit, one.inventories) == ("b", "b", ("x",))
    assert one.logs is not several.logs
    changed = tmp_path / "local"
    changed.mkdir()
    (changed / "hosts.yml").write_text("bench: {hosts: {localhost: {}, other: {}}}")
    monkeypatch.setattr(benches, "LOCAL", str(changed))
    assert Bench((str(changed),)).hosts() == ("a", "b")  # somebody added one to it


@pytest.mark.parametrize("name", ["bench01", "2001:db8::1"])
def test_blocks_are_limited_to_their_host_and_its_guest(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[str] = []

    def play(*_: Any, limit: str, **__: Any) -> Iterator[Event]:
        limits.append(limit)
        yield Ended("successful")

    monkeypatch.setattr(ansible, "play", play)
    list(Bench(("x",)).one_of(name).blocks({}, [{}], ansible.Deadline(1), lambda: False))
    assert [split_host_pattern(limit) for limit in limits] == [[name, "guest"]]


def test_an_inventory_is_found_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yml").write_text("bench: {hosts: {a: {}, b: {}}}")
    monkeypatch.chdir(tmp_path)  # Ansible runs in the checkout
    assert Bench(("mine.yml",)).hosts() == ("a", "b")


def test_the_message_names_the_host_that_could_not_be_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play(*_: Any, **__: Any) -> Iterator[Event]:
        yield TaskOk("a", "command", {})
        yield TaskFailed("b", "Remove", "no route")
        yield Ended("failed", "no route")

    monkeypatch.setattr(ansible, "play", play)
    with pytest.raises(BenchError, match=r"could not be cleared.*: b: no route; "):
        Bench().clear()


def test_a_process_without_the_lock_kills_no_playbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `virtbed status`: the running playbooks belong to another process's sweep."""

    def play(*_: Any, **__: Any) -> Iterator[Event]:
        yield Ended("hung", "no end")

    monkeypatch.setattr(ansible, "play", play)
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    other = subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: "1"}, start_new_session=True)
    try:
        threading.Thread(target=other.wait).start()
        Bench().play("status")
        with pytest.raises(BenchError, match="could not be cleared"):
            Bench().clear()
        assert other.poll() is None
        with alone():
            Bench().play("clear")
        assert other.wait() == -signal.SIGKILL
    finally:
        other.kill()


def linked(run: Path) -> None:
    (run.parent / "target").mkdir()
    run.symlink_to(run.parent / "target")


def linked_lock(run: Path) -> None:
    run.mkdir(mode=0o711)
    (run / "lock").symlink_to(run.parent / "file")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: [run.mkdir(), run.chmod(0o777)], "drwxrwxrwx, found; a folder of user id"),
        (linked, "found; a folder of user id"),
        (Path.touch, "File exists"),
        (linked_lock, "cannot be held"),
    ],
)
def test_the_lock_is_in_a_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], Any], message: str
) -> None:
    (tmp_path / "file").write_text("theirs")
    run = tmp_path / "run"
    monkeypatch.setattr(benches, "RUN", run)
    spoil(run)
    with pytest.raises(BenchError, match=message), alone():
        pass
    assert (tmp_path / "file").read_text() == "theirs"


def test_a_lock_in_another_users_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    with alone():  # nor can anybody else open it, and so lock it
        assert (tmp_path / "run" / "lock").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(BenchError, match="no other user can write needed"), alone():
        pass


@pytest.fixture
def playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process in place of ansible-playbook, with a lock that nobody waits for."""
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    monkeypatch.setattr(benches, "LOCK_WAIT_S", 0)
    monkeypatch.setattr(benches, "HOLD_WAIT_S", 0)
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_no_sweep_starts_next_to_a_set_up_until_its_process_ends(
    playbook: subprocess.Popen[bytes],
) -> None:
    benches.hold("set-up", playbook.pid)
    with (
        pytest.raises(BenchError, match=rf"process {playbook.pid} on .* \(set-up\) since"),
        alone(),
    ):
        pass
    playbook.kill()
    playbook.wait()
    with alone():
        pass


def test_a_set_up_is_refused_next_to_a_sweep_and_to_another_set_up(
    playbook: subprocess.Popen[bytes],
) -> None:
    with alone(), pytest.raises(BenchError, match="would lose its image and instances"):
        benches.hold("set-up", playbook.pid)
    benches.hold("set-up", playbook.pid)
    with pytest.raises(BenchError, match=r"\(set-up\) since"):
        benches.hold("teardown", os.getppid())


def test_the_hosts_of_one_playbook_hold_the_lock_once(playbook: subprocess.Popen[bytes]) -> None:
    first = benches.hold("set-up", playbook.pid)
    assert benches.hold("set-up", playbook.pid) == first


def test_a_number_that_another_process_has_now_holds_nothing(
    playbook: subprocess.Popen[bytes],
) -> None:
    claim = benches.hold("set-up", playbook.pid)
    (benches.RUN / "lock").write_text(str(replace(claim, started="1")))
    with alone():
        pass
    (benches.RUN / "lock").write_text(str(replace(claim, boot="an earlier one")))
    with alone():
        pass
    (benches.RUN / "lock").write_text("torn {")
    with alone():
        pass


def test_tuning_passes_the_cpus_for_interrupts_and_returns_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = TuningRow("interrupts", True, "0", "0", "measured", ("131 (nvme0q3): managed",))
    played: list[tuple[str, Any]] = []

    def play(playbook: str, variables: Any, *_: Any, **__: Any) -> Iterator[Event]:
        played.append((playbook, variables.get("virtbed_interrupts")))
        yield TaskOk("bench", "host_tuning", {"settings": encode([row])})
        yield Ended("successful", "")

    monkeypatch.setattr(ansible, "play", play)
    with Bench().prepared("0,16") as settings:
        assert settings == (row,)
    with Bench().prepared(None) as settings:
        assert settings == ()
    assert played == [("tune", "0,16"), ("restore", None), ("restore", None)]


def test_a_host_that_cannot_be_tuned_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[str] = []

    def play(playbook: str, *_: Any, **__: Any) -> Iterator[Event]:
        played.append(playbook)
        yield Ended("failed", "swappiness is 60") if playbook == "tune" else Ended("successful", "")

    monkeypatch.setattr(ansible, "play", play)
    with pytest.raises(BenchError, match="swappiness is 60"), Bench().prepared("0"):
        raise AssertionError("carried out")
    assert played == ["tune", "restore"]
