"""Slow requests that follow each other are one burst, and an input that takes long is none."""

from __future__ import annotations

import polars as pl

from virtbed_analysis.bursts import BURSTS, instances, with_bursts
from virtbed_analysis.independence import NEIGHBOURS

BOUND_NS = 100.0


def requests(latencies: list[float | None], inputs: list[str] | None = None) -> pl.DataFrame:
    """Return one trial's requests in their order."""
    return pl.DataFrame(
        {
            "trial": ["t"] * len(latencies),
            "sample": range(len(latencies)),
            "input": inputs or ["a"] * len(latencies),
            "latency_ns": latencies,
        },
        schema_overrides={"latency_ns": pl.Float64},
    )


def at(samples: pl.DataFrame, name: str) -> list[int]:
    return samples.filter(pl.col(name))["sample"].to_list()


def test_a_burst_is_counted_once_and_another_after_a_gap() -> None:
    slow, quick = 900.0, 10.0
    latencies: list[float | None] = [quick] * 40
    for place in (5, 6, 7, 20, 20 + NEIGHBOURS, 30):
        latencies[place] = slow
    found = with_bursts(requests(latencies), BOUND_NS)
    assert at(found, "bursts") == [5, 20, 30]


def test_a_request_without_a_latency_is_kept_and_not_counted() -> None:
    found = with_bursts(requests([10.0, None, 10.0]), BOUND_NS)
    assert found.height == 3
    assert found["bursts"].to_list() == [False, None, False]


def test_an_input_that_takes_longer_than_others_is_no_burst() -> None:
    """By a bound it is beyond; by what is usual for its input it is not slow."""
    inputs = ["long" if place % 10 == 0 else "short" for place in range(100)]
    latencies: list[float | None] = [
        (500.0 if name == "long" else 10.0) + place / 1000 for place, name in enumerate(inputs)
    ]
    found = with_bursts(requests(latencies, inputs), BOUND_NS)
    assert at(found, "bursts") == list(range(0, 100, 10))
    assert set(at(found, "slowest")).isdisjoint(range(0, 50, 10))


def test_a_burst_does_not_cross_trials() -> None:
    one, other = requests([900.0, 10.0, 10.0, 900.0]), requests([900.0, 10.0, 10.0, 10.0])
    both = pl.concat([one, other.with_columns(trial=pl.lit("u"))])
    found = with_bursts(both, BOUND_NS)
    assert found.filter(pl.col("bursts"))["trial"].to_list() == ["t", "t", "u"]


def test_instances_are_the_sums_of_trials() -> None:
    row = {"waited": 40, "beyond": 6, "bursts": 3, "slowest": 4, "slow_bursts": 2}
    (instance,) = instances(pl.DataFrame([row]))
    assert (instance.requests, instance.beyond) == (40, 6)
    assert [getattr(instance, name) for name in BURSTS] == [3, 4, 2]
