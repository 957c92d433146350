"""What a terminal says of one trial."""

from __future__ import annotations

import pytest

from virtbed.render.trial import _phases


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
