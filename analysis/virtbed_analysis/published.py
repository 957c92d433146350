"""Reads the published measurements of the study's laboratory, and compares a sweep with them.

The data is that of github.com/hpcclab/DNN-Virt-Evaluation (2020), as one table with one timing per
row. Bare metal was measured once per size, by taking CPUs offline, for both modes; here it is `bm`
vanilla. Rows of the mode GPU do not state the CPU placement. `weaknesses` lists the limits of the
data; this package holds only the ratios (published.csv), not the timings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis import findings
from virtbed_analysis.cells import CELL, MATCHED, Cell, is_plain
from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Logs
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import read_csv
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.margin import CANNOT_TELL, has_width
from virtbed_analysis.platforms import Parts, Platforms, platforms_of
from virtbed_analysis.trust import Json
from virtbed_analysis.weaknesses import weaknesses
from virtbed_contract import identifiers
from virtbed_contract.measures import JUDGED_BY
from virtbed_contract.sweep import MARGIN

SOURCE = "github.com/hpcclab/DNN-Virt-Evaluation (2020)"
COLUMNS: dict[str, pl.DataType] = {
    "app": pl.String(),
    "cores": pl.Int64(),
    "mode": pl.String(),
    "platform": pl.String(),
    "row": pl.Int64(),
    "input": pl.String(),
    "exec_time_s": pl.Float64(),
}
# The laboratory's names of platforms, in its order.
PLATFORMS: dict[str, Parts] = {
    "BM": ("metal", "process"),
    "CN": ("metal", "docker"),
    "VM": ("kvm", "process"),
    "VMCN": ("kvm", "docker"),
}
INSIDE, OUTSIDE = "inside", "outside"
_ALLOWED = {"mode": {"vanilla", "pinned", "GPU"}, "platform": set(PLATFORMS)}
_COLUMNS = [*CELL, "weights", "ratio", "ratio_low", "ratio_high", "ratio_replicates"]
_CELL = ("app", "cores", "mode", "platform")


def read(path: Path) -> pl.DataFrame:
    """Return the timings in the order of the file.

    Returns:
        `COLUMNS`, one row per timing, and `warmup`, which is true for the first row of a cell.

    Raises:
        AnalysisError: The file is missing, lacks a column, or has an impossible value.
    """
    hint = "; this reads the table of the published measurements; virtbed report reads a sweep"
    frame = read_csv(path, COLUMNS, hint)
    typed = frame.select(pl.col(name).cast(kind, strict=False) for name, kind in COLUMNS.items())
    for name in COLUMNS:
        column = typed[name]
        wrong = column.is_null()
        if name == "exec_time_s":
            wrong = wrong | ~column.fill_null(-1.0).is_finite() | (column.fill_null(-1.0) <= 0)
        if name == "cores":
            wrong = wrong | (column.fill_null(0) < 1)
        if name in _ALLOWED:
            wrong = wrong | ~column.is_in(sorted(_ALLOWED[name]))
        if wrong.any():
            line = int(wrong.arg_true()[0])
            allowed = f", one of {', '.join(sorted(_ALLOWED[name]))}" if name in _ALLOWED else ""
            raise AnalysisError(
                f"{path}: line {line + 2} has {name} {frame[name][line]!r}, "
                f"a {'positive ' if name in ('exec_time_s', 'cores') else ''}"
                f"{'number' if COLUMNS[name].is_numeric() else 'name'} needed{allowed}"
            )
    twice = typed.group_by(*_CELL, "row").len().filter(pl.col("len") > 1)
    if twice.height:
        raise AnalysisError(
            f"{path}: row {twice.row(0)} found {twice['len'][0]} times, once needed; remove the "
            "others"
        )
    return typed.with_columns((pl.col("row") == pl.col("row").min().over(_CELL)).alias("warmup"))


def document(path: Path) -> Json:
    """Return the analysis of the published table: ratios, weaknesses and verdicts.

    Raises:
        AnalysisError: See `read`.

    Example:
        >>> document(Path("timings.csv"))["timings"]
        4
    """
    timings = read(path)
    return {
        "schema": identifiers.PUBLISHED,
        "source": SOURCE,
        "timings": timings.height,
        "cells": _cells(timings),
        "confidence": CONFIDENCE,
        "ratios": ratios(timings).to_dicts(),
        "weaknesses": [asdict(found) for found in weaknesses(timings, ratios(timings))],
        "verdicts": findings.rows(units(timings.filter(~pl.col("warmup")))),
    }


def ratios(timings: pl.DataFrame) -> pl.DataFrame:
    """Return each cell's ratio to bare metal of its size: a geometric mean, paired by input.

    Both modes are compared with the one measurement of bare metal on CPUs, GPU with bare metal's on
    the GPU.

    Returns:
        One row per cell: `app`, `mode`, `platform`, `cores`, `ratio` (as published, of all runs),
        `inputs` (the number of pairs), `ratio_steady` (without the first run of both sides).
    """
    every, steady = units(timings), units(timings.filter(~pl.col("warmup")))
    rows = []
    for row in timings.filter(pl.col("platform") != "BM").select(_CELL).unique().to_dicts():
        cell = _cell(row)
        logs, later = every.cost(cell), steady.cost(cell)
        if logs is not None:
            ratio = float(np.exp(logs.mean()))
            ratio_steady = None if later is None else float(np.exp(later.mean()))
            rows.append({**row, "ratio": ratio, "inputs": len(logs), "ratio_steady": ratio_steady})
    schema = {"app": pl.String, "mode": pl.String, "platform": pl.String, "cores": pl.Int64,
              "ratio": pl.Float64, "inputs": pl.UInt32, "ratio_steady": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema).sort(
        "app",
        "cores",
        pl.col("platform").cast(pl.Enum(list(PLATFORMS))),
        pl.col("mode").cast(pl.Enum(["vanilla", "pinned", "GPU"])),
    )


def units(timings: pl.DataFrame) -> Units:
    """Return the logarithms of timings with one unit per input, since each input ran once."""
    logs: dict[Cell, dict[str, tuple[list[str], list[float]]]] = {}
    for row in timings.iter_rows(named=True):
        value = [""], [math.log(row["exec_time_s"])]
        logs.setdefault(_cell(row), {})[row["input"]] = value
    cells = {cell: Logs.of(own) for cell, own in logs.items()}
    return Units(cells, "input", {}, platforms_of((), PLATFORMS), metal_mode="vanilla")


def _cell(row: Mapping[str, Any]) -> Cell:
    gpu = row["mode"] == "GPU"
    mode, processor = ("vanilla", "gpu") if gpu else (row["mode"], "cpu")
    default = tuple(factor.default for factor in MATCHED)
    cell = Cell(row["app"], "", "", "", default, row["cores"], row["platform"], mode)
    return cell.having(processor=processor)


def figures() -> pl.DataFrame:
    """Return the `ratios` of the published data that this package holds, to three decimals.

    The timings belong to the laboratory and are not part of the package.
    """
    text = resources.files("virtbed_analysis").joinpath("published.csv").read_bytes()
    return pl.read_csv(text, comment_prefix="#")


def next_to_published(cells: list[Json], platforms: Platforms, margin: float = MARGIN) -> Json:
    """Return the published ratios next to a sweep's own, where platform, mode and cores are equal.

    Platforms are equal if machine and enclosure are. The study used other hosts, models and
    versions, so there is no reason to expect agreement; the result states whether there is.

    Args:
        cells: Rows of `estimate.cells`. Emulated and slowed cells, GPUs, and scenarios with another
            measure than e2e time are not compared.
        platforms: The platforms of the sweep.
        margin: The smallest difference worth knowing, as a share.

    Returns:
        `rows`: the sweep's cell, and `published`, the ratio of each published application without
        first runs; `answer` is "inside" if the cell's whole interval is within the range of these,
        widened by the margin, "outside" if it is beyond, else "cannot tell". `compared` is the
        number of rows with an interval, `answers` the number with each answer.
    """
    known: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in figures().filter(pl.col("mode") != "GPU").iter_rows(named=True):
        place = PLATFORMS[row["platform"]], row["mode"], row["cores"]
        known.setdefault(place, {})[row["app"]] = row["ratio_steady"]

    def by_e2e(cell: Json) -> bool:
        return JUDGED_BY[cell["scenario"]].name == "e2e"

    rows = []
    for cell in cells:
        theirs = known.get((platforms.parts(cell["platform"]), cell["mode"], cell["cores"]))
        mine = cell["ratio"] is not None and cell["processor"] == "cpu" and by_e2e(cell)
        if not theirs or not mine or not is_plain(cell):
            continue
        low, high = min(theirs.values()) / (1 + margin), max(theirs.values()) * (1 + margin)
        where = _place(cell["ratio_low"], cell["ratio_high"], low, high)
        rows.append({**{key: cell[key] for key in _COLUMNS}, "published": theirs, "answer": where})
    return {
        "source": SOURCE,
        "margin": margin,
        "rows": rows,
        "compared": sum(row["ratio_low"] is not None for row in rows),
        "answers": {
            where: sum(row["answer"] == where and row["ratio_low"] is not None for row in rows)
            for where in (INSIDE, OUTSIDE, CANNOT_TELL)
        },
    }


def _place(low: float | None, high: float | None, least: float, most: float) -> str:
    """Return whether an interval is inside a range, outside it, or overlaps its ends."""
    if low is None or high is None or not has_width(low, high):
        return CANNOT_TELL
    if least <= low and high <= most:
        return INSIDE
    return OUTSIDE if high < least or low > most else CANNOT_TELL


def _cells(timings: pl.DataFrame) -> int:
    return timings.select(_CELL).n_unique()
