"""Tests of the readers of a QEMU process, with synthetic threads and those of the test itself."""

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
    """Create the /proc of a process 7 whose threads have these names."""
    stats = {f"7/task/{tid}/stat": f"{tid} ({name}) {REST}" for tid, name in names.items()}
    return lay(root, stats)


def test_threads_of_vcpus_are_known_by_their_names(tmp_path: Path) -> None:
    names = {7: "qemu-system-x86", 9: "CPU 1/KVM", 8: "CPU 0/KVM", 11: "CPU 10/TCG", 12: "IO mon"}
    assert guests.vcpu_threads(7, qemu(tmp_path, names)) == {0: 8, 1: 9, 10: 11}


def test_a_thread_whose_name_only_starts_like_a_vcpus_is_no_vcpu(tmp_path: Path) -> None:
    assert guests.vcpu_threads(7, qemu(tmp_path, {8: "CPU worker", 9: "call_rcu"})) == {}


@pytest.fixture
def helper() -> Iterator[int]:
    """Yield the id of a thread of this process that may run on one CPU only."""
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


def test_helpers_are_all_threads_other_than_vcpus(helper: int) -> None:
    """With all threads of this process but one declared vCPUs, only that one's CPU is left."""
    own = {int(path.name) for path in Path("/proc/self/task").iterdir()}
    others = dict(enumerate(own - {helper}))
    one = format_cpu_list(os.sched_getaffinity(helper))
    assert guests.helpers_allowed(os.getpid(), others) == one
    every = format_cpu_list(os.sched_getaffinity(0))
    assert guests.helpers_allowed(os.getpid(), {}) == every


def test_a_vcpu_reading_has_the_cpus_that_its_thread_may_run_on(helper: int) -> None:
    (reading,) = guests.vcpu_readings(os.getpid(), {3: helper})
    assert (reading["vcpu"], reading["thread"]) == (3, helper)
    assert reading["cpus_allowed_list"] == format_cpu_list(os.sched_getaffinity(helper))
    assert reading["migrations"] is None or reading["migrations"] >= 0


@pytest.mark.parametrize(
    ("text", "found"), [("always [madvise] never", "madvise"), ("[always] never", "always")]
)
def test_the_setting_of_transparent_huge_pages(tmp_path: Path, text: str, found: str) -> None:
    lay(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": text})
    assert guests.transparent_hugepage(tmp_path) == found
    assert guests.transparent_hugepage(tmp_path / "nowhere") is None
