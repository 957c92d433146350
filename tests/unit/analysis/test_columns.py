"""Every column of an export is described once, with its type."""

from __future__ import annotations

import polars as pl

from virtbed_analysis import load
from virtbed_analysis.columns import SAMPLE, TRIAL, described, types
from virtbed_contract.factors import FACTORS
from virtbed_contract.measures import MEASURES

from .conftest import LISTED, Folder


def test_loaded_samples_have_the_columns_that_are_described(folder: Folder) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [10.0, 11.0]}, warmup_ms=(20.0,))
    samples = load(folder.path)
    wanted = types({**SAMPLE, **TRIAL})
    # Of platforms in the order of the sweep's own.
    assert samples.schema["platform"] == pl.Enum([*LISTED])
    wanted["platform"] = samples.schema["platform"]
    assert {name: samples.schema[name] for name in wanted} == wanted
    assert {*described()} == {*wanted}


def test_factors_and_measures_come_from_their_registries() -> None:
    listed = described()
    for factor in FACTORS:
        assert listed[factor.name] == {"type": "String", "meaning": factor.meaning}
    for measure in MEASURES:
        where = SAMPLE if measure.grain == "sample" else TRIAL
        assert where[measure.column].meaning == measure.meaning


def test_names_contain_units() -> None:
    times = [name for name, column in {**SAMPLE, **TRIAL}.items() if name.endswith("_ns")]
    assert "e2e_ns" in times
    whole = {name for name in times if {**SAMPLE, **TRIAL}[name].type == pl.Int64()}
    assert whole >= {"e2e_ns", "queue_ns", "pre_ns"}
    assert all(column.meaning.endswith(".") for column in TRIAL.values())
