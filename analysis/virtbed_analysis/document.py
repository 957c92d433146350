"""Builds the content of report.json from a sweep.

`page` renders report.html from this content alone, so the two cannot disagree. The numbers come
from the other modules of the analysis; here they are put together, and get marks and warnings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import polars as pl

from virtbed_analysis import (
    context,
    diagnostics,
    differences,
    doubts,
    drift,
    estimate,
    explained,
    findings,
    functional,
    guests,
    hosts,
    inputs,
    isolation,
    likenesses,
    loadgen,
    marks,
    model,
    next_instance,
    passes,
    per_trial,
    published,
    resolution,
    scaling,
    stalls,
    suspects,
    tails,
    unlike,
    words,
)
from virtbed_analysis.answers import Known
from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.effects import of_sweep
from virtbed_analysis.frames import Sweep
from virtbed_analysis.headline import headline
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.margin import with_answers
from virtbed_analysis.precision import unneeded_trials
from virtbed_analysis.provenance import online_cpus, provenance
from virtbed_analysis.reduction import Readings, readings
from virtbed_analysis.suspicion import THRESHOLDS
from virtbed_analysis.trust import Json, Rejected
from virtbed_contract import identifiers
from virtbed_contract.codec import encode
from virtbed_contract.measures import JUDGED_BY, SHOWN, of_group


def document(sweep: Sweep) -> Json:
    """Return the content of a report: plain JSON values, times in ms, ratios without a unit.

    It depends on the files of the results folder only, not on the day or the place.
    """
    design, means = sweep.design, readings(sweep.samples)
    planned = [encode(trial) for trial in design.trials] if design else []
    spared = _spared(sweep, means)
    started = set(sweep.trials.filter(estimate.BARE)["replicate"])
    early = Counter(key_of(t) for t in planned if t["id"] in spared and t["replicate"] in started)
    early += passes.added(sweep.trials)
    ran = diagnostics.of_trials(means)
    timing = drift.order(sweep.trials, means, sweep.margin)
    confounded = drift.warnings(timing)
    estimated = estimate.cells(sweep.samples, means).to_dicts()
    ratios = doubts.marked(estimated)
    cells = with_answers([_with_reason(row, early, confounded) for row in ratios], sweep.margin)
    loads = loadgen.document(sweep.samples, means)
    cells = loadgen.with_latency(cells, loads)
    by_factor = _by_factor(sweep, means)
    by_guest = guests.apart(means, cells, sweep.margin)
    measures = _other_measures(sweep.trials, sweep.margin)
    percentiles = [
        {**table, "rows": doubts.marked(table["rows"])} for table in tails.by_trial(sweep.samples)
    ]
    suspicion = suspects.of_report(sweep.trials, sweep.platforms.entries)
    spread = diagnostics.of_sweep(sweep.samples, sweep.trials, ran)
    known = context.known(sweep, suspicion["note"], timing, means)
    by_size = _by_size(sweep, means, known, spread["samples"])
    against = _doubts(
        cells, by_factor, by_guest, measures, percentiles, loads["e2e"], by_size["scale_up"]
    )
    loadgen.with_doubts(loads)
    emulated = per_trial.emulated(sweep.samples, sweep.trials).to_dicts()
    failed, pending = _without_result(sweep, planned, spared)
    suspect = sweep.trials.filter(~pl.col("emulated"), pl.col("suspicions").list.len() > 0)
    counts = {
        "planned": len(planned) if design else None,
        "analysed": sweep.trials.height,
        "functional": sweep.functional.height,
        "emulated": sweep.trials.filter("emulated").height,
        "suspect": suspect.height,
        "failed": len(failed),
        "waiting": sum(len(row["replicates"]) for row in pending),
        "unneeded": len(spared),
        "rejected": len(sweep.rejected),
    }
    content = {
        "schema": identifiers.REPORT,
        "sweep": sweep.name,
        "counts": counts,
        "confidence": CONFIDENCE,
        "judged_by": judged_by(cells),
        "precision": design.precision if design else None,
        "margin": sweep.margin,
        "platforms": _platforms(sweep),
        "cells": cells,
        **by_factor,
        "guest_factors": by_guest,
        "explained": explained.of_sweep(sweep, means)["explained"],
        "doubts": against,
        "percentiles": percentiles,
        "inputs_apart": inputs.apart(means, sweep.margin),
        **by_size,
        "suspicion": suspicion,
        "drift": timing,
        "diagnostics": spread,
        "loadgen": loads,
        "model": model.of_trials(ran, sweep.platforms, cells),
        "stalls": stalls.document(sweep.samples),
        "published": published.next_to_published(cells, sweep.platforms, sweep.margin),
        "other_measures": measures,
        "functional": functional.rows(sweep.functional),
        "emulated": emulated,
        "not_run": _not_run(sweep),
        "failed": failed,
        "waiting": pending,
        "rejected": [
            {"file": r.file, "reason": r.reason, "cell": _cells(planned).get(_trial_of(r) or "")}
            for r in sweep.rejected
        ],
        "suspect": suspect.select("trial", "suspicions").sort("trial").to_dicts(),
        "thresholds": [
            {"name": t.name, "limit": t.limit, "unit": t.unit, "reason": t.reason}
            for t in THRESHOLDS
        ],
        "warnings": _warnings(sweep.trials),
        "unlike": differences.marks(sweep.trials),
        "must_be_alike": unlike.described(),
        "hosts": hosts.of_report(estimated, sweep.trials, means, sweep.margin),
        "recorded": likenesses.recorded(sweep.trials),
        "moments": likenesses.moments(),
        "provenance": provenance(sweep),
    }
    doubts.share(
        cells, content["next_instance"], content["model"]["rows"],
        loads["latency"], loads["throughput"], loads["cells"], content["without_suspects"],
        content["inputs_apart"], content["container_to_host"]["rows"],
        content["published"]["rows"],
    )  # fmt: skip
    doubts.share(cells, *(table["rows"] for table in by_guest), name="rest_doubt")
    of_kernels = guests.kernels(sweep.trials)
    for cell in cells:
        cell["kernels"] = of_kernels(cell)
    marks.share(content, marks.of_sweep(sweep, timing))
    first_screen = headline(content)
    return {**content, "summary": first_screen["lead"], "headline": first_screen}


def _spared(sweep: Sweep, means: Readings) -> Set[str]:
    """Return the ids of the trials that are not needed at the plan's precision."""
    if sweep.design is None:
        return frozenset()
    return unneeded_trials(sweep.design, per_trial.log_means(means), passes.started_s(sweep.trials))


def judged_by(rows: list[Json]) -> Json:
    """Return the measure of each scenario among rows (`JUDGED_BY`), by scenario."""
    named = {row["scenario"] for row in rows}
    return {name: encode(measure) for name, measure in JUDGED_BY.items() if name in named}


def _by_factor(sweep: Sweep, means: Readings) -> Json:
    """Return the tables by one factor: ratios by mode, threads, processor and neighbours.

    With them, the tables of starts, of differing answers, and of ratios without suspect trials.
    """

    def marked(frame: pl.DataFrame) -> list[Json]:
        """Return ratios with their answers at the margin, and warnings about their intervals."""
        return with_answers(doubts.marked(frame.to_dicts()), sweep.margin)

    return {
        "vanilla_to_pinned": marked(estimate.vanilla_to_pinned(means)),
        "thread_policy_gain": marked(estimate.thread_policy_gain(means)),
        "gpu_speed_up": {
            phase: marked(estimate.gpu_speed_up(means, phase)) for phase in ("e2e", "infer")
        },
        "isolation": isolation.rows(means, sweep.trials, sweep.margin),
        "startup": per_trial.startup(sweep.trials).to_dicts(),
        "answers_differ": per_trial.answers_differ(sweep.trials).to_dicts(),
        "without_suspects": estimate.without_suspects(means).to_dicts(),
    }


def _doubts(
    cells: list[Json],
    by_factor: Json,
    by_guest: list[Json],
    measures: list[Json],
    percentiles: list[Json],
    under_load: list[Json],
    doublings: list[Json],
) -> Json:
    """Return the numbered warnings about the intervals of all tables of ratios."""
    tables = {
        **_by_time("{} over bare metal's", cells),
        **_by_time("vanilla over pinned", by_factor["vanilla_to_pinned"]),
        **_by_time("default over matched threads", by_factor["thread_policy_gain"]),
        **_by_time("with neighbours over without", by_factor["isolation"]),
        **_by_time("CPU over GPU, {}", by_factor["gpu_speed_up"]["e2e"]),
        **{f"{table['default']} over another {table['name']}": table["rows"] for table in by_guest},
        "CPU over GPU, inference": by_factor["gpu_speed_up"]["infer"],
        **{f"p{table['percentile']} over bare metal's": table["rows"] for table in percentiles},
        **{f"{table['words']} over bare metal's": table["rows"] for table in measures},
        "e2e over bare metal's, without the queue": under_load,
        "speed-up by twice the cores": doublings,
    }
    return doubts.numbered(tables, CELL)


def _by_time(of: str, rows: list[Json]) -> dict[str, list[Json]]:
    """Return rows by the name of their ratio.

    Args:
        of: The name; `{}` stands for the time of the row's scenario. Without it, a time other than
            e2e is appended.
        rows: Rows of ratios.
    """
    named: dict[str, list[Json]] = {}
    for row in rows:
        measure = JUDGED_BY[row["scenario"]]
        time = "e2e" if measure.name == "e2e" else measure.time
        aside = "" if "{}" in of or time == "e2e" else f", {time}"
        named.setdefault(of.format(time) + aside, []).append(row)
    return named


def _by_size(sweep: Sweep, means: Readings, known: Known, samples: Sequence[Json]) -> Json:
    """Return the parts that are based on effects: findings, resolution, and tables by size.

    Args:
        sweep: The sweep.
        means: Its readings.
        known: What findings need besides the units.
        samples: The result of `samples_per_trial.rows`.
    """
    units = of_sweep(means, sweep.platforms)
    doublings = scaling.scale_up(units)
    return {
        "findings": findings.rows(units, known, sweep.margin),
        "next_instance": next_instance.rows(units),
        "resolution": resolution.of_units(
            units, sweep.design, sweep.name, sweep.margin, sweep.trials, samples
        ),
        "scale_up": doublings,
        "efficient_range": scaling.efficient_range(doublings),
        "overhead_by_size": scaling.overhead_by_size(units),
        "container_to_host": scaling.container_to_host(units, online_cpus(sweep)),
    }


def _platforms(sweep: Sweep) -> list[Json]:
    """Return the entry of each platform that was planned or has a result."""
    named = set(sweep.trials["platform"])
    if sweep.design:
        named |= {trial.platform for trial in sweep.design.trials}
        named |= {row.platform for row in sweep.design.not_run}
    entries = sweep.platforms.entries
    return [encode(entry) for name, entry in entries.items() if name in named]


def _other_measures(trials: pl.DataFrame, margin: float) -> list[Json]:
    """Return each measure of the group `other` that a real trial has, with one row per cell."""
    tables = (
        {
            "name": measure.name,
            "words": measure.words,
            "unit": SHOWN[measure.unit][0],
            "better": measure.better,
            "meaning": measure.meaning,
            "rows": with_answers(
                doubts.marked(per_trial.other(trials, measure).to_dicts()), margin
            ),
        }
        for measure in of_group("other")
    )
    return [table for table in tables if table["rows"]]


def _with_reason(
    cell: Json,
    early: Mapping[tuple[Any, ...], int],
    confounded: Mapping[tuple[Any, ...], str],
) -> Json:
    """Return a cell with `note`: why its ratio is missing, incomplete, or confounded with time.

    Args:
        cell: A row of `estimate.cells`.
        early: By cell, the number of replicates of bare metal in which the cell was not measured
            because its ratio was precise enough.
        confounded: By cell, how its ratio is confounded with time.
    """
    note = None
    warning = confounded.get(key_of(cell))
    dropped = (cell["ratio_dropped"] or 0) - early.get(key_of(cell), 0)
    if not cell["baseline"]:
        if cell["ratio"] is None:
            note = "no pinned bare-metal result at this size to pair with"
        elif cell["ratio_low"] is None:
            note = f"no interval from {words.count(cell['ratio_replicates'], 'replicate')}"
        elif dropped > 0:
            note = f"{words.count(dropped, 'replicate')} left out, without a pair"
    return {**cell, "note": "; ".join(filter(None, (note, warning))) or None}


def _without_result(
    sweep: Sweep, planned: Iterable[Json], spared: Set[str]
) -> tuple[list[Json], list[Json]]:
    """Return the failed trials, one row each, and the pending ones, one row per cell."""
    rejected = {trial for file in sweep.rejected if (trial := _trial_of(file))}
    ran = {*sweep.trials["trial"], *sweep.functional["trial"]}
    settled = ran | sweep.failures.keys() | rejected | spared
    cells = _cells(planned)
    failed = [
        {
            "trial": trial_id,
            "stage": failure.stage,
            "message": failure.message,
            "attempt": failure.attempt,
            "at": failure.at,
            "cell": cells.get(trial_id),
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


def _cells(planned: Iterable[Json]) -> dict[str, Json]:
    """Return the cell of each planned trial that is not emulated, by the trial's id."""
    return {row["id"]: {k: row[k] for k in CELL} for row in planned if not row["emulated"]}


def _trial_of(rejected: Rejected) -> str | None:
    parts = rejected.file.split("/")
    return parts[1] if len(parts) > 1 and parts[0] == "trials" else None


def _not_run(sweep: Sweep) -> list[Json]:
    """Return the platforms of the plan that cannot run, first by the design, then by the doctor."""
    rows: list[Json] = [encode(row) for row in sweep.design.not_run] if sweep.design else []
    named = {row["platform"] for row in rows}
    planned = {trial.platform for trial in sweep.design.trials} if sweep.design else None
    rows += [
        {
            "platform": entry.platform,
            "mode": None,
            "cores": None,
            # An emulated platform does run, but not with hardware virtualization.
            "reason": ("emulated only: " if entry.status == "emulated" else "") + entry.reason,
            "remedy": entry.remedy,
        }
        for entry in (sweep.doctor.platforms if sweep.doctor else ())
        if entry.status != "available" and entry.platform not in named
        if planned is None or entry.platform in planned
    ]
    return rows


def _warnings(trials: pl.DataFrame) -> list[Json]:
    """Return each distinct warning with its number of trials, the most frequent first."""
    counts = Counter(
        warning for given in trials["warnings"].to_list() for warning in sorted(set(given))
    )
    return [{"warning": text, "trials": n} for text, n in counts.most_common()]
