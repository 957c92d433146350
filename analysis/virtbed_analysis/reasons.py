"""The sentences of advice: why a cell is chosen, how sure that is, and why others are left out.

`advice` puts them into its document. Nothing is estimated here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from virtbed_analysis.best import Contrast, Ranking
from virtbed_analysis.candidates import Candidate, Ends
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, share_bounds
from virtbed_analysis.latency import LOADED
from virtbed_analysis.platforms import Platforms
from virtbed_analysis.question import Question
from virtbed_analysis.slo import APART, PERCENTILE, Slo
from virtbed_analysis.words import count, throughput
from virtbed_contract.factors import of_grain
from virtbed_contract.sweep import MOST_REPLICATES

_BURST = 10
"""Requests in a burst that is assumed where no burst was measured."""


def named(cell: Mapping[str, Any], platforms: Platforms) -> str:
    """Return a cell's name in plain words: "container, CPU quota, 2 cores"."""
    entry = platforms.entries[cell["platform"]]
    factors = (factor.words(cell[factor.name]) for factor in of_grain("trial"))
    size = count(cell["cores"], "core")
    return ", ".join([entry.in_words(cell["mode"]), size, *filter(None, factors)])


def percent(question: Question) -> str:
    """Return a question's margin as text: 3%, 0.5%."""
    return f"{100 * question.tolerance:.3g}%"


def share(value: float) -> str:
    """Return a share as text.

    Example:
        >>> share(0.26), share(0.004), share(0)
        ('26%', '0.4%', '0%')
    """
    return f"{value:.0%}" if value >= 0.0995 or value == 0 else f"{value:.1%}"


def bound_kept(slo: Slo, bound_ms: float) -> str:
    """Return how many instances kept a bound on p99, and how many may break it."""
    if slo.verdict == "kept by 90%":
        return (
            f"p99 within {bound_ms:g} ms kept by 90% of instances ({CONFIDENCE:.0%}): "
            f"0 of {slo.instances} broke it"
        )
    text = f"{slo.broken} of {count(slo.instances, 'instance')} broke {bound_ms:g} ms at p99"
    if slo.unseen:
        text += f", {slo.unseen} gave no result"
    if slo.share_low:
        return f"{text}; {share(slo.share_low)} to {share(slo.share_high)} may"
    text += f"; up to {share(slo.share_high)} may"
    if share(slo.share_high_all) != share(slo.share_high):
        text += f" ({share(slo.share_high_all)} for all cells at once)"
    return text


def requests_kept(slo: Slo) -> str:
    """Return the share of requests that took longer, with its interval."""
    return (
        f"Of all requests {slo.requests_beyond} of {slo.requests} took longer: "
        f"{share(slo.requests_share)} ({share(slo.requests_share_low)} to "
        f"{share(slo.requests_share_high)})."
    )


def bursts_seen(slo: Slo) -> str:
    """Return whether slow requests are clustered, and how many bursts may be unseen."""
    if slo.apart >= APART:
        first = "Slow requests are not clustered here more than by chance"
    else:
        first = (
            f"Slow requests are clustered here, so only {slo.apart:.0%} of the requests count as "
            "independent"
        )
    # In an instance at the bound, 1 request in 100 is slow: this gives the mean number of bursts.
    unmet = math.exp(-slo.requests * (1 - PERCENTILE / 100) / _BURST)
    return (
        f"{first}. No number here accounts for bursts that no trial met: if slow requests arrived "
        f"{_BURST} at a time, {share(unmet)} of such sweeps would meet none, although every p99 is "
        "at the bound."
    )


def nothing_measured(ends: Ends) -> str:
    """Return why a cell has no numbers."""
    parts = list(_ended(ends))
    return f"no result to choose by: {', '.join(parts)}" if parts else "no result"


def _ended(ends: Ends) -> Iterator[str]:
    of = ends.measured + ends.lost
    if ends.failed:
        late = f" ({ends.late} at a time limit)" if ends.late else ""
        yield f"{ends.failed} of {count(of, 'trial')} failed{late}"
    if ends.invalid:
        cleaned = (" ".join(reason.replace("*", " ").split()) for reason in ends.invalid_reasons)
        why = f" ({'; '.join(cleaned)})"
        reasons = why if ends.invalid_reasons else ""
        yield f"LoadGen calls {ends.invalid} of {count(of, 'trial')} INVALID{reasons}"
    if ends.rejected:
        yield f"{ends.rejected} of {count(of, 'trial')} left a result that cannot be trusted"


def lost(ends: Ends) -> str:
    """Return how many trials were lost, and what share may be; empty if none was."""
    parts = list(_ended(ends))
    if not parts:
        return ""
    return f"{', '.join(parts)}; up to {share(ends.lost_high)} may be lost"


def flattered(cell: Candidate) -> str:
    """Return why a cell is not chosen for the times of the trials that succeeded."""
    return (
        f"{lost(cell.ends)}: its {cell.time_ms:.4g} ms is of the trials that succeeded, and the "
        "slow ones may be missing"
    )


def because(question: Question, ranked: Ranking, fit: int, measured: int) -> str:
    """Return the reason of the choice, and the number of cells that it was made from."""
    what = f"{question.application}, {question.scale}"
    if not measured:
        return f"No evidence: the sweep has no real (not emulated) result of {what}."
    if ranked.choice is None:
        return f"No evidence that any of the {measured} cells of {what} in the sweep is suitable."
    of = f"of {fit}" if fit == measured else f"of the {count(fit, 'suitable cell')}"
    by = "" if question.compared.name == "e2e" else f" by {question.compared.words}"
    best = "least cost per million requests" if question.prices else f"fastest{by}"
    if question.by_cores:
        best, of = f"fastest{by}", f"of the fewest cores {of}"
    margin = percent(question)
    if ranked.answer == "best":
        return f"The {best} {of}."
    if ranked.answer == "equivalent":
        same = len(ranked.equivalent)
        size = "cheapest" if question.prices else "smallest"
        first = "Within" if same == 1 else f"The {size} of {same} within"
        return f"{first} {margin} of the {best} {of}, whichever that is."
    unsure = _unsure(ranked)
    also = f" and {unsure} that may not keep the bound" if unsure else ""
    return f"{count(len(ranked.may_be_best), 'cell')} may be the {best} {of}{also}."


def _unsure(ranked: Ranking) -> int:
    """Return how many cells that may be the best may not keep the bound."""
    bounds = (cell.slo for cell in ranked.may_be_best)
    return sum(slo is not None and slo.verdict == "cannot tell" for slo in bounds)


def sure(question: Question, ranked: Ranking) -> str | None:
    """Return how the choice compares with the runner-up; None without a choice."""
    if ranked.choice is None:
        return None
    if ranked.runner_up is None:
        return "There is no second candidate to compare it with."
    pair = ranked.over.get(ranked.runner_up.key)
    if pair is None:
        return "The runner-up needs more cores."
    what = "cost" if question.prices else _TIMES[question.compared.name]
    sentence = _compared(pair, what, question)
    if not pair.worse and all(cell.key != ranked.runner_up.key for cell in ranked.may_be_best):
        sentence = sentence.replace(_SWAP, "by these alone the two cannot be distinguished")
        sentence = (
            f"{sentence[:-1]}; but another candidate is shown to be better than the runner-up."
        )
    return f"{sentence}{_more(ranked, pair)}"


_TIMES = {"e2e": "time", "latency": "latency", "throughput": "time per sample"}


_SWAP = "the two cannot be distinguished, and more replicates may swap them"


def _compared(pair: Contrast, what: str, question: Question) -> str:
    if not pair.n:
        return "They share no replicate, and cannot be compared."
    takes = f"The runner-up takes {pair.value:.3f} times the {what}"
    if what == _TIMES["throughput"]:
        takes += f" ({throughput(pair.value)})"
    if pair.n < 2:
        return f"{takes}; there is no interval from one replicate."
    if not pair.spread > NO_SPREAD:
        return f"{takes}; {pair.n} replicates are alike to the last digit: no interval."
    if pair.low is None and pair.high is None:
        return f"{takes}; {pair.n} replicates differ too much for an interval."
    ends = f"{pair.low:.3f} to {pair.high:.3f}" if pair.low and pair.high else None
    at_least = f"at least {pair.low:.3f}" if pair.low else f"at most {pair.high:.3f}"
    figures = f"{takes} ({ends or at_least}, {CONFIDENCE:.0%})"
    if pair.worse and pair.within(question.tolerance):
        return f"{figures}: more, but by less than {percent(question)}, so either is suitable."
    if pair.worse:
        return f"{figures}: clearly more."
    if pair.turned().worse:
        return f"{figures}: clearly less, and within {percent(question)}."
    if pair.within(question.tolerance) and pair.turned().within(question.tolerance):
        return f"{figures}: the same within {percent(question)}."
    if pair.turned().within(question.tolerance):
        return f"{figures}: if it is better, then by at most {percent(question)}."
    return f"{figures}: {_SWAP}."


def _more(ranked: Ranking, pair: Contrast) -> str:
    if ranked.answer != "cannot tell":
        return ""
    if ranked.choice and ranked.choice.flattered:
        return " No number of replicates can show what the lost trials hide."
    if ranked.more is None and (unsure := _unsure(ranked)):
        whether = "whether another cell keeps" if unsure == 1 else f"whether {unsure} others keep"
        return (
            f" Undecided is {whether} the bound; the list of cells left out states what would "
            "decide that."
        )
    if pair.n < 2:
        return " Measure both in several replicates."
    if ranked.more is None:
        return f" No number of replicates up to {MOST_REPLICATES} is known to decide."
    return (
        f" About {count(ranked.more, 'more replicate')} would decide, if the ratios are as "
        "measured."
    )


def notes(question: Question, cell: Candidate) -> list[str]:
    """Return notes on the trials of a chosen cell, as sentences."""
    sentences = []
    if cell.slo is None:
        _, most = share_bounds(0, cell.ends.measured, CONFIDENCE)
        sentences.append(
            f"Up to {share(most)} of instances could be slow for a reason of their own without any "
            f"of its {count(cell.ends.measured, 'replicate')} having met one."
        )
    elif question.slo_ms is not None:
        sentences.append(f"{bound_kept(cell.slo, question.slo_ms)}.")
        sentences.append(requests_kept(cell.slo))
        if cell.slo.verdict != "kept by 90%":
            sentences.append(
                f"To show that 90% of instances keep it, {cell.slo.kept_needs} replicates of "
                f"{cell.slo.requests // cell.slo.instances} requests are needed, none of them near "
                "the bound."
            )
        sentences.append(bursts_seen(cell.slo))
    if question.prices and question.scenario in LOADED and question.slo_ms is None:
        sentences.append(
            "The cost is of the work alone, no matter how long requests wait in the queue; "
            "--slo-ms limits the wait."
        )
    if losses := lost(cell.ends):
        sentences.append(f"Its trials: {losses}.")
    if cell.flattered:
        sentences.append(
            "Its times are those of the trials that succeeded: slow ones may be missing, so it may "
            "be slower than it looks. No candidate without such failures is left."
        )
    if cell.ends.short:
        why = " ".join(" ".join(cell.ends.invalid_reasons).replace("*", " ").split())
        sentences.append(
            f"LoadGen calls {cell.ends.short} of its {count(cell.ends.measured, 'trial')} INVALID "
            f"for their length alone ({why}): by the quick rules, the plan sets the number of "
            "requests."
        )
    if cell.ends.retried:
        sentences.append(f"{count(cell.ends.retried, 'trial')} of it needed more than one attempt.")
    if cell.ends.suspect:
        sentences.append(
            f"{cell.ends.suspect} of its {count(cell.ends.measured, 'trial')} "
            f"{'is' if cell.ends.suspect == 1 else 'are'} suspect: see the report."
        )
    return sentences
