"""What a report says: from a sweep to the content of report.json.

The page is rendered from this document alone, so the two cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from importlib.metadata import version
from typing import Any

import polars as pl

from virtbed_analysis import (
    diagnostics,
    estimate,
    findings,
    model,
    next_instance,
    per_trial,
    published,
    resolution,
    scaling,
    words,
)
from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.effects import of_sweep
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.margin import with_answers
from virtbed_analysis.precision import unneeded_trials
from virtbed_analysis.suspicion import THRESHOLDS
from virtbed_analysis.trust import Json, Rejected
from virtbed_contract import identifiers
from virtbed_contract.codec import encode
from virtbed_contract.factors import FACTORS
from virtbed_contract.measures import SHOWN, of_group
from virtbed_contract.sweep import MARGIN


def document(sweep: Sweep) -> Json:
    """Return the report's content: plain JSON values, times in ms, ratios without unit.

    It depends on the files of the results folder only, not on the day or the place.
    """
    design = sweep.design
    planned = [encode(trial) for trial in design.trials] if design else []
    spared = unneeded_trials(design, per_trial.log_means(sweep.samples)) if design else frozenset()
    started = set(sweep.trials.filter(estimate.BARE)["replicate"])
    early = Counter(key_of(t) for t in planned if t["id"] in spared and t["replicate"] in started)
    cells = [_with_reason(row, early) for row in estimate.cells(sweep.samples).to_dicts()]
    cells = with_answers(cells, margin_of(sweep))
    emulated = per_trial.emulated(sweep.samples, sweep.trials).to_dicts()
    failed, pending = _without_result(sweep, planned, spared)
    suspect = sweep.trials.filter(~pl.col("emulated"), pl.col("suspicions").list.len() > 0)
    counts = {
        "planned": len(planned) if design else None,
        "analysed": sweep.trials.height,
        "emulated": sweep.trials.filter("emulated").height,
        "suspect": suspect.height,
        "failed": len(failed),
        "waiting": sum(len(row["replicates"]) for row in pending),
        "unneeded": len(spared),
        "rejected": len(sweep.rejected),
    }
    return {
        "schema": identifiers.REPORT,
        "sweep": sweep.name,
        "summary": words.summary(cells, len(emulated)),
        "counts": counts,
        "confidence": CONFIDENCE,
        "precision": design.precision if design else None,
        "margin": margin_of(sweep),
        "platforms": _platforms(sweep),
        "cells": cells,
        **_by_factor(sweep),
        **_by_size(sweep),
        "diagnostics": diagnostics.of_sweep(sweep.samples, sweep.trials),
        "model": model.of_trials(diagnostics.of_trials(sweep.samples), sweep.platforms.bare, cells),
        "published": published.beside(cells, sweep.platforms),
        "other_measures": _other_measures(sweep.trials, margin_of(sweep)),
        "emulated": emulated,
        "not_run": _not_run(sweep),
        "failed": failed,
        "waiting": pending,
        "rejected": [{"file": r.file, "reason": r.reason} for r in sweep.rejected],
        "suspect": suspect.select("trial", "suspicions").sort("trial").to_dicts(),
        "thresholds": [
            {"name": t.name, "limit": t.limit, "unit": t.unit, "reason": t.reason}
            for t in THRESHOLDS
        ],
        "warnings": _warnings(sweep.trials),
        "provenance": provenance(sweep),
    }


def margin_of(sweep: Sweep) -> float:
    """Return the smallest cost worth knowing, as the sweep's plan has it."""
    return sweep.design.margin if sweep.design else MARGIN


def _by_factor(sweep: Sweep) -> Json:
    """Return the tables of each cell's start, answers, and ratios by mode, threads, processor."""
    seeded = {
        (row["application"], row["scale"]): row["weights"]
        for row in sweep.trials.select("application", "scale", "weights").to_dicts()
    }

    def weighted(frame: pl.DataFrame) -> list[Json]:
        """Return rows with their weights: without answers of a trained model, times say less."""
        rows = frame.to_dicts()
        if "ratio" in frame.columns:
            rows = with_answers(rows, margin_of(sweep))
        return [{**row, "weights": seeded[row["application"], row["scale"]]} for row in rows]

    return {
        "vanilla_to_pinned": weighted(estimate.vanilla_to_pinned(sweep.samples)),
        "thread_policy_gain": weighted(estimate.thread_policy_gain(sweep.samples)),
        "gpu_speed_up": {
            phase: weighted(estimate.gpu_speed_up(sweep.samples, phase))
            for phase in ("e2e", "infer")
        },
        "startup": weighted(per_trial.startup(sweep.trials)),
        "answers_differ": weighted(per_trial.answers_differ(sweep.trials)),
        "without_suspects": weighted(estimate.without_suspects(sweep.samples)),
    }


def _by_size(sweep: Sweep) -> Json:
    """Return what rests on effects: findings, and what sizes do."""
    units = of_sweep(sweep.samples, sweep.platforms)
    doublings = scaling.scale_up(units)
    return {
        "findings": findings.rows(units),
        "next_instance": next_instance.rows(units),
        "resolution": resolution.of_units(units, sweep.design, sweep.name, margin_of(sweep)),
        "scale_up": doublings,
        "efficient_range": scaling.efficient_range(doublings),
        "overhead_by_size": scaling.overhead_by_size(units),
        "container_to_host": scaling.container_to_host(units, _online_cpus(sweep)),
    }


def _online_cpus(sweep: Sweep) -> int | None:
    cpu = _facts(sweep).get("cpu", {})
    return len(cpu["online"]) if cpu.get("online") else None


def _facts(sweep: Sweep) -> Json:
    return sweep.doctor.facts if sweep.doctor else {}


def _platforms(sweep: Sweep) -> list[Json]:
    """Return what is said of each platform that was planned or has a result."""
    named = set(sweep.trials["platform"])
    if sweep.design:
        named |= {trial.platform for trial in sweep.design.trials}
        named |= {row.platform for row in sweep.design.not_run}
    entries = sweep.platforms.entries
    return [encode(entry) for name, entry in entries.items() if name in named]


def _other_measures(trials: pl.DataFrame, margin: float) -> list[Json]:
    """Return each measure of the group `other` that any real trial has, with a row per cell."""
    tables = (
        {
            "name": measure.name,
            "words": measure.words,
            "unit": SHOWN[measure.unit][0],
            "better": measure.better,
            "meaning": measure.meaning,
            "rows": with_answers(per_trial.other(trials, measure).to_dicts(), margin),
        }
        for measure in of_group("other")
    )
    return [table for table in tables if table["rows"]]


def _with_reason(cell: Json, early: Mapping[tuple[Any, ...], int]) -> Json:
    """Return the cell with `note`: why its ratio or the ratio's interval is missing or thin.

    `early` counts the replicates of bare metal that each cell has no part in, since it is known
    closely enough without.
    """
    note = None
    dropped = (cell["ratio_dropped"] or 0) - early.get(key_of(cell), 0)
    if not cell["baseline"]:
        if cell["ratio"] is None:
            note = "no pinned bare-metal result at this size to pair with"
        elif cell["ratio_low"] is None:
            note = f"no interval from {words.count(cell['ratio_replicates'], 'replicate')}"
        elif dropped > 0:
            note = f"{words.count(dropped, 'replicate')} without its pair left out"
    return {**cell, "note": note}


def _without_result(
    sweep: Sweep, planned: Iterable[Json], spared: Set[str]
) -> tuple[list[Json], list[Json]]:
    """Return the failed trials, one row each, and those with nothing to show, grouped by cell."""
    rejected = {trial for file in sweep.rejected if (trial := _trial_of(file))}
    settled = set(sweep.trials["trial"]) | sweep.failures.keys() | rejected | spared
    failed = [
        {
            "trial": trial_id,
            "stage": failure.stage,
            "message": failure.message,
            "attempt": failure.attempt,
            "at": failure.at,
        }
        for trial_id, failure in sorted(sweep.failures.items())
    ]
    pending: dict[tuple[Any, ...], list[int]] = {}
    for row in planned:
        if row["id"] not in settled:
            pending.setdefault(key_of(row), []).append(row["replicate"])
    rows = [
        {**dict(zip(CELL, cell, strict=True)), "replicates": sorted(replicates)}
        for cell, replicates in pending.items()
    ]
    return failed, rows


def _trial_of(rejected: Rejected) -> str | None:
    parts = rejected.file.split("/")
    return parts[1] if parts[0] == "trials" else None


def _not_run(sweep: Sweep) -> list[Json]:
    """Return what the plan asked for and cannot run here, then what the doctor says of the rest."""
    rows: list[Json] = [encode(row) for row in sweep.design.not_run] if sweep.design else []
    named = {row["platform"] for row in rows}
    asked = {trial.platform for trial in sweep.design.trials} if sweep.design else None
    rows += [
        {
            "platform": found.platform,
            "mode": None,
            "cores": None,
            # An emulated platform does run; what does not run is its real form.
            "reason": ("emulated only: " if found.status == "emulated" else "") + found.reason,
            "remedy": found.remedy,
        }
        for found in (sweep.doctor.platforms if sweep.doctor else ())
        if found.status != "available" and found.platform not in named
        if asked is None or found.platform in asked
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
    trials, design, facts = sweep.trials, sweep.design, _facts(sweep)
    cpu = facts.get("cpu", {})
    engines = facts.get("engines", {})

    def found(column: str) -> list[str | None]:
        return [str(v) for v in trials[column].unique().sort() if v is not None]

    started = found("started_at")
    real = trials.filter(~pl.col("emulated"))
    items: dict[str, list[str | None]] = {
        "Host": found("host") or [sweep.doctor.host if sweep.doctor else None],
        "CPU": [cpu.get("model")],
        "Online CPUs": [str(_online_cpus(sweep) or "")],
        "Distribution": [facts.get("distribution")],
        "Kernel of the host": [facts.get("kernel")],
        "Kernels seen by trials": found("kernel"),
        "oneDNN's kernels": found("onednn_isa"),
        "Clock source": [facts.get("clocksource")],
        "Frequency governor": [facts.get("governor")],
        "Engines": [
            f"{engine.get('name', key)} {engine['version']}"
            for key, engine in engines.items()
            if engine.get("version")
        ],
        "Memory of an instance, MiB": found("memory_mib"),
        "Image digest": found("image_digest") or [design.image_digest if design else None],
        "Plan digest": found("plan_digest") or [design.plan_digest if design else None],
        "Seed of the order": [str(design.seed)] if design else [],
        "Seed of the trials": found("input_seed"),
        **{_heading(factor.name): found(factor.name) for factor in FACTORS},
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
        "Commit of virtbed": list(design.commits) if design else [],
        "Analysis": [f"virtbed-analysis {version('virtbed-analysis')}"],
    }
    return [
        {"item": item, "values": kept}
        for item, values in items.items()
        if (kept := [value for value in values if value])
    ]


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()
