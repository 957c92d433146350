"""A linear mixed-effects model of a whole sweep, in addition to the plain ratios.

The response is one logarithm per trial. Fixed effects: a mean per cell (application x platform x
mode x cores, with all interactions). Random effects: replicate, instance (if several applications
share one), and trial. It is fitted by restricted maximum likelihood (statsmodels' MixedLM).

Assumption: one residual variance for all cells. It gives more degrees of freedom than a cell's own
replicates, and so narrower intervals. If it is rejected between platforms, applications or sizes
(test of Brown and Forsythe, "Robust Tests for the Equality of Variances", JASA 69, 1974), no model
is shown. The test has little power: if one platform of five is twice as noisy, five replicates show
it in a third to a half of sweeps, and in the others its interval covers about 85% (simulated in the
tests; the page says so). Findings and prediction intervals therefore use each cell's own spread.

Degrees of freedom are those of instances within replicates: exact for a complete sweep of one
application, conservative for several.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from virtbed_analysis import words
from virtbed_analysis.cells import BASELINE_MODE, CELL, SUBJECT, key_of
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, holm_adjusted, t_quantile
from virtbed_analysis.margin import percent
from virtbed_analysis.platforms import Platforms
from virtbed_analysis.reduction import PLAIN_ROWS
from virtbed_analysis.samples_per_trial import ENOUGH
from virtbed_analysis.unmeasured import unmeasured

Json = dict[str, Any]
Floats = NDArray[np.float64]
Key = tuple[Any, ...]
MOST_CELLS = 100
"""The largest number of cells: with more, the fit takes minutes."""
LEAST_FREEDOM = 4
METHODS = ["bfgs", "lbfgs", "cg", "powell", "nm"]
"""Optimizers, tried in turn: a variance of 0 is at the boundary, where some of them fail."""
UNLIKE = 0.05
"""Level of the test of equal variances."""
_INSTANCE = ["platform", "mode", "cores"]
_WORK = [column for column in CELL if column not in _INSTANCE]


class Unfit(Exception):
    """The model cannot be fitted to the sweep; the message gives the reason."""


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        cells: The keys of the cells (`CELL`), sorted.
        means: Shape (cells,): fixed effects, means of logarithms of ns.
        covariance: Shape (cells, cells): covariance of the means.
        own: Variance of one trial in a fresh instance, within a replicate (instance + residual).
        common: Variance of the replicate effect, which all cells share.
        freedom: Degrees of freedom of `own`.
    """

    cells: tuple[Key, ...]
    means: Floats
    covariance: Floats
    own: float
    common: float
    freedom: int

    def contrast(self, above: Key, below: Key) -> Floats:
        """Return the contrast of two cells (above minus below) as weights, shape (cells,)."""
        weights = np.zeros(len(self.cells))
        weights[self.cells.index(above)] += 1
        weights[self.cells.index(below)] -= 1
        return weights

    def interval(self, weights: Floats) -> tuple[float, float, float]:
        """Return the estimate of a contrast and the ends of its 95% interval (Student's t)."""
        middle = float(weights @ self.means)
        variance = float(weights @ self.covariance @ weights)
        half = t_quantile(CONFIDENCE, self.freedom) * math.sqrt(variance)
        return middle, middle - half, middle + half


def of_trials(ran: pl.DataFrame, platforms: Platforms, cells: Iterable[Json]) -> Json:
    """Return the report's part on the model.

    Args:
        ran: One row per trial, the result of `diagnostics.of_trials`.
        platforms: The platforms of the sweep.
        cells: The cells of the report, with their plain ratios.

    Returns:
        `reason` (why there is no model; None if there is one), `own` and `common` (standard
        deviations of logarithms), `freedom`, `rows` (one per compared cell: the model's ratio and
        the plain one, with intervals), `interactions` (see there) and `sizes` (see `unmeasured`).
    """
    empty: Json = {"own": None, "common": None, "freedom": None}
    lists: Json = {"rows": [], "interactions": [], "sizes": []}
    try:
        fitted = fit(ran, platforms.entries)
    except Unfit as reason:
        return {"reason": str(reason), **empty, **lists}
    plain = {key_of(cell): cell for cell in cells}
    places = {key: place for place, key in enumerate(plain)}
    pairs = _pairs(fitted, platforms.bare)
    pairs.sort(key=lambda pair: places.get(pair[0], len(places)))
    if not pairs:
        return {"reason": "no cell has a baseline of bare metal.", **empty, **lists}
    return {
        "reason": None,
        "own": math.sqrt(fitted.own),
        "common": math.sqrt(fitted.common),
        "freedom": fitted.freedom,
        "rows": [_row(fitted, above, below, plain.get(above, {})) for above, below in pairs],
        "interactions": interactions(fitted, pairs, platforms.entries),
        "sizes": [*_sizes(fitted, pairs)],
    }


def fit(ran: pl.DataFrame, entries: words.Entries = MappingProxyType({})) -> Fit:
    """Fit the model.

    Args:
        ran: One row per trial, the result of `diagnostics.of_trials`.
        entries: The platforms, for the wording of a reason.

    Raises:
        Unfit: there are too few replicates or too many cells or hosts, variances are unequal, or
            the fit does not converge.
    """
    kept = ran.filter(PLAIN_ROWS, pl.col("deviation").is_not_null())
    kept = kept.filter(pl.len().over("replicate") > 1)
    keys = [tuple(row) for row in kept.select(CELL).iter_rows()]
    cells = tuple(sorted(set(keys), key=str))
    replicates, instances = (
        kept.select(columns).unique().height
        for columns in (["replicate"], ["replicate", *_INSTANCE])
    )
    freedom = instances - kept.select(_INSTANCE).unique().height - (replicates - 1)
    hosts = kept["host"].n_unique()
    if hosts > 1:
        raise Unfit(f"{hosts} hosts found, one is needed: each host has its own spread.")
    if replicates < ENOUGH or freedom < LEAST_FREEDOM:
        raise Unfit(
            f"{words.count(replicates, 'replicate')} of {words.count(len(cells), 'cell')} found; "
            f"at least {ENOUGH} are needed, and {LEAST_FREEDOM} degrees of freedom."
        )
    if len(cells) > MOST_CELLS:
        raise Unfit(
            f"{len(cells)} cells found, at most {MOST_CELLS} are fitted: more take minutes."
        )
    place = {cell: number for number, cell in enumerate(cells)}
    which = np.array([place[key] for key in keys])
    if (reason := _unlike_spread(kept, which, entries)) is not None:
        raise Unfit(reason)
    means, covariance, parts = _estimate(kept, which, len(cells))
    return Fit(cells, means, covariance, parts[1], parts[0], freedom)


def _estimate(
    kept: pl.DataFrame, which: NDArray[np.int64], cells: int
) -> tuple[Floats, Floats, tuple[float, float]]:
    """Return means, their covariance, and the variances of a replicate and of an instance.

    Args:
        kept: One row per trial: `log`, `deviation`, `replicate` and the columns of an instance.
        which: The index of each trial's cell.
        cells: The number of cells.
    """
    # Imported here, since it takes two seconds and few commands fit a model.
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    logs = kept["log"].to_numpy()
    # Scaled to unit spread, since variances of logarithms are too small for the optimizers.
    scale = 1 / float(kept["deviation"].std())  # type: ignore[arg-type]
    endog = scale * logs
    exog = np.eye(cells)[which]
    replicate = kept["replicate"].to_numpy()
    labels = [str(row) for row in kept.select(_INSTANCE).iter_rows()]
    spec = None
    if len(set(zip(labels, replicate.tolist(), strict=True))) < len(labels):
        groups = sorted(set(replicate.tolist()))
        members = [np.flatnonzero(replicate == group) for group in groups]
        names = [sorted({labels[at] for at in own}) for own in members]
        mats = [
            np.array([[float(labels[at] == name) for name in among] for at in own])
            for own, among in zip(members, names, strict=True)
        ]
        spec = VCSpec(["instance"], [names], [mats])
    try:
        with warnings.catch_warnings():
            # A variance of 0 causes a harmless warning; convergence is checked below.
            warnings.simplefilter("ignore")
            one = np.ones((len(endog), 1))  # the replicate effect, not implied if there is a spec
            model = MixedLM(endog, exog, groups=replicate, exog_re=one, exog_vc=spec)
            fitted = model.fit(reml=True, method=METHODS)
            common = float(np.asarray(fitted.cov_re)[0, 0]) / scale**2
            among, rest = (float(np.sum(x)) / scale**2 for x in (fitted.vcomp, fitted.scale))
            known = (common, among, rest)
            covariance = _covariance(exog, replicate, np.array(labels), known)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise Unfit(f"the fit fails: {error}.") from error
    means = np.asarray(fitted.fe_params) / scale
    own = among + rest
    if not fitted.converged or not all(np.isfinite(x).all() for x in (means, covariance, own)):
        raise Unfit("the fit does not converge.")
    return means, covariance, (common, own)


def _covariance(
    exog: Floats, replicate: NDArray[np.int64], labels: NDArray[np.str_], known: tuple[float, ...]
) -> Floats:
    """Return the covariance of the fixed effects, (X' V^-1 X)^-1, at the estimated variances.

    This is the generalized least squares estimator. statsmodels inverts the Hessian of all
    parameters instead, which is not positive definite if a variance is estimated as 0; contrasts
    then had negative variances.

    Args:
        exog: Shape (trials, cells): the cell of each trial, as an indicator.
        replicate: Shape (trials,): the replicate of each trial.
        labels: Shape (trials,): the instance of each trial.
        known: The variances of a replicate, of an instance, and of the residual.
    """
    common, among, rest = known
    information = np.zeros((exog.shape[1], exog.shape[1]))
    for group in np.unique(replicate):
        at = np.flatnonzero(replicate == group)
        same = labels[at][:, None] == labels[at][None, :]
        variance = common + among * same + rest * np.eye(len(at))
        information += exog[at].T @ np.linalg.solve(variance, exog[at])
    return np.asarray(np.linalg.inv(information))


def _unlike_spread(
    kept: pl.DataFrame, which: NDArray[np.int64], entries: words.Entries
) -> str | None:
    """Return a sentence on unequal variances; None if no test rejects equality at `UNLIKE`.

    Brown and Forsythe's test (Levene's with medians) on residuals from the means of cell and
    replicate. Between platforms and between sizes, the residuals of an instance's applications are
    averaged first, since they share the instance effect. Between applications, residuals within
    instances are used.
    """
    instance = ["replicate", *_INSTANCE]
    rest = kept.with_columns(pl.Series("cell", which)).sort(*CELL, "replicate")
    rest = rest.with_columns(rest=pl.col("log") - pl.col("log").mean().over("cell"))
    rest = rest.with_columns(pl.col("rest") - pl.col("rest").mean().over("replicate"))
    together = rest.group_by(instance, maintain_order=True).agg(pl.col("rest").mean())
    apart = rest.with_columns(pl.col("rest") - pl.col("rest").mean().over(instance))
    if not (rest["rest"].abs() > NO_SPREAD).any():
        return "the replicates are alike to the last digit."
    for what, columns, frame, name in (
        ("platforms", ["platform", "mode"], together, partial(words.platform, entries=entries)),
        ("sizes", ["cores"], together, lambda row: words.count(row["cores"], "core")),
        ("applications", _WORK, apart, words.subject),
    ):
        groups = frame.partition_by(columns, maintain_order=True)
        values = [group["rest"].to_numpy() for group in groups]
        if len(groups) < 2 or max(map(np.ptp, values)) <= NO_SPREAD:
            continue
        if not stats.levene(*values, center="median").pvalue >= UNLIKE:
            spreads = {
                name(group.row(0, named=True)): float(own.std())
                for group, own in zip(groups, values, strict=True)
            }
            least, most = (find(spreads, key=lambda n: spreads[n]) for find in (min, max))
            return (
                f"the spread differs between {what}: {percent(spreads[most])} for {most}, "
                f"{percent(spreads[least])} for {least}. One spread for all would make the "
                "intervals of the noisy ones too narrow."
            )
    return None


def _pairs(fitted: Fit, bare: str | None) -> list[tuple[Key, Key]]:
    """Return the pairs of a cell's key and its baseline's key."""
    below = {
        _of(cell, SUBJECT): cell
        for cell in fitted.cells
        if (_at(cell, "platform"), _at(cell, "mode")) == (bare, BASELINE_MODE)
    }
    return [
        (cell, below[_of(cell, SUBJECT)])
        for cell in fitted.cells
        if _of(cell, SUBJECT) in below and cell != below[_of(cell, SUBJECT)]
    ]


def _at(cell: Key, column: str) -> Any:
    return cell[CELL.index(column)]


def _of(cell: Key, columns: Iterable[str]) -> Key:
    return tuple(_at(cell, column) for column in columns)


def _row(fitted: Fit, above: Key, below: Key, plain: Json) -> Json:
    weights = fitted.contrast(above, below)
    ratio, low, high = (math.exp(end) for end in fitted.interval(weights))
    return {
        **dict(zip(CELL, above, strict=True)),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "plain": plain.get("ratio"),
        "plain_low": plain.get("ratio_low"),
        "plain_high": plain.get("ratio_high"),
    }


def interactions(fitted: Fit, pairs: list[tuple[Key, Key]], entries: words.Entries) -> list[Json]:
    """Return Wald F tests of whether the cost over bare metal depends on size, mode, application.

    Each tests that the contrasts to bare metal are equal; p values have Holm's adjustment over the
    three tests.

    Args:
        fitted: The fitted model.
        pairs: The keys of cells and their baselines.
        entries: The platforms, for the wording.

    Returns:
        Rows with `about` ("size", "mode" or "application"), `p` (adjusted), `seen` (whether it is
        significant), `most` (the largest ratio of two ratios) and `where` (its platform).
    """
    kinds = {"size": ["cores"], "mode": ["mode"], "application": _WORK}
    tested = (_interaction(fitted, pairs, about, by, entries) for about, by in kinds.items())
    rows = [row for row in tested if row]
    adjusted = holm_adjusted([row["p"] for row in rows])
    return [
        row | {"p": p, "seen": p < 1 - CONFIDENCE} for row, p in zip(rows, adjusted, strict=True)
    ]


def _interaction(
    fitted: Fit, pairs: list[tuple[Key, Key]], about: str, by: list[str], entries: words.Entries
) -> Json | None:
    same = [column for column in CELL if column not in by]
    contrasts, most, where = [], 0.0, ""
    for group in _grouped(pairs, lambda pair: _of(pair[0], same)).values():
        weights = [fitted.contrast(*pair) for pair in group]
        contrasts += [other - weights[0] for other in weights[1:]]
        costs = [float(own @ fitted.means) for own in weights]
        if len(costs) > 1 and (apart := max(costs) - min(costs)) > most:
            most, where = apart, words.platform(dict(zip(CELL, group[0][0], strict=True)), entries)
    if not contrasts:
        return None
    matrix = np.array(contrasts)
    rank = int(np.linalg.matrix_rank(matrix))
    values = matrix @ fitted.means
    inverse = np.linalg.pinv(matrix @ fitted.covariance @ matrix.T, rcond=1e-9, hermitian=True)
    statistic = float(values @ inverse @ values) / rank
    p = float(stats.f.sf(statistic, rank, fitted.freedom))
    return {"about": about, "p": p, "seen": False, "most": math.exp(most), "where": where}


def _grouped(
    pairs: list[tuple[Key, Key]], key: Callable[[tuple[Key, Key]], Key]
) -> dict[Key, list[tuple[Key, Key]]]:
    """Return the pairs grouped by a key, in the order of first occurrence."""
    groups: dict[Key, list[tuple[Key, Key]]] = {}
    for pair in pairs:
        groups.setdefault(key(pair), []).append(pair)
    return groups


def _sizes(fitted: Fit, pairs: list[tuple[Key, Key]]) -> Iterator[Json]:
    """Yield a row per curve with the predictions for sizes that were not measured."""
    same = [column for column in CELL if column != "cores"]
    for curve, group in _grouped(pairs, lambda pair: _of(pair[0], same)).items():
        measured = sorted(
            (int(_at(above, "cores")), float(fitted.contrast(above, below) @ fitted.means))
            for above, below in group
        )
        row: Json = {**dict(zip(same, curve, strict=True)), "measured": [n for n, _ in measured]}
        cores, logs = (np.array(values, dtype=float) for values in zip(*measured, strict=True))
        yield row | unmeasured(cores, logs)
