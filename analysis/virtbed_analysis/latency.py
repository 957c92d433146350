"""Latency as MLPerf LoadGen defines it, and the time that each scenario is judged by.

A latency is the time from the issue of a query to its answer.

Which part of it is the queue depends on the scenario:

- `single_stream` issues a request when the one before is answered: its latency is its e2e time.
- `server` issues requests when they arrive: a latency is the wait in the queue and the e2e time.
- `multi_stream` issues queries of several samples: the latency of a query is the time to its last
  answer. The query's last sample has it; the others have none.
- `offline` issues everything at once: a latency has no meaning there, only throughput has.

`JUDGED_BY` of the contract says which measure a scenario is judged by; `judged_ns` of the sums that
`sums` makes is the one place that works it out, for samples in `reduction` and for one result in
`of_result`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from virtbed_contract.measures import JUDGED_BY

LOADED = tuple(name for name, judged in JUDGED_BY.items() if judged.name == "latency")
"""Scenarios in which latency is more than the e2e time of one request."""
WHOLE = tuple(name for name, judged in JUDGED_BY.items() if judged.grain == "trial")
"""Scenarios judged by what a whole trial has, and no single request or input."""
BATCH = tuple(name for name, judged in JUDGED_BY.items() if judged.name == "throughput")
"""Scenarios that are judged by throughput."""
PERCENTILES = (50, 90, 99)
"""The percentiles of LoadGen that are compared."""

# LoadGen's reason for a run that is too short, which the quick rules do not promise to avoid.
_SHORT = r"^[ *]*Only processed \d+ queries\."

# From the issue of its query to the answer of this sample.
ANSWERED = pl.col("queue_ns") + pl.col("e2e_ns")


def with_latency(samples: pl.DataFrame) -> pl.DataFrame:
    """Return samples, in the order of their trials, with their `latency_ns`.

    It is null for a sample that is not the last of its query, and in `offline`.

    Args:
        samples: With the columns of their trials; `loadgen_queries` tells where a query of
            several samples ends, since LoadGen issues queries of one size.
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
    """Return what `judged_ns` needs of a group of samples; as numbers that do not overflow."""
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
    """Return the time in ns that a result is judged by, of a scenario of `WHOLE`."""
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
    """Return whether LoadGen calls a run valid, or faults its length alone under the quick rules.

    Those take as many requests as a plan says, and ask nothing of MLPerf's minimum.
    """
    valid = pl.col("loadgen_validity") == "VALID"
    reasons = pl.col("loadgen_reasons")
    short = reasons.list.eval(pl.element().str.contains(_SHORT)).list.all()
    return valid | ((pl.col("rules") == "quick") & (reasons.list.len() > 0) & short)


def _last_of_query() -> pl.Expr:
    measured = (~pl.col("warmup")).sum().over("trial").cast(pl.Int64)
    queries = pl.col("loadgen_queries")
    left = pl.len().over("trial").cast(pl.Int64) - 1 - pl.col("sample")  # samples that follow
    # Were the sizes unlike: what is issued with a sample is started after its answer, and so has
    # waited longer.
    same_trial = pl.col("trial").shift(-1) == pl.col("trial")
    goes_on = same_trial & (pl.col("queue_ns").shift(-1) >= ANSWERED)
    return (
        pl.when(measured % queries == 0)
        .then(left % (measured // queries) == 0)
        .otherwise(~goes_on.fill_null(False))
    )


def said(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what LoadGen says in a result, as columns of a trial."""
    loadgen = result["loadgen"]
    rate = loadgen.get("samples_per_second")
    return {
        "loadgen_validity": loadgen["validity"],
        "loadgen_reasons": loadgen["reasons"],
        "loadgen_queries": loadgen["queries"],
        "loadgen_per_second": rate if rate is not None and math.isfinite(rate) else None,
        **{f"loadgen_p{p}_ns": loadgen["percentiles_ns"].get(f"{p}.00") for p in PERCENTILES},
    }
