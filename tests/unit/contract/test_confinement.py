"""Tests of the confinement of containers: quotas, and readings that differ from the request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from virtbed_contract.attestation import mismatches
from virtbed_contract.confinement import Quota, confinement_mismatches, quota_of

from .test_attestation import INSTANCE, TRIAL, saw

VANILLA = replace(
    INSTANCE, mode="vanilla", enclosure_limit="quota", quota_cpus=2.0, seen_quota_cpus=2.0
)
READ = {"seccomp": "filter", "network": "own", "runtime": "runc", "quota_times": None}
TIMES = "period 100000 us, burst 0 us"


def having(**factors: str) -> Any:
    return replace(INSTANCE, factors=factors)


@pytest.mark.parametrize(
    ("factors", "quota"),
    [
        ({}, Quota(200_000, 100_000, 0)),
        ({"cfs_period": "10ms"}, Quota(20_000, 10_000, 0)),
        ({"cfs_burst": "full"}, Quota(200_000, 100_000, 200_000)),
        ({"cfs_period": "50ms", "cfs_burst": "full"}, Quota(100_000, 50_000, 100_000)),
    ],
)
def test_the_period_does_not_change_the_share_of_cpus(
    factors: dict[str, str], quota: Quota
) -> None:
    assert quota_of(replace(VANILLA, factors=factors)) == quota
    assert quota_of(INSTANCE) is None


def test_a_container_as_requested_has_no_mismatch() -> None:
    assert confinement_mismatches(INSTANCE, READ) == []
    assert (
        confinement_mismatches(INSTANCE, {}) == []
    )  # readings of earlier sweeps lack these values
    assert confinement_mismatches(VANILLA, READ | {"quota_times": TIMES}) == []
    for factors, read in (
        ({"seccomp_profile": "unconfined"}, {"seccomp": "none"}),
        ({"network": "host"}, {"network": "host"}),
        ({"runtime": "crun"}, {"runtime": "/usr/bin/crun"}),
        ({"runtime": "engine"}, {"runtime": "crun"}),
    ):
        assert confinement_mismatches(having(**factors), READ | read) == []


@pytest.mark.parametrize(
    ("factors", "read", "expected"),
    [
        ({"seccomp_profile": "unconfined"}, {}, "which is none; the container has filter"),
        ({}, {"seccomp": "none"}, "seccomp_profile filter was requested, which is filter; the con"),
        ({"network": "host"}, {}, "network host was requested, which is host; the container has o"),
        ({}, {"network": "host"}, "network none was requested, which is own; the container has ho"),
        ({"runtime": "crun"}, {}, "runtime crun was requested, which is crun; the container has r"),
        ({"runtime": "crun"}, {"runtime": None}, "the container has not reported it"),
        ({"network": "host"}, {"network": None}, "the container has not reported it"),
        ({"seccomp_profile": "unconfined"}, {"seccomp": None}, "the container has not reported it"),
    ],
)
def test_a_container_with_another_value_is_a_mismatch(
    factors: dict[str, str], read: dict[str, Any], expected: str
) -> None:
    (sentence,) = confinement_mismatches(having(**factors), READ | read)
    assert expected in sentence


@pytest.mark.parametrize(
    "name", ["seccomp_profile", "network", "runtime", "cfs_period", "cfs_burst", "huge_pages"]
)
def test_a_value_that_no_plan_can_request_is_treated_as_the_default(name: str) -> None:
    """Such a value can only come from a foreign file, which must be readable all the same."""
    requested = replace(VANILLA, factors={name: "ms"})
    assert confinement_mismatches(requested, READ | {"quota_times": TIMES}) == []
    seen = saw(cgroup={"quota_cpus": 2.0}, process_settings={"quota_times": TIMES})
    assert mismatches(requested, TRIAL, seen, None) == []


@pytest.mark.parametrize(
    ("factors", "cmdline", "wrong"),
    [
        ({}, "root=/dev/vda; rw", False),
        ({}, "root=/dev/vda; mitigations=off", True),
        ({}, None, False),
        ({"guest_mitigations": "none"}, "root=/dev/vda; mitigations=off; rw", False),
        ({"guest_mitigations": "none"}, "root=/dev/vda; mitigations=offline", True),
        ({"guest_mitigations": "none"}, None, True),
    ],
)
def test_a_guest_has_the_requested_mitigations(
    factors: dict[str, str], cmdline: str | None, wrong: bool
) -> None:
    guest = replace(INSTANCE, own_kernel=True, factors=factors)
    inside = saw(cpus_visible=2, kernel_settings={"cmdline": cmdline})
    found = mismatches(guest, TRIAL, inside, None)
    assert [f"booted with {cmdline}" in sentence for sentence in found] == ([True] if wrong else [])


def test_readings_of_a_sandboxs_process_are_not_compared() -> None:
    sandbox = replace(INSTANCE, private_kernel=True)
    assert confinement_mismatches(sandbox, READ | {"network": "host", "seccomp": "none"}) == []
    requested = replace(sandbox, factors={"network": "host"})
    assert len(confinement_mismatches(requested, READ)) == 1


@pytest.mark.parametrize(
    ("factors", "times"),
    [
        ({}, "period 50000 us, burst 0 us"),
        ({}, "period 100000 us, burst 100000 us"),
        ({"cfs_burst": "full"}, TIMES),
        ({"cfs_burst": "full"}, None),
        ({"cfs_period": "10ms"}, TIMES),
    ],
)
def test_a_quota_with_other_times_is_a_mismatch_outside_and_inside(
    factors: dict[str, str], times: str | None
) -> None:
    requested = replace(VANILLA, factors=factors)
    (sentence,) = confinement_mismatches(requested, READ | {"quota_times": times})
    assert "cfs_period" in sentence and (times or "not reported it") in sentence
    inside = saw(cgroup={"quota_cpus": 2.0}, process_settings={"quota_times": times})
    assert [times in text for text in mismatches(requested, TRIAL, inside, None) if times] == (
        [True] if times else []
    )


@pytest.mark.parametrize("seccomp", ["filter", None])
def test_an_application_with_an_unrequested_seccomp_filter_is_a_mismatch(
    seccomp: str | None,
) -> None:
    requested = having(seccomp_profile="unconfined")
    (found,) = mismatches(requested, TRIAL, saw(process_settings={"seccomp": seccomp}), None)
    assert f"had seccomp {seccomp}, none needed" in found
    assert mismatches(requested, TRIAL, saw(process_settings={"seccomp": "none"}), None) == []


@pytest.mark.parametrize("requested", ["never", "malloc", "kernel"])
@pytest.mark.parametrize("pages", ["never", "malloc", "kernel", None])
def test_huge_pages_are_as_requested(requested: str, pages: str | None) -> None:
    trial = replace(TRIAL, huge_pages=requested)
    found = mismatches(INSTANCE, trial, saw(process_settings={"page_policy": pages}), None)
    if pages == requested or (pages, requested) == (None, "kernel"):
        assert found == []
    else:
        assert f"had huge pages {pages}, {requested} needed" in found[0]
