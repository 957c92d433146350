"""The columns of a loaded sweep: name, type and meaning. Parquet files carry them as metadata.

Times are integer nanoseconds; `*_kib` and `*_mib` are binary kilo- and megabytes. Factors and
measures come from their registries.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from virtbed_analysis.latency import PERCENTILES
from virtbed_analysis.unlike import BENCH
from virtbed_contract.factors import FACTORS, MODES
from virtbed_contract.likeness import RECORDED, held
from virtbed_contract.measures import MEASURES, Measure


class Column(NamedTuple):
    """A column: its type, and what it holds."""

    type: pl.DataType
    meaning: str


_TEXT, _WHOLE, _FLAG, _NUMBER = pl.String(), pl.Int64(), pl.Boolean(), pl.Float64()


def _measured(measure: Measure) -> Column:
    own = measure.path[0] == "measures"  # of which the result's schema asks for any number
    return Column(_NUMBER if own else _WHOLE, measure.meaning)


_FACTORS = {factor.name: Column(pl.Enum(factor.values), factor.meaning) for factor in FACTORS}
_OF_TRIALS, _OF_SAMPLES = (
    {m.column: _measured(m) for m in MEASURES if m.grain == grain} for grain in ("trial", "sample")
)

RECORDED_ASIDE = {
    **{
        one.name: Column(_NUMBER if one.number else _TEXT, f"What is recorded of {one.words}.")
        for one in RECORDED
        if one.held != "own"
    },
    **{BENCH + one.name: Column(_TEXT, f"The bench host's {one.words}.") for one in held("kernel")},
}

TRIAL: dict[str, Column] = {
    "trial": Column(_TEXT, "Id of the trial within its sweep."),
    "sweep": Column(_TEXT, "Name of the plan."),
    "plan_digest": Column(_TEXT, "Digest of the plan."),
    "platform": Column(_TEXT, "Name of the platform."),
    "machine": Column(_TEXT, "What the kernel runs on."),
    "enclosure": Column(_TEXT, "What the process runs in."),
    "mode": Column(
        pl.Enum(MODES), "How the share of CPUs is enforced: vanilla by count, pinned by set."
    ),
    "quota_cpus": Column(_NUMBER, "CPU quota that was asked for, in CPUs; null for none."),
    "cores": Column(_WHOLE, "CPUs of the instance."),
    **_FACTORS,
    "slowdown": Column(_NUMBER, "Share of each request's time that was added on purpose."),
    "memory_mib": Column(_WHOLE, "Memory of the instance."),
    "application": Column(_TEXT, "Name of the application."),
    "scale": Column(_TEXT, "trained, mlperf or tiny."),
    "replicate": Column(
        _WHOLE, "Pass over every cell, from 1; what a pause cut off of one has a number of its own."
    ),
    "position": Column(_WHOLE, "Place of the trial in the sweep's order, from 1."),
    "accelerator": Column(_TEXT, "none, kvm or tcg (emulated)."),
    "emulated": Column(_FLAG, "Whether machine or host was emulated: no figure of the platform's."),
    "host": Column(_TEXT, "Name of the bench host."),
    "hosts": Column(_TEXT, "The hosts of its sweep that are alike, and so are pooled."),
    "image_digest": Column(_TEXT, "Digest of the root filesystem that every platform ran."),
    "started_at": Column(_TEXT, "When the trial started, UTC, ISO 8601."),
    "attempt": Column(_WHOLE, "Which attempt at the trial this is, from 1."),
    "application_version": Column(_TEXT, "Version of the application."),
    "model": Column(_TEXT, "Model of the application."),
    "weights": Column(_TEXT, "trained, or seeded: a model's work without its answers."),
    "frameworks": Column(_TEXT, "Each framework and its version."),
    "tensorflow": Column(_TEXT, "Version of TensorFlow."),
    "keras": Column(_TEXT, "Version of Keras."),
    "python": Column(_TEXT, "Version of Python."),
    "kernel": Column(_TEXT, "Kernel that the process saw."),
    "kernel_kind": Column(_TEXT, "Whose kernel that is: a machine's, with what sets it apart."),
    "clocksource": Column(_TEXT, "Clock source of that kernel."),
    "cpu_model": Column(_TEXT, "Model of the CPUs, as the process saw it."),
    "isa": Column(_TEXT, "Instruction-set extensions that the process saw."),
    "governor": Column(_TEXT, "Frequency governor; null for none."),
    "turbo": Column(_FLAG, "Whether CPUs may run above their base clock rate."),
    "mhz": Column(_NUMBER, "Mean clock rate before and after the measured requests, in MHz."),
    "transparent_hugepage": Column(_TEXT, "Setting of transparent huge pages."),
    "mitigations": Column(
        _TEXT,
        "What the kernel does about vulnerabilities of the CPUs, whichever of these are online.",
    ),
    **RECORDED_ASIDE,
    "intra_op": Column(_WHOLE, "Threads within an operation; 0 is the framework's own choice."),
    "inter_op": Column(_WHOLE, "Threads between operations; 0 is the framework's own choice."),
    "onednn_isa": Column(_TEXT, "Instruction set that oneDNN chose."),
    "usable_cores": Column(_WHOLE, "Cores that affinity and quota left to the process."),
    "pool_threads": Column(
        _WHOLE, "Threads of both pools, the larger one's; 0 is the framework's own choice."
    ),
    "busy_cpus": Column(
        _NUMBER, "CPUs that the process kept busy, on average, while it measured; null for unknown."
    ),
    "throttled_share": Column(
        _NUMBER,
        "Share of the quota's periods in which it stopped the process, while it measured; null "
        "without a quota.",
    ),
    "neighbours_cpus": Column(
        _TEXT, "CPUs of each neighbour, with what else runs there; null without any."
    ),
    "neighbours_busy": Column(
        _NUMBER,
        "Share of its CPUs that the least busy neighbour kept busy; null without any, or unknown.",
    ),
    "scenario": Column(_TEXT, "single_stream, multi_stream, offline or server."),
    "judged_by": Column(_TEXT, "What the scenario is judged by: e2e, latency or throughput."),
    "rules": Column(_TEXT, "quick, or study: MLPerf's minimums."),
    "target_qps": Column(_NUMBER, "Requests per second that were asked for."),
    "target_latency_ms": Column(_NUMBER, "Bound on the 99th percentile of latency."),
    "loadgen_validity": Column(_TEXT, "What MLPerf LoadGen says of the run."),
    "loadgen_reasons": Column(pl.List(_TEXT), "Why LoadGen says that the run is invalid."),
    "loadgen_queries": Column(_WHOLE, "Queries that LoadGen issued."),
    "loadgen_per_second": Column(_NUMBER, "Samples per second that LoadGen counted, or null."),
    **{
        f"loadgen_p{p}_ns": Column(_WHOLE, f"LoadGen's own {p}th percentile of latency.")
        for p in PERCENTILES
    },
    "answers_digest": Column(_TEXT, "Digest of all answers."),
    "times_digest": Column(_TEXT, "Digest of the measured samples: equal ones are copies."),
    "input_seed": Column(_WHOLE, "Seed of the inputs."),
    "inputs": Column(_TEXT, "Names of the inputs of the measured requests."),
    **_OF_TRIALS,
    "warnings": Column(pl.List(_TEXT), "What the trial warned of."),
    "suspicions": Column(pl.List(_TEXT), "What else moved during the trial, with the number."),
}
SAMPLE: dict[str, Column] = {
    "trial": TRIAL["trial"],
    "sample": Column(_WHOLE, "Number of the request within its trial, from 0."),
    "input": Column(_TEXT, "Name of the input."),
    "queue_ns": Column(_WHOLE, "Wait in LoadGen's queue, no part of e2e_ns."),
    "latency_ns": Column(
        _WHOLE,
        "From the issue of a query to its answer: e2e_ns, in server and multi_stream with the "
        "queue; null before the last sample of a query, and in offline.",
    ),
    **_OF_SAMPLES,
    "warmup": Column(_FLAG, "Whether the request was issued before the measured ones."),
}


def types(columns: dict[str, Column]) -> dict[str, pl.DataType]:
    """Return the columns' types by name."""
    return {name: column.type for name, column in columns.items()}


def described() -> dict[str, dict[str, str]]:
    """Return type and meaning of every column of an export, by name, in order.

    Example:
        >>> described()["e2e_ns"]["type"]
        'Int64'
    """
    return {
        name: {
            "type": str(_TEXT if isinstance(column.type, pl.Enum) else column.type),
            "meaning": column.meaning,
        }
        for name, column in {**SAMPLE, **TRIAL}.items()
    }
