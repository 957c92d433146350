"""The claims of the studies, as data: the text, the effects that test it, and the rule.

`answers` decides and `findings` puts the results into words. A claim is tested by effects: each is
one ratio of cells, or a step of a curve of sizes. docs/how-to/finding.md shows how to add a claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby, pairwise
from math import log
from operator import attrgetter
from typing import Literal

from virtbed_analysis import words
from virtbed_analysis.cells import Cell
from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Floats
from virtbed_analysis.intervals import CONFIDENCE, holm, p_above

STUDY = "arXiv 2112.09780"
PINNING = "arXiv 2006.02055"  # the same laboratory's paper on containers, CPU pinning and overhead

# The platforms that the studies measured, as machine and enclosure. Another engine is another
# platform: its figures are in the tables, but neither support nor contradict these claims.
_CONTAINER, _GUEST, _ENCLOSED = ("metal", "docker"), ("kvm", "process"), ("kvm", "docker")

# Above this ratio to bare metal, a vanilla container has a penalty that pinning can remove.
PENALTY = 1.1
_SCALES = 1.1  # below this speed-up, a doubling of cores no longer pays
_PASSTHROUGH = 1.03
_HALF = 1.0  # "most" of a penalty is more than half of it; the margin of costs does not apply
_NAMED = 6  # cells that an effect is compared with: named up to this number, else counted
# Two applications are not ordered by shares of pre- and post-processing that differ by less.
SHARE_GAP = 0.10


@dataclass(frozen=True)
class Measured:
    """The measurements that claims are tested on.

    Attributes:
        units: The logarithms of times.
        serial: Why an application cannot use a second core, by cell, where that is known.
    """

    units: Units
    serial: Mapping[Cell, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One effect that tests a claim, before it is estimated.

    Attributes:
        about: Its name.
        groups: Groups of logarithms, as `engine.effects` takes them.
        cells: The cells that it is made of.
        curve: The name of the curve that it is a step of; empty for other effects.
        whole: Whether it spans a curve from its first size to its last.
        left_out: Why it does not count; empty if it does.
    """

    about: str
    groups: Sequence[Floats | None]
    cells: tuple[Cell, ...]
    curve: str = ""
    whole: bool = False
    left_out: str = ""


Candidates = Iterator[Candidate]
Rule = Literal["somewhere", "everywhere", "falls", "stops"]


@dataclass(frozen=True)
class Finding:
    """One claim.

    Attributes:
        id: Its name in report.json.
        claim: The claim, as a sentence.
        source: The study that makes it.
        effect: The ratio that is estimated, in words.
        needs: The measurements that a test needs, in words.
        margin: The ratio that effects must clear; None for the smallest effect of interest.
        rule: How effects decide:

            - somewhere: one supporting effect is enough; only all together refute it
            - everywhere: one contradicting effect refutes it; only all together support it
            - falls: each curve falls, in a step or as a whole, and no step rises
            - stops: the last step of a curve is on the claim's side
        side: Where the claim says that effects are: above or below the margin, or apart from 1 by
            more than the margin.
        candidates: Yields the effects that the measurements allow.
    """

    id: str
    claim: str
    source: str
    effect: str
    needs: str
    margin: float | None
    rule: Rule
    side: Literal["above", "below", "apart"]
    candidates: Callable[[Measured], Candidates]


# Effects. Each function yields the name and the logarithms of a ratio where they were measured.


def _named(cell: Cell) -> str:
    return f"{words.subject(cell.row())}, {words.count(cell.cores, 'core')}"


def _curves(cells: list[Cell], units: Units) -> Iterator[tuple[str, list[Cell]]]:
    """Yield a name and the cells, sorted by cores, for each subject, platform and mode."""
    curve = attrgetter("subject", "platform", "mode")
    for _, group in groupby(sorted(cells, key=curve), key=curve):
        sizes = sorted(group, key=attrgetter("cores"))
        row = sizes[0].row()
        yield f"{words.subject(row)}, {words.platform(row, units.platforms.entries)}", sizes


def _cost_by_application(measured: Measured) -> Candidates:
    units = measured.units
    others = [cell for cell in units.cells(processor="cpu") if not units.is_bare(cell)]
    alike = attrgetter("platform", "mode", "cores", "settings")
    for _, group in groupby(sorted(others, key=alike), key=alike):
        costs = {cell: cost for cell in group if (cost := units.cost(cell)) is not None}
        # A cell with one unit has no spread, and would leave all effects without an interval.
        several = {cell: cost for cell, cost in costs.items() if len(cost) > 1}
        costs = several if len(several) > 1 else costs
        # Each is compared with the mean of the others, because the number of pairs grows as the
        # square. Of two cells, one comparison is enough.
        compared = list(costs)
        if len(compared) <= 2:
            compared = compared[:-1]
        for cell in compared:
            rest = [other for other in costs if other != cell]
            named = ", ".join(other.application for other in rest)
            against = named if len(rest) <= _NAMED else f"{len(rest)} others"
            yield Candidate(
                f"{words.platform(cell.row(), units.platforms.entries)}, {_named(cell)} over "
                f"{against}",
                [costs[cell], *(-costs[other] / len(rest) for other in rest)],
                tuple(side for own in costs for side in (own, units.baseline(own))),
            )


def _container_over_guest(measured: Measured) -> Candidates:
    units = measured.units
    for cell in units.cells(_CONTAINER, processor="cpu", mode="vanilla"):
        for guest in units.elsewhere(cell, _GUEST):
            yield Candidate(_named(cell), [units.over(cell, guest)], (cell, guest))


def _steps_of_the_penalty(measured: Measured) -> Candidates:
    units = measured.units
    containers = units.cells(_CONTAINER, processor="cpu", mode="vanilla")
    for curve, sizes in _curves(
        [cell for cell in containers if units.cost(cell) is not None], units
    ):
        steps = list(pairwise(sizes))
        if len(steps) > 1:  # many small steps can make a large one
            steps.append((sizes[0], sizes[-1]))
        for small, large in steps:
            metal = units.baseline(small), units.baseline(large)
            # Paired within replicates that have both sizes; else the sizes are independent samples.
            paired = units.contrast((1, small), (-1, metal[0]), (-1, large), (1, metal[1]))
            costs = units.cost(small), units.cost(large)
            apart = [costs[0], None if costs[1] is None else -costs[1]]
            few = paired is None or len(paired) < 2
            yield Candidate(
                f"{words.subject(small.row())}, {small.cores} over {large.cores} cores",
                apart if few else [paired],
                (small, large, *metal),
                curve,
                whole=(small, large) == (sizes[0], sizes[-1]),
            )


def _penalty_left_by_pinning(measured: Measured) -> Candidates:
    # Vanilla over bare metal, divided twice by pinned over bare metal: above 1 if pinning removes
    # more than half of the penalty's logarithm. Only cells with a clear penalty are tested; these
    # are selected for all cells at once (Holm), at the level of one end of an interval.
    units = measured.units
    cells = units.cells(_CONTAINER, processor="cpu", mode="vanilla")
    costs = {cell: cost for cell in cells if (cost := units.cost(cell)) is not None}
    clear = holm([p_above(cost, log(PENALTY)) for cost in costs.values()], (1 - CONFIDENCE) / 2)
    for cell, has_penalty in zip(costs, clear, strict=True):
        if has_penalty:
            pinned, metal = cell._replace(mode="pinned"), units.baseline(cell)
            left = units.contrast((1, cell), (-2, pinned), (1, metal))
            yield Candidate(_named(cell), [left], (cell, pinned, metal))


def _enclosed_over_guest(measured: Measured) -> Candidates:
    units = measured.units
    for cell in units.cells(_ENCLOSED, processor="cpu"):
        for guest in units.elsewhere(cell, _GUEST):
            over = units.over(cell, guest)
            yield Candidate(f"{cell.mode}, {_named(cell)}", [over], (cell, guest))


def _doublings_of_metal(measured: Measured) -> Candidates:
    units = measured.units
    metal = [cell for cell in units.cells(processor="cpu") if cell == units.baseline(cell)]
    for curve, sizes in _curves(metal, units):
        steps = [(cell, cell._replace(cores=2 * cell.cores)) for cell in sizes]
        steps = [step for step in steps if units.over(*step) is not None]
        if steps and steps[-1][1].cores < sizes[-1].cores:
            steps.append((steps[-1][1], sizes[-1]))  # a size that no doubling reaches may scale
        for cell, more in steps:
            about = f"{words.subject(cell.row())}, {cell.cores} to {more.cores} cores"
            doublings = math.log2(more.cores / cell.cores)
            if doublings != 1:
                about += ", per doubling"
            serial = measured.serial.get(more, "")
            over = units.contrast((1 / doublings, cell), (-1 / doublings, more))
            used: list[Floats | None] = [None if serial else over]
            yield Candidate(about, used, (cell, more), curve, left_out=serial)


def _passthrough(measured: Measured) -> Candidates:
    units = measured.units
    for cell in units.cells(_GUEST, processor="gpu"):
        yield Candidate(_named(cell), [units.cost(cell)], (cell, units.baseline(cell)))


def _gpu_gain_by_pre_post(measured: Measured) -> Candidates:
    units = measured.units
    shares = {}
    for cell in units.cells(processor="cpu"):
        gain = units.over(cell, _on_gpu(cell)) if units.is_bare(cell) else None
        if gain is not None and cell in units.pre_post:
            shares[cell] = units.pre_post[cell], gain
    alike = attrgetter("mode", "cores", "settings")
    for one, other in combinations(shares, 2):
        if alike(one) == alike(other):
            light, heavy = sorted((one, other), key=lambda cell: shares[cell][0])
            (less, gain), (more, other_gain) = shares[light], shares[heavy]
            close = more - less < SHARE_GAP
            yield Candidate(
                f"{words.subject(light.row())} ({less:.0%} pre and post) over "
                f"{words.subject(heavy.row())} ({more:.0%}), {words.count(light.cores, 'core')}",
                [None if close else gain, -other_gain],
                tuple(side for cell in (one, other) for side in (cell, _on_gpu(cell))),
                left_out=f"their shares of pre- and post-processing are {100 * (more - less):.1f} "
                f"points apart, {100 * SHARE_GAP:.0f} needed to order them"
                if close
                else "",
            )


def _on_gpu(cell: Cell) -> Cell:
    return cell.having(processor="gpu")


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
        "two applications on CPU and GPU of bare metal, their shares of pre- and post-processing "
        f"{100 * SHARE_GAP:.0f} points apart or more",
        None,
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
        None,
        "somewhere",
        "above",
        _container_over_guest,
    ),
    Finding(
        "penalty-size",
        "The vanilla container's penalty falls with its size.",
        f"{STUDY}; {PINNING}",
        "a vanilla container's ratio to bare metal at one size over that at a larger one, step by "
        "step and from the smallest to the largest",
        "a vanilla container and bare metal at two sizes",
        None,
        "falls",
        "above",
        _steps_of_the_penalty,
    ),
    Finding(
        "pinning",
        "Pinning removes most of the vanilla container's penalty.",
        f"{STUDY}; {PINNING}",
        "vanilla over bare metal, divided twice by pinned over bare metal: above 1 where pinning "
        "removes more than half of the logarithm; tested only where vanilla is clearly above "
        f"{PENALTY:g}",
        "a container in both modes at one size, and a clear penalty",
        _HALF,
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
        None,
        "somewhere",
        "below",
        _enclosed_over_guest,
    ),
    Finding(
        "metal-scaling",
        "Bare metal stops scaling: from some size on, twice the cores speed it up less than "
        f"{_SCALES:g} times.",
        STUDY,
        "bare metal's speed-up from a doubling of its cores; from the largest size that a doubling "
        "reaches to the largest size of all, per doubling",
        "bare metal at a size and at twice that size, and an application that uses several cores",
        _SCALES,
        "stops",
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
