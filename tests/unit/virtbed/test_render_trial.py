"""What a terminal says of one trial."""

from __future__ import annotations

import pytest

from virtbed.render.trial import _judged, _phases


@pytest.mark.parametrize(("n", "p90"), [(1, 1), (9, 9), (10, 9), (20, 18), (21, 19)])
def test_a_percentile_is_the_least_time_that_so_many_percent_do_not_exceed(
    n: int, p90: int
) -> None:
    samples = [
        {"warmup": False, **{f"{phase}_ns": k * 10**6 for phase in ("pre", "infer", "post", "e2e")}}
        for k in range(1, n + 1)
    ]
    settings = {
        "samples": n, "scenario": "single_stream", "thread_policy": "default", "processor": "cpu"
    }  # fmt: skip
    table = _phases({"settings": settings, "samples": samples})
    (place,) = (n for n, column in enumerate(table.columns) if column.heading == "p90 ms")
    assert [row[place][0] for row in table.rows] == [f"{p90:.3f}"] * 4


@pytest.mark.parametrize(
    ("scenario", "queries", "message"),
    [
        ("single_stream", 4, []),
        ("server", 4, ["judged by latency: 35 ms on average, queue included"]),
        ("multi_stream", 2, ["judged by latency: 40 ms on average, queue included"]),
        ("offline", 1, ["judged by throughput: 80 samples/s"]),
    ],
)
def test_what_the_scenario_is_judged_by_is_said_where_it_is_no_phase(
    scenario: str, queries: int, message: list[str]
) -> None:
    """Of a warm-up, and four samples that are answered 30, 40, 30 and 40 ms after their issue."""
    waits = [(True, 500)] + [(False, ms) for ms in (10, 20, 10, 20)]
    if scenario == "offline":
        waits[-1] = (False, 30)
    samples = [
        {"warmup": warm, "input": "a", "e2e_ns": 20 * 10**6, "queue_ns": ms * 10**6}
        for warm, ms in waits
    ]
    document = {
        "settings": {"scenario": scenario}, "samples": samples, "loadgen": {"queries": queries}
    }  # fmt: skip
    assert [*_judged(document)] == message
