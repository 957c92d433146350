"""The findings of the studies as hypotheses, and how a set of measurements answers each of them.

A finding is data: its claim, what effect is looked at, a margin, and a rule. The effects come from
`effects`, with simultaneous intervals for the finding. Nothing is decided from a point alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from operator import attrgetter
from typing import Literal

import numpy as np

from virtbed_analysis import words
from virtbed_analysis.cells import Cell
from virtbed_analysis.effects import Effect, Floats, Units, effects
from virtbed_analysis.trust import Json

Answer = Literal["supported", "refuted", "inconclusive", "not tested"]
Candidates = Iterator[tuple[str, Sequence[Floats | None]]]

STUDY = "arXiv 2112.09780"
PINNING = "arXiv 2006.02055"  # the same laboratory's paper on containers, CPU pinning and overhead

# What the studies measured, as machine and enclosure. Another engine is another platform: its
# figures stand in the tables, but say nothing for or against what was found with these.
_CONTAINER, _GUEST, _ENCLOSED = ("metal", "docker"), ("kvm", "process"), ("kvm", "docker")

# A vanilla container that takes longer than this times bare metal has something to remove.
PENALTY = 1.1
_SCALES = 1.1  # a doubling of cores that speeds up by less has stopped to pay
_PASSTHROUGH = 1.03
_NAMED = 6  # others that an effect is compared with are named, but not a hundred of them


@dataclass(frozen=True)
class Finding:
    """One hypothesis.

    `effect` says what is estimated, and `candidates` gives its logarithms wherever the measurements
    allow it. The claim is that effects lie on one `side` of `margin` (a ratio): above it, below it,
    or apart from 1 by more than it. One case proves a claim of `scope` "somewhere", and only all
    refute it; one refutes a claim of scope "everywhere", and only all prove it.
    """

    id: str
    claim: str
    source: str
    effect: str
    needs: str
    margin: float
    scope: Literal["somewhere", "everywhere"]
    side: Literal["above", "below", "apart"]
    candidates: Callable[[Units], Candidates]


@dataclass(frozen=True)
class Verdict:
    """A finding's answer, with every effect it rests on."""

    finding: Finding
    answer: Answer
    effects: list[Effect]


def verdicts(units: Units) -> list[Verdict]:
    """Answer every finding from one set of measurements."""
    told = []
    for finding in FINDINGS:
        found = effects(finding.candidates(units))
        told.append(Verdict(finding, answer(finding, found), found))
    return told


def rows(units: Units) -> list[Json]:
    """Return the verdicts as plain values: what reports and --json give."""
    return [
        {
            "id": verdict.finding.id,
            "claim": verdict.finding.claim,
            "source": verdict.finding.source,
            "answer": verdict.answer,
            "because": sentence(verdict),
            "effect": verdict.finding.effect,
            "margin": verdict.finding.margin,
            "effects": [asdict(effect) for effect in verdict.effects],
        }
        for verdict in verdicts(units)
    ]


def _holds(finding: Finding, effect: Effect) -> bool:
    """Return whether the whole interval is where the claim wants it."""
    if effect.low is None or effect.high is None:
        return False
    above, below = effect.low > finding.margin, effect.high < finding.margin
    if finding.side == "apart":
        return above or effect.high < 1 / finding.margin
    return above if finding.side == "above" else below


def _fails(finding: Finding, effect: Effect) -> bool:
    """Return whether the whole interval is where the claim does not want it."""
    if effect.low is None or effect.high is None:
        return False
    above, below = effect.low > finding.margin, effect.high < finding.margin
    if finding.side == "apart":
        return below and effect.low > 1 / finding.margin
    return below if finding.side == "above" else above


def answer(finding: Finding, found: Sequence[Effect]) -> Answer:
    """Return a finding's answer from its effects."""
    if not found:
        return "not tested"
    holds, fails = ([test(finding, effect) for effect in found] for test in (_holds, _fails))
    if finding.scope == "somewhere":
        return "supported" if any(holds) else "refuted" if all(fails) else "inconclusive"
    return "refuted" if any(fails) else "supported" if all(holds) else "inconclusive"


def sentence(verdict: Verdict) -> str:
    """Return what a verdict rests on: the effect that weighs most, and how many there are."""
    finding, found = verdict.finding, verdict.effects
    if not found:
        return f"Needs {finding.needs}."
    # The further on the claim's side, the more an effect speaks for it.
    speaks = {"above": 1, "below": -1}.get(finding.side, 0)

    def weight(effect: Effect) -> float:
        log = float(np.log(effect.value / (finding.margin if speaks else 1)))
        return log * speaks if speaks else abs(log)

    against = finding.scope == "everywhere" and verdict.answer != "supported"
    most = min(found, key=weight) if against else max(found, key=weight)
    span = "no interval" if most.low is None else f"{most.low:.3f} to {most.high:.3f}"
    text = f"{most.about}: {most.value:.3f} ({span})."
    if len(found) == 1:
        return text
    holds, fails = (sum(test(finding, e) for e in found) for test in (_holds, _fails))
    rest = len(found) - holds - fails
    return f"{text} Of {len(found)} effects {holds} speak for it, {fails} against, {rest} neither."


# Effects. Each gives a name and the logarithms of a ratio, wherever there are any.


def _named(cell: Cell) -> str:
    return f"{words.subject(cell.row())}, {words.count(cell.cores, 'core')}"


def _cost_by_application(units: Units) -> Candidates:
    others = [cell for cell in units.cells(processor="cpu") if not units.is_bare(cell)]
    alike = attrgetter("platform", "mode", "cores", "settings")
    for (platform, mode, _, _), group in groupby(sorted(others, key=alike), key=alike):
        costs = {cell: cost for cell in group if (cost := units.cost(cell)) is not None}
        # One unit tells no spread, and would leave all effects without an interval.
        several = {cell: cost for cell, cost in costs.items() if len(cost) > 1}
        costs = several if len(several) > 1 else costs
        # Each against the mean of the others, for pairs would be as many as their square.
        asked = list(costs)
        if len(asked) <= 2:
            asked = asked[:-1]  # of two, one says it all
        for cell in asked:
            rest = [other for other in costs if other != cell]
            named = ", ".join(other.application for other in rest)
            against = named if len(rest) <= _NAMED else f"{len(rest)} others"
            yield (
                f"{platform} {mode}, {_named(cell)} over {against}",
                [costs[cell], *(-costs[other] / len(rest) for other in rest)],
            )


def _container_over_guest(units: Units) -> Candidates:
    for cell in units.cells(_CONTAINER, processor="cpu", mode="vanilla"):
        for guest in units.elsewhere(cell, _GUEST):
            yield _named(cell), [units.over(cell, guest)]


def _penalty_small_over_large(units: Units) -> Candidates:
    containers = units.cells(_CONTAINER, processor="cpu", mode="vanilla")
    curve = attrgetter("subject", "platform")
    for _, group in groupby(sorted(containers, key=curve), key=curve):
        small, *_, large = sorted(group, key=attrgetter("cores")) * 2
        if small.cores < large.cores:
            below = units.cost(large)
            about = f"{words.subject(small.row())}, {small.cores} over {large.cores} cores"
            yield about, [units.cost(small), None if below is None else -below]


def _penalty_left_by_pinning(units: Units) -> Candidates:
    # Vanilla over bare metal, divided twice by pinned over bare metal: above 1 where pinning
    # removes more than half of the penalty's logarithm. Only where there is one to remove.
    for cell in units.cells(_CONTAINER, processor="cpu", mode="vanilla"):
        penalty = effects([("", [units.cost(cell)])])
        low = penalty[0].low if penalty else None
        if low is not None and low > PENALTY:
            pinned, metal = cell._replace(mode="pinned"), units.baseline(cell)
            yield _named(cell), [units.contrast((1, cell), (-2, pinned), (1, metal))]


def _enclosed_over_guest(units: Units) -> Candidates:
    for cell in units.cells(_ENCLOSED, processor="cpu"):
        for guest in units.elsewhere(cell, _GUEST):
            yield f"{cell.mode}, {_named(cell)}", [units.over(cell, guest)]


def _doublings_of_metal(units: Units) -> Candidates:
    metal = [cell for cell in units.cells(processor="cpu") if cell == units.baseline(cell)]
    for cell in metal:
        more = cell._replace(cores=2 * cell.cores)
        about = f"{words.subject(cell.row())}, {cell.cores} to {more.cores} cores"
        yield about, [units.over(cell, more)]


def _passthrough(units: Units) -> Candidates:
    for cell in units.cells(_GUEST, processor="gpu"):
        yield _named(cell), [units.cost(cell)]


def _gpu_gain_by_pre_post(units: Units) -> Candidates:
    shares = {}
    for cell in units.cells(processor="cpu"):
        gain = units.over(cell, cell.having(processor="gpu")) if units.is_bare(cell) else None
        if gain is not None and cell in units.pre_post:
            shares[cell] = units.pre_post[cell], gain
    alike = attrgetter("mode", "cores", "settings")
    for one, other in combinations(shares, 2):
        if alike(one) == alike(other):
            light, heavy = sorted((one, other), key=lambda cell: shares[cell][0])
            yield (
                f"{words.subject(light.row())} ({shares[light][0]:.0%} pre and post) over "
                f"{words.subject(heavy.row())} ({shares[heavy][0]:.0%}), "
                f"{words.count(light.cores, 'core')}",
                [shares[light][1], -shares[heavy][1]],
            )


FINDINGS = (
    Finding(
        "application",
        "What a platform costs depends on the application.",
        STUDY,
        "one application's ratio to bare metal over the others' (their geometric mean), on one "
        "platform of one size, with the same scale, scenario and threads",
        "two applications on one platform of one size, and on bare metal",
        1.05,
        "somewhere",
        "apart",
        _cost_by_application,
    ),
    Finding(
        "gpu-pre-post",
        "Applications heavy in pre- and post-processing gain less from a GPU.",
        STUDY,
        "the GPU's speed-up of the application with less pre- and post-processing over that of the "
        "one with more, end to end",
        "two applications on CPU and GPU of bare metal, with their phases",
        1.0,
        "everywhere",
        "above",
        _gpu_gain_by_pre_post,
    ),
    Finding(
        "vanilla-container",
        "A vanilla container can cost more than a VM.",
        STUDY,
        "time of a vanilla container over that of a vanilla guest",
        "a vanilla container and a vanilla KVM guest at one size",
        1.0,
        "somewhere",
        "above",
        _container_over_guest,
    ),
    Finding(
        "penalty-size",
        "The vanilla container's penalty falls with its size.",
        f"{STUDY}; {PINNING}",
        "a vanilla container's ratio to bare metal at the smallest size over that at the largest",
        "a vanilla container and bare metal at two sizes",
        1.0,
        "everywhere",
        "above",
        _penalty_small_over_large,
    ),
    Finding(
        "pinning",
        "Pinning removes most of the vanilla container's penalty.",
        f"{STUDY}; {PINNING}",
        "vanilla over bare metal, divided twice by pinned over bare metal: above 1 where pinning "
        f"removes over half of the logarithm, asked only where vanilla is clearly over {PENALTY:g}",
        "a container in both modes at one size, and a clear penalty",
        1.0,
        "everywhere",
        "above",
        _penalty_left_by_pinning,
    ),
    Finding(
        "container-in-vm",
        "A container in a VM can cost less than the VM.",
        STUDY,
        "time of a container in a guest over that of the guest",
        "a KVM guest and a container in one, in one mode at one size",
        1.0,
        "somewhere",
        "below",
        _enclosed_over_guest,
    ),
    Finding(
        "metal-scaling",
        f"Bare metal stops scaling: somewhere, twice the cores speed it up less than {_SCALES:g} "
        "times.",
        STUDY,
        "bare metal's speed-up from a doubling of its cores",
        "bare metal at a size and at twice that size",
        _SCALES,
        "somewhere",
        "below",
        _doublings_of_metal,
    ),
    Finding(
        "passthrough",
        f"A GPU passed through to a guest costs under {_PASSTHROUGH - 1:.0%}.",
        STUDY,
        "time of a guest with a GPU over that of bare metal with it",
        "a KVM guest and bare metal with a GPU",
        _PASSTHROUGH,
        "everywhere",
        "below",
        _passthrough,
    ),
)
