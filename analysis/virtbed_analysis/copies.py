"""Detection of trials that were copied from another trial: in part, reordered, scaled or shifted.

Noise of nanosecond resolution does not repeat. Two trials count as copies if half of their measured
samples have equal times, or if their residuals about the means of their inputs are proportional.
The second test is made only if chance agreement is improbable: the residuals of the trial must
carry at least `_BITS` bits of information. `trust` leaves both trials out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.reading import Json

Floats = NDArray[np.float64]
_COLUMNS = ("e2e_ns", "infer_ns")
_TIMES = ("queue_ns", "pre_ns", "infer_ns", "post_ns")
READ = ("input", "warmup", *_TIMES, "e2e_ns")
"""The fields of a sample that `marks` reads."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ROUNDED = 3  # tolerated rounding error of a scaled sample, in ticks of the clock
_BITS = 40
"""Information that residuals must carry: a chance agreement is below 1 in 10^12 per pair."""
_FEW = 3  # the least number of equal samples of a copy
_MOST = 50  # the most trials with one equal sample that are paired with each other


@dataclass(frozen=True)
class Marks:
    """Fingerprint of a trial's measured samples.

    Attributes:
        digests: One hash per distinct sample, sorted.
        scatters: The result of `_scatter` for each column of `_COLUMNS`.
    """

    digests: NDArray[np.uint64]
    scatters: list[tuple[tuple[object, ...], Floats | None, float]]


def marks(samples: list[Json]) -> Marks:
    """Return the fingerprint of a trial's samples, rows with the fields of `READ`."""
    measured = [sample for sample in samples if not sample["warmup"]]
    return Marks(np.unique(_digests(measured)), [_scatter(measured, name) for name in _COLUMNS])


def same_times(every: Mapping[str, Marks]) -> Iterator[tuple[list[str], str]]:
    """Yield pairs of trials that share times, and a reason with a placeholder for the other trial.

    Args:
        every: The fingerprints of all trials, by trial.
    """
    for pair in _shared(every):
        yield pair, "has half of its measured samples, or more, in common with {}: one is a copy"
    for pair in _scaled(every):
        yield pair, "has the times of {}, scaled or shifted: one is made of the other"


def _shared(marked: Mapping[str, Marks]) -> Iterator[list[str]]:
    """Yield the pairs of trials that share half of the samples of the shorter one."""
    trials = list(marked)
    digests = [own.digests for own in marked.values()]
    every = np.concatenate([*digests, np.empty(0, np.uint64)])
    owners = np.repeat(np.arange(len(trials)), [len(own) for own in digests])
    order = np.argsort(every, kind="stable")
    starts = np.flatnonzero(np.diff(every[order], prepend=~every[order][:1])).tolist()
    both: Counter[tuple[int, int]] = Counter()
    for start, end in pairwise([*starts, len(order)]):
        if end - start > 1:
            both.update(combinations(owners[order[start : min(end, start + _MOST)]].tolist(), 2))
    for (one, other), number in both.items():
        if number >= max(_FEW, min(len(digests[one]), len(digests[other])) / 2):
            yield [trials[one], trials[other]]


def _digests(samples: list[Json]) -> NDArray[np.uint64]:
    """Return a polynomial hash of the times of each sample, without the name of its input."""
    digests = np.zeros(len(samples), dtype=np.uint64)
    for name in _TIMES:
        digests = digests * _ODD + np.array([sample[name] for sample in samples], dtype=np.uint64)
    return digests


def _scaled(marked: Mapping[str, Marks]) -> Iterator[list[str]]:
    """Yield the pairs of trials whose residuals are proportional, in any column."""
    for column in range(len(_COLUMNS)):
        groups: dict[tuple[object, ...], list[tuple[str, Floats, float]]] = defaultdict(list)
        for trial, own in marked.items():
            shape, scatter, slack = own.scatters[column]
            if scatter is not None:
                groups[shape].append((trial, scatter, slack))
        for alike in groups.values():
            yield from _alike(alike)


def _scatter(samples: list[Json], column: str) -> tuple[tuple[object, ...], Floats | None, float]:
    """Return the residuals of a trial's times about the means of their inputs.

    Returns:
        The shape (each input with its number of samples); the residuals, sorted within an input and
        divided by their root sum of squares, or None if they carry fewer than `_BITS` bits; and the
        rounding error in the same unit.
    """
    times: dict[str, list[int]] = defaultdict(list)
    for sample in samples:
        times[sample["input"]].append(sample[column])
    shape = tuple(sorted((name, len(own)) for name, own in times.items()))
    sides = [np.sort(np.array(times[name], dtype=np.int64)) for name, _ in shape]
    # Equal times within a trial carry information once only.
    kinds = [np.unique(own) for own in sides]
    usual = float(np.median(abs(np.concatenate([own - own.mean() for own in kinds]))))
    tick = max(1, int(np.gcd.reduce(np.concatenate(kinds))))
    freedom = sum(map(len, kinds)) - len(kinds) - 1
    orders = sum(math.lgamma(len(own) + 1) for own in kinds) / math.log(2)
    if freedom * math.log2(max(1.0, usual / (2 * _ROUNDED * tick))) - orders < _BITS:
        return shape, None, 0.0
    scatter = np.concatenate([own - own.mean() for own in sides])
    spread = math.sqrt(float((scatter**2).sum()))
    return shape, scatter / spread, _ROUNDED * tick / spread


def _alike(own: list[tuple[str, Floats, float]]) -> Iterator[list[str]]:
    """Yield the pairs of trials of one shape whose residuals are equal up to rounding."""
    if len(own) < 2:
        return
    place = int(np.std([scatter for _, scatter, _ in own], axis=0).argmax())
    own = sorted(own, key=lambda one: float(one[1][place]))
    for (trial, scatter, slack), (other, theirs, rest) in pairwise(own):
        if float(abs(scatter - theirs).max()) <= slack + rest:
            yield [trial, other]
