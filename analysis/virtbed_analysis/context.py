"""Facts of a sweep, besides its times, that findings depend on: see `answers.Known`.

These are cells with other answers, serial applications, suspect trials, cells confounded with time,
and cells that lost slow trials. `document` builds them once per report.
"""

from __future__ import annotations

import math

import polars as pl

from virtbed_analysis.answers import Known
from virtbed_analysis.candidates import ends_by_cell
from virtbed_analysis.cells import CELL, Cell, cell_of, is_plain, key_of
from virtbed_analysis.effects import of_sweep
from virtbed_analysis.frames import Sweep
from virtbed_analysis.per_trial import answers_differ
from virtbed_analysis.reasons import lost
from virtbed_analysis.reduction import BARE, BASELINE, PLAIN_ROWS, Readings, readings
from virtbed_analysis.trust import Json

# Busy CPUs below which an application counts as serial: its one thread and the runtime's helpers.
SERIAL = 1.2


def known(
    sweep: Sweep, selection: str = "", timing: Json | None = None, means: Readings | None = None
) -> Known:
    """Return the facts of a sweep that findings depend on.

    Args:
        sweep: The sweep.
        selection: See `Known`.
        timing: The result of `drift.order`; without it no cell counts as confounded with time.
        means: Readings of `sweep.samples`; computed if None.
    """
    real = sweep.trials.filter(~pl.col("emulated"))
    suspect = pl.col("suspicions").list.len() > 0
    few = real.filter(suspect).height
    means = means or readings(sweep.samples)
    clean = of_sweep(means.filter(~suspect), sweep.platforms) if few else None
    different, single = differing(sweep.trials), serial(sweep.trials)
    confounded = {
        cell_of(row): (row["warning"], abs(math.log1p(row["bias_most"])))
        for row in (timing["cells"] if timing else ())
        if row["warning"] and is_plain(row)
    }
    return Known(
        different, single, clean, (few, real.height), selection, confounded, flattered(sweep)
    )


def flattered(sweep: Sweep) -> dict[Cell, str]:
    """Return why a cell's times may be biased low, by plain cell: trials that hit a time limit.

    The remaining trials are a selection of the fast ones (survivorship bias).
    """
    weights = sweep.trials.filter(~pl.col("emulated")).select(*CELL, "weights").unique(CELL)
    late = {key: ends for key, ends in ends_by_cell(sweep).items() if ends.late}
    return {
        cell_of(row): f"{lost(late[key])}: slow trials may be missing from its times"
        for row in weights.to_dicts()
        if (key := key_of(row)) in late
    }


def differing(trials: pl.DataFrame) -> frozenset[Cell]:
    """Return the plain cells whose answers differ from those of bare metal."""
    weights = trials.select(*CELL, "weights").unique(CELL)
    rows = answers_differ(trials).join(weights, on=CELL, how="left").to_dicts()
    return frozenset(cell_of(row) for row in rows if is_plain(row))


def serial(trials: pl.DataFrame) -> dict[Cell, str]:
    """Return why an application did not use a second core, by bare-metal baseline cell.

    It did not if its trials had one usable core, pools of one thread, or kept less than `SERIAL`
    CPUs busy. Its times then show nothing about how bare metal scales.
    """
    cells = (
        trials.filter(~pl.col("emulated"), PLAIN_ROWS, pl.col("cores") > 1)
        .with_columns(BARE.alias("bare"))
        .filter(BASELINE)
        .group_by(CELL)
        .agg(
            pl.col("weights").first(),
            pl.col("usable_cores").max(),
            pl.col("pool_threads").max(),
            pl.col("pool_threads").min().alias("least_threads"),
            pl.col("busy_cpus").mean(),
        )
    )
    reasons = {}
    for row in cells.to_dicts():
        if row["usable_cores"] == 1:
            why = "the process could use only 1 core"
        elif row["pool_threads"] == 1 and row["least_threads"] == 1:
            why = "its pools had 1 thread"
        elif row["busy_cpus"] is not None and row["busy_cpus"] < SERIAL:
            why = f"it kept {row['busy_cpus']:.2f} of {row['cores']} CPUs busy"
        else:
            continue
        reasons[cell_of(row)] = f"{why}, so it does not show how bare metal scales"
    return reasons
