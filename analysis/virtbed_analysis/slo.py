"""Whether a cell keeps a bound on latency: a statement about instances, of any distribution.

An instance breaks the bound if its own 99th percentile lies beyond it. A user gets one instance, so
what matters is how many break it: a mean of percentiles hides one slow instance in ten. Nothing is
assumed of how instances differ: k of n that broke it bound the share that would (Clopper and
Pearson). "Kept by 90%" is a one-sided tolerance statement (Wilks, "Determination of Sample Sizes
for Setting Tolerance Limits", Annals of Mathematical Statistics 12, 1941): were it 10% that break
it, n would show none in at most 5% of sweeps. It takes 29, and more where several cells are asked.

Latency is what a user waits: LoadGen's queue and the request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from virtbed_analysis.estimate import samples_to_show
from virtbed_analysis.intervals import CONFIDENCE, share_bounds, simultaneous, t_quantile
from virtbed_contract.measures import percentile_rank

PERCENTILE = 99
KEPT_SHARE = 0.90
"""The share of instances that "kept" speaks of."""
Verdict = Literal["kept by 90%", "not seen broken", "broken", "cannot tell"]
_BEYOND = 1 - PERCENTILE / 100


@dataclass(frozen=True)
class Instance:
    """What one instance did: its requests, how many of them took longer than the bound."""

    requests: int
    beyond: int

    @property
    def shows(self) -> bool:
        """Whether it has requests enough to show a 99th percentile."""
        return self.requests >= samples_to_show(PERCENTILE)

    @property
    def broke(self) -> bool:
        """Whether its 99th percentile, of rank ceil(0.99 n), lies beyond the bound.

        With too few requests for one: whether it is clear (binomial test) that over 1% do.
        """
        if self.shows:
            return bool(self.beyond > self.requests - percentile_rank(PERCENTILE, self.requests))
        by_chance = stats.binom.sf(self.beyond - 1, self.requests, _BEYOND)
        return bool(by_chance <= 1 - CONFIDENCE)

    @property
    def may_break(self) -> bool:
        """Whether 1% of its requests took longer: as many as if its p99 were the bound.

        Of instances whose 99th percentile is just beyond the bound, three in four do not break it
        in a run of 100 requests, which may have one beyond; two in three have one.
        """
        return self.broke or (self.shows and self.beyond >= _BEYOND * self.requests - 1e-9)


@dataclass(frozen=True)
class Slo:
    """What a sweep tells of a bound in one cell.

    `share_low` and `share_high` bound the share of instances that break it: an interval where some
    broke, one-sided where none did, each cell on its own; `share_high_all` holds for all cells that
    are asked at once. The upper ends count those that `may_break` it, too. An instance without a
    result counts as broken in them (`unseen`), for none knows. `requests_share` and its interval
    are of single requests, clustered by instance.
    """

    verdict: Verdict
    reason: str
    broken: int
    instances: int
    unseen: int
    share_low: float
    share_high: float
    share_high_all: float
    kept_needs: int
    requests: int
    requests_beyond: int
    requests_share: float
    requests_share_low: float
    requests_share_high: float


def kept_needs(cells: int = 1) -> int:
    """Return how many instances, none broken, it takes to say "kept by 90%": 29 for one cell.

    Bonferroni over the cells that are asked: 44 for five, 57 for twenty.
    """
    return math.ceil(math.log((1 - CONFIDENCE) / cells) / math.log(KEPT_SHARE))


def judge(instances: Sequence[Instance], cells: int = 1, unseen: int = 0) -> Slo:
    """Return what a cell's instances tell of the bound.

    Args:
        instances: Those with a result, at least one.
        cells: How many cells are asked the same.
        unseen: How many more ended without a result.
    """
    n, broken = len(instances), sum(instance.broke for instance in instances)
    found, of = broken + unseen, n + unseen
    each = CONFIDENCE if not found else (1 + CONFIDENCE) / 2
    most = unseen + sum(instance.may_break for instance in instances)
    low, _ = share_bounds(found, of, each)
    _, high = share_bounds(most, of, each)
    _, high_all = share_bounds(most, of, simultaneous(cells, each))
    verdict, reason = _verdict(instances, broken, unseen, kept_needs(cells))
    return Slo(
        verdict, reason, broken, n, unseen, low, high, high_all, kept_needs(cells),
        *_requests(instances),
    )  # fmt: skip


def _verdict(
    instances: Sequence[Instance], broken: int, unseen: int, needed: int
) -> tuple[Verdict, str]:
    """Return the verdict, and why it cannot be told where it cannot."""
    if broken:
        return "broken", ""
    if not all(instance.shows for instance in instances):
        return "cannot tell", f"no p99: under {samples_to_show(PERCENTILE)} requests a trial"
    beyond, requests = sum(i.beyond for i in instances), sum(i.requests for i in instances)
    _, most = share_bounds(beyond, requests, CONFIDENCE)
    if most > _BEYOND + 1e-9:  # even were all instances alike, their p99 may lie beyond it
        return "cannot tell", (
            f"too few requests: {beyond} of {requests} took longer, so up to {most:.1%} of all "
            f"may, and {_BEYOND:.0%} is allowed"
        )
    unclear = unseen or any(instance.may_break for instance in instances)
    kept = len(instances) >= needed and not unclear
    return ("kept by 90%", "") if kept else ("not seen broken", "")


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
