"""The sentences of a report's first screen: which platforms to choose, and which to avoid.

`headline` makes the rows: one per cell that has a ratio to bare metal, with its `answer` ("same",
"more", "less", "unknown") and its `reservation`, a text that is not empty where the answer supports
no choice. Nothing is estimated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from virtbed_analysis import words
from virtbed_analysis.cells import key_of
from virtbed_analysis.trust import Json

OTHER_WORK = "its answers differ from bare metal's"
"""The reservation of a row that did other work, so that its times measure no platform."""
_NAMED = 3  # rows named in a sentence; the rest are counted
_STATEMENTS = 2  # statements about all subjects together; the rest are counted
Rows = Sequence[Json]


@dataclass(frozen=True)
class Reader:
    """What the sentences need besides the rows.

    Attributes:
        margin: The smallest cost worth acting on, as a share.
        entries: The platforms by name, which have their words.
    """

    margin: float
    entries: words.Entries

    @property
    def within(self) -> str:
        """The margin in words: "within 3%"."""
        return f"within {100 * self.margin:.3g}%"

    def name(self, row: Json) -> str:
        """Return a row's platform and mode in words, with their code."""
        return words.platform(row, self.entries)

    def figure(self, row: Json) -> str:
        """Return a row's platform and its ratio with interval."""
        measure = words.judged(row)
        of = "bare metal" if measure.name == "e2e" else f"bare metal's {measure.time}"
        start = f"{self.name(row)}, {words.ratio(row['ratio'])} times {of}"
        if row["ratio_low"] is None:
            return f"{start} ({words.interval(row)})"
        low, high = words.ratio(row["ratio_low"]), words.ratio(row["ratio_high"])
        but = f"; {row['reservation']}" if row["reservation"] else ""
        if measure.better == "higher":
            but = f"; {words.throughput(row['ratio'])}{but}"
        return f"{start} ({low} to {high}{but})"


@dataclass(frozen=True)
class Choice:
    """What can be chosen for one subject at one size.

    Attributes:
        kind: One of:

            - "good": choose among `rows`, which are within the margin of bare metal or faster; none
              of them is shown slower than a faster one
            - "least": every platform costs more than bare metal; the one row costs clearly least
            - "alike": every platform costs more; which of `rows` costs least is undecided
            - "unknown": no platform is shown to be good; `rows` are undecided
            - "nothing": every row has a reservation or no interval
        rows: The rows that it is about.
    """

    kind: str
    rows: tuple[Json, ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """The kind and the platforms: places with the same key share one statement."""
        return self.kind, tuple(sorted(words.code(row) for row in self.rows))


def choices(rows: Rows) -> list[list[Choice]]:
    """Return what can be chosen for each subject and size, grouped by equal statements."""
    places: dict[tuple[str, int], list[Json]] = {}
    for row in rows:
        places.setdefault((words.subject(row), row["cores"]), []).append(row)
    alike: dict[tuple[str, tuple[str, ...]], list[Choice]] = {}
    for group in places.values():
        choice = _at_place(group)
        alike.setdefault(choice.key, []).append(choice)
    return list(alike.values())


def _at_place(rows: Rows) -> Choice:
    """Return what can be chosen among the cells of one subject and size."""
    firm = [row for row in rows if not row["reservation"] and row["ratio_low"] is not None]
    if good := [row for row in firm if row["answer"] in ("same", "less")]:
        fastest = min(good, key=lambda row: float(row["ratio_high"]))
        beaten = fastest["ratio_high"] if fastest["answer"] == "less" else float("inf")
        return Choice("good", tuple(row for row in good if row["ratio_low"] <= beaten))
    if not firm:
        return Choice("nothing", tuple(rows))
    least = min(firm, key=lambda row: float(row["ratio"]))
    # Rivals: their intervals overlap that of the least one, so either may cost less.
    rivals = [
        row
        for row in rows
        if row is not least
        if row["ratio_low"] is None or row["ratio_low"] <= least["ratio_high"]
    ]
    if open_rows := tuple(row for row in (least, *rivals) if row["answer"] != "more"):
        return Choice("unknown", open_rows)
    return Choice("alike" if rivals else "least", (least, *rivals))


def sentences(rows: Rows, reader: Reader) -> list[str]:
    """Return what to choose at each size of one subject, and what to avoid."""
    groups = choices(rows)
    parts = []
    for group in groups:
        at = sizes(choice.rows[0] for choice in group)
        parts.append(
            _sentence(group, f"At {at} ", "", reader)
            if len(groups) > 1
            else _sentence(
                group, "", f" at {at}{', every size measured' if len(group) > 1 else ''}", reader
            )
        )
    rest = _not_chosen(rows, groups)
    return [*map(_begin_sentence, parts), *_avoid(rest, reader), *_reserved(rest, reader)]


def across(rows: Rows, reader: Reader) -> list[str]:
    """Return what to choose in most settings, the most common first, and what to avoid."""
    groups = sorted(choices(rows), key=len, reverse=True)
    number = sum(map(len, groups))
    several = "scenario, " if len({row["scenario"] for row in rows}) > 1 else ""
    of = f"of {number} settings (application, {several}size)"
    parts = [
        _sentence(group, f"In {len(group)} {of} ", "", reader) for group in groups[:_STATEMENTS]
    ]
    if rest := sum(map(len, groups[_STATEMENTS:])):
        have = "has an answer of its own" if rest == 1 else "have answers of their own"
        parts.append(f"The other {rest} {of} {have}, below.")
    return [*parts, *_avoid(_not_chosen(rows, groups), reader)]


def _not_chosen(rows: Rows, groups: Iterable[Sequence[Choice]]) -> list[Json]:
    chosen = {key_of(row) for group in groups for choice in group for row in choice.rows}
    return [row for row in rows if key_of(row) not in chosen]


def _begin_sentence(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"


def _sentence(group: Sequence[Choice], start: str, end: str, reader: Reader) -> str:
    """Return the statement that a group of places shares.

    Args:
        group: The choice at each place.
        start: Names the places at the start of the sentence; empty if there is one group alone.
        end: Names them at its end; empty if there are several groups.
        reader: The margin and the words.
    """
    rows = group[0].rows
    names = either([reader.name(row) for row in rows])
    figures = names if len(group) > 1 else listed([reader.figure(row) for row in rows])
    none = f"{start}no platform is shown to be {reader.within} of bare metal{end}"
    match group[0].kind:
        case "good":
            answers = {row["answer"] for choice in group for row in choice.rows}
            cost = {
                frozenset({"less"}): "no slower than",
                frozenset({"same"}): f"{reader.within} of",
            }.get(frozenset(answers), f"at most {100 * reader.margin:.3g}% slower than")
            return f"{start}choose {names}: {cost} pinned bare metal{end}."
        case "least":
            share = span(choice.rows[0] for choice in group)
            return (
                f"{start}{names} costs least: {share} more{_of(group)}{end}. No platform is "
                f"shown to be {reader.within} of bare metal there."
            )
        case "alike":
            return f"{none}, and which platform costs least is undecided: {figures}."
        case "unknown":
            return f"{none}. {words.undecided(figures)}"
    return f"{start}this sweep supports no choice: {_why_not(rows, reader)}."


def _of(group: Sequence[Choice]) -> str:
    """Return what a share compares with, and what a time per sample means for throughput."""
    rows = [choice.rows[0] for choice in group]
    batch = [row for row in rows if words.judged(row).better == "higher"]
    if not batch:
        return " than pinned bare metal"
    if len(batch) < len(rows):
        return f" than pinned bare metal ({words.times_of(row['scenario'] for row in rows)})"
    return f" time per sample than pinned bare metal ({gained(rows)})"


def _why_not(rows: Rows, reader: Reader) -> str:
    reasons: dict[str, list[Json]] = {}
    for row in rows:
        reasons.setdefault(row["reservation"] or words.interval(row), []).append(row)
    if len(reasons) == 1:
        return f"{next(iter(reasons))}{' in every cell' if len(rows) > 1 else ''}"
    parts = [
        f"{listed([reader.name(row) for row in found])}: {reason}"
        for reason, found in reasons.items()
    ]
    return "; ".join(parts)


def _avoid(rows: Rows, reader: Reader) -> list[str]:
    """Return which platforms to avoid: those that cost more than the margin, the worst first.

    Platforms with a reservation have a sentence of their own, which names it.
    """
    slower = [
        row
        for row in rows
        if row["answer"] == "more" and row["reservation"] != OTHER_WORK
        if row["ratio_low"] is not None and row["ratio_low"] > 1 + reader.margin
    ]
    firm = [row for row in slower if not row["reservation"]]
    known = {words.code(row) for row in firm}
    doubtful = [row for row in slower if words.code(row) not in known]
    several = len({words.subject(row) for row in rows}) > 1
    return [
        *_avoid_where(firm, "", reader, several),
        *_avoid_where(doubtful, ", with a reservation", reader, several),
    ]


def _avoid_where(rows: Rows, how: str, reader: Reader, several: bool) -> Iterator[str]:
    """Yield the sentence on platforms to avoid, each at its worst place; none without rows.

    Args:
        rows: Cells that cost more than the margin.
        how: What limits the statement.
        reader: The margin and the words.
        several: Whether the report has several subjects; sizes are then left out.
    """
    worst: dict[str, Json] = {}
    for row in sorted(rows, key=lambda row: -float(row["ratio_high"])):
        worst.setdefault(words.code(row), row)
    if not worst:
        return
    parts = [f"{reader.figure(row)} at {sizes([row])}" for row in worst.values()]
    if several:
        parts = [
            f"{reader.name(row)}, up to {_share(row['ratio_high'] - 1)} more{_time(row)}"
            + (f" ({row['reservation']})" if row["reservation"] else "")
            for row in worst.values()
        ]
    batch = all(words.judged(row).better == "higher" for row in rows)
    yield f"Avoid where {'throughput' if batch else 'time'} matters{how}: {listed(parts)}."


def _time(row: Json) -> str:
    measure = words.judged(row)
    return "" if measure.name == "e2e" else f" {measure.time}"


def _reserved(rows: Rows, reader: Reader) -> list[str]:
    """Return the sentence on cells whose times are fast enough, but have a reservation."""
    fast = [row for row in rows if row["reservation"] and row["answer"] in ("same", "less")]
    parts = [f"{reader.name(row)} at {sizes([row])} ({row['reservation']})" for row in fast]
    return [f"Fast enough by its times, but not to be chosen: {listed(parts)}."] if parts else []


def sizes(rows: Iterable[Json]) -> str:
    """Return "1 core", or "1, 2 and 4 cores"."""
    cores = sorted({int(row["cores"]) for row in rows})
    if len(cores) == 1:
        return words.count(cores[0], "core")
    return f"{', '.join(map(str, cores[:-1]))} and {cores[-1]} cores"


def span(rows: Iterable[Json]) -> str:
    """Return the range that the intervals of costs, or gains, span together: "2.1% to 39%"."""
    ends = []
    for row in rows:
        shares = [row[end] - 1 for end in ("ratio_low", "ratio_high")]
        ends += [-share for share in shares] if row["answer"] == "less" else shares
    return f"{_share(min(ends))} to {_share(max(ends))}"


def gained(rows: Iterable[Json]) -> str:
    """Return the range of throughputs of intervals of times per sample: "2.1% to 39% less"."""
    ends = [1 / row[end] - 1 for row in rows for end in ("ratio_low", "ratio_high")]
    less = min(ends) < 0
    least, most = sorted(-end if less else end for end in ends)[:: len(ends) - 1]
    return f"{_share(least)} to {_share(most)} {'less' if less else 'more'} throughput"


def _share(share: float) -> str:
    return f"{100 * share:.1f}%" if share < 1 else f"{100 * share:,.0f}%"


def either(names: Sequence[str]) -> str:
    """Return "a", "a or b", or "a; b; or c"; semicolons, because names have commas."""
    if len(names) <= 2:
        return " or ".join(names)
    return "; ".join([*names[:-1], f"or {names[-1]}"])


def listed(parts: Sequence[str]) -> str:
    """Return parts joined by semicolons; of more than three, the first ones and a count."""
    shown = [*parts[:_NAMED]]
    if more := len(parts) - len(shown):
        shown.append(f"and {words.count(more, 'other')}")
    return "; ".join(shown)
