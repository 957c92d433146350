"""Effective number of independent requests when slow requests come in bursts.

Consecutive requests are correlated if a queue or a slow moment spans several. The number of bursts
divided by the number of requests in them estimates the extremal index (Smith and Weissman,
"Estimating the Extremal Index", Journal of the Royal Statistical Society B 56, 1994); its inverse
is the mean size of a burst. `slo` uses it to judge bounds on latency. Limit: bursts that occur in
no run cannot be estimated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from scipy import stats

NEIGHBOURS = 2
"""Slow requests at most this many places apart belong to one burst."""
_SLOWEST = 0.1
_MOST = 0.5  # an instance with a larger share beyond the bound is slow throughout, not in bursts


@dataclass(frozen=True)
class Run:
    """Counts of requests and bursts in the run of one instance.

    Attributes:
        requests: Number of answered requests.
        beyond: Number of requests that took longer than the bound.
        bursts: Number of bursts of those; None if not known.
        slowest: Number of requests in the slowest tenth of the run.
        slow_bursts: Number of bursts of those.
    """

    requests: int
    beyond: int
    bursts: int | None = None
    slowest: int = 0
    slow_bursts: int = 0


def apart(instances: Sequence[Run]) -> float:
    """Return the extremal index of slow requests: 1 if they are independent, lower with bursts.

    It is the number of bursts over the number that is expected of as many independent slow
    requests: with a share s of slow requests, (1 - s)^`NEIGHBOURS` bursts per slow request. It is
    computed for the slowest tenth of each run and for the requests beyond the bound; the smaller
    value is returned, at most 1.

    Args:
        instances: The runs of a cell's instances.
    """
    slowest = sum(instance.slowest for instance in instances)
    bursts = sum(instance.slow_bursts for instance in instances)
    shares = [bursts / slowest / (1 - _SLOWEST) ** NEIGHBOURS] if slowest else []
    known = [i for i in instances if i.bursts is not None and 0 < i.beyond <= _MOST * i.requests]
    if known:
        by_chance = sum(i.beyond * (1 - i.beyond / i.requests) ** NEIGHBOURS for i in known)
        shares.append(sum(i.bursts or 0 for i in known) / by_chance)
    return min([1.0, *shares])


def as_many(beyond: int, requests: int, share: float, each: float) -> float:
    """Return the p value of a number of requests beyond a bound in one run.

    It is the probability of at least `beyond` such requests, the larger of two models: bursts of
    equal size (binomial in the number of bursts) and of geometric size (Polya-Aeppli).

    Args:
        beyond: Number of requests beyond the bound.
        requests: Number of requests of the run.
        share: True share of requests beyond the bound under the null hypothesis.
        each: The extremal index, see `apart`.
    """
    if not beyond:
        return 1.0
    # `bursts` is the least number of bursts, `chances` the effective number of requests.
    bursts, chances = max(1, math.floor(each * beyond + 1e-9)), math.floor(each * requests + 1e-9)
    alike = float(stats.binom.sf(bursts - 1, chances, share))
    return alike if each >= 1 else max(alike, _geometric(beyond, requests * share * each, each))


@cache
def _geometric(beyond: int, bursts: float, ends: float) -> float:
    """Return the upper tail P(N >= beyond) of the Polya-Aeppli distribution.

    N is the total size of a Poisson number of bursts (mean `bursts`) of geometric size, each of
    which continues with probability 1 - `ends`. By its recursion (Johnson, Kemp and Kotz,
    "Univariate Discrete Distributions", 3rd edition, 2005, section 9.7).
    """
    continues, before, last = 1 - ends, 0.0, math.exp(-bursts)
    fewer = last
    for n in range(1, beyond):
        more = (bursts * ends + 2 * continues * (n - 1)) * last - continues**2 * (n - 2) * before
        before, last = last, more / n
        fewer += last
    return max(0.0, 1 - fewer)
