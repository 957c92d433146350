"""Weaknesses of the published timings that their own data reveals, each with its numbers.

Used by `published.document`; thresholds are at the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from scipy import stats

from virtbed_analysis import robust
from virtbed_contract.counts import count

_CELL = ("app", "cores", "mode", "platform")
# No platform does less work than bare metal, so a cell below this ratio did something else.
_UNEXPLAINED = 0.75
# A first request that takes this many times the median of its cell is a warm-up.
_WARM_UP = 2.0
# An order of inputs that this many cells share was not random.
_CELLS_OF_AN_ORDER = 10
_CHANCE = 0.05
# A time that rises by this factor with twice the cores is not noise.
_RISES = 1.1
# A run that takes this many times the time expected from its input and cell is an outlier.
_OWN_RUN = 2.0
# Inputs have no common ratio if the 90th percentile of their ratios is this many times the 10th.
_APART = 1.25


@dataclass(frozen=True)
class Weakness:
    """A property of the data that makes its figures less reliable, with its numbers."""

    id: str
    text: str


def weaknesses(timings: pl.DataFrame, ratios: pl.DataFrame) -> list[Weakness]:
    """Return the weaknesses that the data reveals.

    Args:
        timings: See `published.read`.
        ratios: See `published.ratios`.
    """
    candidates = [
        _warm_up(timings), _order(timings), _fixed_order(timings),
        _missing(timings), _one_run(timings),
        _one_baseline(timings), _slower_with_cores(timings), _own_runs(timings),
        _alike_neighbours(timings), _inputs_apart(timings),
    ]  # fmt: skip
    return [weakness for weakness in candidates if weakness] + _unexplained(ratios)


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
        f"({apps}) it takes more than {_WARM_UP:g} times the cell's median; the most in "
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
        f"The order of the inputs differs between cells, so the first input differs, too ({seen}). "
        "If inputs are paired, a warm-up is paired with a run that is none.",
    )


def _fixed_order(timings: pl.DataFrame) -> Weakness | None:
    """Return the weakness of repeated orders: an input always has the same place in them."""
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
        f"The inputs ran in very few orders, none of them drawn at random ({seen}): changes over "
        "time cannot be distinguished from differences between inputs.",
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
        "missing-cell", f"{len(lack)} of {len(have) + len(lack)} cells have no run: {names}."
    )


def _one_run(timings: pl.DataFrame) -> Weakness | None:
    most = timings.group_by(*_CELL, "input").len()["len"].max()
    if most != 1:
        return None
    inputs = sorted(timings.group_by(*_CELL).agg(pl.col("input").n_unique())["input"].to_list())
    return Weakness(
        "one-run",
        f"Each input ran once in each cell ({inputs[0]} to {inputs[-1]} inputs): intervals span "
        "inputs, not trials, and do not show how much another process, instance or day would "
        "differ.",
    )


def _one_baseline(timings: pl.DataFrame) -> Weakness | None:
    """Return the weakness that all ratios of a size share one measurement of bare metal."""
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
        "which are therefore not independent of each other.",
    )


def _steady(timings: pl.DataFrame) -> pl.DataFrame:
    return timings.filter(~pl.col("warmup")).with_columns(pl.col("exec_time_s").log().alias("log"))


def _slower_with_cores(timings: pl.DataFrame) -> Weakness | None:
    """Return the weakness of times that rise with cores; on bare metal this lowers all ratios."""
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
        f" It does so on bare metal, too ({seen}), which makes ratios at the larger size too low."
        if seen
        else ""
    )
    worst = rises.row(-1, named=True)
    return Weakness(
        "slower-with-cores",
        f"In {rises.height} of {pairs.height} doublings of cores, the time rises by more than "
        f"{_RISES - 1:.0%}, most in {_name(worst)}: {worst['times']:.2f} times with twice the "
        f"cores.{of_metal}",
    )


def _residuals(timings: pl.DataFrame) -> pl.DataFrame:
    """Return the logarithms of steady runs minus the medians of their cell and input."""
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
        f"{far.height} of {runs.height} later runs take more than {_OWN_RUN:g} times, or less than "
        f"{1 / _OWN_RUN:g} of, the time expected from their input and cell, in "
        f"{far.select(_CELL).n_unique()} cells; the furthest {np.exp(worst['apart']):.2f} times "
        f"({_name(worst)}, {worst['input']}). Each input ran once, so each such run has full "
        "weight in its ratio.",
    )


def _alike_neighbours(timings: pl.DataFrame) -> Weakness | None:
    """Return the weakness that consecutive runs deviate alike, so fewer are independent."""
    alike, tested = 0, 0
    for _, cell in _residuals(timings).group_by(_CELL, maintain_order=True):
        if cell.height < robust.FEWEST_FAR:
            continue
        tested += 1
        alike += bool(robust.signs(cell["apart"].to_numpy()[None, :]).wandering_p[0] < _CHANCE)
    if not tested or alike <= stats.binom.ppf(1 - _CHANCE, tested, _CHANCE):
        return None
    return Weakness(
        "alike-neighbours",
        f"In {alike} of {tested} cells, consecutive runs deviate in the same direction (p < "
        f"{_CHANCE:g} each; {_CHANCE * tested:.0f} expected by chance): the host changed while "
        "they ran, and there are fewer independent runs than inputs.",
    )


def _inputs_apart(timings: pl.DataFrame) -> Weakness | None:
    """Return the weakness that the ratios of a cell's inputs are far apart."""
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
        f"In {wide.height} of {cells.height} cells ({apps}), the ratios of the inputs are more "
        f"than {_APART:g} times apart (90th percentile divided by the 10th), most in "
        f"{_name(worst)}: {worst['apart']:.2f} times. No single ratio holds for all their inputs.",
    )


def _unexplained(ratios: pl.DataFrame) -> list[Weakness]:
    fast = ratios.filter(pl.col("ratio_steady") < _UNEXPLAINED)
    unexplained = []
    for (app, platform, mode), group in fast.group_by(
        "app", "platform", "mode", maintain_order=True
    ):
        least, *_, most = sorted(group["ratio_steady"].to_list() * 2)
        cores = ", ".join(str(n) for n in sorted(group["cores"].to_list()))
        unexplained.append(
            Weakness(
                "unexplained-cell",
                f"{app} {platform} {mode} takes {least:.3f} to {most:.3f} of bare metal's time at "
                f"{cores} cores. No platform does less work than bare metal, and nothing recorded "
                "(host, versions, threads, limits) explains it.",
            )
        )
    return unexplained


def _name(cell: dict[str, object]) -> str:
    size = count(int(str(cell["cores"])), "core")
    return f"{cell['app']} {cell['platform']} {cell['mode']} at {size}"
