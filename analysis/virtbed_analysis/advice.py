"""A sweep as a choice: which platform, size and settings, how sure, at what cost.

A choice rests on measured cells alone. Where it cannot be told from the runner-up, that is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis.cells import CELL, PLAIN, key_of
from virtbed_analysis.effects import Floats, effects, together
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.estimate import NS_PER_MS, samples_to_show, steady, tail
from virtbed_analysis.files import read_csv
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.per_trial import answers_differ
from virtbed_analysis.trust import Json
from virtbed_contract import identifiers

PRICE_COLUMNS = ("platform", "cores", "processor", "price_per_hour")
_P99 = 99
_PER_MILLION_H = 1e6 / 3.6e6  # hours in a million milliseconds


@dataclass(frozen=True)
class Question:
    """What an instance is chosen for.

    `slo_ms` bounds the 99th percentile of e2e; `prices` maps platform, cores and processor to the
    price of an hour. Empty `platforms` allows every one.
    """

    application: str
    scale: str = "trained"
    scenario: str = "single_stream"
    slo_ms: float | None = None
    cores_max: int | None = None
    platforms: tuple[str, ...] = ()
    prices: dict[tuple[str, int, str], float] = field(default_factory=dict)


def read_prices(path: Path) -> dict[tuple[str, int, str], float]:
    """Return the prices of a CSV with the columns platform, cores, processor, price_per_hour.

    Raises:
        AnalysisError: it cannot be read, lacks a column, holds no positive price, or one twice.
    """
    table = read_csv(path, PRICE_COLUMNS)
    prices: dict[tuple[str, int, str], float] = {}
    for line, row in enumerate(table.iter_rows(named=True), start=2):
        try:
            key = row["platform"].strip(), int(row["cores"]), row["processor"].strip()
            price = float(row["price_per_hour"])
            if not 0 < price < float("inf"):
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            found = ", ".join(str(row[name]) for name in PRICE_COLUMNS)
            raise AnalysisError(
                f"{path}: line {line} has {found}; a platform, a whole number of cores, a "
                "processor and a positive price needed"
            ) from None
        if key in prices:
            raise AnalysisError(f"{path}: line {line} gives {' '.join(map(str, key))} again")
        prices[key] = price
    return prices


def advise(sweep: Sweep, question: Question) -> Json:
    """Return the choice, the runner-up, the evidence, how sure.

    Of the cells that meet the question, the choice is the cheapest where there are prices, else the
    one of fewest cores where there is a bound to be met, else the fastest. `choice` is None where
    nothing measured answers, and `because` says why. Times in ms; `cost` per million requests, in
    the prices' currency, one request after another.
    """
    cells = _cells(sweep.samples, question)
    wrong = set(answers_differ(sweep.trials).select(CELL).iter_rows())
    fit: list[Json] = []
    left_out: list[Json] = []
    for cell in cells:
        reason = _against(cell, question)
        if key_of(cell) in wrong:
            reason = "its answers are not those of bare metal"
        if reason:
            left_out.append({"cell": _public(cell), "reason": reason})
        else:
            fit.append(cell)
    fit.sort(key=_rank(question))
    choice = fit[0] if fit else None
    runner_up = fit[1] if len(fit) > 1 else None
    return {
        "schema": identifiers.ADVICE,
        "sweep": sweep.name,
        "question": {
            "application": question.application,
            "scale": question.scale,
            "scenario": question.scenario,
            "slo_ms": question.slo_ms,
            "cores_max": question.cores_max,
            "platforms": list(question.platforms),
            "prices": bool(question.prices),
        },
        "confidence": CONFIDENCE,
        "choice": _public(choice) if choice else None,
        "runner_up": _public(runner_up) if runner_up else None,
        "because": _because(question, choice, cells, left_out),
        "sure": _sure(question, fit),
        "candidates": [_public(cell) for cell in fit],
        "left_out": left_out,
    }


def _cells(samples: pl.DataFrame, question: Question) -> list[Json]:
    """Return the real cells of the application, with the logarithms of each replicate."""
    mine = steady(samples).filter(
        **PLAIN,
        application=question.application,
        scale=question.scale,
        scenario=question.scenario,
    )
    replicates = (
        mine.group_by(*CELL, "replicate")
        .agg(
            (pl.col("e2e_ns").mean() / NS_PER_MS).alias("mean"),
            (tail("latency_ns", _P99) / NS_PER_MS).alias("p99"),
            pl.len().alias("samples"),
            (pl.col("suspicions").list.len() > 0).any().alias("suspect"),
        )
        .sort(*CELL, "replicate")
    )
    cells = []
    for parts, rows in replicates.group_by(CELL, maintain_order=True):
        cell = dict(zip(CELL, parts, strict=True))
        logs = {r["replicate"]: np.log(r["mean"]) for r in rows.to_dicts()}
        cells.append(
            cell
            | {
                "_logs": logs,
                "replicates": rows.height,
                "samples": int(rows["samples"].sum()),
                "suspect": int(rows["suspect"].sum()),
            }
            | _interval("e2e", np.array(list(logs.values())))
            | (
                _interval("p99", rows["p99"].log().to_numpy())
                if not rows["p99"].has_nulls()
                else {"p99_ms": None, "p99_low_ms": None, "p99_high_ms": None}
            )
        )
    for cell in cells:
        price = question.prices.get((cell["platform"], cell["cores"], cell["processor"]))
        for end in ("", "_low", "_high"):
            time = cell[f"e2e{end}_ms"]
            told = None if price is None or time is None else price * time * _PER_MILLION_H
            cell[f"cost{end}"] = told
    return cells


def _interval(name: str, logs: Floats) -> Json:
    (effect,) = effects([(name, [logs])])
    return {
        f"{name}_ms": effect.value,
        f"{name}_low_ms": effect.low,
        f"{name}_high_ms": effect.high,
    }


def _public(cell: Json) -> Json:
    return {key: value for key, value in cell.items() if not key.startswith("_")}


def _against(cell: Json, question: Question) -> str:
    """Return why a cell is no answer to the question; empty if it is one."""
    if question.platforms and cell["platform"] not in question.platforms:
        return f"platform {cell['platform']}, {' or '.join(question.platforms)} asked"
    if question.cores_max is not None and cell["cores"] > question.cores_max:
        return f"{cell['cores']} cores, at most {question.cores_max} asked"
    if question.prices and cell["cost"] is None:
        return f"no price of {cell['platform']} with {cell['cores']} cores on {cell['processor']}"
    if question.slo_ms is None:
        return ""
    if cell["p99_ms"] is None:
        return f"no p99: under {samples_to_show(_P99)} requests a trial"
    if cell["p99_high_ms"] is None:
        return f"no interval of p99 from {cell['replicates']} replicate"
    if cell["p99_high_ms"] > question.slo_ms:
        return (
            f"p99 {cell['p99_ms']:.2f} ms ({cell['p99_low_ms']:.2f} to "
            f"{cell['p99_high_ms']:.2f}), at most {question.slo_ms:g} asked of the whole interval"
        )
    return ""


def _rank(question: Question) -> Any:
    if question.prices:
        return lambda cell: (cell["cost"], cell["cores"])
    if question.slo_ms is not None:
        return lambda cell: (cell["cores"], cell["e2e_ms"])
    return lambda cell: (cell["e2e_ms"], cell["cores"])


def _because(
    question: Question, choice: Json | None, cells: list[Json], left_out: list[Json]
) -> str:
    what = f"{question.application}, {question.scale}"
    if not cells:
        return f"No evidence: the sweep has no real (not emulated) result of {what}."
    if choice is None:
        return f"No evidence that any of the {len(cells)} cells measured of {what} will do."
    of = f"of the {len(cells) - len(left_out)} cells that do" if left_out else f"of {len(cells)}"
    if question.prices:
        return f"The least cost per million requests {of}."
    if question.slo_ms is not None:
        return f"The fewest cores, then the fastest, {of}."
    return f"The fastest {of}."


def _sure(question: Question, fit: list[Json]) -> str | None:
    """Return how clearly the choice is better than the runner-up, in what it was chosen for.

    The choice is compared with every other candidate, by simultaneous intervals: it was picked for
    being the best of them.
    """
    if not fit:
        return None
    choice, others = fit[0], fit[1:]
    if not others:
        return "There is no second candidate to compare it with."
    runner_up = others[0]
    by_cores = not question.prices and question.slo_ms is not None
    if by_cores and choice["cores"] < runner_up["cores"]:
        return "Both hold the bound; the runner-up needs more cores for it."
    what = "cost" if question.prices else "e2e"
    effect = together((what, [_over(other, choice, what)]) for other in others)[0]
    if effect is None:
        return "They share no replicate, and cannot be compared."
    named = "cost" if question.prices else "time"
    takes = f"The runner-up takes {effect.value:.3f} times the {named}"
    if effect.low is None:
        return f"{takes}; there is no interval from one replicate."
    told = f"{takes} ({effect.low:.3f} to {effect.high:.3f}, {CONFIDENCE:.0%})"
    if effect.low > 1:
        return f"{told}: clearly more."
    return f"{told}: the two cannot be told apart, and more replicates may swap them."


def _over(above: Json, below: Json, what: str) -> Floats | None:
    """Return the logarithms of one cell's time, or cost, over another's, per shared replicate."""
    common = sorted(above["_logs"].keys() & below["_logs"].keys())
    if not common:
        return None
    times = np.array([above["_logs"][r] - below["_logs"][r] for r in common])
    if what == "cost":  # in proportion to time, at either cell's price
        times += np.log(above["cost"] / above["e2e_ms"]) - np.log(below["cost"] / below["e2e_ms"])
    return times
