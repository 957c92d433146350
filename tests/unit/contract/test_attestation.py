"""Tests of the attestation from inside: each difference is one sentence with both values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from virtbed_contract.attestation import mismatches
from virtbed_contract.documents import Instance, TrialRequest

INSTANCE = Instance(
    id="cn-pinned-c02-r01", platform="cn", machine="metal", enclosure="docker", own_kernel=False,
    private_kernel=False, mode="pinned", enclosure_limit="set", cores=2, memory_mib=1024,
    accelerator="none", cpus="2-3", cpu_ids=(2, 3), mems="0", housekeeping="0", allowed="0-3",
    inner_cpus="2-3", inner_mems="0", inner_allowed="0-3", seen_cpus="2-3", quota_cpus=None,
    seen_quota_cpus=None, image_digest="sha256:" + "a" * 64, image_name="a" * 16,
)  # fmt: skip
TRIAL = TrialRequest("id", ("app",), "matched", ("avx", "avx2"), 60)


def may(**changes: Any) -> dict[str, Any]:
    """Return the privileges of a measured process, with some changes."""
    privileges = {
        "users": [65532],
        "groups": [65532],
        "capabilities": "0",
        "no_new_privileges": True,
    }
    return privileges | changes


def saw(**changes: Any) -> dict[str, Any]:
    """Return the reading of an application that runs as requested, with some changes."""
    inside = {
        "cpus_allowed_list": "2-3",
        "cpus_visible": 4,
        "affinity": [2, 3],
        "cgroup": {"quota_cpus": None},
        "threads": {"usable_cores": 2, "intra_op": 2, "inter_op": 2},
        "isa": ["avx", "avx2"],
        "privileges": may(),
    }
    return {
        "inside": inside | changes,
        "ran_on": [2, 3],
        "migrations": 5,
        "thread_policy": "matched",
        "transparent_hugepage": "madvise",
    }


def test_a_trial_as_requested_has_no_mismatch() -> None:
    assert mismatches(INSTANCE, TRIAL, saw(), None) == []


@pytest.mark.parametrize("message", [None, dict.fromkeys(may())])
def test_privileges_that_were_not_reported_are_not_judged(message: Any) -> None:
    """Earlier harnesses report no privileges, and gVisor's kernel not all."""
    assert mismatches(INSTANCE, TRIAL, saw(privileges=message), None) == []


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (saw(cpus_allowed_list="0-3"), "read CPUs 0-3, 2-3 needed"),
        (saw(cgroup={"quota_cpus": 1.5}), "a quota of 1.5 CPUs, none needed"),
        (
            saw(threads={"usable_cores": 1, "intra_op": 2, "inter_op": 2}),
            "counted 1 usable cores, 2 needed",
        ),
        (
            saw(threads={"usable_cores": 2, "intra_op": 4, "inter_op": 2}),
            "pools of 4 and 2 found; matched needed",
        ),
        (saw(privileges=may(users=[0, 65532])), "needs: users 0, 65532 found, 65532 alone needed"),
        (saw(privileges=may(groups=[0])), "groups 0 found, 65532 alone needed"),
        (saw(privileges=may(capabilities="a80425fb")), "capabilities a80425fb found, none needed"),
        (saw(privileges=may(no_new_privileges=False)), "new privileges can be gained"),
        (saw(isa=["avx"]), "avx2 hidden from the application, which saw avx;"),
        (saw() | {"ran_on": [1, 2]}, "found on CPUs outside of its affinity: [1]"),
        (saw() | {"ran_on": []}, "found on no CPU; at least"),
        (saw() | {"thread_policy": "default"}, "thread policy default with pools"),
    ],
)
def test_one_difference_is_one_sentence(seen: dict[str, Any], expected: str) -> None:
    (sentence,) = mismatches(INSTANCE, TRIAL, seen, None)
    assert expected in sentence


def test_a_guest_has_its_size_and_the_huge_pages_setting_of_its_host() -> None:
    guest = replace(INSTANCE, own_kernel=True)
    sentences = mismatches(guest, TRIAL, saw(), "always")
    assert len(sentences) == 2
    assert "saw 4 CPUs, 2 needed in a guest of that size" in sentences[0]
    assert "hugepages madvise found in the guest, always on its host" in sentences[1]


def test_a_private_kernel_does_not_report_where_threads_ran() -> None:
    assert (
        mismatches(replace(INSTANCE, private_kernel=True), TRIAL, saw() | {"ran_on": []}, None)
        == []
    )


def test_migrations_on_one_pinned_core_are_a_mismatch() -> None:
    one = replace(INSTANCE, cores=1, seen_cpus="2")
    threads = {"usable_cores": 1, "intra_op": 1, "inter_op": 1}
    seen = saw(cpus_allowed_list="2", affinity=[2], threads=threads) | {"ran_on": [2]}
    assert "moved to another CPU 5 times" in mismatches(one, TRIAL, seen, None)[0]
    assert mismatches(replace(one, mode="vanilla"), TRIAL, seen, None) == []
    # If the kernel does not count migrations, they are not judged.
    assert mismatches(one, TRIAL, seen | {"migrations": None}, None) == []


def test_a_requested_quota_is_needed() -> None:
    vanilla = replace(INSTANCE, quota_cpus=2.0, seen_quota_cpus=2.0)
    assert "a quota of none, 2 CPUs needed" in mismatches(vanilla, TRIAL, saw(), None)[0]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"swap_limit": "2048 MiB"}, "leaves it 2048 MiB of swap, 0 MiB needed"),
        ({"swap_limit": "max"}, "leaves it max of swap, 0 MiB needed"),
        ({"allocator": "MALLOC_ARENA_MAX=1"}, "allocator is changed by MALLOC_ARENA_MAX=1; the C"),
    ],
)
def test_requested_settings_are_needed(message: dict[str, str], expected: str) -> None:
    (found,) = mismatches(INSTANCE, TRIAL, saw(process_settings=message), None)
    assert expected in found


@pytest.mark.parametrize(
    "message",
    [
        None,
        {"swap_limit": "0 MiB", "quota_times": None, "allocator": "the C library's own"},
        {"swap_limit": "none", "allocator": None},
        {"swap_limit": None},
    ],
)
def test_settings_that_are_not_reported_are_not_compared(message: dict[str, Any] | None) -> None:
    assert mismatches(INSTANCE, TRIAL, saw(process_settings=message), None) == []


def test_bare_metal_and_sandboxes_may_have_the_swap_of_their_host() -> None:
    swapping = saw(process_settings={"swap_limit": "max"})
    for other in ({"enclosure": "process"}, {"enclosure": "gvisor", "private_kernel": True}):
        assert mismatches(replace(INSTANCE, **other), TRIAL, swapping, None) == []


@pytest.mark.parametrize("times", ["period 10000 us, burst 0 us", "period 100000 us, burst 50 us"])
def test_a_quota_with_another_period_or_burst_is_a_mismatch(times: str) -> None:
    vanilla = replace(INSTANCE, seen_quota_cpus=2.0)
    read = saw(cgroup={"quota_cpus": 2.0}, process_settings={"quota_times": times})
    (found,) = mismatches(vanilla, TRIAL, read, None)
    assert f"a quota of {times}; period 100000 us, burst 0 us needed" in found
    read["inside"]["process_settings"] = {"quota_times": "period 100000 us, burst 0 us"}
    assert mismatches(vanilla, TRIAL, read, None) == []
