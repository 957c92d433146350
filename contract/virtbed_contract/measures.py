"""Measures of a trial, and the one that each scenario is judged by.

A measure is one entry of `MEASURES`. The column of an export, the rows of the report and their
wording derive from the entry. docs/how-to/measure.md shows how to add one. `JUDGED_BY` has one
entry per scenario of LoadGen: the measure whose ratios appear in findings, advice and comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional

Unit = Literal["ns", "kib", "count"]
SHOWN: dict[Unit, tuple[str, float]] = {"ns": ("ms", 1e6), "kib": ("MiB", 1024), "count": ("", 1)}
"""The unit that a reader is shown for each stored unit, and the factor to divide by."""


@dataclass(frozen=True)
class Measure:
    """One measure of a sample or of a trial.

    Attributes:
        name: Short name: the key in report.json.
        column: Column of an export; its name ends in the unit.
        unit: Unit of the stored number; `SHOWN` has the unit that readers see.
        grain: ``sample``: each sample yields one number, which is a phase of the request.
            ``trial``: each trial yields one number.
        path: Keys that lead to the number, from the sample or from the result.
            ``("measures", name)`` adds a number, or null, to the schema of results.
        group: The table of the report that shows the measure: the phases of a request, the parts
            of a start-up, or the other measures.
        words: Name in headings.
        meaning: One sentence for schemas and references.
        better: Whether lower or higher numbers are better.
    """

    name: str
    column: str
    unit: Unit
    grain: Literal["sample", "trial"]
    path: tuple[str, ...]
    group: Literal["phase", "startup", "other"]
    words: str
    meaning: str
    better: Literal["lower", "higher"] = "lower"

    def __post_init__(self) -> None:
        if (self.grain == "sample") != (self.group == "phase"):
            raise ValueError(
                f"measure {self.name}: grain {self.grain} in group {self.group} found; the group "
                "phase is needed for the grain sample, and only for it"
            )
        if self.path[0] == "measures" and len(self.path) != 2:
            raise ValueError(
                f"measure {self.name}: path {self.path} found, (measures, NAME) needed"
            )

    def read(self, document: Mapping[str, Any]) -> Optional[float]:
        """Return the measure's number from a sample or a result; None if it is not known."""
        value: Any = document
        for key in self.path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value  # type: ignore[no-any-return]  # its schema says so


def _phase(name: str, words: str, meaning: str) -> Measure:
    column = f"{name}_ns"
    return Measure(name, column, "ns", "sample", (column,), "phase", words, meaning)


def _start(name: str, words: str, meaning: str) -> Measure:
    column = f"{name}_ns"
    return Measure(name, column, "ns", "trial", ("startup", column), "startup", words, meaning)


MEASURES: tuple[Measure, ...] = (
    _phase("e2e", "end to end", "Time of the whole request, from end to end."),
    _phase("pre", "preprocess", "Time of preprocessing."),
    _phase("infer", "infer", "Time of inference."),
    _phase("post", "postprocess", "Time of postprocessing."),
    _start("spawn", "spawn", "Time from launch to the first line of the harness."),
    _start("import", "import", "Time to import the frameworks."),
    _start("load", "load", "Time to load the model."),
    _start("first_call", "first call", "Time of the first request."),
    Measure(
        name="peak_memory",
        column="peak_memory_kib",
        unit="kib",
        grain="trial",
        path=("memory_kib", "peak"),
        group="other",
        words="peak memory",
        meaning="Peak resident set size of the process.",
    ),
)


@dataclass(frozen=True)
class Judged:
    """The measure that a scenario is judged by.

    Every ratio to another cell is a ratio of times, so that above 1 is slower in every table. If
    higher values of the measure are better, the time is its inverse: the time per unit.

    Attributes:
        name: Short name in report.json, advice and exports.
        unit: Unit that readers see.
        better: Whether lower or higher values are better.
        grain: ``sample``: each sample has a value, and values are paired by input. ``trial``: only
            the trial as a whole has one.
        words: Name in headings.
        time: Name of the time whose ratios are reported.
        meaning: One sentence for references.
    """

    name: Literal["e2e", "latency", "throughput"]
    unit: str
    better: Literal["lower", "higher"]
    grain: Literal["sample", "trial"]
    words: str
    time: str
    meaning: str

    def __post_init__(self) -> None:
        if (self.better == "lower") != (self.words == self.time):
            raise ValueError(
                f"{self.name}: ratios of {self.time} found, though {self.better} values are "
                "better; ratios of the measure itself are needed if lower is better, of its "
                "inverse if higher is"
            )


_LATENCY = Judged(
    name="latency",
    unit="ms",
    better="lower",
    grain="trial",
    words="latency",
    time="latency",
    meaning="Time from the issue of a query to its answer, including the wait in the queue; the "
    "mean of a trial.",
)
JUDGED_BY: Mapping[str, Judged] = {
    "single_stream": Judged(
        name="e2e",
        unit="ms",
        better="lower",
        grain="sample",
        words="e2e time",
        time="e2e time",
        meaning="Time of a request from end to end, while no other request waits.",
    ),
    "server": _LATENCY,
    "multi_stream": _LATENCY,
    "offline": Judged(
        name="throughput",
        unit="samples/s",
        better="higher",
        grain="trial",
        words="throughput",
        time="time per sample",
        meaning="Samples of a trial per second, from their issue to the last answer. Ratios are "
        "ratios of the inverse, the time per sample.",
    ),
}


TOO_SHORT = r"^[ *]*Only processed \d+ queries\."
"""LoadGen's reason against a run with too few queries, as a regular expression. Runs by the quick
rules are such: they take as many requests as the plan states, below MLPerf's minimum."""


def only_too_short(reasons: Sequence[str]) -> bool:
    """Return whether LoadGen's only reason against a run is that it has too few queries.

    >>> only_too_short([" * Only processed 20 queries."]), only_too_short([])
    (True, False)
    """
    return bool(reasons) and all(re.search(TOO_SHORT, reason) for reason in reasons)


def of_group(group: str) -> tuple[Measure, ...]:
    """Return the measures of one group, in the order of `MEASURES`."""
    return tuple(measure for measure in MEASURES if measure.group == group)


def percentile_rank(percentile: int, n: Any) -> Any:
    """Return the rank, from 1, of a percentile among `n` sorted values: ceil(percentile / 100 * n).

    Computed in whole numbers, since products such as 0.9 * 10 are not exact in binary fractions.

    Args:
        percentile: Percentile, 1 to 100.
        n: Number of values: an integer, or a column of a signed integer type.

    Returns:
        The rank, or a column of ranks.

    >>> percentile_rank(90, 10), percentile_rank(99, 100), percentile_rank(50, 3)
    (9, 99, 2)
    """
    return (percentile * n + 99) // 100
