"""Calibration of the testbed on one host with ratios of known truth: calibration.json.

A twin is a platform under a second name, so its true ratio is 1. A slowed platform takes a known
share longer, so its true ratio is 1 + that share. Both are measured like any platform, and both are
checked on the e2e time in every scenario, since the true growth of a queue is not known.

Each check is an equivalence test (see `margin`): it passes if the whole interval of estimate /
truth is within the margin, so an interval that is too wide does not pass. The intervals of all
checks are simultaneous 95% intervals (Bonferroni). A testbed that is off by the margin therefore
passes in at most one sweep of twenty, provided that noise is distributed alike on both sides of the
ratio. `doubts` marks checks whose replicates contradict that assumption.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from virtbed_analysis import doubts, estimate, words
from virtbed_analysis.candidates import Ends, ends_by_cell
from virtbed_analysis.cells import CELL, PLAIN, key_of
from virtbed_analysis.engine import Key, effect
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_text
from virtbed_analysis.frames import Sweep, read_sweep
from virtbed_analysis.hosts import names
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, simultaneous
from virtbed_analysis.margin import CANNOT_TELL, DIFFERS, EQUIVALENT, answer, has_width
from virtbed_analysis.per_trial import answers_differ
from virtbed_analysis.reasons import lost
from virtbed_analysis.trust import Json
from virtbed_contract import identifiers
from virtbed_contract.codec import encode

POWER = 0.8
"""Power of `resolvable`: the interval excludes 1 in four of five repetitions."""


def calibrate(sweep_dir: Path, margin: float | None = None) -> Json:
    """Check a sweep that has twins or slowed platforms; write and return its calibration.json.

    Args:
        sweep_dir: The results folder, of one host; calibration.json is written into it.
        margin: The largest accepted error, as a share; the plan's margin if None.

    Returns:
        The content of calibration.json, among it:

        - `checks`, one per twin or slowed cell: `check` ("twin" or "slowdown"), the cell,
          `expected`, `estimate`, `low`, `high` (ratios; simultaneous interval at `confidence`),
          `half_width` (as a share), `replicates`, `answer` ("equivalent", "differs" or "cannot
          tell" at `margin`), `passed`, `verdict` ("passed", "failed" or "cannot tell": the interval
          is too wide or slow trials are missing), `reason`, and `warnings` (signs against the
          interval, and lost trials).
        - `resolution`, one per platform with a twin: the smallest overhead that as many replicates
          detect, see `resolvable`.
        - `caution`: how often so few replicates pass though the host is off by the margin.
        - `suspect`: the number of suspect trials, which are kept.
        - `passed`: whether all checks passed; a planned cell without a result fails.

    Raises:
        AnalysisError: the folder does not exist, its results come from several hosts or images, or
            none of them is of a twin or a slowed platform.

    Example:
        >>> content = calibrate(Path("results/calibrate"))
        >>> [(check["check"], check["expected"], check["verdict"]) for check in content["checks"]]
        [('twin', 1.0, 'passed')]
    """
    sweep = read_sweep(sweep_dir)
    if len(hosts := names(sweep.trials)) > 1:
        raise AnalysisError(
            f"{sweep_dir}: results of {', '.join(hosts)} found, of one host needed: a calibration "
            "is of one host"
        )
    margin = sweep.margin if margin is None else margin
    rows = estimate.variant_to_plain(sweep.samples).to_dicts() if sweep.samples.height else []
    if not rows:
        raise AnalysisError(
            f"{sweep_dir}: no result of a twin or a slowed platform; its plan needs "
            "variants: [plain, twin, slowed], as plans/calibrate.yml has"
        )
    slowdowns = dict(
        sweep.trials.filter(variant="slowed").select("application", "slowdown").unique().rows()
    )
    missing = _planned(sweep) - {key_of(row) for row in rows}
    rows += [dict(zip(CELL, cell, strict=True)) | _NOTHING for cell in sorted(missing)]
    intervals = sum(row["ratio_low"] is not None for row in rows)
    entries = sweep.platforms.entries
    ends = ends_by_cell(sweep, plain=False)
    checks = [
        _check(row, slowdowns, intervals, margin, entries, [*_sides(row, ends)]) for row in rows
    ]
    checks = [_of_alike_work(*pair, _wrong(sweep)) for pair in zip(checks, rows, strict=True)]
    resolution = [_resolution(row, entries) for row in rows if _is_twin(row) and _varies(row)]
    content = {
        "schema": identifiers.CALIBRATION,
        "sweep": sweep.name,
        "host": _host(sweep),
        "confidence": CONFIDENCE,
        "margin": margin,
        "measure": "e2e",
        "suspect": sweep.trials.filter(pl.col("suspicions").list.len() > 0).height,
        "rejected": [rejected.file for rejected in sweep.rejected],
        "checks": checks,
        "caution": _caution([check["replicates"] for check in checks if check["low"] is not None]),
        "resolution": resolution,
        "passed": all(check["passed"] for check in checks),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(sweep_dir / "calibration.json", text)
    return content


def _wrong(sweep: Sweep) -> set[Key]:
    """Return the keys of the cells whose answers differ from those of bare metal."""
    return {key_of(row) for row in answers_differ(sweep.trials).to_dicts()}


def _of_alike_work(check: Json, row: Json, wrong: set[Key]) -> Json:
    """Return a check, with "cannot tell" if a side's answers differ: the work was not the same."""
    sides = [side["variant"] for side in (row, row | PLAIN) if key_of(side) in wrong]
    if not sides:
        return check
    reason = f"the answers of {' and '.join(sides)} are not bare metal's: unlike work"
    return check | {
        "answer": CANNOT_TELL, "passed": False, "verdict": CANNOT_TELL, "reason": reason,
    }  # fmt: skip


def _sides(row: Json, ends: Mapping[Key, Ends]) -> Iterator[tuple[str, Ends]]:
    """Yield the variant of each side of a check that lost trials, and how its trials ended."""
    for side in (row, row | PLAIN):
        own = ends.get(key_of(side))
        if own and own.lost:
            yield str(side["variant"]), own


def _varies(row: Json) -> bool:
    """Return whether replicates show spread; without it no resolution can be computed."""
    return row["ratio_low"] is not None and float(np.ptp(row["ratio_logs"])) > NO_SPREAD


_NOTHING: Json = {"ratio": None, "ratio_low": None, "ratio_high": None, "ratio_replicates": 0}


def _caution(replicates: list[int]) -> str | None:
    """Return a sentence: how often a host off by the margin passes if noise is on one side only."""
    if not replicates:
        return None
    few = min(replicates)
    limit = doubts.limit(few)
    return (
        f"With {words.count(few, 'replicate')}, a check that is off by the margin passes in at "
        f"most {1 - CONFIDENCE:.0%} of sweeps only if noise is alike on both sides. If slow "
        f"moments fall on one side only, it passes in up to {1 - limit.skewed_covers:.0%}, or "
        f"{1 - limit.very_skewed_covers:.0%} if they are rare and long; up to {limit.unseen:.0%} "
        "of instances may be slow without any replicate showing it."
    )


def _planned(sweep: Sweep) -> set[tuple[object, ...]]:
    """Return the keys of the planned real cells that are twins or slowed."""
    planned = [encode(trial) for trial in sweep.design.trials] if sweep.design else []
    varied = (trial for trial in planned if trial["variant"] != "plain")
    return {key_of(trial) for trial in varied if not trial["emulated"]}


def resolvable(deviation: float, replicates: int) -> float:
    """Return the smallest overhead, as a share, that a t test detects with probability `POWER`.

    The minimal detectable difference of a mean, by the usual approximation (Cohen, "Statistical
    Power Analysis for the Behavioral Sciences", 1988, section 2.4), on the logarithmic scale:
    (t(1 - a/2) + t(POWER)) * deviation / sqrt(n), each t with n - 1 degrees of freedom.
    `resolution.detectable_shift` solves for the power instead of approximating it.

    Args:
        deviation: Standard deviation of the per-replicate log ratios.
        replicates: Their number n, at least 2.
    """
    tails = stats.t.ppf([(1 + CONFIDENCE) / 2, POWER], replicates - 1)
    return float(math.expm1(np.sum(tails) * deviation / math.sqrt(replicates)))


def _is_twin(row: Json) -> bool:
    return bool(row["variant"] == "twin")


def _check(
    row: Json,
    slowdowns: dict[str, float],
    checks: int,
    margin: float,
    entries: words.Entries,
    losing: list[tuple[str, Ends]],
) -> Json:
    slowdown = 0.0 if _is_twin(row) else slowdowns.get(row["application"])
    expected = None if slowdown is None else 1.0 + slowdown
    known = row["ratio_low"] is not None
    measured = effect("", [np.array(row["ratio_logs"])], simultaneous(checks)) if known else None
    if expected is None or measured is None or measured.low is None or measured.high is None:
        low, high, half_width, kind = None, None, None, CANNOT_TELL
        reason = "fewer than two replicates have both sides"
    else:
        low, high = measured.low, measured.high
        half_width = math.sqrt(high / low) - 1
        row = row | {"ratio_low": low, "ratio_high": high}
        kind = answer(low / expected, high / expected, margin)
        reason = _fault(row, expected, half_width, margin, kind)
    if not reason and (late := [side for side, ends in losing if ends.late]):
        kind = CANNOT_TELL
        reason = (
            f"trials of {' and '.join(late)} were ended at a time limit: the slow ones are missing"
        )
    warnings = doubts.marked([row])[0]["warnings"] if known else []
    warnings += [{"kind": "lost", "text": f"of {side} {lost(ends)}"} for side, ends in losing]
    verdict = "passed" if not reason else "failed" if kind == DIFFERS else CANNOT_TELL
    return {
        "check": "twin" if _is_twin(row) else "slowdown",
        **{key: row[key] for key in CELL if key not in PLAIN},
        "expected": expected,
        "estimate": row["ratio"],
        "low": low,
        "high": high,
        "half_width": half_width,
        "replicates": row["ratio_replicates"],
        "answer": kind,
        "passed": not reason,
        "verdict": verdict,
        "reason": reason,
        "warnings": warnings,
        "sentence": f"{verdict}: {words.instance(row, entries)}: "
        f"{words.ratio(row['ratio'])} "
        f"({words.interval(row)}), {words.NONE if expected is None else f'{expected:g}'} expected"
        + (f"; {reason}" if reason else "")
        + "".join(f"; but: {warning['text']}" for warning in warnings),
    }


def _fault(row: Json, expected: float, half_width: float, margin: float, kind: str) -> str:
    """Return why a check with an interval does not pass; empty if it passes."""
    low, high = row["ratio_low"], row["ratio_high"]
    if kind == DIFFERS:
        return f"the interval {low:.3f} to {high:.3f} misses {expected:g}"
    if not _is_twin(row) and low <= 1:
        return f"the interval {low:.3f} to {high:.3f} does not distinguish {expected:g} from 1"
    if kind == EQUIVALENT:
        return ""
    if not has_width(low, high):
        return "the replicates are alike to the last digit, which shows no precision"
    return (
        f"the interval {low:.3f} to {high:.3f}, {half_width:.1%} wide on either side, is not "
        f"wholly within {100 * margin:.3g}% of {expected:g}: the check cannot tell; raise "
        "replicates or samples in the plan, or reduce other load on the host"
    )


def _resolution(row: Json, entries: words.Entries) -> Json:
    replicates = row["ratio_replicates"]
    overhead = resolvable(float(np.std(row["ratio_logs"], ddof=1)), replicates)
    return {
        **{key: row[key] for key in CELL if key not in PLAIN},
        "replicates": replicates,
        "overhead": overhead,
        "power": POWER,
        "sentence": f"on this host, {replicates} replicates resolve {overhead:.1%} "
        f"({words.instance(row, entries)}, {row['application']} {row['scale']})",
    }


def _host(sweep: Sweep) -> str | None:
    hosts = sweep.trials["host"].unique().sort().to_list()
    return str(hosts[0]) if hosts else None
