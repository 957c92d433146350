"""Knows what a report says: from a sweep to the content of report.json ("virtbed.report/1").

The page is rendered from this document alone, so the two cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from importlib.metadata import version
from typing import Any

import polars as pl

from virtbed_analysis import estimate, findings, published, scaling, words
from virtbed_analysis.effects import of_sweep
from virtbed_analysis.load import Json, Rejected, Sweep
from virtbed_analysis.precision import unneeded
from virtbed_analysis.suspicion import THRESHOLDS

REPORT_SCHEMA = "virtbed.report/1"


def document(sweep: Sweep) -> Json:
    """Return the report's content: plain JSON values, times in ms, ratios without unit.

    It depends on the files of the results folder only, not on the day or the place.
    """
    spared = unneeded(sweep)
    begun = set(sweep.trials.filter(pl.col("platform") == "bm")["replicate"])
    early = Counter(
        tuple(trial[key] for key in estimate.CELL)
        for trial in (sweep.design or {}).get("trials", [])
        if trial["id"] in spared and trial["replicate"] in begun
    )
    cells = [_with_reason(row, early) for row in estimate.cells(sweep.samples).to_dicts()]
    units = of_sweep(sweep.samples)
    doublings = scaling.scale_up(units)
    emulated = estimate.emulated(sweep.samples, sweep.trials).to_dicts()
    failed, waiting = _without_result(sweep, spared)
    suspect = sweep.trials.filter(~pl.col("emulated"), pl.col("suspicions").list.len() > 0)
    planned = len(sweep.design["trials"]) if sweep.design else None
    counts = {
        "planned": planned,
        "analysed": sweep.trials.height,
        "emulated": sweep.trials.filter("emulated").height,
        "suspect": suspect.height,
        "failed": len(failed),
        "waiting": sum(len(row["replicates"]) for row in waiting),
        "unneeded": len(spared),
        "rejected": len(sweep.rejected),
    }
    seeded = {
        (row["application"], row["scale"]): row["weights"]
        for row in sweep.trials.select("application", "scale", "weights").to_dicts()
    }

    def weighted(frame: pl.DataFrame) -> list[Json]:
        """Return rows with their weights: without answers of a trained model, times say less."""
        rows = frame.to_dicts()
        return [{**row, "weights": seeded[row["application"], row["scale"]]} for row in rows]

    return {
        "schema": REPORT_SCHEMA,
        "sweep": sweep.name,
        "summary": words.summary(cells, len(emulated)),
        "counts": counts,
        "confidence": estimate.CONFIDENCE,
        "precision": (sweep.design or {}).get("precision"),
        "findings": findings.rows(units),
        "cells": cells,
        "vanilla_to_pinned": weighted(estimate.vanilla_to_pinned(sweep.samples)),
        "thread_policy_gain": weighted(estimate.thread_policy_gain(sweep.samples)),
        "gpu_speed_up": {
            phase: weighted(estimate.gpu_speed_up(sweep.samples, phase))
            for phase in ("e2e", "infer")
        },
        "scale_up": doublings,
        "efficient_range": scaling.efficient_range(doublings),
        "overhead_by_size": scaling.overhead_by_size(units),
        "container_to_host": scaling.container_to_host(units, _online_cpus(sweep)),
        "published": published.beside(cells),
        "startup": weighted(estimate.startup(sweep.trials)),
        "emulated": emulated,
        "not_run": _not_run(sweep),
        "failed": failed,
        "waiting": waiting,
        "rejected": [{"file": r.file, "reason": r.reason} for r in sweep.rejected],
        "answers_differ": weighted(estimate.answers_differ(sweep.trials)),
        "suspect": suspect.select("trial", "suspicions").sort("trial").to_dicts(),
        "without_suspects": weighted(estimate.without_suspects(sweep.samples)),
        "thresholds": [
            {"name": t.name, "limit": t.limit, "unit": t.unit, "reason": t.reason}
            for t in THRESHOLDS
        ],
        "warnings": _warnings(sweep.trials),
        "provenance": provenance(sweep),
    }


def _online_cpus(sweep: Sweep) -> int | None:
    cpu = (sweep.doctor or {}).get("facts", {}).get("cpu", {})
    return len(cpu["online"]) if cpu.get("online") else None


def _with_reason(cell: Json, early: Mapping[tuple[Any, ...], int]) -> Json:
    """Return the cell with `note`: why its ratio or the ratio's interval is missing or thin.

    `early` counts the replicates of bare metal that each cell has no part in, since it is known
    closely enough without.
    """
    note = None
    dropped = (cell["ratio_dropped"] or 0) - early.get(tuple(cell[key] for key in estimate.CELL), 0)
    if not cell["baseline"]:
        if cell["ratio"] is None:
            note = "no pinned bm result at this size to pair with"
        elif cell["ratio_low"] is None:
            note = f"no interval from {words.count(cell['ratio_replicates'], 'replicate')}"
        elif dropped > 0:
            note = f"{words.count(dropped, 'replicate')} without its pair left out"
    return {**cell, "note": note}


def _without_result(sweep: Sweep, spared: Set[str]) -> tuple[list[Json], list[Json]]:
    """Return the failed trials, one row each, and those with nothing to show, grouped by cell."""
    analysed = set(sweep.trials["trial"])
    rejected = {trial for file in sweep.rejected if (trial := _trial_of(file))}
    settled = analysed | sweep.failures.keys() | rejected | spared
    planned = {t["id"]: t for t in (sweep.design or {}).get("trials", [])}
    failed = [
        {
            "trial": trial_id,
            **{key: found.get(key) for key in ("stage", "message", "attempt", "at")},
        }
        for trial_id, found in sorted(sweep.failures.items())
    ]
    waiting: dict[tuple[Any, ...], list[int]] = {}
    for trial_id, trial in planned.items():
        if trial_id in settled:
            continue
        waiting.setdefault(tuple(trial[key] for key in estimate.CELL), []).append(
            trial["replicate"]
        )
    rows = [
        {**dict(zip(estimate.CELL, cell, strict=True)), "replicates": sorted(replicates)}
        for cell, replicates in waiting.items()
    ]
    return failed, rows


def _trial_of(rejected: Rejected) -> str | None:
    parts = rejected.file.split("/")
    return parts[1] if parts[0] == "trials" else None


def _not_run(sweep: Sweep) -> list[Json]:
    """Return what the plan asked for and the host cannot run, then what the doctor adds to it."""
    rows = [
        {key: entry.get(key) for key in ("platform", "mode", "cores", "reason", "remedy")}
        for entry in (sweep.design or {}).get("not_run", [])
    ]
    named = {row["platform"] for row in rows}
    rows += [
        {
            "platform": found["platform"],
            "mode": None,
            "cores": None,
            # An emulated platform does run; what does not run is its real form.
            "reason": ("emulated only: " if found["status"] == "emulated" else "")
            + found["reason"],
            "remedy": found["remedy"],
        }
        for found in (sweep.doctor or {}).get("platforms", [])
        if found["status"] != "available" and found["platform"] not in named
    ]
    return rows


def _warnings(trials: pl.DataFrame) -> list[Json]:
    """Return each distinct warning with the number of trials that gave it, the commonest first."""
    found = Counter(
        warning for given in trials["warnings"].to_list() for warning in sorted(set(given))
    )
    return [{"warning": text, "trials": n} for text, n in found.most_common()]


def provenance(sweep: Sweep) -> list[Json]:
    """Return where the numbers come from, as items with their values."""
    trials, design = sweep.trials, sweep.design or {}
    facts = (sweep.doctor or {}).get("facts", {})
    cpu = facts.get("cpu", {})
    docker = facts.get("docker", {})

    def found(column: str) -> list[str | None]:
        return [str(v) for v in trials[column].unique().sort() if v is not None]

    started = found("started_at")
    real = trials.filter(~pl.col("emulated"))
    items: dict[str, list[str | None]] = {
        "Host": found("host") or [str((sweep.doctor or {}).get("host") or "")],
        "CPU": [cpu.get("model")],
        "Online CPUs": [str(_online_cpus(sweep) or "")],
        "Distribution": [facts.get("distribution")],
        "Kernel of the host": [facts.get("kernel")],
        "Kernels seen by trials": found("kernel"),
        "oneDNN's kernels": found("onednn_isa"),
        "Clock source": [facts.get("clocksource")],
        "Frequency governor": [facts.get("governor")],
        "Docker engine": [docker.get("version")],
        "libvirt": [facts.get("libvirt", {}).get("version")],
        "QEMU": [facts.get("qemu", {}).get("version")],
        "Memory of an instance, MiB": found("memory_mib"),
        "Image digest": found("image_digest") or [design.get("image_digest")],
        "Plan digest": found("plan_digest") or [design.get("plan_digest")],
        "Seed of the order": [str(design["seed"])] if "seed" in design else [],
        "Seed of the trials": found("input_seed"),
        "Thread policy": found("thread_policy"),
        "Model": [
            f"{row['application']} {row['application_version']}, {row['scale']}: "
            f"{row['model']}, {row['weights']} weights"
            for row in trials.select(
                "application", "application_version", "scale", "model", "weights"
            )
            .unique()
            .sort(pl.all())
            .to_dicts()
        ],
        "TensorFlow": found("tensorflow"),
        "Keras": found("keras"),
        "Python": found("python"),
        "Trials started": [f"{started[0]} to {started[-1]}"] if started else [],
        "Real trials": [str(real.height)] if trials.height else [],
        "Commit of virtbed": (sweep.doctor or {}).get("commits", []),
        "Analysis": [f"virtbed-analysis {version('virtbed-analysis')}"],
    }
    return [
        {"item": item, "values": kept}
        for item, values in items.items()
        if (kept := [value for value in values if value])
    ]
