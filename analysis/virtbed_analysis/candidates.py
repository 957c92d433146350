"""The cells that advice chooses from: their times by replicate, lost trials, bounds and costs.

Means are of times, not of logarithms: the cost of an hour or of a million requests is a sum of
times, so a replicate that takes three times as long counts three times.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis.bursts import BURSTS, instances, with_bursts
from virtbed_analysis.cells import CELL, PLAIN, key_of
from virtbed_analysis.engine import Floats, Key, Logs
from virtbed_analysis.estimate import NS_PER_MS, steady, tail
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE, share_bounds
from virtbed_analysis.latency import LOADED, judged_ns, usable
from virtbed_analysis.losses import is_late
from virtbed_analysis.question import Question
from virtbed_analysis.reduction import Readings, by_cell, readings
from virtbed_analysis.slo import PERCENTILE, Level, Slo, judge, level
from virtbed_contract.codec import encode
from virtbed_contract.counts import count
from virtbed_contract.measures import JUDGED_BY

Spread = tuple[float, float, float]
"""A mean over replicates, and the smallest and the largest of them."""
_MS_PER_S = 1e3
_PER_MILLION_H = 1e6 / 3.6e6  # hours in a million milliseconds


@dataclass(frozen=True)
class Ends:
    """The number of a cell's trials by how they ended.

    Attributes:
        measured: Gave usable times.
        failed: Failed.
        late: Failed at a time limit; part of `failed`.
        invalid: Were measured, but are INVALID by LoadGen's rules for more than their length.
        short: Are INVALID for their length alone; part of `measured`.
        invalid_reasons: LoadGen's reasons.
        rejected: Left a file that cannot be trusted.
        suspect: Were disturbed; part of `measured`.
        retried: Needed more than one attempt; part of `measured`.
    """

    measured: int = 0
    failed: int = 0
    late: int = 0
    invalid: int = 0
    short: int = 0
    invalid_reasons: tuple[str, ...] = ()
    rejected: int = 0
    suspect: int = 0
    retried: int = 0

    @property
    def lost(self) -> int:
        """The number of trials without usable times."""
        return self.failed + self.invalid + self.rejected

    @property
    def lost_high(self) -> float:
        """One-sided upper bound of the share of lost trials (Clopper and Pearson)."""
        return share_bounds(self.lost, self.measured + self.lost, CONFIDENCE)[1]


@dataclass(frozen=True)
class Candidate:
    """A cell that may be chosen, with its times, lost trials, bound and price.

    Attributes:
        cell: Its factors by name.
        times: Logarithms of the mean e2e time of each input in ms, by replicate; for latency and
            time per sample, which have no input, of the trial's mean.
        e2e: Mean over replicates of a request's mean e2e time in ms, the smallest and the largest.
            It has no interval, because drift is common to all cells and cancels only in pairs.
        latency: The same for latency; None if the scenario has none.
        per_sample: The same for the time per sample up to the last answer; only in offline.
        p99: Median over instances of their 99th percentile of latency in ms, and the largest.
        memory_mib: Memory of its instances.
        requests: Number of measured requests.
        ends: How its trials ended.
        slo: Whether its instances keep the bound; None without a bound in the question.
        price: Price of an hour; None without prices in the question.
    """

    cell: Mapping[str, Any]
    times: Logs
    e2e: Spread
    latency: Spread | None
    per_sample: Spread | None
    p99: tuple[float | None, float | None]
    memory_mib: int
    requests: int
    ends: Ends
    slo: Slo | None
    price: float | None

    @property
    def key(self) -> Key:
        """The values that identify the cell."""
        return key_of(self.cell)

    @property
    def cores(self) -> int:
        """CPUs of its instances."""
        return int(self.cell["cores"])

    @property
    def weight(self) -> float:
        """The price of a unit of time, or 1 without prices."""
        return 1.0 if self.price is None else self.price

    @property
    def time_ms(self) -> float:
        """The time in ms that cells are compared by: e2e, latency or per sample (`Question`)."""
        return float(np.exp(self.times.means).mean())

    @property
    def cost(self) -> float:
        """The quantity to minimize: the time, or its price."""
        return self.weight * self.time_ms

    @property
    def flattered(self) -> bool:
        """Whether its slow trials may be missing, so that its times may be too short.

        Under load, LoadGen calls a run invalid for being slow or for being short; which of the two
        is unknown.
        """
        queued = self.cell["scenario"] in LOADED
        return self.ends.late > 0 or (queued and self.ends.invalid > 0)

    def money(self) -> Spread | None:
        """Return the cost of a million requests, one after another: mean, smallest, largest.

        For offline, the cost at the measured throughput.
        """
        if self.price is None:
            return None
        times = self.per_sample or self.e2e
        mean, least, most = (self.price * ms * _PER_MILLION_H for ms in times)
        return mean, least, most

    def throughput(self) -> Spread | None:
        """Return the samples per second in offline: of the mean time, smallest, largest."""
        if self.per_sample is None:
            return None
        mean, least, most = (_MS_PER_S / ms for ms in self.per_sample)
        return mean, most, least


def candidates_of(sweep: Sweep, question: Question) -> tuple[list[Candidate], dict[Key, Ends]]:
    """Return the real cells with usable results, and how the trials of the other cells ended."""
    wanted = {
        **PLAIN,
        "application": question.application,
        "scale": question.scale,
        "scenario": question.scenario,
        "emulated": False,
    }
    mine = sweep.trials.filter(**wanted)
    ends = _ends(sweep, mine.with_columns(valid=usable()), wanted)
    samples = steady(sweep.samples.filter(**wanted).filter(usable()))
    means = readings(samples)
    # Bounds are judged simultaneously: Bonferroni's factor is the number of allowed cells.
    by_trial = _by_trial(samples, means, question)
    rows = by_trial.partition_by(CELL, as_dict=True, maintain_order=True)
    allowed = [key for key in rows if not excluded(dict(zip(CELL, key, strict=True)), question)]
    at = None
    if question.slo_ms is not None:
        at = level([(instances(rows[key]), ends[key].lost) for key in allowed])
    times, judged_cells = _times(means, question), max(1, len(allowed))
    candidates = [
        _candidate(key, own, times[key], ends[key], question, (judged_cells, at))
        for key, own in rows.items()
    ]
    return candidates, {key: own for key, own in ends.items() if key not in rows}


def excluded(cell: Mapping[str, Any], question: Question) -> str:
    """Return why a question excludes a cell, independent of its results; empty if it does not."""
    if question.platforms and cell["platform"] not in question.platforms:
        return f"platform {cell['platform']}, {' or '.join(question.platforms)} required"
    if question.cores_max is not None and cell["cores"] > question.cores_max:
        return f"{cell['cores']} cores, at most {question.cores_max} required"
    if question.prices and _price(cell, question) is None:
        size = count(cell["cores"], "core")
        return f"no price for {cell['platform']} with {size} on {cell['processor']}"
    return ""


def _price(cell: Mapping[str, Any], question: Question) -> float | None:
    return question.prices.get((cell["platform"], cell["cores"], cell["processor"]))


def _by_trial(samples: pl.DataFrame, means: Readings, question: Question) -> pl.DataFrame:
    """Return one row per trial, by cell."""
    waited = pl.col("latency_ns")
    bound_ns = (question.slo_ms or 0) * NS_PER_MS
    if question.slo_ms is not None:
        samples = with_bursts(samples, bound_ns)
    # Each input counts once, because LoadGen draws them at random.
    e2e = (pl.col("e2e_ns") / pl.col("n")).sort().mean() / NS_PER_MS
    times = means.totals.group_by(*CELL, "host", "replicate").agg(
        e2e.alias("e2e"), (judged_ns() / NS_PER_MS).alias("judged")
    )
    return (
        samples.group_by(*CELL, "host", "replicate")
        .agg(
            (waited.mean() / NS_PER_MS).alias("latency"),
            (tail("latency_ns", PERCENTILE) / NS_PER_MS).alias("p99"),
            (waited > bound_ns).sum().alias("beyond"),
            waited.count().alias("waited"),
            *(pl.col(name).sum() for name in BURSTS if question.slo_ms is not None),
            pl.len().alias("requests"),
            pl.col("memory_mib").max(),
        )
        .join(times, on=[*CELL, "host", "replicate"])
        .sort(*CELL, "host", "replicate")
    )


def _times(means: Readings, question: Question) -> dict[Key, Logs]:
    """Return the logarithms of the time of each input in ms, by cell."""
    whole = question.compared.grain == "trial"
    time = judged_ns() if whole else pl.col("e2e_ns").sum() / pl.col("n").sum()
    rows = means.totals.with_columns(input=pl.lit("")) if whole else means.totals
    logs = (
        rows.group_by(*CELL, "replicate", "input")
        .agg((time / NS_PER_MS).log().alias("log"))
        .drop_nulls("log")
        .sort(*CELL, "replicate", "input")
    )
    return by_cell(logs, CELL)


def _candidate(
    key: Key,
    rows: pl.DataFrame,
    times: Logs,
    ends: Ends,
    question: Question,
    judging: tuple[int, Level | None],
) -> Candidate:
    cell = dict(zip(CELL, key, strict=True))
    slo = None
    if question.slo_ms is not None:
        slo = judge(instances(rows), judging[0], ends.lost, judging[1])
    e2e, waits = rows["e2e"].to_numpy(), rows["latency"].drop_nulls().to_numpy()
    batch = JUDGED_BY[question.scenario].name == "throughput"
    known = None if rows["p99"].has_nulls() else rows["p99"].to_numpy()
    return Candidate(
        cell=cell,
        times=times,
        e2e=_spread(e2e),
        latency=_spread(waits) if len(waits) else None,
        per_sample=_spread(rows["judged"].to_numpy()) if batch else None,
        p99=(None, None) if known is None else (float(np.median(known)), float(known.max())),
        memory_mib=int(rows["memory_mib"].to_numpy().max()),
        requests=int(rows["requests"].sum()),
        ends=ends,
        slo=slo,
        price=_price(cell, question),
    )


def _spread(times: Floats) -> Spread:
    return float(times.mean()), float(times.min()), float(times.max())


def _ends(sweep: Sweep, mine: pl.DataFrame, wanted: Mapping[str, Any]) -> dict[Key, Ends]:
    """Return how the trials of each cell ended, including those without a result.

    The cell of a failed trial is known from the design.
    """
    counts: dict[Key, Counter[str]] = defaultdict(Counter)
    reasons: dict[Key, set[str]] = defaultdict(set)
    for row in mine.iter_rows(named=True):
        key = key_of(row)
        counts[key]["measured" if row["valid"] else "invalid"] += 1
        if row["loadgen_validity"] != "VALID":
            reasons[key] |= set(row["loadgen_reasons"])
            counts[key]["short"] += row["valid"]
        if not row["valid"]:
            continue
        counts[key]["suspect"] += bool(row["suspicions"])
        counts[key]["retried"] += row["attempt"] > 1
    for trial, what in _without_result(sweep):
        if all(trial[name] == value for name, value in wanted.items()):
            counts[key_of(trial)].update(what)
    return {
        key: Ends(**own, invalid_reasons=tuple(sorted(reasons[key]))) for key, own in counts.items()
    }


def ends_by_cell(sweep: Sweep, *, plain: bool = True) -> dict[Key, Ends]:
    """Return how the trials of each real cell ended; of plain cells only if `plain`."""
    wanted = {**(PLAIN if plain else {}), "emulated": False}
    return _ends(sweep, sweep.trials.filter(**wanted).with_columns(valid=usable()), wanted)


def _without_result(sweep: Sweep) -> Iterator[tuple[dict[str, Any], list[str]]]:
    planned = {trial.id: encode(trial) for trial in sweep.design.trials} if sweep.design else {}
    for trial_id, failure in sweep.failures.items():
        if trial_id in planned:
            late = ["late"] if is_late(failure.message) else []
            yield planned[trial_id], ["failed", *late]
    for rejected in sweep.rejected:
        parts = rejected.file.split("/")
        if parts[0] == "trials" and parts[-1] == "result.json" and parts[1] in planned:
            yield planned[parts[1]], ["rejected"]
