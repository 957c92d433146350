"""Latency as MLPerf LoadGen defines it, and the time that each scenario is judged by.

A latency is the time from the issue of a query to its answer. Its relation to the e2e time depends
on the scenario:

- `single_stream` issues a request when the previous one is answered: latency = e2e time.
- `server` issues requests at random arrival times: latency = wait in the queue + e2e time.
- `multi_stream` issues queries of several samples: the latency of a query is the time to its last
  answer. It is recorded with the query's last sample; the others have none.
- `offline` issues all samples at once: latency has no meaning, throughput has.

`virtbed_contract.measures.JUDGED_BY` names the measure of each scenario. `judged_ns`, applied to
the aggregates of `sums`, is the only place that computes it, both for samples (`reduction`) and for
one result (`of_result`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from virtbed_contract.measures import JUDGED_BY, TOO_SHORT

LOADED = tuple(name for name, judged in JUDGED_BY.items() if judged.name == "latency")
"""Scenarios judged by latency, which includes the queue."""
WHOLE = tuple(name for name, judged in JUDGED_BY.items() if judged.grain == "trial")
"""Scenarios judged by one value per trial, not per request or input."""
BATCH = tuple(name for name, judged in JUDGED_BY.items() if judged.name == "throughput")
"""Scenarios judged by throughput."""
PERCENTILES = (50, 90, 99)
"""The percentiles of LoadGen that are compared with ours."""

# From the issue of its query to the answer of this sample.
ANSWERED = pl.col("queue_ns") + pl.col("e2e_ns")


def with_latency(samples: pl.DataFrame) -> pl.DataFrame:
    """Return samples with the column `latency_ns`.

    It is null for a sample that is not the last of its query, and in `offline`.

    Args:
        samples: One row per sample in the order of its trial: `trial`, `sample`, `scenario`,
            `warmup`, `queue_ns`, `e2e_ns` and `loadgen_queries`. The number of queries shows where
            a query of several samples ends, since LoadGen issues queries of one size.
    """
    scenario = pl.col("scenario")
    return samples.with_columns(
        pl.when(scenario == "single_stream")
        .then("e2e_ns")
        .when((scenario == "server") | ((scenario == "multi_stream") & _last_of_query()))
        .then(ANSWERED)
        .alias("latency_ns")
    )


def sums() -> list[pl.Expr]:
    """Return the aggregates of a group of samples that `judged_ns` needs.

    Sums are floats, since a file may state times whose integer sum overflows.
    """
    return [
        pl.len().cast(pl.Int64).alias("n"),
        ANSWERED.max().cast(pl.Float64).alias("answered_ns"),
        pl.col("latency_ns").cast(pl.Float64).sum(),
        pl.col("latency_ns").count().cast(pl.Int64).alias("latency_n"),
    ]


def judged_ns() -> pl.Expr:
    """Return the time that a trial of a scenario of `WHOLE` is judged by, of the rows of `sums`.

    The mean latency; where throughput counts, its inverse: the time to the last answer, per sample.
    """
    batch = pl.col("scenario").first().is_in(BATCH)
    per_sample = pl.col("answered_ns").max() / pl.col("n").sum()
    known = pl.col("latency_n").sum() > 0
    latency = pl.when(known).then(pl.col("latency_ns").sum() / pl.col("latency_n").sum())
    return pl.when(batch).then(per_sample).otherwise(latency)


def of_result(result: Mapping[str, Any]) -> float:
    """Return the time in ns that one result is judged by; its scenario must be in `WHOLE`."""
    rows = [
        {**{name: sample[name] for name in _NEEDED}, "sample": number, "trial": ""}
        for number, sample in enumerate(result["samples"])
    ]
    samples = pl.DataFrame(rows).with_columns(
        scenario=pl.lit(result["settings"]["scenario"]),
        loadgen_queries=pl.lit(result["loadgen"]["queries"]),
    )
    measured = with_latency(samples).filter(~pl.col("warmup"))
    whole = measured.group_by("scenario").agg(sums())
    return float(whole.select(judged_ns()).item())


_NEEDED = ("warmup", "queue_ns", "e2e_ns")


def usable() -> pl.Expr:
    """Return whether a run is usable: VALID by LoadGen, or too short only, under the quick rules.

    It is `only_too_short` on columns.
    """
    valid = pl.col("loadgen_validity") == "VALID"
    reasons = pl.col("loadgen_reasons")
    short = reasons.list.eval(pl.element().str.contains(TOO_SHORT)).list.all()
    return valid | ((pl.col("rules") == "quick") & (reasons.list.len() > 0) & short)


def _last_of_query() -> pl.Expr:
    measured = (~pl.col("warmup")).sum().over("trial").cast(pl.Int64)
    queries = pl.col("loadgen_queries")
    left = pl.len().over("trial").cast(pl.Int64) - 1 - pl.col("sample")  # samples that follow
    # If queries have unequal sizes: a sample of the same query starts after this one's answer, so
    # its wait is at least as long as this one's latency.
    same_trial = pl.col("trial").shift(-1) == pl.col("trial")
    continues = same_trial & (pl.col("queue_ns").shift(-1) >= ANSWERED)
    return (
        pl.when(measured % queries == 0)
        .then(left % (measured // queries) == 0)
        .otherwise(~continues.fill_null(False))
    )


def loadgen_columns(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return LoadGen's verdict and figures of a result, as columns of a trial."""
    loadgen = result["loadgen"]
    rate = loadgen.get("samples_per_second")
    return {
        "loadgen_validity": loadgen["validity"],
        "loadgen_reasons": loadgen["reasons"],
        "loadgen_queries": loadgen["queries"],
        "loadgen_per_second": rate if rate is not None and math.isfinite(rate) else None,
        **{f"loadgen_p{p}_ns": loadgen["percentiles_ns"].get(f"{p}.00") for p in PERCENTILES},
    }
