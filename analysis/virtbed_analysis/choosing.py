"""What a sweep's answers allow to choose, in sentences: see `headline`.

Rows are cells with a ratio to bare metal, their `answer`, and a `reservation` where the answer is
no ground for a choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from virtbed_analysis import words
from virtbed_analysis.cells import key_of
from virtbed_analysis.trust import Json

OTHER_WORK = "other answers than bare metal's"
"""The reservation of a row whose times say nothing of the platform."""
_NAMED = 3  # so many are named in a sentence; of more, the number is said
_STATEMENTS = 2  # so many are made of all subjects together; each has its own
Rows = Sequence[Json]


@dataclass(frozen=True)
class Reader:
    """What sentences need besides the rows: the margin, and the words of platforms."""

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
        ratio = words.ratio(row["ratio"])
        if row["ratio_low"] is None:
            return f"{self.name(row)} {ratio} ({words.interval(row)})"
        low, high = words.ratio(row["ratio_low"]), words.ratio(row["ratio_high"])
        but = f"; {row['reservation']}" if row["reservation"] else ""
        if words.judged(row).better == "higher":
            but = f" of bare metal's time per sample; {words.throughput(row['ratio'])}{but}"
        return f"{self.name(row)} {ratio} ({low} to {high}{but})"


@dataclass(frozen=True)
class Choice:
    """What can be chosen at one size.

    Attributes:
        kind: "good": `rows` cost nothing that matters, or less than bare metal, and none of them is
            shown slower than one that costs less; "least": every
            platform costs more, the one row clearly least; "alike": likewise, and the least cannot
            be distinguished; "unknown": none is known to be good, and `rows` are undecided;
            "nothing": no row has an answer without reservation.
        rows: The rows that it is about.
    """

    kind: str
    rows: tuple[Json, ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What sizes with one statement have in common."""
        return self.kind, tuple(sorted(words.code(row) for row in self.rows))


def choices(rows: Rows) -> list[list[Choice]]:
    """Return what can be chosen for each subject and size, alike statements together."""
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
    # An interval that reaches down to the least one's: by these, either may cost less.
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
    """Return what to choose at each size of one subject, and what does not pay there."""
    found = choices(rows)
    parts = []
    for group in found:
        at = sizes(choice.rows[0] for choice in group)
        parts.append(
            _sentence(group, f"At {at} ", "", reader)
            if len(found) > 1
            else _sentence(
                group, "", f" at {at}{', every size measured' if len(group) > 1 else ''}", reader
            )
        )
    rest = _not_of(rows, found)
    return [*map(_begin_sentence, parts), *_avoid(rest, reader), *_reserved(rest, reader)]


def across(rows: Rows, reader: Reader) -> list[str]:
    """Return what can be said of most places, the commonest first, and what does not pay."""
    found = sorted(choices(rows), key=len, reverse=True)
    number = sum(map(len, found))
    several = "scenario, " if len({row["scenario"] for row in rows}) > 1 else ""
    of = f"of {number} settings (application, {several}size)"
    parts = [
        _sentence(group, f"In {len(group)} {of} ", "", reader) for group in found[:_STATEMENTS]
    ]
    if rest := sum(map(len, found[_STATEMENTS:])):
        have = "has an answer of its own" if rest == 1 else "have answers of their own"
        parts.append(f"The other {rest} {of} {have}, below.")
    return [*parts, *_avoid(_not_of(rows, found), reader)]


def _not_of(rows: Rows, found: Iterable[Sequence[Choice]]) -> list[Json]:
    chosen = {key_of(row) for group in found for choice in group for row in choice.rows}
    return [row for row in rows if key_of(row) not in chosen]


def _begin_sentence(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"


def _sentence(group: Sequence[Choice], start: str, end: str, reader: Reader) -> str:
    """Return one statement on the places that have it in common.

    Args:
        group: The choice at each of the places.
        start: How it begins: where that is, unless it is everywhere.
        end: How a statement of all places ends.
        reader: The margin and the words.
    """
    rows = group[0].rows
    names = either([reader.name(row) for row in rows])
    figures = names if len(group) > 1 else listed([reader.figure(row) for row in rows])
    known = f"{start}no platform is known to be {reader.within} of bare metal{end}"
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
                f"known to be {reader.within} of it there."
            )
        case "alike":
            return f"{known}, and which costs least is undecided: {figures}."
        case "unknown":
            return f"{known}; undecided: {figures}. Choose none of these for its speed yet."
    return f"{start}choose nothing by this sweep: {_why_not(rows, reader)}."


def _of(group: Sequence[Choice]) -> str:
    """Return what a share is of: " than pinned bare metal", and for throughput what that means."""
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
    """Return what costs more than the margin, at its worst place, the worst first.

    First what is known to; then what has a reservation, which is named.
    """
    dear = [
        row
        for row in rows
        if row["answer"] == "more" and row["reservation"] != OTHER_WORK
        if row["ratio_low"] is not None and row["ratio_low"] > 1 + reader.margin
    ]
    firm = [row for row in dear if not row["reservation"]]
    known = {words.code(row) for row in firm}
    doubtful = [row for row in dear if words.code(row) not in known]
    several = len({words.subject(row) for row in rows}) > 1
    return [
        *_not_where(firm, "Not", reader, several),
        *_not_where(doubtful, "With a reservation, not", reader, several),
    ]


def _not_where(rows: Rows, start: str, reader: Reader, several: bool) -> Iterator[str]:
    """Give the sentence on what does not pay; `several` says that it is of many subjects."""
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
    yield f"{start} where {'throughput' if batch else 'time'} matters: {listed(parts)}."


def _time(row: Json) -> str:
    measure = words.judged(row)
    return "" if measure.name == "e2e" else f" {measure.time}"


def _reserved(rows: Rows, reader: Reader) -> list[str]:
    """Return the cells that would do but for a reservation."""
    found = [row for row in rows if row["reservation"] and row["answer"] in ("same", "less")]
    parts = [f"{reader.name(row)} at {sizes([row])} ({row['reservation']})" for row in found]
    return [f"Not chosen: {listed(parts)}."] if parts else []


def sizes(rows: Iterable[Json]) -> str:
    """Return "1 core", or "1, 2 and 4 cores"."""
    cores = sorted({int(row["cores"]) for row in rows})
    if len(cores) == 1:
        return words.count(cores[0], "core")
    return f"{', '.join(map(str, cores[:-1]))} and {cores[-1]} cores"


def span(rows: Iterable[Json]) -> str:
    """Return the shares that the intervals of costs, or gains, reach together: "2.1% to 39%"."""
    ends = []
    for row in rows:
        shares = [row[end] - 1 for end in ("ratio_low", "ratio_high")]
        ends += [-share for share in shares] if row["answer"] == "less" else shares
    return f"{_share(min(ends))} to {_share(max(ends))}"


def gained(rows: Iterable[Json]) -> str:
    """Return the throughputs that intervals of times per sample reach: "2.1% to 39% less"."""
    ends = [1 / row[end] - 1 for row in rows for end in ("ratio_low", "ratio_high")]
    less = min(ends) < 0
    least, most = sorted(-end if less else end for end in ends)[:: len(ends) - 1]
    return f"{_share(least)} to {_share(most)} {'less' if less else 'more'} throughput"


def _share(share: float) -> str:
    return f"{100 * share:.1f}%" if share < 1 else f"{100 * share:,.0f}%"


def either(names: Sequence[str]) -> str:
    """Return "a", "a or b", or "a; b; or c": names hold commas."""
    if len(names) <= 2:
        return " or ".join(names)
    return "; ".join([*names[:-1], f"or {names[-1]}"])


def listed(parts: Sequence[str]) -> str:
    """Return parts one after another; of many, the first ones, and how many more there are."""
    shown = [*parts[:_NAMED]]
    if more := len(parts) - len(shown):
        shown.append(f"and {words.count(more, 'other')}")
    return "; ".join(shown)
