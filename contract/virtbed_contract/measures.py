"""The measures of a trial: what it yields a number for, and which one a scenario is judged by.

A measure is one entry of `MEASURES`. From it come the column of an export, the rows of the report
and the wording. docs/how-to/measure.md shows how to add one. `JUDGED_BY` has one entry per
scenario of LoadGen: what ratios, findings, advice and comparisons are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional

Unit = Literal["ns", "kib", "count"]
SHOWN: dict[Unit, tuple[str, float]] = {"ns": ("ms", 1e6), "kib": ("MiB", 1024), "count": ("", 1)}
"""The unit in which a reader is shown a unit, and how many of the latter it holds."""


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: Short name: the key in report.json.
        column: The column of an export; ends in the unit.
        unit: Its unit; `SHOWN` says in which one readers see it.
        grain: Whether each sample yields one, or each trial. The phases are those of samples.
        path: Where it lies: below a sample, or below the result. ``("measures", name)`` adds a
            number, or null, to the schema of results.
        group: What the report shows it with: the phases of a request, the parts of a start, or
            the other measures.
        better: Which direction is better.
        words: What a heading calls it.
        meaning: One sentence for schemas and references.
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
            raise ValueError(f"measure {self.name}: grain {self.grain} in group {self.group}")
        if self.path[0] == "measures" and len(self.path) != 2:
            raise ValueError(f"measure {self.name}: path {self.path}, (measures, NAME) needed")

    def read(self, document: Mapping[str, Any]) -> Optional[float]:
        """Return the number out of a sample or a result; None where it is not known."""
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
    _phase("e2e", "end to end", "The request from end to end."),
    _phase("pre", "preprocess", "Preprocessing."),
    _phase("infer", "infer", "Inference."),
    _phase("post", "postprocess", "Postprocessing."),
    _start("spawn", "spawn", "From launch to the first line of the harness."),
    _start("import", "import", "Imports of the frameworks."),
    _start("load", "load", "Loading the model."),
    _start("first_call", "first call", "The first request."),
    Measure(
        name="peak_memory",
        column="peak_memory_kib",
        unit="kib",
        grain="trial",
        path=("memory_kib", "peak"),
        group="other",
        words="peak memory",
        meaning="Largest resident memory of the process.",
    ),
)


@dataclass(frozen=True)
class Judged:
    """The measure that a scenario is judged by.

    Every ratio to another cell is one of times, so that above 1 is worse in every table. Where
    more of the measure is better, that is the time per unit of it: its inverse.

    Attributes:
        name: Short name: in report.json, advice and exports.
        unit: The unit in which readers see it.
        better: Which direction is better.
        grain: Whether each sample has its own, which is paired by input, or only a trial has one.
        words: What a heading calls it.
        time: The time that ratios are of.
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
                f"{self.name}: {self.better} is better, ratios of {self.time}; the time itself is "
                "needed where lower is better, its inverse where higher is"
            )


_LATENCY = Judged(
    name="latency",
    unit="ms",
    better="lower",
    grain="trial",
    words="latency",
    time="latency",
    meaning="From the issue of a query to its answer, the wait in the queue included; the mean of "
    "a trial.",
)
JUDGED_BY: Mapping[str, Judged] = {
    "single_stream": Judged(
        name="e2e",
        unit="ms",
        better="lower",
        grain="sample",
        words="e2e time",
        time="e2e time",
        meaning="The request from end to end; no other one waits for it.",
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
        meaning="Samples of a trial per second from their issue to the last answer. Ratios are of "
        "the inverse, the time per sample.",
    ),
}


def of_group(group: str) -> tuple[Measure, ...]:
    """Return the measures of one group, in order."""
    return tuple(measure for measure in MEASURES if measure.group == group)


def percentile_rank(percentile: int, n: Any) -> Any:
    """Return which of `n` sorted values is a percentile, from 1: the least of ceil(q n).

    In whole numbers, since 0.9 * 10 and 0.99 * 100 are not whole in binary fractions. A column of
    numbers gives a column of ranks; both are of a signed type.

    >>> percentile_rank(90, 10), percentile_rank(99, 100), percentile_rank(50, 3)
    (9, 99, 2)
    """
    return (percentile * n + 99) // 100
