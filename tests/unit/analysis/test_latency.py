"""The latency in each of LoadGen's scenarios."""

from __future__ import annotations

import polars as pl
import pytest

from virtbed_analysis import estimate
from virtbed_analysis.advice import Question, advise
from virtbed_analysis.frames import read_sweep

from .conftest import Folder, Json


def load(
    folder: Folder,
    scenario: str,
    waits_ms: list[float],
    *,
    platform: str = "bm",
    replicate: int = 1,
    e2e_ms: float = 20.0,
    queries: int | None = None,
) -> str:
    """Add a trial whose requests wait so long, after one warm-up."""
    times = {"a": [e2e_ms] * len(waits_ms)}
    trial = folder.trial(
        platform, "pinned", replicate, times, warmup_ms=(900.0,), scenario=scenario
    )

    def change(result: Json) -> None:
        for sample, wait in zip(result["samples"][1:], waits_ms, strict=True):
            sample["queue_ns"] = round(wait * 1e6) + apart_ns
        result["loadgen"]["queries"] = queries or len(waits_ms)
        result["confounders"]["window_ns"] += longest_ns

    # No two trials have the same times, to the nanosecond.
    apart_ns = replicate - 1 + 10 * (platform != "bm")
    longest_ns = apart_ns + round(max(waits_ms) * 1e6)
    folder.edit(f"trials/{trial}/result.json", change)
    folder.edit(
        f"trials/{trial}/evidence.json",
        lambda proof: proof.update(process_wall_ns=proof["process_wall_ns"] + longest_ns),
    )
    return trial


def latencies(folder: Folder) -> list[float | None]:
    measured = read_sweep(folder.path).samples.filter(~pl.col("warmup"))
    return [None if ns is None else ns / 1e6 for ns in measured["latency_ns"]]


def queries_of(size: int, e2e_ms: float, number: int) -> list[float]:
    """The wait of each sample of as many queries, whose samples are served one by one."""
    return [0.01 + place * e2e_ms for _ in range(number) for place in range(size)]


def test_a_request_that_waits_for_ten_seconds_is_late_in_server(folder: Folder) -> None:
    load(folder, "server", [10_000.0] * 100)
    assert latencies(folder) == [10_020.0] * 100
    (cell,) = estimate.cells(read_sweep(folder.path).samples).to_dicts()
    assert (cell["latency_p90_ms"], cell["latency_p99_ms"]) == (10_020, 10_020)
    assert cell["e2e_mean_ms"] == 20  # which the queue is no part of


def test_advice_uses_latency_including_the_queue(folder: Folder) -> None:
    for replicate in (1, 2, 3):
        load(folder, "server", [10_000.0 + replicate] * 100, replicate=replicate)
    question = Question("image_classification", "trained", "server", slo_ms=50)
    assert advise(read_sweep(folder.path), question)["choice"] is None


def test_latency_is_the_e2e_time_in_single_stream(folder: Folder) -> None:
    load(folder, "single_stream", [0.004] * 3)
    assert latencies(folder) == [20.0] * 3


@pytest.mark.parametrize("size", [1, 4, 8])
def test_a_query_of_several_samples_is_answered_with_its_last(folder: Folder, size: int) -> None:
    load(folder, "multi_stream", queries_of(size, 20.0, 3), queries=3)
    assert latencies(folder) == ([None] * (size - 1) + [0.01 + size * 20.0]) * 3


def test_queries_of_unlike_sizes_are_distinguished_by_their_waits(folder: Folder) -> None:
    waits = [*queries_of(3, 20.0, 1), *queries_of(2, 20.0, 1)]
    load(folder, "multi_stream", waits, queries=2)
    assert latencies(folder) == [None, None, 60.01, None, 40.01]


def test_a_query_counts_once_in_a_percentile(folder: Folder) -> None:
    """Nine queries of 80 ms and one of 160: the 90th percentile is 80, and 99 needs 100 queries."""
    waits = queries_of(4, 20.0, 9) + [80.0 + wait for wait in queries_of(4, 20.0, 1)]
    load(folder, "multi_stream", waits, queries=10)
    (cell,) = estimate.cells(read_sweep(folder.path).samples).to_dicts()
    assert cell["latency_p90_ms"] == pytest.approx(80.01)
    assert cell["latency_p99_ms"] is None
    assert cell["samples"] == 40


def test_offline_has_no_latency(folder: Folder) -> None:
    load(folder, "offline", queries_of(200, 20.0, 1), queries=1)
    assert latencies(folder) == [None] * 200
    (cell,) = estimate.cells(read_sweep(folder.path).samples).to_dicts()
    assert (cell["latency_p90_ms"], cell["latency_p99_ms"]) == (None, None)


def test_queries_do_not_cross_trials(folder: Folder) -> None:
    load(folder, "multi_stream", queries_of(2, 20.0, 2), queries=2)
    load(folder, "multi_stream", queries_of(4, 20.0, 1), queries=1, replicate=2)
    load(folder, "server", [5.0], replicate=3)
    values = [ms and pytest.approx(ms) for ms in latencies(folder)]
    assert values == [None, 40.01, None, 40.01, None, None, None, 80.01, 25.0]
