"""The warnings of a report's first screen: each with its number and a next step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from virtbed_analysis import functional, words
from virtbed_analysis.cells import is_plain, key_of
from virtbed_analysis.margin import has_width
from virtbed_analysis.trust import Json
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform

_NAMED = 3
Warned = tuple[str, str]
"""What is the matter, with its number, and what to do about it."""


def warnings_of(content: Json, rows: Sequence[Json]) -> list[Json]:
    """Return what a reader must know before acting on a report.

    Args:
        content: The report's content.
        rows: The compared cells with answers and reservations, as `headline` makes them.
    """
    again = f"virtbed sweep {content['sweep']}"
    found = [
        *_of_cells(content, rows),
        *_of_intervals(content, rows),
        *_of_trials(content, rows, again),
        *_not_measured(content),
    ]
    return [{"text": text, "next": step} for text, step in found]


def _of_cells(content: Json, rows: Sequence[Json]) -> Iterator[Warned]:
    if differ := len(content["answers_differ"]):
        yield (
            f"{words.count(differ, 'cell')} with other answers than bare metal's: unlike work, "
            "whose times say nothing.",
            "See Answers that differ.",
        )
    alone = [c for c in content["cells"] if is_plain(c) and not c["baseline"] and not c["ratio"]]
    if rows and alone:
        entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
        named = "; ".join(words.instance(cell, entries) for cell in alone[:_NAMED])
        yield (
            f"{words.count(len(alone), 'cell')} without pinned bare metal to compare with, and not "
            f"among what is said here: {named}"
            f"{f'; and {len(alone) - _NAMED} more' if len(alone) > _NAMED else ''}.",
            "Give bare metal the same sizes in the plan, or repeat what failed of it.",
        )
    if rows and (single := sum(row["ratio_low"] is None for row in rows)):
        yield (
            f"{words.count(single, 'cell')} of {len(rows)} without an interval: one replicate "
            "shows no spread.",
            "Raise replicates in the plan, 5 at least, and call the sweep again.",
        )
    spans = [row for row in rows if row["ratio_low"] is not None]
    flat = [row for row in spans if not has_width(row["ratio_low"], row["ratio_high"])]
    if flat:
        yield (
            f"{words.count(len(flat), 'cell')} of {len(rows)} with replicates alike to the last "
            "digit, as no two measurements are: no interval.",
            "See whether times were copied, or taken by a clock that is too coarse.",
        )
    open_cells = [row for row in spans if row["answer"] == "unknown" and row not in flat]
    if open_cells:
        yield (
            f"{len(open_cells)} of {words.count(len(rows), 'answer')} "
            f'{"is" if len(open_cells) == 1 else "are"} "cannot tell": the interval holds both a '
            "cost to act on and none.",
            _narrower(content),
        )


def _narrower(content: Json) -> str:
    """Return what narrows intervals: what the sweep's resolution asks for, if it asks."""
    asked = content.get("resolution") or {}
    if asked.get("remedy") or asked.get("command"):
        return "See Next, above."
    return "Raise replicates in the plan: four times as many halve an interval."


def _of_intervals(content: Json, rows: Sequence[Json]) -> Iterator[Warned]:
    """Give what speaks against the ratios: noise, drift, and what differs besides the platform."""
    compared = {key_of(row) for row in rows}
    doubted = [cell for cell in content["cells"] if key_of(cell) in compared and cell.get("doubt")]
    if doubted:
        entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
        named = [words.instance(cell, entries) for cell in doubted[:_NAMED]]
        more = f"; and {words.count(rest, 'other')}" if (rest := len(doubted) - _NAMED) > 0 else ""
        yield (
            f"{words.count(len(doubted), 'ratio')} of {len(rows)} with signs that the interval may "
            f"cover less than it says: {'; '.join(named)}{more}.",
            "See How far to trust the intervals.",
        )
    drift = content.get("drift") or {"cells": []}
    if drifting := [row for row in drift["cells"] if row["warning"] and key_of(row) in compared]:
        yield (
            f"{words.count(len(drifting), 'ratio')} of {len(rows)} may be drift of the host in "
            "part.",
            "See Order and drift.",
        )
    several = content.get("hosts") or {"rows": []}
    if apart := [row for row in several["rows"] if row["differ"] and key_of(row) in compared]:
        most = max(row["range"] for row in apart)
        yield (
            f"{words.count(len(apart), 'ratio')} of {len(rows)} "
            f"{'differs' if len(apart) == 1 else 'differ'} between hosts that are alike otherwise, "
            f"by up to {most:.1%}: what is shown is their mean.",
            "See Hosts.",
        )
    if unlike := content.get("unlike"):
        yield (
            f"{words.count(len(unlike), 'difference')} besides the platform in what is compared.",
            "See What differs besides the platform.",
        )


def _of_trials(content: Json, rows: Sequence[Json], again: str) -> Iterator[Warned]:
    counts = content["counts"]
    if failed := counts["failed"]:
        rest = "; those of a cell that did not fail may be its better ones"
        yield (
            f"{words.count(failed, 'trial')} failed, first {content['failed'][0]['trial']}"
            f"{rest if content['cells'] else ''}.",
            f"See Trials without a result; {again} repeats them.",
        )
    if suspect := counts["suspect"]:
        real = counts["analysed"] - counts["emulated"]
        changed = sum(row["suspect"] for row in rows)
        yield (
            f"{suspect} of {words.count(real, 'trial')} suspect: something else moved while they "
            f"ran. Without them {changed or 'none'} of {words.count(len(rows), 'answer')} would "
            "be another.",
            "See Suspect trials; repeat the sweep on a quieter host.",
        )
    ended = (content.get("loadgen") or {"trials": []})["trials"]
    if invalid := sum(not trial["usable"] for trial in ended):
        yield (
            f"{words.count(invalid, 'trial')} INVALID by MLPerf LoadGen's rules, for more than "
            "length: advice leaves them out, the ratios here do not.",
            "See What LoadGen says.",
        )
    suspicion = content.get("suspicion") or {"note": None}
    if suspicion["note"]:
        yield str(suspicion["note"]), "See Suspect trials."
    if waiting := counts["waiting"]:
        yield f"{words.count(waiting, 'planned trial')} not run yet.", f"{again} goes on."
    if rejected := counts["rejected"]:
        yield (
            f"{words.count(rejected, 'file')} left out, since not to be trusted.",
            "See Files left out.",
        )


def _not_measured(content: Json) -> Iterator[Warned]:
    """Give what the sweep says nothing of, though its plan asked for it."""
    said = {row["name"]: row["words"] for row in content["platforms"]}
    emulated = dict.fromkeys(row["platform"] for row in content["emulated"])
    if emulated:
        names = ", ".join(said.get(name, name) for name in emulated)
        yield (
            f"{words.count(len(content['emulated']), 'cell')} emulated ({names}): shown to work; "
            "the cost is not known.",
            "Measure it on a host that is not emulated and has hardware virtualization.",
        )
    if nothing := functional.sentence(content.get("functional", [])):
        yield nothing, "Name an application that computes something to measure what it costs."
    rest = dict.fromkeys(
        row["platform"] for row in content["not_run"] if row["platform"] not in emulated
    )
    if rest:
        names = ", ".join(said.get(name, name) for name in rest)
        yield (
            f"{words.count(len(rest), 'platform')} of the plan not run, or not at every size "
            f"({names}).",
            "See Platforms not run, which has remedies.",
        )
