"""The columns of a loaded sweep: name, type and meaning.

`frames` makes its frames of these schemas, Parquet exports carry them as metadata, and
`virtbed schema samples` prints them. Times are integer nanoseconds; `*_kib` and `*_mib` are KiB and
MiB. Columns of factors and measures come from their registries in `virtbed_contract`.
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
    """A column's Polars type and its meaning in words."""

    type: pl.DataType
    meaning: str


_TEXT, _WHOLE, _FLAG, _NUMBER = pl.String(), pl.Int64(), pl.Boolean(), pl.Float64()


def _measured(measure: Measure) -> Column:
    own = measure.path[0] == "measures"  # which the result's schema allows to be any number
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
    "quota_cpus": Column(_NUMBER, "Requested CPU quota, in CPUs; null for none."),
    "cores": Column(_WHOLE, "CPUs of the instance."),
    **_FACTORS,
    "slowdown": Column(_NUMBER, "Share of each request's time that was added on purpose."),
    "memory_mib": Column(_WHOLE, "Memory of the instance."),
    "application": Column(_TEXT, "Name of the application."),
    "scale": Column(_TEXT, "trained, mlperf or tiny."),
    "replicate": Column(
        _WHOLE, "Pass over every cell, from 1; the part of one after a pause has its own number."
    ),
    "position": Column(_WHOLE, "Place of the trial in the sweep's order, from 1."),
    "accelerator": Column(_TEXT, "none, kvm or tcg (emulated)."),
    "emulated": Column(_FLAG, "Whether machine or host was emulated: its times are no overhead."),
    "host": Column(_TEXT, "Name of the bench host."),
    "hosts": Column(_TEXT, "The hosts of its sweep that are alike and pooled."),
    "image_digest": Column(_TEXT, "Digest of the root filesystem that every platform ran."),
    "started_at": Column(_TEXT, "When the trial started, UTC, ISO 8601."),
    "attempt": Column(_WHOLE, "Number of the attempt at the trial, from 1."),
    "application_version": Column(_TEXT, "Version of the application."),
    "model": Column(_TEXT, "Model of the application."),
    "weights": Column(_TEXT, "trained, or seeded: a model's work without its answers."),
    "frameworks": Column(_TEXT, "Each framework and its version."),
    "tensorflow": Column(_TEXT, "Version of TensorFlow."),
    "keras": Column(_TEXT, "Version of Keras."),
    "python": Column(_TEXT, "Version of Python."),
    "kernel": Column(_TEXT, "Kernel that the process saw."),
    "kernel_kind": Column(_TEXT, "Kind of that kernel: the machine, and factors of its guest."),
    "clocksource": Column(_TEXT, "Clock source of that kernel."),
    "cpu_model": Column(_TEXT, "Model of the CPUs, as the process saw it."),
    "isa": Column(_TEXT, "Instruction-set extensions that the process saw."),
    "governor": Column(_TEXT, "Frequency governor; null for none."),
    "turbo": Column(_FLAG, "Whether CPUs may run above their base clock rate."),
    "mhz": Column(_NUMBER, "Mean clock rate before and after the measured requests, in MHz."),
    "transparent_hugepage": Column(_TEXT, "Setting of transparent huge pages."),
    "mitigations": Column(
        _TEXT,
        "The kernel's mitigations of CPU vulnerabilities, without what depends on online CPUs.",
    ),
    **RECORDED_ASIDE,
    "intra_op": Column(_WHOLE, "Threads within an operation; 0: the framework chose."),
    "inter_op": Column(_WHOLE, "Threads between operations; 0: the framework chose."),
    "onednn_isa": Column(_TEXT, "Instruction set that oneDNN chose."),
    "usable_cores": Column(_WHOLE, "Cores that affinity and quota left to the process."),
    "pool_threads": Column(
        _WHOLE, "Threads of the larger of the two pools; 0: the framework chose."
    ),
    "busy_cpus": Column(
        _NUMBER, "Mean number of CPUs that the process kept busy while it measured, or null."
    ),
    "throttled_share": Column(
        _NUMBER,
        "Share of the quota's periods in which the process was throttled, while it measured; null "
        "without a quota.",
    ),
    "neighbours_cpus": Column(
        _TEXT, "CPUs of each neighbour, and what shares them; null without neighbours."
    ),
    "neighbours_busy": Column(
        _NUMBER,
        "Share of its CPUs that the least busy neighbour kept busy; null without neighbours, or if "
        "unknown.",
    ),
    "scenario": Column(_TEXT, "single_stream, multi_stream, offline or server."),
    "judged_by": Column(_TEXT, "Measure of the scenario: e2e, latency or throughput."),
    "rules": Column(_TEXT, "quick, or study (MLPerf's minimums)."),
    "target_qps": Column(_NUMBER, "Requested rate, in requests per second."),
    "target_latency_ms": Column(_NUMBER, "Bound on the 99th percentile of latency."),
    "loadgen_validity": Column(_TEXT, "MLPerf LoadGen's verdict on the run."),
    "loadgen_reasons": Column(pl.List(_TEXT), "LoadGen's reasons for an invalid run."),
    "loadgen_queries": Column(_WHOLE, "Queries that LoadGen issued."),
    "loadgen_per_second": Column(_NUMBER, "Samples per second that LoadGen counted, or null."),
    **{
        f"loadgen_p{p}_ns": Column(_WHOLE, f"LoadGen's own {p}th percentile of latency.")
        for p in PERCENTILES
    },
    "answers_digest": Column(_TEXT, "Digest of all answers."),
    "times_digest": Column(_TEXT, "Digest of the measured samples: equal digests mean a copy."),
    "input_seed": Column(_WHOLE, "Seed of the inputs."),
    "inputs": Column(_TEXT, "Names of the inputs of the measured requests."),
    **_OF_TRIALS,
    "warnings": Column(pl.List(_TEXT), "Warnings of the trial."),
    "suspicions": Column(pl.List(_TEXT), "Confounders above their thresholds, with numbers."),
}
SAMPLE: dict[str, Column] = {
    "trial": TRIAL["trial"],
    "sample": Column(_WHOLE, "Number of the request within its trial, from 0."),
    "input": Column(_TEXT, "Name of the input."),
    "queue_ns": Column(_WHOLE, "Wait in LoadGen's queue, not part of e2e_ns."),
    "latency_ns": Column(
        _WHOLE,
        "From the issue of a query to its answer: e2e_ns, in server and multi_stream with the "
        "queue; null before the last sample of a query, and in offline.",
    ),
    **_OF_SAMPLES,
    "warmup": Column(_FLAG, "Whether the request was issued before the measured ones."),
}


def types(columns: dict[str, Column]) -> dict[str, pl.DataType]:
    """Return the Polars schema of columns: their types by name."""
    return {name: column.type for name, column in columns.items()}


def described() -> dict[str, dict[str, str]]:
    """Return type and meaning of every column of an export.

    Returns:
        A dictionary per column with `type` (Polars' name; String for enumerations) and `meaning`,
        by the column's name, in the order of the export.

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
