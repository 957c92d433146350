"""Several hosts in one sweep: whether they are alike, and how far apart they are.

A replicate is one pass on one host, so ratios are made within a host. They are pooled over hosts
only if these are alike: by what their reports and trials tell of them, and by the time that bare
metal takes. Else each host is estimated by itself. How far hosts lie apart is a number of its own:
two machines of one model may differ by more than most platforms cost.
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
from virtbed_analysis.reading import Json, plain
from virtbed_analysis.reduction import BARE, BASELINE, GROUP, Readings, by_cell, readings
from virtbed_analysis.unlike import BENCH, SPLIT, shown
from virtbed_contract.likeness import RECORDED
from virtbed_contract.sweep import HostReport

MEMORY_APART_PERCENT = 1
"""Kernels of machines alike keep so much of the memory more or less for themselves."""
_UNKNOWN = "not known"
# Of a report's facts: what a reader calls it, and where it lies.
_REPORTED = {
    "model": ("machine", "model"),
    "firmware": ("machine", "firmware"),
    "microcode": ("machine", "microcode"),
    "topology": ("machine", "topology"),
    "CPU": ("cpu", "model"),
    "kernel": ("kernel",),
    "distribution": ("distribution",),
    "clock source": ("clocksource",),
    "frequency governor": ("governor",),
    "hypervisor below": ("below", "name"),
}
# A machine's own disk, by its number: no two have one.
_OWN_WORDS = ("root=", "resume=", "rd.", "ip=", "BOOTIF=")
_NAMED = 6
_LONGEST = 120  # characters of a value


class UnlikeHostsError(AnalysisError):
    """A sweep's hosts are not alike, and so have no common estimate.

    Attributes:
        hosts: Their names.
        differences: What differs: `fact`, and `values` by host.
        speeds: What bare metal takes: see `speeds`.
    """

    def __init__(
        self, where: str, hosts: list[str], differences: list[Json], speeds: list[Json]
    ) -> None:
        self.hosts, self.differences, self.speeds = hosts, differences, speeds
        why = list(reasons(differences, speeds))
        more = f"; and {len(why) - _NAMED} more" if len(why) > _NAMED else ""
        super().__init__(
            f"{where}: results of {len(hosts)} hosts are not pooled, since these are not alike: "
            f"{'; '.join(why[:_NAMED])}{more}. A ratio is of one host: `virtbed report` shows "
            f"each of {', '.join(hosts)}, and `advise`, `explain` and "
            "`isolation` take one by --host"
        )


def names(trials: pl.DataFrame) -> list[str]:
    """Return the hosts of trials, in order."""
    return [str(name) for name in trials["host"].unique().sort()]


def by_replicate(trials: pl.DataFrame) -> dict[int, str]:
    """Return the host of each replicate, which has one."""
    return dict(trials.select("replicate", "host").unique().iter_rows())


def check(
    where: str, trials: pl.DataFrame, samples: pl.DataFrame, reports: Mapping[str, HostReport],
    margin: float,
) -> None:  # fmt: skip
    """Raise UnlikeHostsError unless the hosts of a sweep are alike.

    Args:
        where: The folder, for the message.
        trials: The sweep's.
        samples: Their samples.
        reports: The hosts' reports, by the host.
        margin: The smallest difference worth knowing, as a share.
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
    """Give in words why hosts are not alike."""
    slow = [row for row in speeds if row["apart"]]
    # The host that is furthest off comes first.
    for row in sorted(slow, key=lambda row: -abs(np.log(row["value"]))):
        yield row["sentence"]
    for row in differences:
        values = defaultdict(list)
        for host, value in row["values"].items():
            values[value].append(host)
        said = ", ".join(f"{value} on {' and '.join(on)}" for value, on in values.items())
        yield f"{row['fact']} {said}"


def differences(trials: pl.DataFrame, reports: Mapping[str, HostReport]) -> list[Json]:
    """Return what hosts differ in: `fact`, and `values`, texts by host.

    What none of them tells is nothing that they could differ in; what one of them tells is.
    """
    hosts = names(trials)
    if unreported := [host for host in hosts if host not in reports]:
        known = {host: "none" if host in unreported else "there" for host in hosts}
        return [{"fact": "host report", "values": known}]
    found: dict[str, dict[str, str]] = {
        fact: {host: _text(_at(reports[host].facts, path)) for host in hosts}
        for fact, path in _REPORTED.items()
    }
    cpus = {host: _at(reports[host].facts, ("cpu", "online")) for host in hosts}
    found["online CPUs"] = {
        host: str(len(online)) if isinstance(online, list) else _UNKNOWN
        for host, online in cpus.items()
    }
    found["memory"] = _memory({host: reports[host].facts for host in hosts})
    for engine in sorted({name for host in hosts for name in _engines(reports[host])}):
        found[engine] = {host: _engines(reports[host]).get(engine, _UNKNOWN) for host in hosts}
    for fact, values in _seen(trials).items():
        found.setdefault(fact, values)
    return [
        {"fact": fact, "values": _not_shared(values)}
        for fact, values in found.items()
        if len(set(values.values())) > 1
    ]


def _not_shared(values: Mapping[str, str]) -> dict[str, str]:
    """Return what of each text the others do not all have: of a list its own parts."""
    parts = {host: value.split(SPLIT) for host, value in values.items()}
    shared = set.intersection(*map(set, parts.values()))
    own = {host: SPLIT.join(p for p in found if p not in shared) for host, found in parts.items()}
    return {host: plain(text)[:_LONGEST] or "nothing more" for host, text in own.items()}


def _at(facts: Json, path: Sequence[str]) -> Any:
    value: Any = facts
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return _UNKNOWN if value in (None, "") else str(value)


def _engines(report: HostReport) -> dict[str, str]:
    found = report.facts.get("engines")
    every = found.items() if isinstance(found, dict) else ()
    return {
        str(engine.get("name") or name): str(engine["version"])
        for name, engine in every
        if isinstance(engine, dict) and engine.get("version")
    }


def _memory(facts: Mapping[str, Json]) -> dict[str, str]:
    """Return the memory of each host in MiB; one text for those that are as good as equal."""
    totals = {host: _at(found, ("memory_mib", "total")) for host, found in facts.items()}
    if not all(type(total) is int and total > 0 for total in totals.values()):
        return {host: _text(total) for host, total in totals.items()}
    alike = 100 * max(totals.values()) <= (100 + MEMORY_APART_PERCENT) * min(totals.values())
    return {host: "alike" if alike else f"{total} MiB" for host, total in totals.items()}


def _seen(trials: pl.DataFrame) -> dict[str, dict[str, str]]:
    """Return what trials tell of their hosts' kernels, by fact and host.

    What bare metal saw, and what was read next to every trial of the bench host's own kernel.
    """
    found: dict[str, dict[str, str]] = {}
    real = trials.filter(~pl.col("emulated"))
    hosts = names(trials)
    for one in RECORDED:
        if one.alike == "platform":
            continue
        for column, rows in ((one.name, real.filter(BARE)), (BENCH + one.name, real)):
            if column not in trials.columns or one.words in found:
                continue
            known = {
                host: own["value"].drop_nulls().unique().sort().to_list()
                for host in hosts
                if (own := rows.filter(host=host).select(pl.col(column).alias("value"))).height
            }
            if len(known) == len(hosts) and any(known.values()):
                found[one.words] = {
                    host: " or ".join(_own_aside(value) for value in values) or _UNKNOWN
                    for host, values in known.items()
                }
    return found


def _own_aside(value: Any) -> str:
    """Return a value in words, without what names a machine's own disk or network."""
    if not isinstance(value, str):
        return shown(value)
    return SPLIT.join(part for part in value.split(SPLIT) if not part.startswith(_OWN_WORDS))


def speeds(trials: pl.DataFrame, samples: pl.DataFrame | Readings, margin: float) -> list[Json]:
    """Return how long the same work takes on each host, over that on the host in the middle.

    Of bare metal; where a host has none, of every cell. The intervals of all rows are simultaneous.
    A host is apart if its interval lies beyond the margin; where no interval can be made, if the
    ratio itself does, since nothing tells that it is chance.

    Returns:
        Rows with `SUBJECT` or more of a cell, `host`, `reference`, `value`, `low`, `high` (None
        without an interval), `replicates` (the fewer of both), `apart` and `sentence`.
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
    """Return the host in the middle, by its mean distance from the others."""
    found: dict[str, list[float]] = defaultdict(list)
    for own in groups:
        means = {host: float(values.mean()) for host, values in own.items()}
        centre = float(np.mean(list(means.values())))
        for host, mean in means.items():
            found[host].append(mean - centre)
    order = sorted(found, key=lambda host: (float(np.mean(found[host])), host))
    return order[(len(order) - 1) // 2] if order else ""


def _apart(value: float, low: float | None, high: float | None, margin: float) -> bool:
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
    """Return how far the hosts' own ratios to bare metal lie apart, a row per cell of several.

    By a one-way analysis of variance of the replicates' logarithms over hosts: `between` is the
    standard deviation between hosts beyond what replicates within them explain (method of moments;
    0 where they explain all), as a share, null where no host has two; `differ` says whether hosts
    are shown to differ, by the F test and Holm's correction over all cells.

    Args:
        cells: As `estimate.cells` gives them.
        trials: The sweep's.

    Returns:
        Rows with `CELL`, `weights`, `hosts` (each with `host`, `ratio`, `replicates`), `range` (the
        largest ratio over the smallest, less 1), `between`, `p` and `differ`.
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
    """Return the standard deviation between groups, and the F test's p value, if any tells."""
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
    """Return in words how hosts differ in a cell's cost, by the cell, where they are shown to."""
    found = {}
    for row in rows:
        if row["differ"]:
            least, most = (
                chosen(row["hosts"], key=lambda one: one["ratio"]) for chosen in (min, max)
            )
            found[key_of(row)] = (
                f"its cost is {least['ratio']:.3f} on {least['host']} and {most['ratio']:.3f} on "
                f"{most['host']}: beyond what replicates of one host differ by"
            )
    return found


def of_report(
    cells: Sequence[Json], trials: pl.DataFrame, means: Readings, margin: float
) -> Json | None:
    """Return what a report says of several hosts that are pooled; None of a single one.

    Returns:
        `names`, `rows` (see `spread`), `speeds` (see above), and `sentence`.
    """
    hosts = names(trials)
    if len(hosts) < 2:
        return None
    rows = spread(cells, trials)
    known = [row["between"] for row in rows if row["between"] is not None]
    most = f", {max(known):.1%} at most" if known else ", which so few replicates do not tell"
    differ = sum(row["differ"] for row in rows)
    return {
        "names": hosts,
        "rows": rows,
        "speeds": speeds(trials, means, margin),
        "sentence": (
            f"Pooled over {len(hosts)} hosts that are alike ({', '.join(hosts)}). An interval says "
            "what these hosts would show, not another one. Between hosts ratios have a standard "
            f"deviation of their own{most}; {words.count(differ, 'cell')} of {len(rows)} "
            f"{'is' if differ == 1 else 'are'} shown to differ at {CONFIDENCE:.0%}."
        ),
    }
