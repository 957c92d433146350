"""The table of facts that must be equal besides the platform, and the rules for differences.

A ratio is the cost of a platform only if nothing else differs between its sides. Each entry of
`TABLE` names a fact, the trials among which it must be equal, and the rule for a difference:

- refused: the wanted value is unknown, and every number would be a mixture of both. The folder is
  not analysed, and the message states what to move.
- left out: trials of one replicate on one kernel must run under the same state of that kernel.
  Those that differ from bare metal of their replicate have no ratio and are not analysed.
- marked: the difference is part of the platform, or is between replicates and so affects no pair.
  Reports show it with both values.

A guest's kernel need not report what the host's kernel reports. On the same kernel, only an engine
can hide a fact; that is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from virtbed_analysis.errors import AnalysisError
from virtbed_contract.counts import count
from virtbed_contract.likeness import HIDDEN, RECORDED, Recorded, held
from virtbed_contract.likeness import SPLIT as SPLIT

Row = Mapping[str, Any]
Rule = Literal["refused", "left out", "marked"]
BENCH = "bench_"
"""Prefix of the columns read from the bench host's kernel; on metal, that of the process."""
_SAME = "a difference between them would be read as one between platforms"
_MOVE = "Move the trials of all but one out of the folder, or sweep again under another name"


@dataclass(frozen=True)
class Fact:
    """A fact that must be equal.

    Attributes:
        column: Its column in the frame of trials.
        words: Its name for readers.
        several: The name of several values of it, for messages.
        grain: The trials among which it must be equal, in words.
        within: The columns that such trials share.
        rule: The rule for a difference.
        reason: The reason for the rule.
        pooled: Whether it must be equal among folders that are loaded together, too.
        compared: Whether it must be equal on both sides of a comparison, too; else they did
            different work.
        emulated: Whether it must be equal among emulated trials, too, which are in no ratio.
        remedy: What to do about a refused difference.
        apart: The share by which numbers must differ to count as different; None for any
            difference.
        absolute: Whether `apart` is an absolute number, which also applies between kernels.
        silent: Whether an unknown value on one side is no difference, even on the same kernel.
    """

    column: str
    words: str
    several: str
    grain: str
    within: tuple[str, ...]
    rule: Rule
    reason: str
    pooled: bool = False
    emulated: bool = False
    remedy: str = _MOVE
    apart: float | None = None
    compared: bool = False
    absolute: bool = False
    silent: bool = False


def _work(
    column: str, words: str, several: str, *within: str, pooled: bool = True, compared: bool = True
) -> Fact:
    named = " and ".join(within)
    return Fact(
        column, words, several, f"per {named}", within, "refused", _SAME, pooled, compared=compared
    )


def _state(one: Recorded) -> Fact:
    kernel = one.alike == "kernel"
    within = ("kernel_kind", "replicate") if kernel else ("replicate",)
    grain = "per replicate and kernel" if kernel else "per replicate"
    return Fact(one.name, one.words, one.words, grain, within, "left out", one.matters)


def _of_bench(one: Recorded) -> Fact:
    words = f"bench host's {one.words}"
    return Fact(
        BENCH + one.name, words, words, "per replicate", ("replicate",), "left out", one.matters
    )


def _pair(
    column: str,
    words: str,
    reason: str,
    apart: float | None = None,
    *,
    absolute: bool = False,
    silent: bool = False,
) -> Fact:
    return Fact(
        column, words, words, "per ratio to bare metal", (), "marked", reason,
        apart=apart, absolute=absolute, silent=silent,
    )  # fmt: skip


def _recorded_pair(one: Recorded) -> Fact:
    return _pair(
        one.name, one.words, one.why, one.apart,
        absolute=one.number, silent=one.held == "process",
    )  # fmt: skip


_ONE_HOST = (
    "Pairs of two hosts are never made: put the trials of each host into a results folder of its "
    "own, with their design.json, and give the folders to `virtbed compare`"
)

TABLE: tuple[Fact, ...] = (
    Fact("host", "host", "hosts", "per replicate", ("replicate",), "refused",
         "a replicate is one pass on one host: pairs of two hosts compare the hosts",
         emulated=True, remedy=_ONE_HOST),
    Fact("plan_digest", "plan", "plans", "per folder", (), "refused",
         "replicates of two sweeps share no conditions and must not be paired", emulated=True),
    Fact("sweep", "sweep", "sweeps", "per folder", (), "refused",
         "their replicates have the same numbers but share no conditions, and must not be paired",
         emulated=True),
    Fact("image_digest", "image", "images", "per folder", (), "refused", _SAME,
         pooled=True, emulated=True),
    Fact("python", "Python", "versions of Python", "per folder", (), "refused", _SAME,
         pooled=True),
    Fact("memory_mib", "memory", "sizes of memory", "per folder", (), "refused", _SAME),
    Fact("input_seed", "seed of the inputs", "seeds of the inputs", "per folder", (), "refused",
         "other inputs are other work", compared=True),
    _work("application_version", "version of the application", "versions of one application",
          "application"),
    _work("frameworks", "frameworks", "sets of frameworks of one application", "application",
          compared=False),
    _work("model", "model", "models of one application", "application", "scale"),
    _work("weights", "weights", "kinds of weights of one application", "application", "scale"),
    _work("rules", "rules", "rules for one application", "application", "scale", "scenario"),
    _work("target_qps", "requests per second", "rates of one application",
          "application", "scale", "scenario", pooled=False),
    _work("target_latency_ms", "bound on latency", "bounds on the latency of one application",
          "application", "scale", "scenario", pooled=False),
    _work("slowdown", "slowdown", "slowdowns of one variant", "application", "variant",
          pooled=False, compared=False),
    *(_state(one) for one in RECORDED if one.alike != "platform"),
    *(_of_bench(one) for one in held("kernel")),
    Fact("onednn_isa", "oneDNN's kernels", "oneDNN's kernels", "per cell",
         ("platform", "mode", "cores", "application", "scale", "processor", "replicate"), "marked",
         "an enclosure may hide an instruction set, which is part of its cost"),
    Fact("inputs", "inputs measured", "sets of inputs", "per application, scale and scenario",
         ("application", "scale", "scenario", "replicate"), "marked",
         "a ratio uses the inputs that both of its trials have; other times use those of each "
         "trial, and are then of different work"),
    *(_recorded_pair(one) for one in RECORDED if one.alike != "everywhere"),
    _pair("onednn_isa", "oneDNN's kernels", HIDDEN),
    _pair("intra_op", "threads within an operation",
          "the framework's default depends on the CPUs that it sees, which is part of the "
          "platform, unless the plan sets matched threads"),
    _pair("inter_op", "threads between operations",
          "the framework's default depends on the CPUs that it sees, which is part of the "
          "platform, unless the plan sets matched threads"),
    _pair("mhz", "clock rate",
          "CPUs at other rates compute at other speeds; a governor chooses the rate by the load",
          apart=0.05),
)  # fmt: skip
COLUMNS = tuple(dict.fromkeys(fact.column for fact in TABLE))


def described() -> list[dict[str, str]]:
    """Return the table as rows for readers: `fact`, `grain`, `rule`, `reason`."""
    return [
        {"fact": fact.words, "grain": fact.grain, "rule": fact.rule, "reason": fact.reason}
        for fact in TABLE
    ]


def refuse(where: str, trials: pl.DataFrame, *, pooled: bool = False) -> None:
    """Raise `AnalysisError` if trials differ in a fact whose differences are refused.

    Args:
        where: The folder or folders, for the message.
        trials: One row per trial.
        pooled: Whether the trials are from several folders, which may be of several hosts and
            sweeps.
    """
    rows = trials.to_dicts()
    for fact in TABLE:
        if fact.rule == "refused" and (fact.pooled or not pooled):
            several = _several(fact, rows)
            if several:
                raise AnalysisError(f"{where}: results of {several}")


def refuse_compared(trials: pl.DataFrame) -> None:
    """Raise `AnalysisError` if sweeps that are to be compared did different work.

    Differences that a comparison may be about (host, kernel, image, frameworks, memory) raise
    nothing; they are shown next to the numbers.

    Args:
        trials: One row per trial, of all sweeps.
    """
    rows = trials.to_dicts()
    for fact in TABLE:
        if fact.compared and (groups := _groups_apart(fact, rows)):
            raise AnalysisError(
                f"{groups[0]} {fact.several} are not compared, since the work differs, and a "
                f"change of its time shows nothing about hosts or platforms: {groups[1]}. Give "
                f"sweeps of one {fact.words}"
            )


def refuse_pooled(frame: pl.DataFrame) -> None:
    """Raise `AnalysisError` if rows of several hosts or sweeps would be averaged or paired.

    Alike hosts of one sweep may be pooled: see `hosts`.
    """
    for column in ("host", "plan_digest"):
        if column not in frame.columns:
            continue
        alike = column == "host" and "hosts" in frame.columns
        values = frame.select(pl.coalesce("hosts", "host") if alike else column).to_series()
        if values.n_unique() > 1:
            named = ", ".join(sorted(map(str, values.unique())))
            raise AnalysisError(
                f"results of {values.n_unique()} values of {column} found ({named}), one "
                "needed: replicates are paired within one host and one sweep; estimate each alone, "
                "or use `virtbed compare`"
            )


def _several(fact: Fact, rows: Iterable[Row]) -> str | None:
    """Return the message about the first group of trials that differ in a fact."""
    if groups := _groups_apart(fact, rows):
        return (
            f"{groups[0]} {fact.several} are not pooled, since {fact.reason}: {groups[1]}. "
            f"{fact.remedy}"
        )
    return None


def _groups_apart(fact: Fact, rows: Iterable[Row]) -> tuple[int, str] | None:
    """Return the number of values in the first group that differs in a fact, and the values."""
    for group in groups(fact, rows):
        values = by_value(fact, group)
        if len(values) > 1:
            named = " ".join(str(group[0][column]) for column in fact.within)
            shown_groups = ", ".join(
                f"{named} {shown(value)}".strip()
                + f" ({count(len(own), 'trial')}, first {min(own)})"
                for value, own in sorted(values.items(), key=lambda item: str(item[0]))
            )
            return len(values), shown_groups
    return None


def shown(value: Any) -> str:
    """Return a value in words."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def groups(
    fact: Fact, rows: Iterable[Row], within: tuple[str, ...] | None = None
) -> Iterable[list[Row]]:
    """Return the groups of trials within which a fact must be equal."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if fact.emulated or not row["emulated"]:
            key = tuple(row[column] for column in (fact.within if within is None else within))
            groups.setdefault(key, []).append(row)
    return groups.values()


def by_value(fact: Fact, rows: Iterable[Row]) -> dict[Any, list[str]]:
    """Return the ids of the trials with each value of a fact."""
    trials: dict[Any, list[str]] = {}
    for row in rows:
        trials.setdefault(row[fact.column], []).append(row["trial"])
    return trials
