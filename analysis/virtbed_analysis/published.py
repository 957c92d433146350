"""The published measurements of the study's laboratory: how to read, how far to trust them.

The data is that of github.com/hpcclab/DNN-Virt-Evaluation (2020), gathered into one table of one
timing a row. Bare metal was measured at each size by taking CPUs offline, once for both modes,
which is `bm` vanilla here. Rows of the mode GPU say nothing of CPU placement.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis import findings
from virtbed_analysis.cells import CELL, MATCHED, Cell, is_plain
from virtbed_analysis.effects import Units
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import read_csv
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.platforms import Parts, Platforms, platforms_of
from virtbed_analysis.trust import Json
from virtbed_contract import identifiers

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
# What the laboratory called its platforms, in the order in which it lists them.
PLATFORMS: dict[str, Parts] = {
    "BM": ("metal", "process"),
    "CN": ("metal", "docker"),
    "VM": ("kvm", "process"),
    "VMCN": ("kvm", "docker"),
}
_ALLOWED = {"mode": {"vanilla", "pinned", "GPU"}, "platform": set(PLATFORMS)}
_BESIDE = [*CELL, "weights", "ratio", "ratio_low", "ratio_high", "ratio_replicates"]
_CELL = ("app", "cores", "mode", "platform")
# A platform does less work than bare metal nowhere: a cell this much faster did something else.
_UNEXPLAINED = 0.75
# A first request this many times the median of its cell is a warm-up.
_WARM_UP = 2.0


@dataclass(frozen=True)
class Weakness:
    """Something in the data that makes a figure less than it seems, with its numbers."""

    id: str
    text: str


def read(path: Path) -> pl.DataFrame:
    """Return the timings, in the order of the file: `COLUMNS`, and `warmup` for a cell's first row.

    Raises:
        AnalysisError: the file is missing, lacks a column, or holds a value that cannot be.
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
        raise AnalysisError(f"{path}: row {twice.row(0)} is there {twice['len'][0]} times")
    return typed.with_columns((pl.col("row") == pl.col("row").min().over(_CELL)).alias("warmup"))


def document(path: Path) -> Json:
    """Return what can be said of the published table: ratios, weaknesses and verdicts.

    Raises:
        AnalysisError: see `read`.
    """
    timings = read(path)
    return {
        "schema": identifiers.PUBLISHED,
        "source": SOURCE,
        "timings": timings.height,
        "cells": _cells(timings),
        "confidence": CONFIDENCE,
        "ratios": ratios(timings).to_dicts(),
        "weaknesses": [asdict(weakness) for weakness in weaknesses(timings)],
        "verdicts": findings.rows(units(timings)),
    }


def ratios(timings: pl.DataFrame) -> pl.DataFrame:
    """Return each cell's geometric-mean ratio to bare metal at its size, paired by input.

    As published, every run counts: `ratio`, of `inputs` pairs; `ratio_steady` leaves the first run
    of both sides out. Columns: `app`, `mode`, `platform`, `cores` before them. The modes are
    compared with bare metal's one measurement on CPUs, GPU with bare metal's on the GPU.
    """
    gpu = pl.col("mode") == "GPU"
    metal = timings.filter(pl.col("platform") == "BM").select(
        "app", "cores", "input", gpu.alias("gpu"),
        pl.col("exec_time_s").alias("metal"), pl.col("warmup").alias("metal_warmup"),
    )  # fmt: skip
    pairs = (
        timings.filter(pl.col("platform") != "BM")
        .with_columns(gpu.alias("gpu"))
        .join(metal, on=["app", "cores", "input", "gpu"])
    )
    log = (pl.col("exec_time_s") / pl.col("metal")).log()
    steady = ~pl.col("warmup") & ~pl.col("metal_warmup")
    return (
        pairs.group_by("app", "mode", "platform", "cores")
        .agg(
            log.mean().exp().alias("ratio"),
            pl.len().alias("inputs"),
            log.filter(steady).mean().exp().alias("ratio_steady"),
        )
        .sort(
            "app",
            "cores",
            pl.col("platform").cast(pl.Enum(list(PLATFORMS))),
            pl.col("mode").cast(pl.Enum(["vanilla", "pinned", "GPU"])),
        )
    )


def units(timings: pl.DataFrame) -> Units:
    """Return the timings without each cell's first, one unit per input: that is all there is."""
    logs: dict[Cell, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    one = np.array([""], dtype=np.str_)
    default = tuple(factor.default for factor in MATCHED)
    for row in timings.filter(~pl.col("warmup")).iter_rows(named=True):
        gpu = row["mode"] == "GPU"
        mode, processor = ("vanilla", "gpu") if gpu else (row["mode"], "cpu")
        cell = Cell(row["app"], "", "", "", default, row["cores"], row["platform"], mode)
        cell = cell.having(processor=processor)
        value = np.array([np.log(row["exec_time_s"])])
        logs.setdefault(cell, {})[row["input"]] = (one, value)
    return Units(logs, "input", {}, platforms_of((), PLATFORMS), metal_mode="vanilla")


def figures() -> pl.DataFrame:
    """Return `ratios` of the published data as this package holds them, to three decimals.

    The timings themselves are the laboratory's, and are not part of it.
    """
    text = resources.files("virtbed_analysis").joinpath("published.csv").read_bytes()
    return pl.read_csv(text, comment_prefix="#")


def beside(cells: list[Json], platforms: Platforms) -> Json:
    """Return the published ratios next to a sweep's own, wherever platform, mode and cores agree.

    Platforms agree where machine and enclosure do.

    Args:
        cells: Rows of `estimate.cells`. Emulated and slowed ones, and GPUs, are not compared.
        platforms: Those of the sweep.

    Returns:
        `rows`: the sweep's cell, and for each published application its ratio, first runs left
        out, as `published`; `within` says whether the cell's interval meets the range of these.
        `met` of `compared` rows do. Nothing here says that the two should agree: other hosts,
        models and versions; it says whether they do.
    """
    known: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in figures().filter(pl.col("mode") != "GPU").iter_rows(named=True):
        place = PLATFORMS[row["platform"]], row["mode"], row["cores"]
        known.setdefault(place, {})[row["app"]] = row["ratio_steady"]
    rows = []
    for cell in cells:
        theirs = known.get((platforms.parts(cell["platform"]), cell["mode"], cell["cores"]))
        mine = cell["ratio"] is not None and cell["processor"] == "cpu"
        if not theirs or not mine or not is_plain(cell):
            continue
        meets = None
        if cell["ratio_low"] is not None:
            meets = cell["ratio_low"] <= max(theirs.values()) and cell["ratio_high"] >= min(
                theirs.values()
            )
        rows.append({**{key: cell[key] for key in _BESIDE}, "published": theirs, "within": meets})
    return {
        "source": SOURCE,
        "rows": rows,
        "compared": sum(row["within"] is not None for row in rows),
        "met": sum(row["within"] is True for row in rows),
    }


def weaknesses(timings: pl.DataFrame) -> list[Weakness]:
    """Return what the data itself shows against its figures, each with its numbers."""
    found = [_warm_up(timings), _order(timings), _missing(timings), _one_run(timings)]
    return [weakness for weakness in found if weakness] + _unexplained(timings)


def _cells(timings: pl.DataFrame) -> int:
    return timings.select(_CELL).n_unique()


def _warm_up(timings: pl.DataFrame) -> Weakness | None:
    cells = timings.group_by(*_CELL).agg(
        pl.col("exec_time_s").filter("warmup").first().alias("first"),
        pl.col("exec_time_s").median().alias("median"),
    )
    slow = cells.with_columns((pl.col("first") / pl.col("median")).alias("times")).filter(
        pl.col("times") > _WARM_UP
    )
    if not slow.height:
        return None
    worst = slow.sort("times", *_CELL).row(-1, named=True)
    apps = ", ".join(
        f"{row['app']} {row['len']}" for row in slow.group_by("app").len().sort("app").to_dicts()
    )
    return Weakness(
        "pooled-warm-up",
        f"The first run is pooled with the rest. In {slow.height} of {_cells(timings)} cells "
        f"({apps}) it takes over {_WARM_UP:g} times the cell's median; the most in "
        f"{_name(worst)}: {worst['first']:.1f} s, the median {worst['median']:.2f} s.",
    )


def _order(timings: pl.DataFrame) -> Weakness | None:
    firsts = timings.filter("warmup").group_by("app").agg(pl.col("input").n_unique())
    several = firsts.filter(pl.col("input") > 1).sort("app").to_dicts()
    if not several:
        return None
    told = ", ".join(f"{row['app']} {row['input']} different ones" for row in several)
    return Weakness(
        "input-order",
        f"The order of the inputs differs between cells, so that another one comes first ({told}): "
        "where inputs are paired, a warm-up is paired with a run that is none.",
    )


def _missing(timings: pl.DataFrame) -> Weakness | None:
    have = set(timings.select(_CELL).unique().iter_rows())
    places = {row[2:] for row in have}
    apps, cores = ({row[i] for row in have} for i in (0, 1))
    lack = sorted(
        (app, n, *place)
        for app, n, place in product(apps, cores, places)
        if (app, n, *place) not in have
    )
    if not lack:
        return None
    names = "; ".join(_name(dict(zip(_CELL, cell, strict=True))) for cell in lack)
    return Weakness(
        "missing-cell", f"Without any run, {len(lack)} of {len(have) + len(lack)} cells: {names}."
    )


def _one_run(timings: pl.DataFrame) -> Weakness | None:
    most = timings.group_by(*_CELL, "input").len()["len"].max()
    if most != 1:
        return None
    inputs = sorted(timings.group_by(*_CELL).agg(pl.col("input").n_unique())["input"].to_list())
    return Weakness(
        "one-run",
        f"Each input ran once in each cell ({inputs[0]} to {inputs[-1]} inputs): intervals span "
        "inputs, not trials, and do not say how far another process, instance or day would differ.",
    )


def _unexplained(timings: pl.DataFrame) -> list[Weakness]:
    fast = ratios(timings).filter(pl.col("ratio_steady") < _UNEXPLAINED)
    found = []
    for (app, platform, mode), group in fast.group_by(
        "app", "platform", "mode", maintain_order=True
    ):
        least, *_, most = sorted(group["ratio_steady"].to_list() * 2)
        cores = ", ".join(str(n) for n in sorted(group["cores"].to_list()))
        found.append(
            Weakness(
                "unexplained-cell",
                f"{app} {platform} {mode} takes {least:.3f} to {most:.3f} of bare metal's time at "
                f"{cores} cores. No platform does less work than bare metal, and nothing recorded "
                "(host, versions, threads, limits) explains it.",
            )
        )
    return found


def _name(cell: dict[str, object]) -> str:
    return f"{cell['app']} {cell['platform']} {cell['mode']} at {cell['cores']} cores"
