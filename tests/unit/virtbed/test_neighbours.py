"""Neighbours: their CPUs on hosts of many shapes, and the cells of a plan that have any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed.design import Design, design
from virtbed.neighbours import place_neighbours
from virtbed.placement import parse_cpu_list, place
from virtbed.plan import Plan, PlanError, load_plan
from virtbed.progress import estimate_s
from virtbed.render.plan import placement_table
from virtbed.sweep.admission import placement_words
from virtbed_contract.codec import encode
from virtbed_contract.neighbours import instances

from . import machines
from .conftest import PLATFORMS, report
from .test_placement import HOSTS
from .test_render_table import shown

GIB = 1024


@given(st.sampled_from(sorted(HOSTS)), st.integers(1, 60), st.integers(1, 15))
def test_no_cpu_is_in_two_instances_and_all_are_of_one_kind_and_size(
    name: str, cores: int, most: int
) -> None:
    host = HOSTS[name]
    if cores > len(host.measured):
        return
    placed = place(host, cores, GIB)
    found = place_neighbours(host, placed, most, GIB)
    every = [set(parse_cpu_list(one.cpus)) for one in (placed, *found)]
    assert all(len(cpus) == cores for cpus in every)
    assert sum(map(len, every)) == len(set().union(*every))
    assert set().union(*every) <= host.machine.kinds[placed.kind - 1].cpus
    assert len(found) == min(most, len(host.measured) // cores - 1)
    helpers = set(parse_cpu_list(placed.housekeeping))
    own = {c for core in host.machine.cores if every[0] & {*core} for c in core}
    for cpus, one in zip(every[1:], found, strict=True):
        assert one.housekeeping == bool(cpus & helpers)
        assert (one.shares == "core") == bool(cpus & own)
    # What a smaller number of neighbours gets, a larger one gets as well.
    assert place_neighbours(host, placed, max(1, most // 2), GIB) == found[: max(1, most // 2)]


@pytest.mark.parametrize(
    ("host", "cores", "expected"),
    [
        # There is no third CPU, so the neighbour shares housekeeping's CPU, and the reason says so.
        ("two cores", 1, [("0", "L3", True)]),
        ("two cores", 2, []),
        ("one core", 1, []),
        # Whole cores first, then second threads of theirs, then the measured core's, then CPU 0's.
        ("laptop", 1, [("2", "L3", False), ("3", "L3", False), ("6", "L3", False),
                       ("7", "L3", False), ("5", "core", False), ("0", "L3", True),
                       ("4", "L3", True)]),
        # The measured one's cache first, as what is shared is to be measured; then another node.
        ("2x14 SMT", 7, [("21-27", "L3", False), ("49-55", "L3", False),
                         ("1-7", "machine", False)]),
    ],
)  # fmt: skip
def test_neighbours_get_near_cores_of_their_own_and_housekeeping_cpus_last(
    host: str, cores: int, expected: list[tuple[str, str, bool]]
) -> None:
    found = place_neighbours(HOSTS[host], place(HOSTS[host], cores), 15, GIB)
    assert [(n.cpus, n.shares, n.housekeeping) for n in found][: len(expected) or 1] == expected


@pytest.mark.parametrize(
    ("memory_mib", "total_mib", "number"),
    [
        (2048, None, 1),
        (15_700, None, 1),  # twice that, and 512 MiB, are on the node's 32000
        (15_800, None, 0),
        (2048, 4608, 1),  # of which the host has no more
        (2048, 4607, 0),
    ],
)
def test_neighbours_have_their_memory_at_the_same_time(
    memory_mib: int, total_mib: int | None, number: int
) -> None:
    host = HOSTS["two cores"]
    found = place_neighbours(host, place(host, 1, memory_mib), 1, memory_mib, total_mib)
    assert len(found) == number


def test_isolated_cpus_have_isolated_neighbours_only() -> None:
    host = replace(HOSTS["laptop"], isolated=frozenset({2, 3}))
    placed = place(host, 1)
    (one,) = place_neighbours(host, placed, 3, GIB)
    assert {placed.cpus, one.cpus} == {"2", "3"}


def plan_with(**keys: Any) -> Plan:
    return Plan.model_validate(
        {
            "name": "demo",
            "replicates": 2,
            "applications": [{"name": "image_classification"}],
            "platforms": {"bm": ["pinned"], "cn": ["pinned"]},
            "cores": [1],
            "memory_mib": 2048,
        }
        | keys
    )


def designed(cpus: int = 4, **keys: Any) -> Design:
    host = report(cpus, guests="available")
    facts = {**host.facts, **machines.facts(machines.flat(cpus, 24_000), cpus, isa=["avx"])}
    return design(plan_with(**keys), replace(host, facts=facts), PLATFORMS)


@pytest.mark.parametrize(
    ("written", "values"),
    [(1, ["0", "1"]), (0, ["0"]), ([0, 2], ["0", "2"]), (["0", "1"], ["0", "1"])],
)
def test_a_single_number_of_neighbours_in_a_plan_means_none_and_that_number(
    written: object, values: list[str]
) -> None:
    plan = plan_with(neighbours=written)
    assert plan.neighbours == values  # type: ignore[attr-defined]  # made from the registry
    assert Plan.model_validate(plan.model_dump(mode="json")).digest() == plan.digest()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("16", "neighbours.1: 16 found; a whole number from 0 to 15 needed"),
        ("[0, true]", "neighbours.1: True found; a whole number from 0 to 15 needed"),
        ("[0, many]", "neighbours.1: 'many' found; a whole number from 0 to 15 needed"),
        ("-1", "neighbours.1: -1 found; a whole number from 0 to 15 needed"),
        ("0.5", "neighbours: 0.5 found; Input should be a valid list"),
        ("[1]", "neighbours ['1'] without 0, which the others are compared with"),
        ("[0, 1, 1]", "neighbours: ['0', '1', '1'] has a value twice"),
        ("[]", "neighbours: [] found; List should have at least 1 item"),
    ],
)
def test_a_plan_with_invalid_numbers_of_neighbours_is_refused_with_a_message(
    tmp_path: Path, written: str, message: str
) -> None:
    plan = tmp_path / "plan.yml"
    plan.write_text(
        "name: demo\napplications: [{name: image_classification}]\nplatforms: {bm: [pinned]}\n"
        f"cores: [1]\nneighbours: {written}\n"
    )
    with pytest.raises(PlanError) as refused:
        load_plan(plan, ["bm"])
    assert message in str(refused.value)


def test_the_schema_of_a_plan_has_numbers_of_neighbours() -> None:
    number = {"type": "integer", "minimum": 0, "maximum": 15}
    found = Plan.model_json_schema()["properties"]["neighbours"]
    assert found["anyOf"] == [
        number, {"type": "array", "items": number, "minItems": 1, "maxItems": 64}
    ]  # fmt: skip
    assert found["default"] == [0]


def test_cells_with_and_without_neighbours_have_separate_instances() -> None:
    found = designed(neighbours=[0, 1, 2])
    assert not found.not_run
    by_value: dict[str, list[Any]] = {}
    for trial in found.trials:
        by_value.setdefault(trial.factors["neighbours"], []).append(trial)
    assert {value: len(trials) for value, trials in by_value.items()} == {"0": 4, "1": 4, "2": 4}
    for value, trials in by_value.items():
        for trial in trials:
            assert ("-neighbours_" in trial.id) == (value != "0")
            assert len(trial.instance.neighbours) == int(value)
            own = instances(trial.instance)
            assert [one.id for one in own] == [
                f"{trial.instance.id}-n{n}" for n in range(1, 1 + int(value))
            ]
            assert trial.limit_s == trial.timeout_s * (1 if value == "0" else 2)
    two = instances(by_value["2"][0].instance)
    one = instances(by_value["1"][0].instance)
    assert [n.cpus for n in two][:1] == [n.cpus for n in one]
    assert {n.cpus for n in two} | {by_value["2"][0].instance.cpus} == {"1", "2", "3"}
    for own in two:
        assert own.seen_cpus == own.inner_cpus == own.cpus == str(own.cpu_ids[0])
        assert own.neighbours == () and own.enclosure == by_value["2"][0].instance.enclosure
    (size,) = found.placements
    assert [n.cpus for n in size.neighbours] == [n.cpus for n in two]
    assert "neighbour on" in placement_words(encode(one) for one in found.placements)
    text = shown(placement_table(found.placements), 132)
    assert "neighbours" in text and "L3)" in text


def test_on_two_cores_the_neighbour_gets_the_housekeeping_cpu_and_the_plan_says_so() -> None:
    found = designed(2, neighbours=1)
    (size,) = found.placements
    assert (size.cpus, size.housekeeping) == ("1", "0")
    (own,) = size.neighbours
    assert (own.cpus, own.housekeeping, own.shares) == ("0", True, "L3")
    assert "housekeeping)" in shown(placement_table(found.placements), 132)


def test_the_design_of_a_plan_without_neighbours_does_not_mention_them() -> None:
    found = designed()
    assert all(trial.instance.neighbours == () for trial in found.trials)
    assert "neighbour" not in placement_words(encode(one) for one in found.placements)
    assert "neighbour" not in shown(placement_table(found.placements), 132)


@pytest.mark.parametrize(
    ("platform", "modes", "reason", "remedy"),
    [
        ("vm", ["pinned"], "a guest's neighbours would be guests", "the host's own kernel"),
        ("vmcn", ["pinned"], "a guest's neighbours would be guests", "the host's own kernel"),
        ("gvisor", ["pinned"], "gvisor has a kernel of its own", "the host's own kernel"),
        ("cn", ["vanilla"], "an instance that floats has no CPUs of its own", "mode pinned"),
    ],
)
def test_cells_that_cannot_have_neighbours_are_left_out_with_the_reason(
    platform: str, modes: list[str], reason: str, remedy: str
) -> None:
    platforms = {"bm": ["pinned"], platform: modes}
    found = designed(platforms=platforms, neighbours=[0, 1])
    had = {(t.instance.platform, t.factors["neighbours"]) for t in found.trials}
    assert had == {("bm", "0"), ("bm", "1"), (platform, "0")}
    (row,) = found.not_run
    assert (row.platform, row.mode, row.cores) == (platform, modes[0], 1)
    assert row.reason.startswith("neighbours 1: ") and reason in row.reason
    assert remedy in row.remedy


def test_only_sizes_without_room_for_neighbours_are_left_out() -> None:
    found = designed(4, cores=[1, 2], neighbours=[0, 2])
    had = {(t.instance.cores, t.factors["neighbours"]) for t in found.trials}
    assert had == {(1, "0"), (1, "2"), (2, "0")}
    assert {row.cores for row in found.not_run} == {2}
    assert "3 instances of 2 CPUs and 2048 MiB each are needed" in found.not_run[0].reason
    assert "this host has room for 2" in found.not_run[0].reason
    assert "lower neighbours, cores or memory_mib" in found.not_run[0].remedy


@pytest.mark.parametrize(
    ("cpus", "keys", "message"),
    [
        (2, {"neighbours": 2}, "3 instances of 1 CPU and 2048 MiB each are needed at the same"),
        (2, {"neighbours": 1, "memory_mib": 9000}, "this host has room for 1"),
        (4, {"neighbours": 1, "platforms": {"vm": ["pinned"]}}, "neighbours would be guests"),
        (4, {"neighbours": 1, "platforms": {"cn": ["vanilla"]}}, "that floats has no CPUs"),
    ],
)
def test_a_number_that_no_cell_can_have_is_refused(
    cpus: int, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=r"neighbours: \d found, which no cell of the plan") as why:
        designed(cpus, **keys)
    assert message in str(why.value)


def test_the_shipped_plan_measures_bare_metal_and_a_container_with_one_neighbour() -> None:
    shipped = load_plan(Path(__file__).parents[3] / "plans/neighbours.yml")
    found = design(shipped, report(2), PLATFORMS)
    assert not found.not_run
    assert {(t.instance.platform, t.factors["neighbours"]) for t in found.trials} == {
        (platform, value) for platform in ("bm", "cn") for value in ("0", "1")
    }


def test_the_guess_for_a_trial_with_neighbours_is_twice_as_long() -> None:
    trials = designed(platforms={"bm": ["pinned"]}, neighbours=1).trials
    guess_s = PLATFORMS.trial_s
    assert estimate_s(trials, {}, guess_s) == (2 + 2 * 2) * guess_s("bm", False)
    assert estimate_s(trials, {"bm": 1.0}, guess_s) == 4
