"""The threads of a QEMU process, made up and of this test itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtbed_contract.kernel import guests
from virtbed_contract.kernel.cpus import format_cpu_list

from .conftest import lay

REST = " ".join(["S", *["0"] * 18, "4242", *["0"] * 17])


def qemu(root: Path, names: dict[int, str]) -> Path:
    """Make the /proc of a process 7 with threads of these names."""
    stats = {f"7/task/{tid}/stat": f"{tid} ({name}) {REST}" for tid, name in names.items()}
    return lay(root, stats)


def test_threads_of_vcpus_are_known_by_their_names(tmp_path: Path) -> None:
    names = {7: "qemu-system-x86", 9: "CPU 1/KVM", 8: "CPU 0/KVM", 11: "CPU 10/TCG", 12: "IO mon"}
    assert guests.vcpu_threads(7, qemu(tmp_path, names)) == {0: 8, 1: 9, 10: 11}


def test_a_thread_whose_name_only_begins_so_is_no_vcpu(tmp_path: Path) -> None:
    assert guests.vcpu_threads(7, qemu(tmp_path, {8: "CPU worker", 9: "call_rcu"})) == {}


@pytest.fixture
def helper() -> Iterator[int]:
    """A thread of this process that may run on one CPU alone; its number."""
    kept, started, done = [0], threading.Event(), threading.Event()

    def stay() -> None:
        kept[0] = threading.get_native_id()
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        started.set()
        done.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    started.wait(10)
    yield kept[0]
    done.set()
    thread.join()


def test_helpers_are_all_threads_that_are_no_vcpu(helper: int) -> None:
    """Those of this process: taken for vCPUs, all but one leave that one's CPU."""
    own = {int(path.name) for path in Path("/proc/self/task").iterdir()}
    others = dict(enumerate(own - {helper}))
    one = format_cpu_list(os.sched_getaffinity(helper))
    assert guests.helpers_allowed(os.getpid(), others) == one
    every = format_cpu_list(os.sched_getaffinity(0))
    assert guests.helpers_allowed(os.getpid(), {}) == every


def test_a_reading_of_a_vcpu_says_where_its_thread_may_run(helper: int) -> None:
    (reading,) = guests.vcpu_readings(os.getpid(), {3: helper})
    assert (reading["vcpu"], reading["thread"]) == (3, helper)
    assert reading["cpus_allowed_list"] == format_cpu_list(os.sched_getaffinity(helper))
    assert reading["migrations"] is None or reading["migrations"] >= 0


@pytest.mark.parametrize(
    ("text", "found"), [("always [madvise] never", "madvise"), ("[always] never", "always")]
)
def test_how_the_host_joins_pages(tmp_path: Path, text: str, found: str) -> None:
    lay(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": text})
    assert guests.transparent_hugepage(tmp_path) == found
    assert guests.transparent_hugepage(tmp_path / "nowhere") is None
