"""Distribution-free statements on whether the instances of a cell keep a bound on latency.

An instance breaks the bound if its true 99th percentile of latency (queue included) is beyond it,
that is if more than 1% of its requests take longer in the long run. A user gets one instance, so
the quantity of interest is the share of instances that break the bound; a mean of percentiles would
hide one slow instance in ten. No distribution of instances is assumed.

A run is only a sample of its instance's requests: an instance just beyond the bound shows no longer
request among 100 in 37% of runs. A run therefore counts as clean only if it has so few requests
beyond the bound that an instance at the bound would show as few with probability q <= `MISSED`
(binomial; with very few requests q is larger). If a share s of instances breaks the bound, at least
s (1 - q) of runs are not clean, so the upper bound of the share of unclean runs (Clopper and
Pearson), divided by 1 - q, bounds s.

"Kept by 90%" is a one-sided tolerance statement (Wilks, "Determination of Sample Sizes for Setting
Tolerance Limits", Annals of Mathematical Statistics 12, 1941): if 10% of instances broke the bound,
it would be stated in at most 5% of sweeps. It needs 46 clean instances with 100 requests each, or
30 to 32 with 300 or more; Wilks' 29 would need q = 0.

Requests in bursts are correlated, so `independence` reduces their number to an effective one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from scipy import stats

from virtbed_analysis import independence
from virtbed_analysis.estimate import samples_to_show
from virtbed_analysis.intervals import CONFIDENCE, share_bounds, simultaneous, t_quantile
from virtbed_analysis.words import count
from virtbed_contract.measures import percentile_rank

PERCENTILE = 99
KEPT_SHARE = 0.90
"""The share of instances in the statement "kept by 90%"."""
MISSED = 0.10
"""The largest probability of a clean run of an instance at the bound, given enough requests."""
APART = 0.9
"""An extremal index above this is compatible with independent requests; see `independence`."""
Verdict = Literal["kept by 90%", "not seen broken", "broken", "cannot tell"]
_BEYOND = 1 - PERCENTILE / 100
_RULES = (0.3, 0.05, 1e-5)  # levels of the tests that call a run broken, see `_share_low`


class Instance(independence.Run):
    """The run of an instance, with tests of its instance against the bound."""

    @property
    def shows(self) -> bool:
        """Whether the run has enough requests for a 99th percentile."""
        return self.requests >= samples_to_show(PERCENTILE)

    @property
    def broke(self) -> bool:
        """Whether the run's 99th percentile, the value of rank ceil(0.99 n), is beyond the bound.

        With too few requests for one: whether a binomial test at 5% shows that over 1% are.
        """
        if self.shows:
            return bool(self.beyond > self.requests - percentile_rank(PERCENTILE, self.requests))
        return self.by_chance(1.0) <= 1 - CONFIDENCE

    def counts(self, apart: float) -> int:
        """Return the effective number of independent requests, at an extremal index `apart`."""
        return math.floor(apart * self.requests + 1e-9)

    def clean(self, apart: float) -> bool:
        """Return whether so few requests are beyond as an instance at the bound seldom shows."""
        return self.beyond <= _allowed(self.counts(apart))

    def missed(self, apart: float) -> float:
        """Return the largest probability that an instance that breaks the bound has a clean run."""
        return _at_most(_allowed(self.counts(apart)), self.counts(apart))

    def by_chance(self, apart: float) -> float:
        """Return the p value of the hypothesis that the instance keeps the bound."""
        return independence.as_many(self.beyond, self.requests, _BEYOND, apart)


@dataclass(frozen=True)
class Slo:
    """The result for one cell and one bound.

    Attributes:
        verdict: "kept by 90%", "not seen broken", "broken" or "cannot tell".
        reason: Why there is no verdict; "" if there is one.
        broken: Number of runs whose own 99th percentile is beyond the bound.
        instances: Number of runs.
        unseen: Number of instances without a result; they count as broken in the bounds.
        share_low: Lower bound of the share of instances whose true percentile is beyond.
        share_high: Upper bound; one-sided 95% if `share_low` is 0, else both are an interval.
        share_high_all: Upper bound that is simultaneous for all cells (Bonferroni).
        apart: Extremal index of slow requests, see `independence.apart`.
        kept_needs: Number of clean instances that "kept by 90%" needs, see `kept_needs`.
        requests: Number of requests of all runs.
        requests_beyond: Number of those beyond the bound.
        requests_share: Their share.
        requests_share_low: Lower end of its interval, clustered by instance.
        requests_share_high: Upper end.
    """

    verdict: Verdict
    reason: str
    broken: int
    instances: int
    unseen: int
    share_low: float
    share_high: float
    share_high_all: float
    apart: float
    kept_needs: int
    requests: int
    requests_beyond: int
    requests_share: float
    requests_share_low: float
    requests_share_high: float


def kept_needs(cells: int = 1, requests: int = 100) -> int:
    """Return the number of instances, all clean, that the verdict "kept by 90%" needs.

    Args:
        cells: Number of cells that are judged (Bonferroni).
        requests: Effective number of requests per instance.

    Example:
        >>> kept_needs(), kept_needs(requests=10_000)
        (46, 32)
    """
    seen = (1 - KEPT_SHARE) * (1 - _at_most(_allowed(requests), requests))
    return math.ceil(math.log((1 - CONFIDENCE) / cells) / math.log1p(-seen))


Level = tuple[int, int]
"""Numbers of cells by which the error of "not seen broken", and of "kept by 90%", is divided."""


def level(cells: Sequence[tuple[Sequence[Instance], int]]) -> Level:
    """Return the divisors of the error for verdicts on several cells (Hochberg's step-up test).

    The largest p value is compared with 5%, the second largest with 5% / 2, and so on; the first
    that is small enough sets the divisor (Hochberg, "A Sharper Bonferroni Procedure for Multiple
    Tests of Significance", Biometrika 75, 1988). Assumption: p values of cells are independent or
    positively dependent; cells have separate trials and share only the noise of their host.

    Args:
        cells: The instances of each cell, and the number of those without a result.
    """
    return _step_up(cells, 1.0), _step_up(cells, 1 - KEPT_SHARE)


def _step_up(cells: Sequence[tuple[Sequence[Instance], int]], breaking: float) -> int:
    """Return Hochberg's divisor for the hypothesis that a share `breaking` breaks the bound."""
    p_values = []
    for instances, unseen in cells:
        apart = independence.apart(instances)
        unclean = unseen + sum(not instance.clean(apart) for instance in instances)
        seen = breaking * (1 - max(instance.missed(apart) for instance in instances))
        p_values.append(stats.binom.cdf(unclean, len(instances) + unseen, seen))
    for among, p_value in enumerate(sorted(p_values, reverse=True), start=1):
        if p_value <= (1 - CONFIDENCE) / among:
            return among
    return max(1, len(cells))


def judge(
    instances: Sequence[Instance], cells: int = 1, unseen: int = 0, at: Level | None = None
) -> Slo:
    """Judge a bound for one cell.

    Args:
        instances: The runs with a result, at least one.
        cells: Number of cells that are judged.
        unseen: Number of instances without a result.
        at: The result of `level` for all cells; None for Bonferroni's correction.
    """
    n, apart = len(instances), independence.apart(instances)
    low = _share_low(instances, apart, unseen)
    each = (1 + CONFIDENCE) / 2 if low else CONFIDENCE
    high, high_all = (
        _share_high(instances, apart, unseen, confidence)
        for confidence in (each, simultaneous(cells, each))
    )
    requests = min(instance.counts(apart) for instance in instances)
    verdict, reason = _verdict(instances, apart, unseen, at or (cells, cells))
    return Slo(
        verdict, reason, sum(instance.broke for instance in instances), n, unseen, low, high,
        high_all, apart, kept_needs(cells, max(1, requests)), *_requests(instances),
    )  # fmt: skip


@cache
def _at_most(beyond: int, of: int) -> float:
    """Return P(at most `beyond` of `of` requests beyond the bound) of an instance at the bound."""
    return float(stats.binom.cdf(beyond, of, _BEYOND))


@cache
def _allowed(requests: int) -> int:
    """Return the largest number of requests beyond the bound in a clean run."""
    most = int(stats.binom.ppf(MISSED, requests, _BEYOND))
    return max(0, most if _at_most(most, requests) <= MISSED else most - 1)


def _share_high(
    instances: Sequence[Instance], apart: float, unseen: int, confidence: float
) -> float:
    """Return the upper bound of the share of instances that break the bound."""
    unclean = unseen + sum(not instance.clean(apart) for instance in instances)
    _, most = share_bounds(unclean, len(instances) + unseen, confidence)
    missed = max(instance.missed(apart) for instance in instances)
    return min(1.0, most / (1 - missed)) if missed < 1 else 1.0


def _share_low(instances: Sequence[Instance], apart: float, unseen: int) -> float:
    """Return the lower bound of the share of instances that break the bound.

    A run is called broken if its p value is at most a level c. If a share s of instances breaks the
    bound, at most s + (1 - s) c of runs are called so; the lower Clopper-Pearson bound of that
    share is solved for s. The best of the levels of `_RULES` is used, with Bonferroni's correction.
    """
    bounds, confidence = [0.0], simultaneous(len(_RULES), (1 + CONFIDENCE) / 2)
    for chance in _RULES:
        clear = unseen + sum(instance.by_chance(apart) <= chance for instance in instances)
        least, _ = share_bounds(clear, len(instances) + unseen, confidence)
        bounds.append((least - chance) / (1 - chance))
    return max(bounds)


def _verdict(
    instances: Sequence[Instance], apart: float, unseen: int, at: Level
) -> tuple[Verdict, str]:
    """Return the verdict, and the reason if it is "cannot tell"."""
    n, broken = len(instances), sum(instance.broke for instance in instances)
    if _share_low(instances, apart, 0):
        return "broken", ""
    if not all(instance.shows for instance in instances):
        return "cannot tell", f"no p99: under {samples_to_show(PERCENTILE)} requests per trial"
    if broken:
        return "cannot tell", (
            f"p99 beyond it in {broken} of {n} runs, by so little{_together(apart)} that it may "
            "be chance, with no instance that breaks it"
        )
    some, most = (_share_high(instances, apart, unseen, simultaneous(among)) for among in at)
    if some >= 1:
        return "cannot tell", _too_few(instances, apart, at[0])
    return ("kept by 90%" if most <= 1 - KEPT_SHARE + 1e-9 else "not seen broken"), ""


def _together(apart: float) -> str:
    return "" if apart >= APART else ", and in so few bursts,"


def _too_few(instances: Sequence[Instance], apart: float, cells: int) -> str:
    """Return the reason "too few requests": even if all instances broke it, runs may be clean."""
    n = len(instances)
    beyond, requests = sum(i.beyond for i in instances), sum(i.requests for i in instances)
    allowed = (1 - simultaneous(cells)) ** (1 / n)  # per run, for none beyond in all runs
    needed = math.ceil(math.log(allowed) / math.log1p(-_BEYOND) / apart)
    few = min(i.requests for i in instances)
    bursts = f", of which bursts leave {apart:.0%} independent" if apart < APART else ""
    wanted = f" at least {needed} requests per trial" if needed > few else ""
    return (
        f"too few requests: {beyond} of {requests} took longer ({few} per trial{bursts}), which "
        f"{count(n, 'replicate')} may show although the p99 of every instance is beyond it; a "
        f"verdict needs{wanted or ' more replicates'}, and fewer requests that take longer"
        if beyond or not wanted
        else f"too few requests: {few} per trial{bursts}; none of {count(n, 'replicate')} had one "
        f"beyond it, although the p99 of every instance may be; a verdict needs{wanted}"
    )


def _requests(instances: Sequence[Instance]) -> tuple[int, int, float, float, float]:
    """Return the number of requests, of those beyond the bound, their share and its interval.

    The interval is the union of the clustered one (ratio estimator, Student's t on instances'
    contributions) and the one for independent requests (Clopper and Pearson).
    """
    n = len(instances)
    requests, beyond = sum(i.requests for i in instances), sum(i.beyond for i in instances)
    if not requests:
        return 0, 0, 0.0, 0.0, 1.0
    share = beyond / requests
    low, high = share_bounds(beyond, requests, (1 + CONFIDENCE) / 2)
    if n > 1:
        parts = [instance.beyond - share * instance.requests for instance in instances]
        spread = math.sqrt(sum(part**2 for part in parts) / (n - 1)) / (requests / n)
        half = t_quantile(CONFIDENCE, n - 1) * spread / math.sqrt(n)
        low, high = min(low, max(0.0, share - half)), max(high, min(1.0, share + half))
    return requests, beyond, share, low, high
