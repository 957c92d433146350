"""The warnings of a report's first screen, each with a number and a next step.

`headline` shows them. They are made of a report's content alone.
"""

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
"""A warning, with a number in it, and the next step."""


def warnings_of(content: Json, rows: Sequence[Json]) -> list[Json]:
    """Return what a reader must know before acting on a report: `text` and `next` of each warning.

    Args:
        content: The report's content.
        rows: The compared cells with answers and reservations, as `headline` makes them.
    """
    again = f"virtbed sweep {content['sweep']}"
    warnings = [
        *_of_cells(content, rows),
        *_of_intervals(content, rows),
        *_of_trials(content, rows, again),
        *_not_measured(content),
    ]
    return [{"text": text, "next": step} for text, step in warnings]


def _of(number: int, total: int, thing: str, singular: str, plural: str) -> str:
    """Return "1 of 3 cells has", "2 of 3 cells have": a share with the verb that it takes."""
    return f"{number} of {words.count(total, thing)} {singular if number == 1 else plural}"


def _have(number: int, thing: str) -> str:
    return f"{words.count(number, thing)} {'has' if number == 1 else 'have'}"


def _of_cells(content: Json, rows: Sequence[Json]) -> Iterator[Warned]:
    if differ := len(content["answers_differ"]):
        yield (
            f"{words.count(differ, 'cell')} gave other answers than bare metal: the times are of "
            "different work and cannot be compared.",
            "See Answers that differ.",
        )
    alone = [c for c in content["cells"] if is_plain(c) and not c["baseline"] and not c["ratio"]]
    if rows and alone:
        entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
        named = "; ".join(words.instance(cell, entries) for cell in alone[:_NAMED])
        yield (
            f"{_have(len(alone), 'cell')} no pinned bare metal to compare with, and no part in "
            f"this summary: {named}"
            f"{f'; and {len(alone) - _NAMED} more' if len(alone) > _NAMED else ''}.",
            _rest(content)
            or "Add bare metal at the same sizes to the plan, or repeat its failed trials.",
        )
    if rows and (single := sum(row["ratio_low"] is None for row in rows)):
        yield (
            f"{_of(single, len(rows), 'cell', 'has', 'have')} no interval: one replicate shows no "
            "spread.",
            _rest(content) or "Raise replicates in the plan to 5 or more, and run the sweep again.",
        )
    spans = [row for row in rows if row["ratio_low"] is not None]
    flat = [row for row in spans if not has_width(row["ratio_low"], row["ratio_high"])]
    if flat:
        yield (
            f"{_of(len(flat), len(rows), 'cell', 'has', 'have')} replicates alike to the last "
            "digit, which no two measurements are: no interval.",
            "Check whether times were copied, or taken from a clock that is too coarse.",
        )
    open_cells = [row for row in spans if row["answer"] == "unknown" and row not in flat]
    if open_cells:
        yield (
            f'{_of(len(open_cells), len(rows), "answer", "is", "are")} "cannot tell": the interval '
            "includes both a cost worth acting on and none.",
            _narrower(content),
        )


def _rest(content: Json) -> str:
    """Return the step that runs the trials that have not run yet; empty if all have."""
    return (
        f"virtbed sweep {content['sweep']} runs the rest." if content["counts"]["waiting"] else ""
    )


def _narrower(content: Json) -> str:
    """Return the step that narrows intervals: the sweep's own next step, if it has one."""
    resolution = content.get("resolution") or {}
    if resolution.get("remedy") or resolution.get("command"):
        return "See Next, above."
    return "Raise replicates in the plan: four times as many halve an interval."


def _of_intervals(content: Json, rows: Sequence[Json]) -> Iterator[Warned]:
    """Yield warnings about ratios: noise, drift, hosts, differences besides the platform."""
    compared = {key_of(row) for row in rows}
    doubted = [cell for cell in content["cells"] if key_of(cell) in compared and cell.get("doubt")]
    if doubted:
        entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
        named = [words.instance(cell, entries) for cell in doubted[:_NAMED]]
        more = f"; and {words.count(rest, 'other')}" if (rest := len(doubted) - _NAMED) > 0 else ""
        yield (
            f"{_of(len(doubted), len(rows), 'ratio', 'shows', 'show')} signs that the interval may "
            f"be too narrow: {'; '.join(named)}{more}.",
            "See How far to trust the intervals.",
        )
    drift = content.get("drift") or {"cells": []}
    if drifting := [row for row in drift["cells"] if row["warning"] and key_of(row) in compared]:
        yield (
            f"{_of(len(drifting), len(rows), 'ratio', 'may', 'may')} be drift of the host in part.",
            "See Order and drift.",
        )
    several = content.get("hosts") or {"rows": []}
    if apart := [row for row in several["rows"] if row["differ"] and key_of(row) in compared]:
        most = max(row["range"] for row in apart)
        yield (
            f"{_of(len(apart), len(rows), 'ratio', 'differs', 'differ')} between hosts that are "
            f"otherwise alike, by up to {most:.1%}: the mean of the hosts is shown.",
            "See Hosts.",
        )
    if unlike := content.get("unlike"):
        facts = list(dict.fromkeys(row["fact"] for row in unlike))
        more = f" and {len(facts) - _NAMED} more" if len(facts) > _NAMED else ""
        yield (
            f"{words.count(len(unlike), 'difference')} besides the platform between the cells that "
            f"are compared: {', '.join(facts[:_NAMED])}{more}.",
            "See What differs besides the platform.",
        )


def _of_trials(content: Json, rows: Sequence[Json], again: str) -> Iterator[Warned]:
    counts = content["counts"]
    if failed := counts["failed"]:
        rest = "; the trials of these cells that succeeded may be the faster ones"
        yield (
            f"{words.count(failed, 'trial')} failed, first {content['failed'][0]['trial']}"
            f"{rest if content['cells'] else ''}.",
            f"See Trials without a result; {again} repeats what failed.",
        )
    if suspect := counts["suspect"]:
        real = counts["analysed"] - counts["emulated"]
        changed = sum(row["suspect"] for row in rows)
        without = (
            " Without them, nothing is left to compare."
            if suspect == real and not changed
            else f" Without them, {changed or 'none'} of {words.count(len(rows), 'answer')} would "
            "be different."
        )
        yield (
            f"{_of(suspect, real, 'trial', 'is', 'are')} suspect: something other than the "
            f"platform changed during the trial.{without if rows else ''}",
            "See Suspect trials; repeat the sweep on a quieter host.",
        )
    ended = (content.get("loadgen") or {"trials": []})["trials"]
    if invalid := sum(not trial["usable"] for trial in ended):
        yield (
            f"{words.count(invalid, 'trial')} {'is' if invalid == 1 else 'are'} INVALID by MLPerf "
            "LoadGen's rules, and not only because of being short: left out by virtbed advise, "
            "included in the ratios here.",
            "See Verdict of LoadGen.",
        )
    suspicion = content.get("suspicion") or {"note": None}
    if suspicion["note"]:
        yield str(suspicion["note"]), "See Suspect trials."
    if waiting := counts["waiting"]:
        yield f"{_have(waiting, 'planned trial')} not run yet.", f"{again} runs the rest."
    if rejected := counts["rejected"]:
        yield (
            f"{words.count(rejected, 'file')} left out, which cannot be trusted.",
            "See Files left out.",
        )


def _not_measured(content: Json) -> Iterator[Warned]:
    """Yield warnings about parts of the plan of which the sweep has no figures."""
    called = {row["name"]: row["words"] for row in content["platforms"]}
    emulated = dict.fromkeys(row["platform"] for row in content["emulated"])
    if emulated:
        names = ", ".join(called.get(name, name) for name in emulated)
        yield (
            f"{words.count(len(content['emulated']), 'cell')} emulated ({names}): shown to work, "
            "at an unknown cost.",
            "To measure the cost, use a host that has hardware virtualization and is not emulated.",
        )
    if nothing := functional.sentence(content.get("functional", [])):
        yield nothing, "To measure a cost, name an application that computes something."
    rest = dict.fromkeys(
        row["platform"] for row in content["not_run"] if row["platform"] not in emulated
    )
    if rest:
        names = ", ".join(called.get(name, name) for name in rest)
        yield (
            f"{words.count(len(rest), 'platform')} of the plan not run, or not at every size "
            f"({names}).",
            "See Platforms not run, which lists remedies.",
        )
