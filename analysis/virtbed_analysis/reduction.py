"""Reduction of samples to one mean per trial and input, and of a trial to one logarithm.

The logarithm of a trial is the logarithm of the arithmetic mean over inputs of each input's mean
time. The estimand is the time of this mix of inputs, each once, as a user experiences it. The mean
over inputs of logarithms would be another quantity, biased low if inputs have few samples of which
some stall: the logarithm is concave (Jensen's inequality).

`readings` groups a million samples once; everything that needs only means takes its result.
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
"""The columns that identify a row of a table of cells; seeded and trained weights are separate."""
PLAIN_ROWS = pl.all_horizontal(pl.col(name) == value for name, value in PLAIN.items())
BARE = (pl.col("machine") == METAL) & (pl.col("enclosure") == PROCESS)
"""Expression: whether a trial ran on bare metal."""
BASELINE = pl.col("bare") & (pl.col("mode") == BASELINE_MODE) & PLAIN_ROWS
"""Expression: whether a row with the column `bare` is of a baseline cell."""
_OF_TRIALS = (*GROUP, "bare", "replicate", "host", "plan_digest", "position", "started_at",
              "suspicions")  # fmt: skip
_TIMES = tuple(f"{phase}_ns" for phase in PHASES)


def log_mean(logs: ArrayLike) -> float:
    """Return the logarithm of the arithmetic mean of values, from their logarithms.

    Example:
        >>> log_mean(np.log([10.0, 30.0])) == np.log(20.0)
        np.True_
    """
    values = np.asarray(logs, dtype=np.float64)
    return float(np.logaddexp.reduce(values) - np.log(values.size))


def steady(samples: pl.DataFrame, emulated: bool = False) -> pl.DataFrame:
    """Return the measured samples (no warm-ups) with the column `bare`, true on bare metal.

    Args:
        samples: One row per sample, as `load` returns them.
        emulated: Return those of emulated trials instead of real ones.

    Raises:
        AnalysisError: they are of several hosts or sweeps, whose replicates cannot be paired.
    """
    unlike.refuse_pooled(samples)
    kept = samples.filter(~pl.col("warmup"), pl.col("emulated") == emulated)
    if "weights" not in kept.columns:  # a frame made by the caller
        kept = kept.with_columns(weights=pl.lit(""))
    return kept.with_columns(BARE.alias("bare"))


@dataclass(frozen=True)
class Readings:
    """Sums of the measured samples of real trials, by trial and input.

    Attributes:
        totals: One row per trial and input: `trial`, `input`, `GROUP`, `bare`, `replicate`; `host`,
            `plan_digest`, `position`, `started_at` and `suspicions` as far as the samples have
            them; `n` (number of samples), `<phase>_ns` (sum of their times), `e2e_var` (sample
            variance of `e2e_ns`), and the columns of `latency.sums`.
    """

    totals: pl.DataFrame

    def filter(self, *wanted: pl.Expr) -> Readings:
        """Return the readings of the trials that satisfy all conditions."""
        return Readings(self.totals.filter(*wanted))

    @cached_property
    def means(self) -> pl.DataFrame:
        """Mean times in ns, one row per cell (`GROUP`), replicate and input: `mean_<phase>`."""
        # Sorted, here and after joins, so that sums are in one order and runs agree exactly.
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
        """Return one row per cell, replicate and input with `log`, of a phase's mean in ns."""
        own = [*GROUP, "bare", "replicate", "input"]
        return self.means.select(*own, pl.col(f"mean_{phase}").log().alias("log"))

    @cached_property
    def judged(self) -> pl.DataFrame:
        """As `logs`, of the time that each scenario is judged by (`JUDGED_BY`).

        Scenarios judged by latency or throughput have one row per replicate, with an empty
        `input`; the others have the e2e time, one row per input.
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
        """One row per `trial` with `log`, of its judged time in ns (e2e: mean over inputs)."""
        whole = pl.col("scenario").first().is_in(WHOLE)
        e2e = (pl.col("e2e_ns") / pl.col("n")).mean()
        log = pl.when(whole).then(judged_ns()).otherwise(e2e).log().alias("log")
        return self.totals.group_by("trial", maintain_order=True).agg(log)


def readings(samples: pl.DataFrame | Readings) -> Readings:
    """Return the readings of samples as `load` returns them; readings are returned unchanged."""
    if isinstance(samples, Readings):
        return samples
    measured = steady(samples)
    about = [name for name in _OF_TRIALS if name in measured.columns]
    key = [*(["trial"] if "trial" in measured.columns else []), *GROUP, "bare", "replicate"]
    times = [name for name in _TIMES if name in measured.columns]
    missing = [name for name in ("queue_ns", "latency_ns") if name not in measured.columns]
    measured = measured.with_columns(pl.lit(None, pl.Int64).alias(name) for name in missing)
    # As floats, since a file may state times whose integer sum overflows.
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
    """Return the matrix of logarithms (`engine.Logs`) of each cell, by the cell's key.

    Args:
        logs: One row per cell, unit and `input`, with `log`.
        columns: The columns that identify a cell.
        unit: The column that identifies a unit.
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
    matrices = {}
    lists = (groups[name] for name in ("_unit", "_place", "_log"))
    keys = groups.select(columns).iter_rows()
    for key, own_units, own_places, own in zip(keys, *lists, strict=True):
        units, rows = np.unique(own_units.to_numpy(), return_inverse=True)
        places, across = np.unique(own_places.to_numpy(), return_inverse=True)
        inputs = known.setdefault(places.tobytes(), tuple(texts[n] for n in places))
        values = np.full((len(units), len(inputs)), np.nan)
        present = np.zeros(values.shape, dtype=np.bool_)
        values[rows, across], present[rows, across] = own.to_numpy(), True
        matrices[key] = Logs(tuple(units.tolist()), inputs, values, present)
    return matrices


def judged(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return `Readings.judged` of samples."""
    return readings(samples).judged


def by_replicate(measured: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    """Return one row per cell and replicate with `log` of a value per trial, and an empty `input`.

    Args:
        measured: Rows that are aggregated per trial.
        value: The aggregate.

    Returns:
        A frame that `estimate.to_baseline` takes.
    """
    return (
        measured.group_by(*GROUP, "bare", "replicate", "trial")
        .agg(value.log().alias("log"))
        .group_by(*GROUP, "bare", "replicate")
        .agg(pl.col("log").mean())
        .with_columns(input=pl.lit(""))
        .sort(*GROUP, "replicate")
    )
