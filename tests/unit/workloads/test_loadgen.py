"""Reading of LoadGen's verdict from its log; test_harness.py runs the real LoadGen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.loadgen import CLOCKS_AGREE, Load, _settings, _verdict, clocks, read_detail

DETAIL = {
    "loadgen_version": "6.0", "result_validity": "INVALID", "effective_min_duration_ms": 600_000,
    "result_query_count": 40, "result_invalid_reason": "Min duration satisfied : NO",
    "result_50.00_percentile_latency_ns": 2_000, "result_99.00_percentile_latency_ns": 9_000,
    "result_50.00_percentile_per_query_latency_ns": 16_000, "result_samples_per_second": 7.5,
}  # fmt: skip


def test_the_last_value_of_each_key_counts_and_other_lines_are_skipped() -> None:
    entries = [("a", 1), ("b", "x"), ("a", 2)]
    log = [f":::MLLOG {json.dumps({'key': key, 'value': value})}" for key, value in entries]
    assert read_detail("\n".join(["a banner", *log, ""])) == {"a": 2, "b": "x"}


@pytest.mark.parametrize(("apart", "agree"), [(0, True), (0.9, True), (1.1, False), (-1.1, False)])
def test_two_clocks_agree_within_a_share(apart: float, agree: bool) -> None:
    median_ns = 1_000_000
    found = clocks([1, median_ns, 10**12], round(median_ns * (1 + apart * CLOCKS_AGREE)))
    assert (found["harness_median_ns"], found["agree"]) == (median_ns, agree)


def test_a_verdict_has_loadgens_reasons_and_percentiles() -> None:
    found = _verdict(Load(), DETAIL, [2_000, 2_000, 2_000])
    assert (found["validity"], found["queries"]) == ("INVALID", 40)
    assert found["samples_per_second"] == 7.5
    assert found["reasons"] == ["Min duration satisfied : NO"]
    assert found["percentiles_ns"] == {"50.00": 2_000, "99.00": 9_000}


def test_the_latency_of_multi_stream_is_that_of_a_query() -> None:
    found = _verdict(Load(scenario="multi_stream"), DETAIL, [2_000])
    assert found["percentiles_ns"] == {"50.00": 16_000}


def test_a_valid_test_has_no_reasons() -> None:
    detail: dict[str, Any] = {**DETAIL, "result_validity": "VALID"}
    assert _verdict(Load(), detail, [2_000])["reasons"] == []


def test_a_server_needs_a_rate_and_a_bound() -> None:
    with pytest.raises(ApplicationError, match=r"--target-qps \(target_qps in a plan\) is needed"):
        _settings(None, Load(scenario="server"), 1.0)
    with pytest.raises(
        ApplicationError, match=r"--target-latency-ms \(target_latency_ms in a plan"
    ):
        _settings(None, Load(scenario="server", target_qps=5.0), 1.0)
