"""Tests of the grammar of ids, and of the checks of the registries."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed_contract.factors import (
    FACTORS,
    MODES,
    SCALES,
    SCENARIOS,
    Factor,
    id_pattern,
    instance_id,
    possible_ids,
    size_id,
    trial_id,
    values_of,
)  # fmt: skip
from virtbed_contract.measures import MEASURES, SHOWN, Measure, of_group, only_too_short

NAMES = st.from_regex(r"[a-z0-9]+(_[a-z0-9]+)*", fullmatch=True)
TRIALS = st.fixed_dictionaries(
    {
        "platform": NAMES,
        "mode": st.sampled_from(MODES),
        "cores": st.integers(1, 512),
        "application": NAMES,
        "scale": st.sampled_from(SCALES),
        "replicate": st.integers(1, 99),
        **{factor.name: st.sampled_from(factor.values) for factor in FACTORS},
    }
)


@given(trial=TRIALS, scenario=st.sampled_from(SCENARIOS))
def test_every_possible_id_matches_the_grammar(trial: dict[str, Any], scenario: str) -> None:
    for found in possible_ids(trial, scenario):
        assert re.search(id_pattern(), found)
        assert found.endswith(f"-r{trial['replicate']:02d}")


@given(one=TRIALS, other=TRIALS)
def test_trials_that_differ_have_different_ids(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Ids without a scale differ if anything but the scale differs; ids with it differ always."""
    rest = [{k: v for k, v in trial.items() if k != "scale"} for trial in (one, other)]
    ids = [possible_ids(trial, SCENARIOS[0]) for trial in (one, other)]
    assert (ids[0][1] == ids[1][1]) == (one == other)
    assert (ids[0][0] == ids[1][0]) == (rest[0] == rest[1])


def test_ids_are_as_documented() -> None:
    defaults = {factor.name: factor.default for factor in FACTORS}
    size = size_id("cn", "pinned", 2, defaults)
    assert instance_id(size, 1) == "cn-pinned-c02-r01"
    found = trial_id(size, "faces", None, SCENARIOS[0], 1, defaults)
    assert found == "cn-pinned-c02-faces-r01"
    values = {**defaults, "variant": "twin", "thread_policy": "matched", "processor": "gpu"}
    size = size_id("cn", "pinned", 2, values)
    found = trial_id(size, "faces", "tiny", "server", 12, values)
    assert found == "cn-pinned-c02-twin-faces-tiny-server-matched-gpu-r12"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default": "c"}, "default 'c'"),
        ({"values": ("a", "B")}, "value 'B' does not match"),
        ({"label": "{} of it"}, "value 'a of it' does not match"),
        ({"own_kernel": True}, "own_kernel with baseline 'same', 'default' needed"),
    ],
)
def test_an_invalid_factor_is_refused(changes: Any, message: str) -> None:
    good: dict[str, Any] = {
        "name": "x", "plan_key": "xs", "values": ("a", "b"), "default": "a", "grain": "trial",
        "meaning": "M.",
    }  # fmt: skip
    Factor(**good)
    with pytest.raises(ValueError, match=message):
        Factor(**(good | changes))


def test_no_two_factors_have_the_same_label() -> None:
    """Ids contain labels of values, but not the names of factors."""
    named = [
        factor.named(value)
        for factor in FACTORS
        for value in factor.values
        if value != factor.default
    ]
    words = [*named, *SCALES, *SCENARIOS]
    assert len(set(words)) == len(words)


def test_headings_do_not_name_defaults() -> None:
    (policy,) = (factor for factor in FACTORS if factor.name == "thread_policy")
    assert [policy.words(value) for value in values_of("thread_policy")] == ["", "matched threads"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grain": "sample"}, "grain sample in group other"),
        ({"group": "phase"}, "grain trial in group phase"),
        ({"path": ("measures",)}, "NAME"),
        ({"path": ("measures", "a", "b")}, "NAME"),
    ],
)
def test_a_measure_that_cannot_be_in_a_result_is_refused(changes: Any, message: str) -> None:
    good: dict[str, Any] = {
        "name": "x", "column": "x_count", "unit": "count", "grain": "trial",
        "path": ("measures", "x"), "group": "other", "words": "x", "meaning": "M.",
    }  # fmt: skip
    Measure(**good)
    with pytest.raises(ValueError, match=message):
        Measure(**(good | changes))


def test_a_measure_reads_its_number_or_none() -> None:
    (peak,) = of_group("other")
    assert peak.read({"memory_kib": {"peak": 5}}) == 5
    assert [peak.read(document) for document in ({}, {"memory_kib": None})] == [None, None]


EARLY = " * Only processed 20 queries.  * Need to process at least 64 queries for early stopping."


@pytest.mark.parametrize(
    ("reasons", "short"),
    [
        ([EARLY], True),
        (["Only processed 1 queries.", EARLY], True),
        ([EARLY, "Reduce target QPS to improve latency."], False),
        (["A reason that quotes: Only processed 20 queries."], False),
        ([], False),
    ],
)
def test_a_run_is_only_too_short_if_all_reasons_are_its_number_of_queries(
    reasons: list[str], short: bool
) -> None:
    assert only_too_short(reasons) is short


def test_names_and_columns_are_unique_and_every_unit_is_shown() -> None:
    for part in ("name", "column"):
        found = [getattr(measure, part) for measure in MEASURES]
        assert len(set(found)) == len(found)
    assert {measure.unit for measure in MEASURES} <= SHOWN.keys()
