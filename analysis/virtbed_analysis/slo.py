"""Whether a cell keeps a bound on latency: a statement about instances, of any distribution.

An instance breaks the bound if more than 1% of its requests take longer, ever so many of them: if
its true 99th percentile lies beyond it. A user gets one instance, so what matters is how many break
it: a mean of percentiles hides one slow instance in ten. Nothing is assumed of how instances
differ, but a run is a sample of its instance's requests: of 100, an instance just beyond the bound
shows none that is longer in 37% of runs. So an instance looks clean if its run shows so few that
one that breaks the bound would show as few with a chance of at most `MISSED`, where its requests
allow that; whatever that chance q is, a share s of instances that break it makes at least
s * (1 - q) that do not look clean, and the share of those has an exact bound (Clopper and Pearson).
"Kept by 90%" is a one-sided tolerance statement (Wilks, "Determination of Sample Sizes for Setting
Tolerance Limits", Annals of Mathematical Statistics 12, 1941): were it 10% that break it, it would
be said in at most 5% of sweeps. It takes 29 instances with many requests each, 46 with 100.

Of requests that come in bursts fewer tell, and chance makes more of them: see `independence`.

Latency is what a user waits: LoadGen's queue and the request.
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
"""The share of instances that "kept" speaks of."""
MISSED = 0.10
"""How often an instance that breaks the bound may look clean, where its requests allow so few."""
APART = 0.9
"""Where more requests are apart from those before, bursts are no more than chance brings."""
Verdict = Literal["kept by 90%", "not seen broken", "broken", "cannot tell"]
_BEYOND = 1 - PERCENTILE / 100
_RULES = (0.3, 0.05, 1e-5)  # an instance that keeps the bound looks broken as seldom


class Instance(independence.Run):
    """A run, and what it tells of its instance and the bound."""

    @property
    def shows(self) -> bool:
        """Whether it has requests enough to show a 99th percentile."""
        return self.requests >= samples_to_show(PERCENTILE)

    @property
    def broke(self) -> bool:
        """Whether its run's 99th percentile, of rank ceil(0.99 n), lies beyond the bound.

        With too few requests for one: whether it is clear (binomial test) that over 1% do.
        """
        if self.shows:
            return bool(self.beyond > self.requests - percentile_rank(PERCENTILE, self.requests))
        return self.by_chance(1.0) <= 1 - CONFIDENCE

    def counts(self, apart: float) -> int:
        """Return how many requests that have nothing to do with each other it tells as much as."""
        return math.floor(apart * self.requests + 1e-9)

    def clean(self, apart: float) -> bool:
        """Whether an instance that breaks the bound would seldom show so few beyond it."""
        return self.beyond <= _allowed(self.counts(apart))

    def missed(self, apart: float) -> float:
        """Return how often, at most, an instance that breaks the bound looks clean."""
        return _at_most(_allowed(self.counts(apart)), self.counts(apart))

    def by_chance(self, apart: float) -> float:
        """Return how often, at most, one that keeps the bound shows as many beyond it."""
        return independence.as_many(self.beyond, self.requests, _BEYOND, apart)


@dataclass(frozen=True)
class Slo:
    """What a sweep tells of a bound in one cell.

    `broken` is of runs: whose own 99th percentile lies beyond the bound. `share_low` and
    `share_high` bound the share of instances whose true one does: an interval where some clearly
    do, one-sided where none does, each cell on its own; `share_high_all` holds for all cells that
    are asked at once (Bonferroni). An instance without a result counts as broken
    in them (`unseen`), for none knows. `apart` is the share of requests that tells something of
    its own, see `independence`. `requests_share` and its interval are of single requests, clustered
    by instance.
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
    """Return how many instances, all clean, it takes to say "kept by 90%": 46 with 100 requests.

    Bonferroni over the cells that are asked.
    """
    seen = (1 - KEPT_SHARE) * (1 - _at_most(_allowed(requests), requests))
    return math.ceil(math.log((1 - CONFIDENCE) / cells) / math.log1p(-seen))


Level = tuple[int, int]
"""Among how many cells the error of "not seen broken", and of "kept", is divided."""


def level(cells: Sequence[tuple[Sequence[Instance], int]]) -> Level:
    """Return the level that verdicts on several cells are at (Hochberg's step-up test).

    Of m cells the least sure is judged as if it was alone; if it fails, the next one as one of two.
    Cells are trials of their own; noise that they share makes errors come together (Hochberg, "A
    Sharper Bonferroni Procedure for Multiple Tests of Significance", Biometrika 75, 1988).

    Args:
        cells: Each one's instances, and how many more ended without a result.
    """
    return _step_up(cells, 1.0), _step_up(cells, 1 - KEPT_SHARE)


def _step_up(cells: Sequence[tuple[Sequence[Instance], int]], breaking: float) -> int:
    """Return among how many the error is divided, where `breaking` of the instances break it."""
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
    """Return what a cell's instances tell of the bound.

    Args:
        instances: Those with a result, at least one.
        cells: How many cells are asked the same.
        unseen: How many more ended without a result.
        at: See `level`; without it, Bonferroni's.
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
def _at_most(found: int, of: int) -> float:
    """Return the chance of at most so many beyond the bound, of an instance at the bound."""
    return float(stats.binom.cdf(found, of, _BEYOND))


@cache
def _allowed(requests: int) -> int:
    """Return how many may lie beyond the bound in a run that looks clean."""
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
    """Return the lower bound of it: of several rules for what looks broken, the best one."""
    found, confidence = [0.0], simultaneous(len(_RULES), (1 + CONFIDENCE) / 2)
    for chance in _RULES:
        clear = unseen + sum(instance.by_chance(apart) <= chance for instance in instances)
        least, _ = share_bounds(clear, len(instances) + unseen, confidence)
        found.append((least - chance) / (1 - chance))
    return max(found)


def _verdict(
    instances: Sequence[Instance], apart: float, unseen: int, at: Level
) -> tuple[Verdict, str]:
    """Return the verdict, and why there is none where there is none."""
    n, broken = len(instances), sum(instance.broke for instance in instances)
    if _share_low(instances, apart, 0):
        return "broken", ""
    if not all(instance.shows for instance in instances):
        return "cannot tell", f"no p99: under {samples_to_show(PERCENTILE)} requests per trial"
    if broken:
        return "cannot tell", (
            f"p99 beyond it in {broken} of {n} runs, by so little{_together(apart)} that chance "
            "may do it where no instance breaks it"
        )
    some, most = (_share_high(instances, apart, unseen, simultaneous(among)) for among in at)
    if some >= 1:
        return "cannot tell", _too_few(instances, apart, at[0])
    return ("kept by 90%" if most <= 1 - KEPT_SHARE + 1e-9 else "not seen broken"), ""


def _together(apart: float) -> str:
    return "" if apart >= APART else ", and in so few bursts,"


def _too_few(instances: Sequence[Instance], apart: float, cells: int) -> str:
    """Return that even were all instances to break the bound, runs might look like these."""
    n = len(instances)
    beyond, requests = sum(i.beyond for i in instances), sum(i.requests for i in instances)
    allowed = (1 - simultaneous(cells)) ** (1 / n)  # of each, for none to be beyond
    needed = math.ceil(math.log(allowed) / math.log1p(-_BEYOND) / apart)
    few = min(i.requests for i in instances)
    bursts = f", which come together and count as {apart:.0%}" if apart < APART else ""
    wanted = f" at least {needed} requests per trial" if needed > few else ""
    return (
        f"too few requests: {beyond} of {requests} took longer ({few} a trial{bursts}), which "
        f"{count(n, 'replicate')} may show though the p99 of every instance lies beyond it; to "
        f"tell takes{wanted or ' more replicates'}, and fewer of them longer"
        if beyond or not wanted
        else f"too few requests: {few} a trial{bursts}; none of {count(n, 'replicate')} had one "
        f"beyond it, as may be though the p99 of every instance is; to tell takes{wanted}"
    )


def _requests(instances: Sequence[Instance]) -> tuple[int, int, float, float, float]:
    """Return all requests, those beyond the bound, their share and its interval.

    The interval is the wider of the clustered one (Student's t on instances' parts in the ratio)
    and that of requests which have nothing to do with each other (Clopper and Pearson).
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
