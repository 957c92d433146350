"""The columns of a loaded sweep: name, type and meaning. Parquet files carry them as metadata.

Times are integer nanoseconds; `*_kib` and `*_mib` are binary kilo- and megabytes.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

SAMPLES_SCHEMA = "virtbed.samples/1"


class Column(NamedTuple):
    """A column: its type, and what it holds."""

    type: pl.DataType
    meaning: str


_TEXT, _WHOLE, _FLAG = pl.String(), pl.Int64(), pl.Boolean()

TRIAL: dict[str, Column] = {
    "trial": Column(_TEXT, "Id of the trial within its sweep."),
    "sweep": Column(_TEXT, "Name of the plan."),
    "plan_digest": Column(_TEXT, "Digest of the plan."),
    "platform": Column(_TEXT, "bm, vm, cn or vmcn."),
    "machine": Column(_TEXT, "metal or kvm."),
    "enclosure": Column(_TEXT, "process or docker."),
    "mode": Column(_TEXT, "How the share of CPU is enforced: vanilla by count, pinned by set."),
    "cores": Column(_WHOLE, "CPUs of the instance."),
    "variant": Column(_TEXT, "plain; twin and slowed calibrate the testbed."),
    "slowdown": Column(pl.Float64(), "Share of each request's time that was added on purpose."),
    "memory_mib": Column(_WHOLE, "Memory of the instance."),
    "application": Column(_TEXT, "Name of the application."),
    "scale": Column(_TEXT, "trained, mlperf or tiny."),
    "processor": Column(_TEXT, "cpu or gpu."),
    "replicate": Column(_WHOLE, "Pass over every cell, from 1."),
    "position": Column(_WHOLE, "Place of the trial in the sweep's order, from 1."),
    "accelerator": Column(_TEXT, "none, kvm or tcg (emulated)."),
    "emulated": Column(_FLAG, "Whether the machine was emulated: no figure of the platform's."),
    "host": Column(_TEXT, "Name of the bench host."),
    "image_digest": Column(_TEXT, "Digest of the root filesystem that every platform ran."),
    "started_at": Column(_TEXT, "When the trial began, UTC, ISO 8601."),
    "attempt": Column(_WHOLE, "Which attempt at the trial this is, from 1."),
    "application_version": Column(_TEXT, "Version of the application."),
    "model": Column(_TEXT, "Model of the application."),
    "weights": Column(_TEXT, "trained, or seeded: a model's work without its answers."),
    "tensorflow": Column(_TEXT, "Version of TensorFlow."),
    "keras": Column(_TEXT, "Version of Keras."),
    "python": Column(_TEXT, "Version of Python."),
    "kernel": Column(_TEXT, "Kernel that the process saw."),
    "onednn_isa": Column(_TEXT, "Instruction set that oneDNN chose."),
    "scenario": Column(_TEXT, "single_stream, multi_stream, offline or server."),
    "rules": Column(_TEXT, "quick, or study: MLPerf's minimums."),
    "thread_policy": Column(_TEXT, "default: the framework's own choice; matched: usable cores."),
    "loadgen_validity": Column(_TEXT, "What MLPerf LoadGen says of the run."),
    "answers_digest": Column(_TEXT, "Digest of all answers."),
    "peak_memory_kib": Column(_WHOLE, "Largest resident memory of the process."),
    "input_seed": Column(_WHOLE, "Seed of the inputs."),
    "spawn_ns": Column(_WHOLE, "From launch to the first line of the harness."),
    "import_ns": Column(_WHOLE, "Imports of the frameworks."),
    "load_ns": Column(_WHOLE, "Loading the model."),
    "first_call_ns": Column(_WHOLE, "The first request."),
    "warnings": Column(pl.List(_TEXT), "What the trial warned of."),
    "suspicions": Column(pl.List(_TEXT), "What beside the trial moved, with the number."),
}
SAMPLE: dict[str, Column] = {
    "trial": TRIAL["trial"],
    "sample": Column(_WHOLE, "Number of the request within its trial, from 0."),
    "input": Column(_TEXT, "Name of the input."),
    "queue_ns": Column(_WHOLE, "Wait in LoadGen's queue, no part of e2e_ns."),
    "pre_ns": Column(_WHOLE, "Preprocessing."),
    "infer_ns": Column(_WHOLE, "Inference."),
    "post_ns": Column(_WHOLE, "Postprocessing."),
    "e2e_ns": Column(_WHOLE, "The request from end to end."),
    "warmup": Column(_FLAG, "Whether the request came before the measured ones."),
}


def types(columns: dict[str, Column]) -> dict[str, pl.DataType]:
    """Return the columns' types by name."""
    return {name: column.type for name, column in columns.items()}


def described() -> dict[str, dict[str, str]]:
    """Return type and meaning of every column of a loaded sweep, by name, in order."""
    return {
        name: {"type": str(column.type), "meaning": column.meaning}
        for name, column in {**SAMPLE, **TRIAL}.items()
    }
