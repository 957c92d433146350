"""Tests of neighbours: readings of real processes, and their comparison with the request."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract import neighbours
from virtbed_contract.codec import decode, encode
from virtbed_contract.documents import Instance, Neighbour
from virtbed_contract.neighbours import neighbour_mismatches, neighbours_ran
from virtbed_contract.surroundings import NeighbourRan

INSTANCE = Instance(
    id="cn-pinned-c01-neighbours_2-r01", platform="cn", machine="metal", enclosure="docker",
    own_kernel=False, private_kernel=False, mode="pinned", enclosure_limit="set", cores=1,
    memory_mib=2048, accelerator="none", cpus="1", cpu_ids=(1,), mems="0", housekeeping="0",
    allowed="0-3", inner_cpus="1", inner_mems="0", inner_allowed="0-3", seen_cpus="1",
    quota_cpus=None, seen_quota_cpus=None, image_digest="sha256:" + "a" * 64,
    image_name="a" * 16, factors={"neighbours": "2"},
    neighbours=(Neighbour("2", "0", "L3", False), Neighbour("0", "0", "L3", True)),
)  # fmt: skip


def read(number: int, requests: int = 10, uptime_s: float = 100.0, **process: Any) -> Any:
    """Return the reading of a neighbour without mismatches."""
    cpu = (2, 0)[number - 1]
    found = {
        "pid": 40 + number, "started": 4711, "threads": 9, "cpus_allowed_list": str(cpu),
        "mems_allowed_list": "0", "memory_policy": "default", "quota_cpus": None,
        "ran_on": [cpu], "migrations": 3, "cpu_s": uptime_s - 90.0,
    }  # fmt: skip
    return {
        "instance": f"{INSTANCE.id}-n{number}", "uptime_s": uptime_s, "requests": requests,
        "ended": None, "processes": [found | process],
    }  # fmt: skip


BEFORE = [read(1), read(2)]
AFTER = [read(1, 25, 110.0), read(2, 20, 110.0, cpu_s=15.0)]


def test_neighbours_that_ran_during_the_whole_trial_have_no_mismatch() -> None:
    assert neighbour_mismatches(INSTANCE, BEFORE) == []
    assert neighbour_mismatches(INSTANCE, AFTER, BEFORE) == []
    ran = neighbours_ran(INSTANCE, BEFORE, AFTER)
    assert ran == [
        {"cpus": "2", "shares": "L3", "housekeeping": False, "requests": 15, "busy_cpus": 1.0},
        {"cpus": "0", "shares": "L3", "housekeeping": True, "requests": 10, "busy_cpus": 0.5},
    ]
    assert [encode(decode(NeighbourRan, one)) for one in ran] == ran


def test_a_neighbour_on_bare_metal_is_bound_to_its_memory_by_policy() -> None:
    bound = [read(n, mems_allowed_list="0-1", memory_policy="bind:0") for n in (1, 2)]
    assert neighbour_mismatches(INSTANCE, bound) == []


def test_an_instance_without_neighbours_has_none() -> None:
    alone = decode(Instance, {**encode(INSTANCE), "neighbours": []})
    assert neighbours.instances(alone) == ()
    assert neighbour_mismatches(alone, []) == []
    assert neighbours_ran(alone, [], []) == []
    older = {key: value for key, value in encode(INSTANCE).items() if key != "neighbours"}
    assert decode(Instance, older).neighbours == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ended": "exit status 137: nothing logged"},
         "ended before the trial did, with exit status 137: nothing logged; it must run"),
        ({"processes": []}, "has 0 processes, one needed during the whole trial"),
        ({"cpus_allowed_list": "1"}, "may run on CPUs 1 and was found on 2, 2 needed, away from"),
        ({"cpus_allowed_list": "0-3"}, "may run on CPUs 0-3 and was found on 2, 2 needed"),
        ({"ran_on": [1, 2]}, "was found on 1-2, 2 needed"),
        ({"migrations": 5}, "was moved to another CPU 2 times while the trial ran, 0 needed"),
        ({"mems_allowed_list": "0-1"}, "may use memory of nodes 0-1 by policy default, 0 needed"),
        ({"quota_cpus": 0.5}, "has a quota of 0.5 CPUs, None needed"),
        ({"pid": 99}, "is process 99, and was 41: it was restarted during the trial"),
        ({"started": 4712}, "it was restarted during the trial"),
        ({"requests": 10}, "answered no request while the trial ran (10 in all): it was stopped"),
        ({"requests": None}, "answered no request, some needed before the trial begins"),
        ({"instance": "other"}, "was read as other, "),
    ],
)  # fmt: skip
def test_a_neighbour_with_the_wrong_placement_or_time_is_a_mismatch(
    change: dict[str, Any], said: str
) -> None:
    after = copy.deepcopy(AFTER)
    for name, value in change.items():
        of = after[0]["processes"][0] if name in after[0]["processes"][0] else after[0]
        of[name] = value
    if change.get("requests", 1) is None:
        found = neighbour_mismatches(INSTANCE, after)
    else:
        found = neighbour_mismatches(INSTANCE, after, BEFORE)
    assert len(found) == 1, found
    assert found[0].startswith(f"the neighbour {INSTANCE.id}-n1 ")
    assert said in found[0]


@pytest.mark.parametrize(
    ("silent_s", "said"),
    [
        (1.0, []),
        (11.6, []),  # 15 requests in 10 s: one may come late
        (11.7, ["answered no request in the last 12 s, and 15 since the trial began: it was"]),
        (None, []),
    ],
)
def test_a_neighbour_that_stopped_during_the_trial_is_a_mismatch(
    silent_s: float | None, said: list[str]
) -> None:
    found = neighbour_mismatches(INSTANCE, [{**AFTER[0], "silent_s": silent_s}, AFTER[1]], BEFORE)
    assert len(found) == len(said)
    assert all(text in one for text, one in zip(said, found, strict=True))


def test_a_neighbour_without_a_reading_is_a_mismatch() -> None:
    assert neighbour_mismatches(INSTANCE, AFTER[:1], BEFORE) == ["1 neighbours were read, 2 needed"]


def test_migrations_on_several_cores_are_no_mismatch() -> None:
    wide = decode(Instance, {**encode(INSTANCE), "cores": 2})
    assert neighbour_mismatches(wide, [read(1, 25, migrations=9), AFTER[1]], BEFORE) == []


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Run a shell command as a neighbour with a mark of this test, and yield its process."""
    monkeypatch.setattr(neighbours, "MARK", "VIRTBED_UNIT_NEIGHBOUR=")
    monkeypatch.setattr(neighbours, "USER", os.geteuid())
    started: list[subprocess.Popen[bytes]] = []

    def run(name: str, command: str) -> subprocess.Popen[bytes]:
        cpu = min(os.sched_getaffinity(0))
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(cpu), "sh", "-c", command],
            env=os.environ | {"VIRTBED_UNIT_NEIGHBOUR": name},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_is_found_by_its_mark_with_its_placement_and_cpu_time(
    running: Any, tmp_path: Path
) -> None:
    process = running("n1", "while :; do :; done")
    running("n10", "while :; do :; done")
    (tmp_path / "out").write_text('{"requests": 3}\n{"requests": 7}\n{"reque')
    until(lambda: neighbours.reading("n1", tmp_path)["processes"])
    until(lambda: neighbours.reading("n1", tmp_path)["processes"][0]["cpu_s"] > 0)
    found = neighbours.reading("n1", tmp_path)
    assert (found["instance"], found["requests"], found["ended"]) == ("n1", 7, None)
    (own,) = found["processes"]
    cpu = min(os.sched_getaffinity(0))
    assert (own["pid"], own["cpus_allowed_list"], own["ran_on"]) == (process.pid, str(cpu), [cpu])
    assert own["threads"] == 1
    assert found["silent_s"] < 60
    os.utime(tmp_path / "out", (0, time.time() - 60))
    assert 60 <= neighbours.reading("n1", tmp_path)["silent_s"] < 120
    later = neighbours.reading("n1", tmp_path)
    assert later["uptime_s"] >= found["uptime_s"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert neighbours.reading("n1", tmp_path)["processes"] == []
    assert neighbours.reading("n1", tmp_path / "none")["silent_s"] is None


def test_a_marked_process_of_another_user_is_no_neighbour(
    running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running("n1", "sleep 30")
    until(lambda: neighbours.reading("n1", tmp_path)["processes"])
    monkeypatch.setattr(neighbours, "USER", 65532)
    assert neighbours.reading("n1", tmp_path)["processes"] == []


def test_the_exit_status_of_a_neighbour_that_has_just_ended_is_awaited(tmp_path: Path) -> None:
    """The parent writes the exit status only after the process has ended."""
    with subprocess.Popen(["sh", "-c", f"sleep 0.3; echo 137 > {tmp_path}/end"]):
        found = neighbours.reading("n1", tmp_path)
    assert (found["processes"], found["ended"]) == ([], "exit status 137: nothing logged")


def test_the_end_of_a_neighbour_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    assert neighbours.ended(tmp_path) is None
    assert neighbours.answered(tmp_path) is None
    (tmp_path / "end").write_text("")  # not yet written whole
    assert neighbours.ended(tmp_path) is None
    (tmp_path / "end").write_text("3\n")
    assert neighbours.ended(tmp_path) == "exit status 3: nothing logged"
    (tmp_path / "log").write_text("x" * 5000 + "wrong answer: cup\n")
    assert str(neighbours.ended(tmp_path)).endswith("xwrong answer: cup")
    assert len(str(neighbours.ended(tmp_path))) < 1100
    (tmp_path / "out").write_text("\n")
    assert neighbours.answered(tmp_path) is None
