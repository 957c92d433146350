"""How samples become one mean per trial and input, and how a trial becomes one logarithm.

The logarithm of a trial is that of the mean over inputs of each input's mean time. What is
estimated is the time of this mix of inputs, each once, as a user pays it. A mean over inputs of
logarithms is another quantity, and is low where few samples of an input hold a stall: a logarithm
of a mean of one sample shows less of it than the mean of all does (Jensen's inequality).

A million samples are grouped once, by `readings`; whatever needs no more than means takes these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from virtbed_analysis import unlike
from virtbed_analysis.cells import BASELINE_MODE, CELL, PLAIN
from virtbed_analysis.engine import Key, Logs
from virtbed_analysis.latency import WHOLE, judged_ns, sums
from virtbed_analysis.platforms import METAL, PROCESS
from virtbed_contract.measures import of_group

PHASES = tuple(measure.name for measure in of_group("phase"))
GROUP = [*CELL, "weights"]
"""The columns of one row of a table: seeded and trained weights are never one."""
PLAIN_ROWS = pl.all_horizontal(pl.col(name) == value for name, value in PLAIN.items())
BARE = (pl.col("machine") == METAL) & (pl.col("enclosure") == PROCESS)
"""Whether a trial ran on bare metal."""
BASELINE = pl.col("bare") & (pl.col("mode") == BASELINE_MODE) & PLAIN_ROWS
"""Whether a row, marked by `bare`, is of the cell that others are compared with."""
_OF_TRIALS = (*GROUP, "bare", "replicate", "host", "plan_digest", "position", "started_at",
              "suspicions")  # fmt: skip
_TIMES = tuple(f"{phase}_ns" for phase in PHASES)


def log_mean(logs: ArrayLike) -> float:
    """Return the logarithm of the mean of the values whose logarithms are given.

    >>> log_mean(np.log([10.0, 30.0])) == np.log(20.0)
    np.True_
    """
    values = np.asarray(logs, dtype=np.float64)
    return float(np.logaddexp.reduce(values) - np.log(values.size))


def steady(samples: pl.DataFrame, emulated: bool = False) -> pl.DataFrame:
    """Return the measured samples of real trials, or of emulated ones; `bare` marks bare metal.

    Raises:
        AnalysisError: they are of several hosts or sweeps, whose replicates are no pairs.
    """
    unlike.refuse_pooled(samples)
    kept = samples.filter(~pl.col("warmup"), pl.col("emulated") == emulated)
    if "weights" not in kept.columns:  # a frame of the caller's own: all alike
        kept = kept.with_columns(weights=pl.lit(""))
    return kept.with_columns(BARE.alias("bare"))


@dataclass(frozen=True)
class Readings:
    """What the measured samples of real trials come to, by trial and input.

    `totals` has one row for each: the columns of the trial that it has of `GROUP`, `bare`,
    `replicate`, `host`, `plan_digest`, `position`, `started_at` and `suspicions`; `trial`, `input`,
    `n` (samples), `<phase>_ns` (their sum), `e2e_var` (their variance), and what `latency.sums`
    adds.
    """

    totals: pl.DataFrame

    def filter(self, *wanted: pl.Expr) -> Readings:
        """Return the readings of the trials that fulfil conditions."""
        return Readings(self.totals.filter(*wanted))

    @cached_property
    def means(self) -> pl.DataFrame:
        """The mean of each time in ns, `mean_<phase>`, per row, replicate and input, in order."""
        # Sorted, here and after joins: sums in one order make two runs agree to the last digit.
        return (
            self.totals.group_by(*GROUP, "bare", "replicate", "input")
            .agg(
                (pl.col(f"{phase}_ns").sum() / pl.col("n").sum()).alias(f"mean_{phase}")
                for phase in PHASES
                if f"{phase}_ns" in self.totals.columns
            )
            .sort(*GROUP, "replicate", "input")
        )

    def logs(self, phase: str = "e2e") -> pl.DataFrame:
        """Return `log`, the logarithm of a phase's mean in ns, per row, replicate and input."""
        own = [*GROUP, "bare", "replicate", "input"]
        return self.means.select(*own, pl.col(f"mean_{phase}").log().alias("log"))

    @cached_property
    def judged(self) -> pl.DataFrame:
        """What `logs` has, of the time that each scenario is judged by (`JUDGED_BY`).

        Latency and throughput belong to no input: a trial's is one value, of an input without a
        name. Elsewhere it is the request's own time, input by input.
        """
        whole = pl.col("scenario").is_in(WHOLE)
        own, rest = self.filter(~whole).logs(), self.totals.filter(whole)
        if not rest.height:
            return own
        trials = by_replicate(rest, judged_ns())
        rows = trials.select(own.columns).cast({"input": own.schema["input"]})
        return pl.concat([own, rows]).sort(*GROUP, "replicate", "input")

    @cached_property
    def trials(self) -> pl.DataFrame:
        """The `log` of the time in ns that each trial is judged by; of e2e its mean over inputs."""
        whole = pl.col("scenario").first().is_in(WHOLE)
        e2e = (pl.col("e2e_ns") / pl.col("n")).mean()
        log = pl.when(whole).then(judged_ns()).otherwise(e2e).log().alias("log")
        return self.totals.group_by("trial", maintain_order=True).agg(log)


def readings(samples: pl.DataFrame | Readings) -> Readings:
    """Return the readings of samples as `load` gives them; readings stay what they are."""
    if isinstance(samples, Readings):
        return samples
    measured = steady(samples)
    about = [name for name in _OF_TRIALS if name in measured.columns]
    key = [*(["trial"] if "trial" in measured.columns else []), *GROUP, "bare", "replicate"]
    times = [name for name in _TIMES if name in measured.columns]
    missing = [name for name in ("queue_ns", "latency_ns") if name not in measured.columns]
    measured = measured.with_columns(pl.lit(None, pl.Int64).alias(name) for name in missing)
    # As numbers that do not overflow, whatever a file claims a request took.
    totals = measured.group_by(*key, "input").agg(
        *sums(),
        pl.col(times).cast(pl.Float64).sum(),
        pl.col("e2e_ns").cast(pl.Float64).var(ddof=1).alias("e2e_var"),
    )
    if rest := [name for name in about if name not in key]:
        first = measured.select(*key, *rest).unique(key, keep="first")
        totals = totals.join(first, on=key)
    return Readings(totals.sort(*key, "input"))


def by_cell(logs: pl.DataFrame, columns: Sequence[str], unit: str = "replicate") -> dict[Key, Logs]:
    """Return the logarithms of each cell.

    Args:
        logs: A row per cell, unit and `input`, with its `log`.
        columns: What makes a cell.
        unit: The column that names a unit.
    """
    names = logs["input"].unique().sort()
    place = pl.col("input").rank("dense").cast(pl.Int64) - 1
    groups = (
        logs.with_columns(place.alias("_place"))
        .group_by(columns, maintain_order=True)
        .agg(pl.col(unit).alias("_unit"), "_place", pl.col("log").cast(pl.Float64).alias("_log"))
    )
    texts = names.cast(pl.String).to_list()
    known: dict[bytes, tuple[str, ...]] = {}  # one tuple for all cells with the same inputs
    found = {}
    lists = (groups[name] for name in ("_unit", "_place", "_log"))
    keys = groups.select(columns).iter_rows()
    for key, own_units, own_places, own in zip(keys, *lists, strict=True):
        units, rows = np.unique(own_units.to_numpy(), return_inverse=True)
        places, across = np.unique(own_places.to_numpy(), return_inverse=True)
        inputs = known.setdefault(places.tobytes(), tuple(texts[n] for n in places))
        values = np.full((len(units), len(inputs)), np.nan)
        there = np.zeros(values.shape, dtype=np.bool_)
        values[rows, across], there[rows, across] = own.to_numpy(), True
        found[key] = Logs(tuple(units.tolist()), inputs, values, there)
    return found


def judged(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return `Readings.judged` of samples."""
    return readings(samples).judged


def by_replicate(measured: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    """Return the `log` of each replicate's value, as `to_baseline` takes it: of one input."""
    return (
        measured.group_by(*GROUP, "bare", "replicate", "trial")
        .agg(value.log().alias("log"))
        .group_by(*GROUP, "bare", "replicate")
        .agg(pl.col("log").mean())
        .with_columns(input=pl.lit(""))
        .sort(*GROUP, "replicate")
    )
