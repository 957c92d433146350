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
def test_an_emulated_host_gets_longer_for_its_playbooks(
    monkeypatch: pytest.MonkeyPatch, emulated: bool, limit_s: float
) -> None:
    limits: list[float] = []

    def play(playbook: str, *_: Any, deadline: ansible.Deadline, **__: Any) -> Iterator[Event]:
        limits.append(deadline.limit_s)
        said = {"report": encode(replace(report(), emulated=emulated))}
        yield TaskOk("bench", "host_doctor", said)
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
        return True
    return False


def test_root_is_needed_for_the_host_that_is_meant_alone(
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
def test_a_text_that_says_no_makes_nobody_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str, needed: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    inventory = tmp_path / "hosts"
    inventory.write_text(f"[bench]\nhere ansible_connection=local ansible_become={becomes}\n")
    assert is_root_needed(inventory) == needed


def test_the_hosts_of_an_inventory_are_asked_for_unless_it_is_the_one_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def listed(inventories: Any, limit: object) -> dict[str, Any]:
        asked.append(limit)
        return {"a": {}, "b": {}}

    monkeypatch.setattr(ansible, "bench_variables", listed)
    assert Bench().hosts() == ("localhost",) and asked == []  # it would take a second
    several = Bench(("x",), limit="a:b")
    assert several.hosts() == several.hosts() == ("a", "b") and asked == ["a:b"]
    one = several.one_of("b")
    assert (one.name, one.limit, one.inventories) == ("b", "b", ("x",))
    assert one.logs is not several.logs
    changed = tmp_path / "local"
    changed.mkdir()
    (changed / "hosts.yml").write_text("bench: {hosts: {localhost: {}, other: {}}}")
    monkeypatch.setattr(benches, "LOCAL", str(changed))
    assert Bench((str(changed),)).hosts() == ("a", "b")  # somebody added one to it


@pytest.mark.parametrize("name", ["bench01", "2001:db8::1"])
def test_blocks_run_on_their_host_and_its_guest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def play(*_: Any, limit: str, **__: Any) -> Iterator[Event]:
        asked.append(limit)
        yield Ended("successful")

    monkeypatch.setattr(ansible, "play", play)
    list(Bench(("x",)).one_of(name).blocks({}, [{}], ansible.Deadline(1), lambda: False))
    assert [split_host_pattern(limit) for limit in asked] == [[name, "guest"]]


def test_an_inventory_is_found_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yml").write_text("bench: {hosts: {a: {}, b: {}}}")
    monkeypatch.chdir(tmp_path)  # Ansible runs in the checkout
    assert Bench(("mine.yml",)).hosts() == ("a", "b")


def test_which_of_several_hosts_could_not_be_cleared_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play(*_: Any, **__: Any) -> Iterator[Event]:
        yield TaskOk("a", "command", {})
        yield TaskFailed("b", "Remove", "no route")
        yield Ended("failed", "no route")

    monkeypatch.setattr(ansible, "play", play)
    with pytest.raises(BenchError, match=r"could not be cleared.*: b: no route; "):
        Bench().clear()


def test_whoever_is_not_alone_ends_no_playbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `virtbed status` of a host that hangs: what runs is the sweep of another process."""

    def play(*_: Any, **__: Any) -> Iterator[Event]:
        yield Ended("hung", "no end")

    monkeypatch.setattr(ansible, "play", play)
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    other = subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: "1"}, start_new_session=True)
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
def test_a_lock_is_held_in_a_folder_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], Any], message: str
) -> None:
    (tmp_path / "file").write_text("theirs")
    run = tmp_path / "run"
    monkeypatch.setattr(benches, "RUN", run)
    spoil(run)
    with pytest.raises(BenchError, match=message), alone():
        pass
    assert (tmp_path / "file").read_text() == "theirs"


def test_another_users_folder_is_no_place_for_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    with alone():  # nor can anybody else open it, and so lock it
        assert (tmp_path / "run" / "lock").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(BenchError, match="no other user can write needed"), alone():
        pass


def test_a_tuned_host_gets_the_cpus_for_interrupts_and_tells_its_settings(
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


def test_a_host_that_cannot_be_tuned_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[str] = []

    def play(playbook: str, *_: Any, **__: Any) -> Iterator[Event]:
        played.append(playbook)
        yield Ended("failed", "swappiness is 60") if playbook == "tune" else Ended("successful", "")

    monkeypatch.setattr(ansible, "play", play)
    with pytest.raises(BenchError, match="swappiness is 60"), Bench().prepared("0"):
        raise AssertionError("carried out")
    assert played == ["tune", "restore"]
