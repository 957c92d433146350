"""Terminal output for one trial: percentiles, the judged measure, LoadGen's verdict."""

from __future__ import annotations

import pytest

from virtbed.render.trial import _judged, _phases, _too_short


@pytest.mark.parametrize(("n", "p90"), [(1, 1), (9, 9), (10, 9), (20, 18), (21, 19)])
def test_p90_is_the_least_time_that_90_percent_of_the_samples_do_not_exceed(
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
def test_the_judged_measure_is_printed_unless_it_is_a_phase(
    scenario: str, queries: int, message: list[str]
) -> None:
    """One warm-up, and four samples answered 30, 40, 30 and 40 ms after they were issued."""
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


SHORT = " * Only processed 20 queries.  * Need to process at least 64 queries for early stopping."


@pytest.mark.parametrize(
    ("rules", "validity", "reasons", "explained"),
    [
        ("quick", "INVALID", [SHORT], True),
        ("quick", "INVALID", ["Reduce target QPS to improve latency.", SHORT], False),
        ("quick", "INVALID", [], False),
        ("study", "INVALID", [SHORT], False),
        ("quick", "VALID", [], False),
    ],
)
def test_a_run_that_is_invalid_for_its_length_alone_names_the_options_that_change_it(
    rules: str, validity: str, reasons: list[str], explained: bool
) -> None:
    lines = [
        *_too_short({"rules": rules, "samples": 20}, {"validity": validity, "reasons": reasons})
    ]
    assert bool(lines) == explained
    assert all("20 requests" in line and "--samples" in line for line in lines)
    assert all("--rules study" in line for line in lines)
