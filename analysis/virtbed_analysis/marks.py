"""Marks: short warnings about a cell, shown next to its numbers in every table.

A mark of a cell ("own") is about its own trials, and appears wherever a number is made of them. A
mark of a pair is about the cell and its bare metal, and appears at ratios to bare metal. Warnings
about an interval, which follow from its replicates, are numbered separately: see `doubts`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtbed_analysis import differences, doubts, drift, estimate, guests, hosts, suspects
from virtbed_analysis.candidates import Ends, ends_by_cell
from virtbed_analysis.cells import BASELINE_MODE, CELL, PLAIN, SUBJECT, is_plain, key_of
from virtbed_analysis.frames import Sweep
from virtbed_analysis.per_trial import answers_differ
from virtbed_analysis.reading import Json
from virtbed_analysis.reasons import lost
from virtbed_contract.factors import FACTORS

Key = tuple[Any, ...]
OTHER_ANSWERS = "other answers"
UNLIKE = "section-what-differs-besides-the-platform"
_NAMED = 4
# Parts of a content without numbers to act on: what was planned, what failed, the marks themselves.
_ASIDE = frozenset(
    {"emulated", "failed", "waiting", "rejected", "not_run", "suspect", "platforms", "doubts",
     "suspicion", "answers_differ", "functional", "headline"}
)  # fmt: skip
_PLACED = {"platform", "mode", "application", "scale", "scenario"}


@dataclass(frozen=True)
class Marks:
    """Marks by cell.

    Attributes:
        own: Marks of the cell's own trials, each with `text`, `why`, and `at` (the id of the part
            of the page that explains it).
        pair: Marks of its ratio to bare metal.
    """

    own: Mapping[Key, list[Json]] = field(default_factory=dict)
    pair: Mapping[Key, list[Json]] = field(default_factory=dict)

    def of(self, *cells: Mapping[str, Any]) -> list[Json]:
        """Return the marks of ratios of these cells to their bare metal."""
        keys = [key_of(cell) for cell in cells]
        return _once(mark for key in keys for marks in (self.own, self.pair) for mark in
                     marks.get(key, ()))  # fmt: skip

    def of_own(self, *cells: Mapping[str, Any]) -> list[Json]:
        """Return the marks of numbers that are made of these cells alone."""
        return _once(mark for cell in cells for mark in self.own.get(key_of(cell), ()))


def of_sweep(sweep: Sweep, timing: Json | None = None) -> Marks:
    """Return the marks of a sweep's real cells.

    Args:
        sweep: The sweep.
        timing: Its `drift.order`, if the caller has it.
    """
    own: defaultdict[Key, list[Json]] = defaultdict(list)
    pair: defaultdict[Key, list[Json]] = defaultdict(list)
    trials = sweep.trials
    for row in answers_differ(trials).to_dicts():
        own[key_of(row)].append(
            _mark(OTHER_ANSWERS, "its answers differ from bare metal's: other work", "answers")
        )
    ends = ends_by_cell(sweep, plain=False)
    for key, end in ends.items():
        if end.lost:
            own[key].append(_mark("trials lost", lost(end), "section-trials-without-a-result"))
    rates = suspects.rates(trials)
    suspect = {key_of(row): row for row in rates if row["suspect"]}
    for key, row in suspect.items():
        own[key].append(_mark("suspect", _suspect(row), "section-suspect-trials"))
    metal = _baselines(rates, sweep.platforms.bare)
    timing = timing or drift.order(trials, sweep.samples, sweep.margin)
    confounded, kernels = drift.warnings(timing), guests.kernels(trials)
    unlike = differences.by_cell(trials)
    apart = _between_hosts(sweep)
    for row in rates:
        key, bare = key_of(row), metal.get(key_of(row, SUBJECT))
        if bare in (None, key):
            continue
        pair[key] += _of_metal(suspect.get(bare), ends.get(bare, Ends()))
        if key in confounded:
            pair[key].append(_mark("may be drift", confounded[key], "order"))
        if differing := kernels(row):
            pair[key].append(_mark("two kernels", differing, UNLIKE))
        if key in apart:
            pair[key].append(_mark("hosts differ", apart[key], "section-hosts"))
        if facts := unlike.get(key):
            more = f" and {len(facts) - _NAMED} more" if len(facts) > _NAMED else ""
            why = f"besides the platform: {', '.join(facts[:_NAMED])}{more}"
            pair[key].append(_mark("unlike", why, UNLIKE))
    return Marks(own, pair)


def _between_hosts(sweep: Sweep) -> dict[Key, str]:
    """Return, for cells whose cost differs between pooled hosts, how it differs."""
    if len(hosts.names(sweep.trials)) < 2:
        return {}
    cells = estimate.ratio_to_bare_metal(sweep.samples).to_dicts()
    return hosts.disagreeing(hosts.spread(cells, sweep.trials))


def _mark(text: str, why: str, at: str) -> Json:
    return {"text": text, "why": why, "at": at}


def _suspect(row: Json) -> str:
    return f"{row['suspect']} of {row['trials']} trials suspect"


def _of_metal(suspect: Json | None, ends: Ends) -> Iterator[Json]:
    """Yield the marks of the bare metal that a cell is compared with."""
    if suspect:
        why = f"bare metal: {_suspect(suspect)}"
        yield _mark("bare metal suspect", why, "section-suspect-trials")
    if ends.late or ends.invalid:
        why = f"bare metal: {lost(ends)}"
        yield _mark("bare metal's trials lost", why, "section-trials-without-a-result")


def _baselines(rows: Iterable[Json], bare: str | None) -> dict[Key, Key]:
    """Return the key of the bare-metal cell by the columns that its platforms share with it."""
    return {
        key_of(row, SUBJECT): key_of(row)
        for row in rows
        if (row["platform"], row["mode"]) == (bare, BASELINE_MODE) and is_plain(row)
    }


def _once(marks: Iterable[Json]) -> list[Json]:
    return list({(mark["text"], mark["why"]): mark for mark in marks}.values())


class Compared:
    """Marks of cells in a comparison of sweeps, each with the name of its side."""

    def __init__(self, first: Sequence[Sweep], second: Sequence[Sweep]) -> None:
        self._sweeps = [
            (name, of_sweep(sweep), _signs(sweep))
            for name, side in (("first", first), ("second", second))
            for sweep in side
        ]

    def of(self, cell: Mapping[str, Any]) -> list[Json]:
        """Return the marks of a cell's change of time and of cost."""
        whole = {**PLAIN, **cell}
        return _once(
            mark | {"text": f"{name}: {mark['text']}", "at": "marked"}
            for name, marks, signs in self._sweeps
            for mark in [*marks.of(whole), *signs.get(key_of(whole), [])]
        )

    def other_answers(self, cell: Mapping[str, Any]) -> list[str]:
        """Return the sides on which a cell's answers differ from bare metal's."""
        whole = {**PLAIN, **cell}
        names = (
            name
            for name, marks, _ in self._sweeps
            if any(mark["text"] == OTHER_ANSWERS for mark in marks.of_own(whole))
        )
        return list(dict.fromkeys(names))


def _signs(sweep: Sweep) -> dict[Key, list[Json]]:
    """Return the warnings about the interval of each cell's ratio, as marks."""
    rows = doubts.marked(estimate.ratio_to_bare_metal(sweep.samples).to_dicts())
    return {
        key_of(row): [_mark("warning", sign["text"], "") for sign in row["warnings"]]
        for row in rows
    }


def share(content: Json, marks: Marks) -> None:
    """Add `marks` to every row of a cell, or of a curve of cells, in a report's content.

    Args:
        content: A report's content without its headline; changed in place.
        marks: The marks of its sweep.
    """
    places = _places(content["cells"])
    doubted = {key_of(cell): cell["doubt"] for cell in content["cells"]}
    for name, part in content.items():
        if name in _ASIDE:
            continue
        for row in _rows(part):
            whole = {**PLAIN, **row}
            if row.get("cores") is None or "sizes" in row:
                curve = _curve(whole, places)
                row["marks"] = _once([*marks.of(*curve), *_doubts(curve, doubted)])
            elif name in _WITHIN:
                row["marks"] = marks.of_own(whole, *_WITHIN[name](whole))
            elif name == "guest_factors":
                # The row has a ratio between guests, and next to it one to bare metal.
                other = whole | {f.name: f.default for f in FACTORS if f.own_kernel}
                row["marks"] = _once([*marks.of(whole), *marks.of_own(other)])
            else:
                row["marks"] = marks.of(whole)


def _rows(part: Any) -> Iterator[Json]:
    """Yield the rows of cells in a part of a content, at any depth."""
    if isinstance(part, dict):
        if part.keys() >= _PLACED:
            yield part
        else:
            for inner in part.values():
                yield from _rows(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _rows(inner)


_CURVE = [name for name in CELL if name != "cores"]


def _places(cells: Iterable[Json]) -> dict[Key, list[Json]]:
    curves: defaultdict[Key, list[Json]] = defaultdict(list)
    for cell in cells:
        curves[key_of(cell, _CURVE)].append(cell)
    return curves


def _curve(row: Json, places: Mapping[Key, list[Json]]) -> list[Json]:
    """Return the cells of a row's curve: those of its sizes, if it names them."""
    cells = places.get(key_of(row, _CURVE), []) if row.keys() >= {*_CURVE} else []
    sizes = row.get("sizes", row.get("measured"))
    return [cell for cell in cells if not isinstance(sizes, list) or cell["cores"] in sizes]


def _doubts(cells: Iterable[Json], doubted: Mapping[Key, int | None]) -> Iterator[Json]:
    for cell in cells:
        if number := doubted.get(key_of(cell)):
            yield _mark(f"warning {number}", "see that warning", f"doubt-{number}")


def _doubled(row: Json) -> list[Json]:
    return [row | {"cores": 2 * row["cores"]}]


def _of_range(row: Json) -> list[Json]:
    cores = row["cores"] // 2 if row["open"] else 2 * row["cores"]
    return [row | {"cores": cores}]


# Tables of numbers within one platform, and the other cells that each row is made of.
_WITHIN: dict[str, Callable[[Json], list[Json]]] = {
    "vanilla_to_pinned": lambda row: [row | {"mode": "pinned"}],
    "thread_policy_gain": lambda row: [row | {"thread_policy": "matched"}],
    "isolation": lambda row: [row | {"neighbours": PLAIN["neighbours"]}],
    "gpu_speed_up": lambda row: [row | {"processor": "gpu"}],
    "scale_up": _doubled,
    "efficient_range": _of_range,
    "startup": lambda _: [],
    "stalls": lambda _: [],
    "diagnostics": lambda _: [],
}
