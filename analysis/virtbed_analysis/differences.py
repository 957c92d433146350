"""Finds trials that differ in a fact which `unlike` requires to be equal.

`strays` returns those to leave out, `marks` and `by_cell` the differences to show in a report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from virtbed_analysis.cells import BASELINE_MODE, SUBJECT, is_plain, key_of
from virtbed_analysis.platforms import METAL, PROCESS
from virtbed_analysis.unlike import SPLIT, TABLE, Fact, Row, by_value, groups, shown


def strays(trials: pl.DataFrame) -> dict[str, str]:
    """Return the trials that differ from bare metal of their replicate, with reasons, by id.

    If no bare metal ran on the same kernel, the most common value of the replicate is required.
    """
    rows, reasons = trials.to_dicts(), dict[str, str]()
    for fact in TABLE:
        if fact.rule != "left out":
            continue
        for group in groups(fact, rows):
            if len(by_value(fact, known := _telling(fact, group))) < 2:
                continue
            metal = [row for row in known if is_baseline(row)]
            wanted = _commonest(fact, metal or known)
            measure = "bare metal" if metal else "most trials"
            for row in known:
                if row[fact.column] != wanted:
                    ours, theirs = differing(row[fact.column], wanted)
                    reasons.setdefault(
                        row["trial"],
                        f"{fact.words} {ours} found, {theirs} in {measure} of its replicate: "
                        f"unlike, so it has no ratio ({fact.reason})",
                    )
    return reasons


def marks(trials: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the differences that remain in the analysis: one row per fact, place and value pair.

    Rows have `fact`, `where`, `value`, `other` (the value elsewhere), `trials` (the number with
    `value`), `reason`, and `platform` (for the two sides of a ratio; else None).
    """
    real: list[Row] = [row for row in trials.to_dicts() if not row["emulated"]]
    return [*_between_replicates(real), *_between_sides(real)]


def _between_replicates(rows: list[Row]) -> Iterator[dict[str, Any]]:
    for fact in TABLE:
        if "replicate" not in fact.within:
            continue
        within = tuple(column for column in fact.within if column != "replicate")
        for group in groups(fact, rows, within):
            by_values = by_value(fact, known := _telling(fact, group))
            if len(by_values) < 2:
                continue
            usual = _commonest(fact, known)
            for value in sorted((v for v in by_values if v != usual), key=str):
                ours, theirs = differing(value, usual)
                places = sorted({row["replicate"] for row in group if row[fact.column] == value})
                yield {
                    "fact": fact.words,
                    "where": f"{_where(group[0], within)}, replicates "
                    + ", ".join(map(str, places)),
                    "platform": None,
                    "value": ours,
                    "other": theirs,
                    "trials": len(by_values[value]),
                    "reason": f"pairs are within a replicate, typical times are not; {fact.reason}",
                }


def by_cell(trials: pl.DataFrame) -> dict[tuple[Any, ...], list[str]]:
    """Return, by cell, the facts in which its trials differ from their bare metal."""
    pairs = _pairs([row for row in trials.to_dicts() if not row["emulated"]])
    facts: dict[tuple[Any, ...], list[str]] = {}
    for fact in _OF_PAIRS:
        for key in dict.fromkeys(key_of(row) for row, bare in pairs if _differs(fact, row, bare)):
            facts.setdefault(key, []).append(fact.words)
    return facts


_OF_PAIRS = [fact for fact in TABLE if fact.grain == "per ratio to bare metal"]


def _pairs(rows: list[Row]) -> list[tuple[Row, Row]]:
    """Return each trial with the bare metal of its replicate, if there is any."""
    baselines = {_side(row): row for row in rows if is_baseline(row)}
    return [
        (row, baselines[_side(row)])
        for row in rows
        if not is_baseline(row) and _side(row) in baselines
    ]


def _between_sides(rows: list[Row]) -> Iterator[dict[str, Any]]:
    pairs = _pairs(rows)
    for fact in _OF_PAIRS:
        places: dict[tuple[Any, ...], list[tuple[Row, Row]]] = {}
        for row, bare in pairs:
            if _differs(fact, row, bare):
                values = () if fact.apart else (row[fact.column], bare[fact.column])
                key = (row["platform"], row["mode"] if fact.apart else None, *values)
                places.setdefault(key, []).append((row, bare))
        for own in places.values():
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
    one_kernel = row["kernel_kind"] == bare["kernel_kind"]
    if fact.apart is None:
        both_known = None not in (value, other) or (one_kernel and not fact.silent)
        return bool(both_known and value != other)
    if value is None or other is None:
        return False
    # A guest's kernel reports one clock rate, that of its counter, whatever its CPUs run at.
    return (one_kernel or fact.absolute) and _distance(fact, row, bare) > fact.apart


def _distance(fact: Fact, row: Row, bare: Row) -> float:
    if fact.apart is None:
        return 0.0
    value, other = row[fact.column], bare[fact.column]
    return float(abs(value - other) / (1 if fact.absolute else max(other, 1e-9)))


def differing(value: Any, other: Any) -> tuple[str, str]:
    """Return two values in words; of lists, only the items that the other does not have."""
    texts = shown(value), shown(other)
    parts = [text.split(SPLIT) for text in texts]
    if max(map(len, parts)) < 2:
        return texts
    ours, theirs = (
        SPLIT.join(part for part in own if part not in rest) or "nothing else"
        for own, rest in (parts, parts[::-1])
    )
    return ours, theirs


def _telling(fact: Fact, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row[fact.column] is not None]


def _commonest(fact: Fact, rows: Iterable[Row]) -> Any:
    """Return the most common value; of equally common ones, the first in the order of trials."""
    ordered = sorted(rows, key=lambda row: row["position"])
    return Counter(row[fact.column] for row in ordered).most_common(1)[0][0]


def _where(row: Row, within: tuple[str, ...]) -> str:
    return ", ".join(
        f"kernel of {row[column]}" if column == "kernel_kind" else str(row[column])
        for column in within
    )


def is_baseline(row: Row) -> bool:
    """Return whether a trial is one that others of its replicate are compared with."""
    bare = (row["machine"], row["enclosure"]) == (METAL, PROCESS)
    return bare and row["mode"] == BASELINE_MODE and is_plain(row) and not row["emulated"]


def _side(row: Row) -> tuple[Any, ...]:
    """Return the key that a trial shares with the bare metal that it is compared with."""
    return (*key_of(row, SUBJECT), row["replicate"])
