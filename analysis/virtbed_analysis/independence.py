"""How much requests tell that come in bursts: what a share of slow ones may look like in a run.

Requests that follow each other are alike where a queue or a slow moment reaches over several. Their
number over that of their bursts is the extremal index (Smith and Weissman, "Estimating the Extremal
Index", Journal of the Royal Statistical Society B 56, 1994). Bursts of which no run has one are not
seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from scipy import stats

NEIGHBOURS = 2
"""Requests as near as this belong to one burst."""
_SLOWEST = 0.1
_MOST = 0.5  # an instance of which more took longer is slow as a whole


@dataclass(frozen=True)
class Run:
    """What one instance did.

    Attributes:
        requests: How many it answered.
        beyond: How many of them took longer than the bound.
        bursts: In how many bursts those occurred; None where that is not known.
        slowest: How many are its slowest tenth.
        slow_bursts: In how many bursts those occurred.
    """

    requests: int
    beyond: int
    bursts: int | None = None
    slowest: int = 0
    slow_bursts: int = 0


def apart(instances: Sequence[Run]) -> float:
    """Return the share of requests that are not of one burst with those before: 1 if all are.

    The number of bursts over that of requests in them, less what chance brings together: of the
    slowest tenth of each run, or of those beyond the bound, whichever is less.
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
    """Return how often, at most, a run has as many requests beyond a bound by chance.

    Bursts of one size, or of sizes that differ much (geometric), whichever makes it more often.

    Args:
        beyond: How many are beyond the bound.
        requests: Of the run.
        share: Of requests that are beyond in truth.
        each: The share of requests that tell something of their own, see `apart`.
    """
    if not beyond:
        return 1.0
    # So many bursts, at least, and so many chances of one.
    bursts, chances = max(1, math.floor(each * beyond + 1e-9)), math.floor(each * requests + 1e-9)
    alike = float(stats.binom.sf(bursts - 1, chances, share))
    return alike if each >= 1 else max(alike, _geometric(beyond, requests * share * each, each))


@cache
def _geometric(beyond: int, bursts: float, ends: float) -> float:
    """Return the chance of at least so many in bursts that go on with chance 1 - `ends`.

    The number of bursts is Poisson's, with the mean `bursts`: the distribution of Polya and Aeppli,
    by its recursion (Johnson, Kemp and Kotz, "Univariate Discrete Distributions", 2005, 9.7).
    """
    goes_on, before, last = 1 - ends, 0.0, math.exp(-bursts)
    fewer = last
    for n in range(1, beyond):
        more = (bursts * ends + 2 * goes_on * (n - 1)) * last - goes_on**2 * (n - 2) * before
        before, last = last, more / n
        fewer += last
    return max(0.0, 1 - fewer)
