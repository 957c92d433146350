"""What the published timings themselves show against the figures that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from scipy import stats

from virtbed_analysis import robust

_CELL = ("app", "cores", "mode", "platform")
# A platform does less work than bare metal nowhere: a cell this much faster did something else.
_UNEXPLAINED = 0.75
# A first request this many times the median of its cell is a warm-up.
_WARM_UP = 2.0
# So many cells an order, and it was no random one.
_CELLS_OF_AN_ORDER = 10
_CHANCE = 0.05
# More cores that take this many times as long are no noise.
_RISES = 1.1
# A run this many times what its input and its cell let expect is one of its own.
_OWN_RUN = 2.0
# Inputs whose ratios are this many times as far apart (9 of 10 to 1 of 10) have no common ratio.
_APART = 1.25


@dataclass(frozen=True)
class Weakness:
    """Something in the data that makes a figure less than it seems, with its numbers."""

    id: str
    text: str


def weaknesses(timings: pl.DataFrame, ratios: pl.DataFrame) -> list[Weakness]:
    """Return what the data itself shows against its figures, each with its numbers.

    Args:
        timings: See `published.read`.
        ratios: See `published.ratios`.
    """
    found = [
        _warm_up(timings), _order(timings), _fixed_order(timings),
        _missing(timings), _one_run(timings),
        _one_baseline(timings), _slower_with_cores(timings), _own_runs(timings),
        _alike_neighbours(timings), _inputs_apart(timings),
    ]  # fmt: skip
    return [weakness for weakness in found if weakness] + _unexplained(ratios)


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
        f"The first run is pooled with the rest. In {slow.height} of {cells.height} cells "
        f"({apps}) it takes over {_WARM_UP:g} times the cell's median; the most in "
        f"{_name(worst)}: {worst['first']:.1f} s, the median {worst['median']:.2f} s.",
    )


def _order(timings: pl.DataFrame) -> Weakness | None:
    firsts = timings.filter("warmup").group_by("app").agg(pl.col("input").n_unique())
    several = firsts.filter(pl.col("input") > 1).sort("app").to_dicts()
    if not several:
        return None
    seen = ", ".join(f"{row['app']} {row['input']} different ones" for row in several)
    return Weakness(
        "input-order",
        f"The order of the inputs differs between cells, so that another one comes first ({seen}): "
        "where inputs are paired, a warm-up is paired with a run that is not one.",
    )


def _fixed_order(timings: pl.DataFrame) -> Weakness | None:
    """Orders that repeat: an input always has the same place, and the same neighbours."""
    cells = timings.sort("row").group_by(_CELL).agg(pl.col("input").str.join("\n"))
    apps = cells.group_by("app").agg(pl.col("input").n_unique().alias("orders"), pl.len())
    repeated = apps.filter(pl.col("len") >= _CELLS_OF_AN_ORDER * pl.col("orders")).sort("app")
    if not repeated.height:
        return None
    seen = ", ".join(
        f"{row['app']} {row['orders']} in {row['len']} cells" for row in repeated.to_dicts()
    )
    return Weakness(
        "fixed-order",
        f"The inputs ran in very few orders, none of them drawn at random ({seen}): what changes "
        "while a cell runs cannot be distinguished from what its inputs differ by.",
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


def _one_baseline(timings: pl.DataFrame) -> Weakness | None:
    """Bare metal's one measurement of a size is in every ratio of it, in both modes."""
    modes = timings.filter(pl.col("mode") != "GPU", pl.col("platform") != "BM")
    uses = modes.select(_CELL).unique().group_by("app", "cores").len().sort("len", "app", "cores")
    metal = timings.filter(pl.col("mode") != "GPU", pl.col("platform") == "BM")
    measured = set(metal.select("app", "cores", "mode").unique().iter_rows())
    if modes["mode"].n_unique() < 2 or metal["mode"].n_unique() > 1:
        return None
    most = uses.row(-1, named=True)
    return Weakness(
        "one-baseline",
        f"Bare metal was measured once at each size ({len(measured)} cells), for both modes: its "
        f"noise is common to up to {most['len']} ratios ({most['app']} at {most['cores']} cores), "
        "which are no independent evidence of each other.",
    )


def _steady(timings: pl.DataFrame) -> pl.DataFrame:
    return timings.filter(~pl.col("warmup")).with_columns(pl.col("exec_time_s").log().alias("log"))


def _slower_with_cores(timings: pl.DataFrame) -> Weakness | None:
    """A doubling of cores that makes a curve slower; on bare metal it lowers all ratios there."""
    curve = ["app", "mode", "platform"]
    typical = _steady(timings).group_by(_CELL).agg(pl.col("log").mean().exp().alias("s"))
    larger = typical.with_columns((pl.col("cores") // 2).alias("half")).drop("cores")
    pairs = typical.join(
        larger.rename({"s": "larger"}), left_on=[*curve, "cores"], right_on=[*curve, "half"]
    ).with_columns((pl.col("larger") / pl.col("s")).alias("times"))
    rises = pairs.filter(pl.col("times") > _RISES).sort("times", *_CELL)
    if not rises.height:
        return None
    metal = rises.filter(pl.col("platform") == "BM", pl.col("mode") != "GPU")
    seen = ", ".join(
        f"{row['app']} {row['times']:.2f} times from {row['cores']} to {2 * row['cores']}"
        for row in metal.sort("app", "cores").to_dicts()
    )
    of_metal = (
        f" On bare metal it does ({seen}): ratios at the larger size are low for that reason too."
        if seen
        else ""
    )
    worst = rises.row(-1, named=True)
    return Weakness(
        "slower-with-cores",
        f"In {rises.height} of {pairs.height} doublings of cores the time rises by over "
        f"{_RISES - 1:.0%}, most in {_name(worst)}: {worst['times']:.2f} times at twice as many."
        f"{of_metal}",
    )


def _residuals(timings: pl.DataFrame) -> pl.DataFrame:
    """Return the logarithms of steady runs, less the medians of their input and their cell."""
    own = pl.col("log") - pl.col("log").median().over(_CELL)
    return (
        _steady(timings)
        .with_columns(own.alias("apart"))
        .with_columns(pl.col("apart") - pl.col("apart").median().over("app", "input"))
        .sort(*_CELL, "row")
    )


def _own_runs(timings: pl.DataFrame) -> Weakness | None:
    runs = _residuals(timings)
    far = runs.filter(pl.col("apart").abs() > np.log(_OWN_RUN)).sort(pl.col("apart").abs())
    if not far.height:
        return None
    worst = far.row(-1, named=True)
    return Weakness(
        "outlying-run",
        f"{far.height} of {runs.height} later runs take over {_OWN_RUN:g} times, or under "
        f"{1 / _OWN_RUN:g} of, what their input and their cell let expect, in "
        f"{far.select(_CELL).n_unique()} cells; the furthest {np.exp(worst['apart']):.2f} times "
        f"({_name(worst)}, {worst['input']}). Run once, each is in its ratio in full.",
    )


def _alike_neighbours(timings: pl.DataFrame) -> Weakness | None:
    """Consecutive runs that deviate in the same direction: fewer independent ones than runs."""
    found, looked = 0, 0
    for _, cell in _residuals(timings).group_by(_CELL, maintain_order=True):
        if cell.height < robust.FEWEST_FAR:
            continue
        looked += 1
        found += bool(robust.signs(cell["apart"].to_numpy()[None, :]).wandering_p[0] < _CHANCE)
    if not looked or found <= stats.binom.ppf(1 - _CHANCE, looked, _CHANCE):
        return None
    return Weakness(
        "alike-neighbours",
        f"In {found} of {looked} cells consecutive runs deviate in the same direction (p < "
        f"{_CHANCE:g} each; {_CHANCE * looked:.0f} would by chance): the host changed while they "
        "ran, and there are fewer independent runs than inputs.",
    )


def _inputs_apart(timings: pl.DataFrame) -> Weakness | None:
    """How far the ratios of a cell's inputs are apart, which its one ratio does not say."""
    gpu = (pl.col("mode") == "GPU").alias("gpu")
    steady = _steady(timings).with_columns(gpu)
    metal = steady.filter(pl.col("platform") == "BM")
    pairs = steady.filter(pl.col("platform") != "BM").join(
        metal.select("app", "cores", "input", "gpu", pl.col("log").alias("metal")),
        on=["app", "cores", "input", "gpu"],
    )
    each = pl.col("log") - pl.col("metal")
    apart = (each.quantile(0.9, "linear") - each.quantile(0.1, "linear")).exp()
    cells = pairs.group_by(_CELL).agg(apart.alias("apart")).sort("apart", *_CELL)
    wide = cells.filter(pl.col("apart") > _APART)
    if not wide.height:
        return None
    worst = wide.row(-1, named=True)
    apps = ", ".join(
        f"{row['app']} {row['len']}" for row in wide.group_by("app").len().sort("app").to_dicts()
    )
    return Weakness(
        "inputs-apart",
        f"In {wide.height} of {cells.height} cells ({apps}) the ratios of the inputs are over "
        f"{_APART:g} times apart (the 90th percentile over the 10th), most in {_name(worst)}: "
        f"{worst['apart']:.2f} times. One ratio does not hold for all of their inputs.",
    )


def _unexplained(ratios: pl.DataFrame) -> list[Weakness]:
    fast = ratios.filter(pl.col("ratio_steady") < _UNEXPLAINED)
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
