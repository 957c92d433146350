"""Terminal output of `virtbed run`: one result's phases, answers, memory, LoadGen's verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from virtbed.render.table import Table
from virtbed_contract.counts import count
from virtbed_contract.measures import JUDGED_BY, only_too_short, percentile_rank

Json = Mapping[str, Any]


def phase_table(document: Json) -> RenderableType:
    """Return the tables and lines that `virtbed run` prints.

    Args:
        document: The document that the harness printed.
    """
    application, settings = document["application"], document["settings"]
    memory, loadgen = document["memory_kib"], document["loadgen"]
    startup = ", ".join(
        f"{name.removesuffix('_ns').replace('_', ' ')} {ns / 1e9:.2f} s"
        for name, ns in document["startup"].items()
        if ns is not None
    )
    heading = (
        f"{application['name']} {application['scale']}: {application['model']}, "
        f"{application['weights']} weights"
    )
    lines = [
        f"start-up: {startup}",
        f"memory: {_mib(memory['peak'])} at most, {_mib(memory['after_warmup'])} "
        f"after the warm-up, {_mib(memory['after_samples'])} at the end",
        f"LoadGen {loadgen['version']}: {loadgen['validity']} by {settings['rules']} rules"
        + "".join(f"\n  {reason.strip()}" for reason in loadgen["reasons"]),
        *_too_short(settings, loadgen),
        f"LoadGen's clock and the harness's: medians {loadgen['clocks']['apart']:.2%} apart",
        *_judged(document),
        *(f"warning: {warning}" for warning in document["warnings"]),
    ]
    return Group(Text(heading), _phases(document), _answers(document), Text("\n".join(lines)))


def _too_short(settings: Json, loadgen: Json) -> Iterator[str]:
    """Explain LoadGen's verdict INVALID where the run's length is the only reason for it."""
    short = only_too_short(loadgen["reasons"])
    if loadgen["validity"] == "INVALID" and settings["rules"] == "quick" and short:
        yield (
            f"  The run is too short for LoadGen's rules, which require more than "
            f"{count(settings['samples'], 'request')}; the verdict is about their number, not "
            "about the times. Take more with --samples, or use --rules study, which runs as long "
            "as MLPerf requires (10 minutes or more)."
        )


def _judged(document: Json) -> Iterator[str]:
    """Yield the measure that the scenario is judged by, unless it is one of the phases."""
    measure = JUDGED_BY[document["settings"]["scenario"]]
    if measure.grain == "trial":
        from virtbed_analysis import log_means

        (log,) = log_means(document).values()
        time_ms = math.exp(log) / 1e6
        rate = measure.better == "higher"
        value = f"{1000 / time_ms if rate else time_ms:.4g} {measure.unit}"
        yield f"judged by {measure.words}: {value}{'' if rate else ' on average, queue included'}"


def _phases(document: Json) -> Table:
    """Return the table of times: one row per phase and one for e2e, in ms, without warm-ups."""
    settings = document["settings"]
    measured = [sample for sample in document["samples"] if not sample["warmup"]]
    table = Table(
        f"{count(settings['samples'], 'sample')}, {settings['scenario']}, "
        f"{settings['thread_policy']} threads, {settings['processor']}"
    )
    table.add_column("phase")
    for heading in ("median ms", "mean ms", "p90 ms", "share of e2e"):
        table.add_column(heading, number=True, measured=True)
    whole = statistics.fmean(sample["e2e_ns"] for sample in measured)
    for phase in ("pre", "infer", "post", "e2e"):
        times = sorted(sample[f"{phase}_ns"] / 1e6 for sample in measured)
        mean = statistics.fmean(times)
        p90 = times[percentile_rank(90, len(times)) - 1]
        share = f"{mean * 1e6 / whole:.1%}"
        table.add_row(phase, *(f"{v:.3f}" for v in (statistics.median(times), mean, p90)), share)
    return table


def _answers(document: Json) -> Table:
    """Return the table of answers: one row per input."""
    table = Table("answers")
    table.add_column("input")
    for heading in ("answer", "expected", "score"):
        table.add_column(heading, number=heading == "score", measured=True)
    for row in document["answers"]["by_input"]:
        expected = row["expected"] if row["expected"] is not None else "not known: not checked"
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        table.add_row(row["input"], row["answer"], expected, score)
    return table


def _mib(kib: int | None) -> str:
    """Format a memory size in KiB as MiB; None, which the kernel did not report, as "unknown"."""
    return "unknown" if kib is None else f"{kib / 1024:.0f} MiB"
