"""Several hosts in one sweep: whether they are alike, and the variance between them.

A replicate is one pass on one host, so pairs are always within a host. Replicates are pooled over
hosts only if the hosts are alike, by the facts of their reports and trials (`differences`) and by
the time of bare metal (`speeds`). Otherwise each host is estimated separately. `spread` estimates
the variance of ratios between hosts: two machines of one model may differ by more than most
platforms cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from virtbed_analysis import words
from virtbed_analysis.cells import CELL, SUBJECT, key_of
from virtbed_analysis.engine import together
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, holm
from virtbed_analysis.reading import Json
from virtbed_analysis.reduction import BARE, BASELINE, GROUP, Readings, by_cell, readings
from virtbed_analysis.unlike import BENCH, SPLIT, shown
from virtbed_contract.codec import encode
from virtbed_contract.hosts import UNKNOWN, differing, reported
from virtbed_contract.likeness import RECORDED
from virtbed_contract.sweep import HostReport

# Kernel parameters that name a machine's own disk or network, so they differ on equal machines.
_OWN_WORDS = ("root=", "resume=", "rd.", "ip=", "BOOTIF=")
_NAMED = 6


class UnlikeHostsError(AnalysisError):
    """A sweep's hosts are not alike, so their replicates cannot be pooled.

    Attributes:
        hosts: The names of the hosts.
        differences: The result of `differences`: `fact`, and `values` by host.
        speeds: The result of `speeds`, the times of bare metal.

    Example:
        >>> facts = [{"fact": "kernel", "values": {"a": "6.1", "b": "6.12"}}]
        >>> str(UnlikeHostsError("results/two", ["a", "b"], facts, []))[:79]
        'results/two: results of 2 hosts are not pooled, since these are not alike: kern'
    """

    def __init__(
        self, where: str, hosts: list[str], differences: list[Json], speeds: list[Json]
    ) -> None:
        self.hosts, self.differences, self.speeds = hosts, differences, speeds
        why = list(reasons(differences, speeds))
        more = f"; and {len(why) - _NAMED} more" if len(why) > _NAMED else ""
        super().__init__(
            f"{where}: results of {len(hosts)} hosts are not pooled, since these are not alike: "
            f"{'; '.join(why[:_NAMED])}{more}. `virtbed report` shows "
            f"each of {', '.join(hosts)} by itself, and `advise`, `explain` and "
            "`isolation` take one by --host"
        )


def names(trials: pl.DataFrame) -> list[str]:
    """Return the names of the hosts of trials, sorted."""
    return [str(name) for name in trials["host"].unique().sort()]


def by_replicate(trials: pl.DataFrame) -> dict[int, str]:
    """Return the host of each replicate."""
    return dict(trials.select("replicate", "host").unique().iter_rows())


def check(
    where: str, trials: pl.DataFrame, samples: pl.DataFrame, reports: Mapping[str, HostReport],
    margin: float,
) -> None:  # fmt: skip
    """Raise `UnlikeHostsError` unless the hosts of a sweep are alike.

    Args:
        where: The folder, for the message.
        trials: `Sweep.trials`.
        samples: `Sweep.samples`.
        reports: The host reports, by host.
        margin: The largest tolerated difference of speed, as a share.
    """
    hosts = names(trials)
    if len(hosts) < 2:
        return
    differing = differences(trials, reports)
    real = samples.filter(~pl.col("emulated"))
    apart = speeds(trials, real, margin) if real.height else []
    if differing or any(row["apart"] for row in apart):
        raise UnlikeHostsError(where, hosts, differing, apart)


def reasons(differences: Iterable[Json], speeds: Iterable[Json]) -> Iterator[str]:
    """Yield a text per difference of hosts, unequal speeds first; see `UnlikeHostsError`."""
    slow = [row for row in speeds if row["apart"]]
    # The largest difference comes first.
    for row in sorted(slow, key=lambda row: -abs(np.log(row["value"]))):
        yield row["sentence"]
    for row in differences:
        values = defaultdict(list)
        for host, value in row["values"].items():
            values[value].append(host)
        listed = ", ".join(f"{value} on {' and '.join(on)}" for value, on in values.items())
        yield f"{row['fact']} {listed}"


def differences(trials: pl.DataFrame, reports: Mapping[str, HostReport]) -> list[Json]:
    """Return the facts in which hosts differ, as rows with `fact` and `values` (texts by host)."""
    hosts = names(trials)
    if unreported := [host for host in hosts if host not in reports]:
        known = {host: "none" if host in unreported else "there" for host in hosts}
        return [{"fact": "host report", "values": known}]
    facts = reported({host: reports[host] for host in hosts})
    for fact, values in _seen(trials).items():
        facts.setdefault(fact, values)
    return [encode(one) for one in differing(facts)]


def _seen(trials: pl.DataFrame) -> dict[str, dict[str, str]]:
    """Return the recorded settings of the hosts' kernels, as texts by fact and host.

    They come from bare-metal trials, and from the readings of the bench host's kernel around every
    trial.
    """
    facts: dict[str, dict[str, str]] = {}
    real = trials.filter(~pl.col("emulated"))
    hosts = names(trials)
    for one in RECORDED:
        if one.alike == "platform":
            continue
        for column, rows in ((one.name, real.filter(BARE)), (BENCH + one.name, real)):
            if column not in trials.columns or one.words in facts:
                continue
            known = {
                host: own["value"].drop_nulls().unique().sort().to_list()
                for host in hosts
                if (own := rows.filter(host=host).select(pl.col(column).alias("value"))).height
            }
            if len(known) == len(hosts) and any(known.values()):
                facts[one.words] = {
                    host: " or ".join(_own_aside(value) for value in values) or UNKNOWN
                    for host, values in known.items()
                }
    return facts


def _own_aside(value: Any) -> str:
    """Return a value in words, without parameters that name a machine's own disk or network."""
    if not isinstance(value, str):
        return shown(value)
    return SPLIT.join(part for part in value.split(SPLIT) if not part.startswith(_OWN_WORDS))


def speeds(trials: pl.DataFrame, samples: pl.DataFrame | Readings, margin: float) -> list[Json]:
    """Return the ratio of the judged time on each host to that on the median host.

    It is computed for the bare-metal baselines; if a host has none, for every cell. The two sides
    are independent samples (Welch's t; a pooled variance if a side has one replicate), and the
    intervals of all rows are simultaneous. A host is apart if its whole interval is beyond the
    margin; without an interval, if the ratio is, since chance cannot be assessed.

    Args:
        trials: `Sweep.trials`.
        samples: `Sweep.samples`, or their readings.
        margin: The margin, as a share.

    Returns:
        One row per subject (or cell) and host other than the reference: the columns of the subject
        (or cell), `host`, `reference`, `value`, `low`, `high` (None without an interval),
        `replicates` (of the side with fewer), `apart` and `sentence`.
    """
    logs, of = readings(samples).judged, by_replicate(trials)
    bare = logs.filter(BASELINE)
    on_bare = {of[r] for r in bare["replicate"]} >= {of[r] for r in logs["replicate"]}
    columns = [*SUBJECT, "weights"] if on_bare else GROUP
    every = by_cell(bare if on_bare else logs, columns)
    groups = {}
    for key, cell in every.items():
        own: dict[str, list[float]] = defaultdict(list)
        for unit, mean in zip(cell.units, cell.means, strict=True):
            if np.isfinite(mean):
                own[of[unit]].append(float(mean))
        groups[key] = {host: np.array(values) for host, values in own.items()}
    reference = _middle(groups.values())
    compared = [
        (key, host, [own[host], -own[reference]])
        for key, own in groups.items()
        for host in sorted(own)
        if host != reference and reference in own
    ]
    effects = together([(host, logs) for _, host, logs in compared], pooled=True)
    rows = []
    for (key, host, pair), effect in zip(compared, effects, strict=True):
        assert effect is not None
        row = dict(zip(columns, key, strict=True))
        row |= {"host": host, "reference": reference, "value": effect.value}
        row |= {"low": effect.low, "high": effect.high, "replicates": min(map(len, pair))}
        apart = _apart(effect.value, effect.low, effect.high, margin)
        rows.append({**row, "apart": apart, "sentence": _speed(row, on_bare)})
    return rows


def _middle(groups: Iterable[Mapping[str, Any]]) -> str:
    """Return the median host by its mean deviation of log times from the mean of all hosts."""
    deviations: dict[str, list[float]] = defaultdict(list)
    for own in groups:
        means = {host: float(values.mean()) for host, values in own.items()}
        centre = float(np.mean(list(means.values())))
        for host, mean in means.items():
            deviations[host].append(mean - centre)
    order = sorted(deviations, key=lambda host: (float(np.mean(deviations[host])), host))
    return order[(len(order) - 1) // 2] if order else ""


def _apart(value: float, low: float | None, high: float | None, margin: float) -> bool:
    """Return whether a ratio of hosts is beyond the margin: by its interval, if it has one."""
    if low is None or high is None:
        return not 1 / (1 + margin) <= value <= 1 + margin
    return low > 1 + margin or high < 1 / (1 + margin)


def _speed(row: Json, bare: bool) -> str:
    what = f"{row['application']}, {words.count(row['cores'], 'core')}"
    of = "bare metal" if bare else f"{row['platform']} {row['mode']}"
    ends = (
        f" ({row['low']:.3f} to {row['high']:.3f})"
        if row["low"] is not None
        else f" (no interval: {words.count(row['replicates'], 'replicate')})"
    )
    return (
        f"{row['host']} takes {row['value']:.3f} times as long as {row['reference']} for {what}, "
        f"on {of}{ends}"
    )


def spread(cells: Iterable[Json], trials: pl.DataFrame) -> list[Json]:
    """Return the variance of ratios to bare metal between hosts, one row per cell of several hosts.

    The model is a one-way random-effects analysis of variance of the log ratios over hosts, with
    the method of moments for unequal group sizes (Searle, Casella and McCulloch, "Variance
    Components", 1992, chapter 3).

    Args:
        cells: The rows of `estimate.cells`.
        trials: `Sweep.trials`.

    Returns:
        `CELL`, `weights`, `hosts` (rows with `host`, `ratio`, `replicates`), `range` (largest over
        smallest ratio, minus 1), `between` (standard deviation between hosts beyond that of
        replicates within hosts, as a share; 0 if the estimate is negative, None if no host has two
        replicates), `p` (F test) and `differ` (whether it is significant after Holm's correction
        over all cells).
    """
    of = by_replicate(trials)
    rows = []
    for cell in cells:
        if not cell.get("ratio_logs"):
            continue
        own: dict[str, list[float]] = defaultdict(list)
        for log, replicate in zip(cell["ratio_logs"], cell["ratio_of"], strict=True):
            own[of[replicate]].append(log)
        if len(own) > 1:
            rows.append(_spread(cell, {host: np.array(own[host]) for host in sorted(own)}))
    rejected = holm([1.0 if row["p"] is None else row["p"] for row in rows])
    for row, differ in zip(rows, rejected, strict=True):
        row["differ"] = bool(differ)
    return rows


def _spread(cell: Json, own: Mapping[str, Any]) -> Json:
    ratios = {host: float(np.exp(logs.mean())) for host, logs in own.items()}
    between, p = _variance(list(own.values()))
    return {
        **{column: cell[column] for column in (*CELL, "weights")},
        "hosts": [
            {"host": host, "ratio": ratios[host], "replicates": len(logs)}
            for host, logs in own.items()
        ],
        "range": max(ratios.values()) / min(ratios.values()) - 1,
        "between": None if between is None else float(np.expm1(between)),
        "p": p,
    }


def _variance(groups: Sequence[Any]) -> tuple[float | None, float | None]:
    """Return the standard deviation between groups and the p value of the F test.

    Both are None if no group has two values, or if values within groups show no spread.
    """
    sizes = np.array([len(group) for group in groups])
    total, several = int(sizes.sum()), len(groups)
    freedom = total - several
    if freedom < 1:
        return None, None
    centre = float(np.concatenate(groups).mean())
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom
    apart = sum(len(group) * (float(group.mean()) - centre) ** 2 for group in groups)
    among = float(apart) / (several - 1)
    if within < NO_SPREAD**2:
        return None, None
    size = (total - float((sizes**2).sum()) / total) / (several - 1)
    p = float(stats.f.sf(among / within, several - 1, freedom))
    return float(np.sqrt(max(0.0, among - within) / size)), p


def disagreeing(rows: Iterable[Json]) -> dict[tuple[Any, ...], str]:
    """Return a text per cell whose ratios differ significantly between hosts, by the cell's key."""
    texts = {}
    for row in rows:
        if row["differ"]:
            least, most = (
                chosen(row["hosts"], key=lambda one: one["ratio"]) for chosen in (min, max)
            )
            texts[key_of(row)] = (
                f"its cost is {least['ratio']:.3f} on {least['host']} and {most['ratio']:.3f} on "
                f"{most['host']}: more than replicates of one host differ"
            )
    return texts


def of_report(
    cells: Sequence[Json], trials: pl.DataFrame, means: Readings, margin: float
) -> Json | None:
    """Return the report's part on several pooled hosts; None for a single host.

    Args:
        cells: The rows of `estimate.cells`.
        trials: `Sweep.trials`.
        means: The readings of the sweep.
        margin: The margin, as a share.

    Returns:
        `names`, `rows` (of `spread`), `speeds` (of `speeds`), and `sentence`.
    """
    hosts = names(trials)
    if len(hosts) < 2:
        return None
    rows = spread(cells, trials)
    known = [row["between"] for row in rows if row["between"] is not None]
    most = f", {max(known):.1%} at most" if known else ", not known from so few replicates"
    differ = sum(row["differ"] for row in rows)
    return {
        "names": hosts,
        "rows": rows,
        "speeds": speeds(trials, means, margin),
        "sentence": (
            f"Pooled over {len(hosts)} hosts that are alike ({', '.join(hosts)}). An interval "
            "holds for these hosts, not for another one. Ratios have an additional standard "
            f"deviation between hosts{most}; {words.count(differ, 'cell')} of {len(rows)} "
            f"{'is' if differ == 1 else 'are'} shown to differ between hosts at {CONFIDENCE:.0%}."
        ),
    }
