"""Knows how one trial is timed: what the clock sees, in which order, and what it does not see.

One process, one clock (CLOCK_MONOTONIC, which a launcher can read before it executes this one).
Inputs are bytes in memory, taken in sorted order, again and again. A sample runs from those bytes
to the answer; the answers are checked after the last sample, outside every measured window.

Garbage collection: what start-up left is collected, and what lives is frozen, before the measured
samples; during them Python's collector runs as it does in any service.
"""

from __future__ import annotations

import gc
import hashlib
import json
import resource
from dataclasses import dataclass
from itertools import cycle, islice
from time import monotonic_ns
from typing import Any

from virtbed_workloads import STARTED_NS
from virtbed_workloads.contract import Application, Check
from virtbed_workloads.environment import read_environment
from virtbed_workloads.registry import Entry

SCHEMA = "virtbed.result/1"


class WrongAnswerError(Exception):
    """An application answered wrongly: its times mean nothing."""


@dataclass(frozen=True)
class Settings:
    """What a trial was asked to do."""

    scale: str
    samples: int
    warmup: int
    seed: int
    spawned_at_ns: int | None = None
    """CLOCK_MONOTONIC just before this process was executed."""


def run_trial(entry: Entry, settings: Settings) -> dict[str, Any]:
    """Carry out one trial.

    Args:
        entry: The application to run.
        settings: How often, at which scale.

    Returns:
        The result, as the schema ``virtbed.result/1`` has it, without ``trial``.

    Raises:
        ApplicationError: The application cannot be loaded.
        WrongAnswerError: A measured answer is wrong.
    """
    spawned_ns = settings.spawned_at_ns
    import_started_ns = monotonic_ns()
    application = entry.create()
    imported_ns = monotonic_ns()
    description = application.load(settings.scale, settings.seed)
    requests = sorted(application.inputs().items())
    loaded_ns = monotonic_ns()
    first_features = application.preprocess(requests[0][1])
    first_started_ns = monotonic_ns()
    application.infer(first_features)
    first_ended_ns = monotonic_ns()

    warmups = [
        _sample(application, *request, warmup=True)
        for request in islice(cycle(requests), settings.warmup)
    ]
    gc.collect()
    gc.freeze()
    before = resource.getrusage(resource.RUSAGE_SELF)
    measured = [
        _sample(application, *request, warmup=False)
        for request in islice(cycle(requests), settings.samples)
    ]
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "schema": SCHEMA,
        "application": {
            "name": application.name,
            "version": application.version,
            "scale": settings.scale,
            "weights": description.weights,
            "model": description.model,
            "frameworks": dict(description.frameworks),
        },
        "settings": {
            "samples": settings.samples,
            "warmup": settings.warmup,
            "seed": settings.seed,
            "thread_policy": "default",
        },
        "startup": {
            "spawn_ns": None if spawned_ns is None else STARTED_NS - spawned_ns,
            "import_ns": imported_ns - import_started_ns,
            "load_ns": loaded_ns - imported_ns,
            "first_call_ns": first_ended_ns - first_started_ns,
        },
        "samples": [times for times, _ in warmups + measured],
        "answers": _check(application, measured),
        "environment": read_environment(description.intra_op_threads, description.inter_op_threads),
        "rusage": _usage(before, after),
        "warnings": [],
    }


def _sample(
    application: Application, name: str, request: bytes, *, warmup: bool
) -> tuple[dict[str, Any], Any]:
    """Time one request; return its times and its answer."""
    start_ns = monotonic_ns()
    features = application.preprocess(request)
    preprocessed_ns = monotonic_ns()
    outputs = application.infer(features)
    inferred_ns = monotonic_ns()
    answer = application.postprocess(outputs)
    end_ns = monotonic_ns()
    times = {
        "input": name,
        "pre_ns": preprocessed_ns - start_ns,
        "infer_ns": inferred_ns - preprocessed_ns,
        "post_ns": end_ns - inferred_ns,
        "e2e_ns": end_ns - start_ns,
        "warmup": warmup,
    }
    return times, answer


def _check(application: Application, measured: list[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """Check every measured answer, and digest one answer an input."""
    by_input: dict[str, Check] = {}
    for times, answer in measured:
        name = times["input"]
        check = application.check(name, answer)
        if not check.right:
            raise WrongAnswerError(
                f"{application.name}: {name}: answered {check.answer!r} (score {check.score}), "
                f"expected {check.expected!r}"
            )
        first = by_input.setdefault(name, check)
        if first.answer != check.answer:
            raise WrongAnswerError(
                f"{application.name}: {name}: answered {check.answer!r} after {first.answer!r}, "
                "expected the same answer every time"
            )
    canonical = json.dumps([(name, by_input[name].answer) for name in sorted(by_input)])
    return {
        "checked": len(measured),
        "wrong": 0,
        "digest": "sha256:" + hashlib.sha256(canonical.encode()).hexdigest(),
        "by_input": [
            {
                "input": name,
                "answer": check.answer,
                "expected": check.expected,
                "score": check.score,
            }
            for name, check in sorted(by_input.items())
        ],
    }


def _usage(before: resource.struct_rusage, after: resource.struct_rusage) -> dict[str, Any]:
    """Subtract two readings; the largest resident set is the whole process's."""
    return {
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "max_rss_kib": after.ru_maxrss,
        "minor_faults": after.ru_minflt - before.ru_minflt,
        "major_faults": after.ru_majflt - before.ru_majflt,
        "voluntary_switches": after.ru_nvcsw - before.ru_nvcsw,
        "involuntary_switches": after.ru_nivcsw - before.ru_nivcsw,
    }
