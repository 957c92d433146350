"""Plans that explain: one factor at a time, where it can be, and what a host lacks for it."""

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


def asked(**keys: Any) -> Plan:
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
    return design(asked(**keys), replace(host, facts=facts), PLATFORMS)


def cells(found: Design) -> dict[tuple[str, str], list[str]]:
    """Return what each platform and mode varies, as "factor value", "" for the reference."""
    every: dict[tuple[str, str], set[str]] = {}
    for trial in found.trials:
        said = [f"{f.name} {trial.factors[f.name]}" for f in FACTORS]
        said = [
            one for one, f in zip(said, FACTORS, strict=True) if trial.factors[f.name] != f.default
        ]
        every.setdefault((trial.instance.platform, trial.instance.mode), set()).add(", ".join(said))
    return {key: sorted(own) for key, own in every.items()}


PAGES = ["huge_pages malloc", "huge_pages never"]


def test_a_plan_that_explains_varies_one_factor_at_a_time_from_one_cell_of_each_platform() -> None:
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
    every = asked(explain=True, **STAR)
    assert len(found.trials) <= every.most_trials()
    pages = {t.factors["huge_pages"]: t.request(1, report()).huge_pages for t in found.trials}
    assert pages == {name: name for name in STAR["huge_pages"]}
    argv = {t.factors["huge_pages"]: t.argv(1) for t in found.trials}
    assert all(f"--huge-pages={value}" in words for value, words in argv.items())


def test_without_it_a_plan_is_the_product_of_its_lists() -> None:
    found = cells(designed(seccomp=["filter", "unconfined"], huge_pages=["kernel", "malloc"]))
    assert len(found["cn", "pinned"]) == len(found["cn", "vanilla"]) == 4
    assert len(found["bm", "pinned"]) == 2


def test_guests_vary_kernel_and_topology_in_the_star_as_well() -> None:
    found = cells(
        designed(
            explain=True, guest_topology=["flat", "host"], seccomp=["filter", "unconfined"],
            guest_mitigations=["kernel", "none"],
        )
    )  # fmt: skip
    assert found["vm", "pinned"] == ["", "guest_mitigations none", "guest_topology host"]
    assert found["vm", "vanilla"] == [""]


def test_a_platform_without_pinned_cells_is_taken_apart_where_it_has_some() -> None:
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


def test_a_container_in_a_guest_has_its_engines_runtime_only() -> None:
    found = designed(
        explain=True, platforms={"bm": ["pinned"], "vmcn": ["pinned"], "cn": ["pinned"]},
        runtime=["engine", "crun"], seccomp=["filter", "unconfined"],
    )  # fmt: skip
    assert cells(found)["vmcn", "pinned"] == ["", "seccomp_profile unconfined"]
    assert [row.reason for row in found.not_run] == [
        "runtime crun: in a guest docker has its defaults only"
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
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
    keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        designed(**keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "explain: true found, but no factor with several values"),
        ({"huge_pages": ["malloc", "never"]}, "without kernel"),
        ({"threads": ["matched"]}, "explain: true found, but no factor with several values"),
    ],
)
def test_a_plan_that_explains_needs_a_reference_and_something_to_vary(
    keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        asked(explain=True, **keys)
