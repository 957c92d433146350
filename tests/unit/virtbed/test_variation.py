"""Plans with explain: one factor varied at a time, in its cell, and values that a host lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from virtbed.design import Design, design
from virtbed.plan import Plan, PlanError
from virtbed_contract.factors import FACTORS

from .conftest import PLATFORMS, report

STAR = {
    "seccomp": ["filter", "unconfined"],
    "network": ["none", "host"],
    "runtime": ["engine", "runc", "crun"],
    "cfs_period": ["100ms", "50ms", "10ms"],
    "cfs_burst": ["none", "full"],
    "huge_pages": ["kernel", "never", "malloc"],
}


def plan_with(**keys: Any) -> Plan:
    return Plan.model_validate(
        {
            "name": "demo",
            "replicates": 2,
            "applications": [{"name": "image_classification"}],
            "platforms": {
                "bm": ["pinned"], "cn": ["vanilla", "pinned"], "podman": ["pinned"],
                "gvisor": ["pinned"], "vm": ["vanilla", "pinned"],
            },
            "cores": [1],
        }
        | keys
    )  # fmt: skip


def designed(lacking: tuple[tuple[str, ...], ...] = (), **keys: Any) -> Design:
    host = report(guests="available")
    facts = host.facts | {"lacking": [list(row) for row in lacking]}
    return design(plan_with(**keys), replace(host, facts=facts), PLATFORMS)


def cells(found: Design) -> dict[tuple[str, str], list[str]]:
    """Return the varied values of each platform and mode, as "factor value"; the reference has "".

    One list per (platform, mode).
    """
    every: dict[tuple[str, str], set[str]] = {}
    for trial in found.trials:
        varied = [f"{f.name} {trial.factors[f.name]}" for f in FACTORS]
        varied = [
            one
            for one, f in zip(varied, FACTORS, strict=True)
            if trial.factors[f.name] != f.default
        ]
        every.setdefault((trial.instance.platform, trial.instance.mode), set()).add(
            ", ".join(varied)
        )
    return {key: sorted(own) for key, own in every.items()}


PAGES = ["huge_pages malloc", "huge_pages never"]


def test_explain_varies_one_factor_at_a_time_from_one_cell_of_each_platform() -> None:
    found = designed(explain=True, **STAR)
    assert cells(found) == {
        ("bm", "pinned"): ["", *PAGES],
        ("cn", "vanilla"): ["", "cfs_burst full", "cfs_period 10ms", "cfs_period 50ms"],
        ("cn", "pinned"): ["", *PAGES, "network host", "runtime crun",
                           "seccomp_profile unconfined"],
        ("podman", "pinned"): ["", *PAGES, "network host", "runtime runc",
                               "seccomp_profile unconfined"],
        ("gvisor", "pinned"): [""],
        ("vm", "vanilla"): [""],
        ("vm", "pinned"): ["", *PAGES],
    }  # fmt: skip
    assert len({trial.id for trial in found.trials}) == len(found.trials)
    assert not found.not_run
    # What varies a trial runs in the instance of the reference.
    assert len({trial.instance.id for trial in found.trials}) == 2 * (1 + 4 + 4 + 4 + 1 + 1 + 1)
    every = plan_with(explain=True, **STAR)
    assert len(found.trials) <= every.most_trials()
    pages = {t.factors["huge_pages"]: t.request(1, report()).huge_pages for t in found.trials}
    assert pages == {name: name for name in STAR["huge_pages"]}
    argv = {t.factors["huge_pages"]: t.argv(1) for t in found.trials}
    assert all(f"--huge-pages={value}" in words for value, words in argv.items())


def test_without_explain_a_plan_is_the_product_of_its_lists() -> None:
    found = cells(designed(seccomp=["filter", "unconfined"], huge_pages=["kernel", "malloc"]))
    assert len(found["cn", "pinned"]) == len(found["cn", "vanilla"]) == 4
    assert len(found["bm", "pinned"]) == 2


def test_explain_also_varies_the_kernel_and_topology_of_guests() -> None:
    found = cells(
        designed(
            explain=True, guest_topology=["flat", "host"], seccomp=["filter", "unconfined"],
            guest_mitigations=["kernel", "none"],
        )
    )  # fmt: skip
    assert found["vm", "pinned"] == ["", "guest_mitigations none", "guest_topology host"]
    assert found["vm", "vanilla"] == [""]


def test_explain_uses_the_vanilla_cell_of_a_platform_without_a_pinned_one() -> None:
    platforms = {"bm": ["pinned"], "cn": ["vanilla"]}
    found = cells(designed(explain=True, platforms=platforms, seccomp=["filter", "unconfined"]))
    assert found["cn", "vanilla"] == ["", "seccomp_profile unconfined"]


def test_a_value_that_the_host_does_not_offer_is_left_out_with_its_reason() -> None:
    found = designed((("enclosure_docker", "runtime", "crun"),), explain=True, **STAR)
    assert "runtime crun" not in cells(found)["cn", "pinned"]
    assert "runtime runc" in cells(found)["podman", "pinned"]
    (row,) = found.not_run
    assert (row.platform, row.mode) == ("cn", "pinned")
    assert "runtime crun: this host's docker does not offer it" in row.reason
    assert "leave it out of runtime" in row.remedy


def test_a_container_in_a_guest_has_the_engines_default_runtime_only() -> None:
    found = designed(
        explain=True, platforms={"bm": ["pinned"], "vmcn": ["pinned"], "cn": ["pinned"]},
        runtime=["engine", "crun"], seccomp=["filter", "unconfined"],
    )  # fmt: skip
    assert cells(found)["vmcn", "pinned"] == ["", "seccomp_profile unconfined"]
    assert [row.reason for row in found.not_run] == [
        "runtime crun: in a guest docker has its defaults only"
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"platforms": {"bm": ["pinned"], "gvisor": ["pinned"]}, "seccomp": ["unconfined",
          "filter"]}, "seccomp: unconfined found, which none of the plan's platforms can have"),
        ({"platforms": {"bm": ["pinned"], "cn": ["pinned"]}, "cfs_burst": ["none", "full"]},
         "can have in a mode with a CPU quota; name one of cn, vmcn among platforms in a mode"),
        ({"platforms": {"bm": ["pinned"], "podman": ["pinned"]}, "runtime": ["engine", "crun"]},
         "runtime: crun found"),
    ],
)  # fmt: skip
def test_a_value_that_no_platform_of_the_plan_can_have_is_refused(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        designed(**keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "explain: true found, but no factor with several values"),
        ({"huge_pages": ["malloc", "never"]}, "without kernel"),
        ({"threads": ["matched"]}, "explain: true found, but no factor with several values"),
    ],
)
def test_explain_needs_the_default_of_each_factor_and_a_factor_to_vary(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_with(explain=True, **keys)
