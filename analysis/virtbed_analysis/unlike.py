"""What must be alike besides the platform, in one table, and what follows where it is not.

A ratio says what a platform costs only if nothing else differs between its sides. Each entry of
`TABLE` names one fact, among which trials it must be alike, and the rule for a difference:

- refused: nobody can tell which of the values is wanted, and every number would be a mixture of
  them; the folder is not analysed, and the message says what to move.
- left out: trials of one replicate that ran on one kernel were to run under one state of it. Those
  that differ from bare metal of their replicate have no ratio, and nothing of them is analysed.
- marked: the difference is part of what the platform is, or lies between replicates, whose pairs it
  does not touch; it is said beside the numbers with both values.

A value that a kernel does not tell differs from no other between kernels, and from every other on
one kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from virtbed_analysis.cells import BASELINE_MODE, SUBJECT, is_plain, key_of
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.platforms import METAL, PROCESS

Row = Mapping[str, Any]
Rule = Literal["refused", "left out", "marked"]
SPLIT = "; "
"""Between the parts of a value that is a list."""
_SAME = "a difference between them would be read as one between platforms"
_MOVE = "Move the trials of all but one out of the folder, or sweep again under another name"


@dataclass(frozen=True)
class Fact:
    """One fact that must be alike.

    Attributes:
        column: The column of trials that holds it.
        words: What a reader calls it.
        several: What a message calls several values of it.
        grain: Among which trials it must be alike, in words.
        within: The columns that such trials share.
        rule: What follows from a difference.
        reason: Why that rule.
        pooled: Whether folders that are loaded together must be alike in it, too.
        emulated: Whether emulated trials count: they have no part in a ratio.
        remedy: What to do about a difference that is refused.
        apart: By which share numbers must differ to be unlike; None for any difference.
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


def _work(column: str, words: str, several: str, *within: str, pooled: bool = True) -> Fact:
    named = " and ".join(within)
    return Fact(column, words, several, f"per {named}", within, "refused", _SAME, pooled)


def _state(column: str, words: str, reason: str) -> Fact:
    grain = "per replicate and kernel"
    return Fact(column, words, words, grain, ("kernel_kind", "replicate"), "left out", reason)


def _pair(column: str, words: str, reason: str, apart: float | None = None) -> Fact:
    return Fact(column, words, words, "per ratio to bare metal", (), "marked", reason, apart=apart)


_ONE_HOST = (
    "Hosts are never averaged: put the trials of each host into a results folder of its own, with "
    "design.json beside them, and give the folders to `virtbed compare`"
)
_GUEST = "a guest's own is part of its platform; a ratio to bare metal has it in it"
_HIDDEN = "what a guest or a sandbox hides of the CPU is part of its cost; a ratio has it in it"

TABLE: tuple[Fact, ...] = (
    Fact("host", "host", "hosts", "per folder", (), "refused",
         "a replicate is one pass on one host: pairs of two hosts compare the hosts",
         emulated=True, remedy=_ONE_HOST),
    Fact("plan_digest", "plan", "plans", "per folder", (), "refused",
         "replicates of two sweeps have nothing in common, and must not be paired", emulated=True),
    Fact("image_digest", "image", "images", "per folder", (), "refused", _SAME,
         pooled=True, emulated=True),
    Fact("python", "Python", "versions of Python", "per folder", (), "refused", _SAME,
         pooled=True),
    Fact("memory_mib", "memory", "sizes of memory", "per folder", (), "refused", _SAME),
    Fact("input_seed", "seed of the inputs", "seeds of the inputs", "per folder", (), "refused",
         "other inputs are other work"),
    _work("application_version", "version of the application", "versions of one application",
          "application"),
    _work("frameworks", "frameworks", "sets of frameworks of one application", "application"),
    _work("model", "model", "models of one application", "application", "scale"),
    _work("weights", "weights", "kinds of weights of one application", "application", "scale"),
    _work("rules", "rules", "rules for one application", "application", "scale", "scenario"),
    _work("target_qps", "requests per second", "rates of one application",
          "application", "scale", "scenario", pooled=False),
    _work("target_latency_ms", "bound on latency", "bounds on the latency of one application",
          "application", "scale", "scenario", pooled=False),
    _work("slowdown", "slowdown", "slowdowns of one variant", "application", "variant",
          pooled=False),
    _state("kernel", "kernel", "an upgrade between two trials would be read as their difference"),
    _state("cpu_model", "CPU model", "two processors are two hosts"),
    _state("isa", "instruction sets", "they decide which kernels the frameworks choose"),
    _state("clocksource", "clock source", "it decides what reading the time costs, and times"),
    _state("governor", "frequency governor", "it decides the clock rate"),
    _state("turbo", "turbo", "it decides the clock rate"),
    _state("transparent_hugepage", "huge pages", "they decide what memory costs"),
    _state("mitigations", "CPU mitigations", "they decide what entering the kernel costs"),
    Fact("onednn_isa", "oneDNN's kernels", "oneDNN's kernels", "per application, replicate, kernel",
         ("kernel_kind", "replicate", "application", "scale", "processor"), "left out",
         "other kernels are other work"),
    _pair("kernel", "kernel", _GUEST),
    _pair("cpu_model", "CPU model", _HIDDEN),
    _pair("isa", "instruction sets", _HIDDEN),
    _pair("clocksource", "clock source", _GUEST),
    _pair("governor", "frequency governor", "a guest has none; one that tells it has its own"),
    _pair("turbo", "turbo", "a guest has none; one that tells it has its own"),
    _pair("transparent_hugepage", "huge pages", _GUEST),
    _pair("mitigations", "CPU mitigations", _GUEST),
    _pair("onednn_isa", "oneDNN's kernels", _HIDDEN),
    _pair("intra_op", "threads within an operation",
          "a framework's own choice follows the CPUs that it sees: a part of the platform, unless "
          "the plan asks for matched threads"),
    _pair("inter_op", "threads between operations",
          "a framework's own choice follows the CPUs that it sees: a part of the platform, unless "
          "the plan asks for matched threads"),
    _pair("mhz", "clock rate",
          "CPUs at other rates compute at other speeds; a governor chooses the rate by the load",
          apart=0.05),
)  # fmt: skip
COLUMNS = tuple(dict.fromkeys(fact.column for fact in TABLE))


def described() -> list[dict[str, str]]:
    """Return the table as rows for readers."""
    return [
        {"fact": fact.words, "grain": fact.grain, "rule": fact.rule, "reason": fact.reason}
        for fact in TABLE
    ]


def refuse(where: str, trials: pl.DataFrame, *, pooled: bool = False) -> None:
    """Raise `AnalysisError` where trials are unlike in a fact whose differences are refused.

    Args:
        where: The folder, or folders, for the message.
        trials: One row per trial.
        pooled: Whether these are several folders' trials, which may be of several hosts and sweeps.
    """
    rows = trials.to_dicts()
    for fact in TABLE:
        if fact.rule == "refused" and (fact.pooled or not pooled):
            several = _several(fact, rows)
            if several:
                raise AnalysisError(f"{where}: results of {several}")


def refuse_pooled(frame: pl.DataFrame) -> None:
    """Raise `AnalysisError` if rows of several hosts or sweeps would be averaged, or paired."""
    for column in ("host", "plan_digest"):
        if column in frame.columns and frame[column].n_unique() > 1:
            named = ", ".join(sorted(map(str, frame[column].unique())))
            raise AnalysisError(
                f"results of {frame[column].n_unique()} values of {column} found ({named}), one "
                "needed: replicates are paired within one host and one sweep; estimate each alone, "
                "or use `virtbed compare`"
            )


def _several(fact: Fact, rows: Iterable[Row]) -> str | None:
    """Return the message about the first group of trials that is unlike in a fact."""
    for group in _groups(fact, rows):
        found = _found(fact, group)
        if len(found) > 1:
            named = " ".join(str(group[0][column]) for column in fact.within)
            told = ", ".join(
                f"{named} {shown(value)}".strip() + f" ({len(own)} trials, first {min(own)})"
                for value, own in sorted(found.items(), key=lambda item: str(item[0]))
            )
            return (
                f"{len(found)} {fact.several} are not pooled, since {fact.reason}: {told}. "
                f"{fact.remedy}"
            )
    return None


def strays(trials: pl.DataFrame) -> dict[str, str]:
    """Return why trials are left out that are not as bare metal of their replicate, by id.

    Where no bare metal ran on the same kernel, the commonest value of the replicate is the measure.
    """
    rows, reasons = trials.to_dicts(), dict[str, str]()
    for fact in TABLE:
        if fact.rule != "left out":
            continue
        for group in _groups(fact, rows):
            if len(_found(fact, group)) < 2:
                continue
            metal = [row for row in group if _is_baseline(row)]
            wanted = _commonest(fact, metal or group)
            measure = "bare metal" if metal else "most trials"
            for row in group:
                if row[fact.column] != wanted:
                    ours, theirs = differing(row[fact.column], wanted)
                    reasons.setdefault(
                        row["trial"],
                        f"{fact.words} {ours} found, {theirs} in {measure} of its replicate: "
                        f"unlike, so it has no ratio ({fact.reason})",
                    )
    return reasons


def marks(trials: pl.DataFrame) -> list[dict[str, Any]]:
    """Return what is unlike and stays: a row per fact, place and pair of values.

    Rows have `fact`, `where`, `value`, `other` (the value that it is not), `trials` (how many have
    `value`), `reason` and, for the sides of ratios, `platform` (else None).
    """
    real: list[Row] = [row for row in trials.to_dicts() if not row["emulated"]]
    return [*_between_replicates(real), *_between_sides(real)]


def _between_replicates(rows: list[Row]) -> Iterator[dict[str, Any]]:
    for fact in TABLE:
        if fact.rule != "left out":
            continue
        within = tuple(column for column in fact.within if column != "replicate")
        for group in _groups(fact, rows, within):
            found = _found(fact, group)
            usual = _commonest(fact, group)
            for value in sorted((v for v in found if v != usual), key=str):
                ours, theirs = differing(value, usual)
                places = sorted({row["replicate"] for row in group if row[fact.column] == value})
                yield {
                    "fact": fact.words,
                    "where": f"{_where(group[0], within)}, replicates "
                    + ", ".join(map(str, places)),
                    "platform": None,
                    "value": ours,
                    "other": theirs,
                    "trials": len(found[value]),
                    "reason": "pairs lie within a replicate, typical times do not: " + fact.reason,
                }


def _between_sides(rows: list[Row]) -> Iterator[dict[str, Any]]:
    baselines = {_side(row): row for row in rows if _is_baseline(row)}
    pairs = [
        (row, baselines[_side(row)])
        for row in rows
        if not _is_baseline(row) and _side(row) in baselines
    ]
    for fact in TABLE:
        if fact.grain != "per ratio to bare metal":
            continue
        found: dict[tuple[Any, ...], list[tuple[Row, Row]]] = {}
        for row, bare in pairs:
            if _differs(fact, row, bare):
                values = () if fact.apart else (row[fact.column], bare[fact.column])
                key = (row["platform"], row["mode"] if fact.apart else None, *values)
                found.setdefault(key, []).append((row, bare))
        for own in found.values():
            row, bare = max(own, key=lambda pair: _distance(fact, *pair))
            value, other = differing(row[fact.column], bare[fact.column])
            mode = f" {row['mode']}" if fact.apart else ""
            yield {
                "fact": fact.words,
                "where": f"{row['platform']}{mode} and its bare metal",
                "platform": row["platform"],
                "value": value,
                "other": other,
                "trials": len(own),
                "reason": fact.reason,
            }


def _differs(fact: Fact, row: Row, bare: Row) -> bool:
    value, other = row[fact.column], bare[fact.column]
    if value is None or other is None:
        return False
    if fact.apart is None:
        return bool(value != other)
    # A guest's kernel tells one rate, that of its counter, whatever its CPUs run at.
    return row["kernel_kind"] == bare["kernel_kind"] and _distance(fact, row, bare) > fact.apart


def _distance(fact: Fact, row: Row, bare: Row) -> float:
    if fact.apart is None:
        return 0.0
    value, other = row[fact.column], bare[fact.column]
    return float(abs(value - other) / max(other, 1e-9))


def differing(value: Any, other: Any) -> tuple[str, str]:
    """Return two values in words; of lists only what the other has not."""
    texts = shown(value), shown(other)
    parts = [text.split(SPLIT) for text in texts]
    if max(map(len, parts)) < 2:
        return texts
    ours, theirs = (
        SPLIT.join(part for part in own if part not in rest) or "no more"
        for own, rest in (parts, parts[::-1])
    )
    return ours, theirs


def shown(value: Any) -> str:
    """Return a value in words."""
    if value is None:
        return "not told"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _groups(
    fact: Fact, rows: Iterable[Row], within: tuple[str, ...] | None = None
) -> Iterable[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if fact.emulated or not row["emulated"]:
            key = tuple(row[column] for column in (fact.within if within is None else within))
            groups.setdefault(key, []).append(row)
    return groups.values()


def _found(fact: Fact, rows: Iterable[Row]) -> dict[Any, list[str]]:
    """Return the trials that have each value, by value."""
    found: dict[Any, list[str]] = {}
    for row in rows:
        found.setdefault(row[fact.column], []).append(row["trial"])
    return found


def _commonest(fact: Fact, rows: Iterable[Row]) -> Any:
    """Return the commonest value; of several as common the first by the order of trials."""
    ordered = sorted(rows, key=lambda row: row["position"])
    return Counter(row[fact.column] for row in ordered).most_common(1)[0][0]


def _where(row: Row, within: tuple[str, ...]) -> str:
    return ", ".join(
        f"kernel of {row[column]}" if column == "kernel_kind" else str(row[column])
        for column in within
    )


def _is_baseline(row: Row) -> bool:
    bare = (row["machine"], row["enclosure"]) == (METAL, PROCESS)
    return bare and row["mode"] == BASELINE_MODE and is_plain(row) and not row["emulated"]


def _side(row: Row) -> tuple[Any, ...]:
    """Return what a trial shares with the bare metal that it is compared with."""
    return (*key_of(row, SUBJECT), row["replicate"])
