"""Trials whose times are another trial's: in part, in another order, scaled or shifted.

Noise in nanoseconds does not come twice. Two trials are one where half of their samples are equal,
or where the scatter of one about the means of its inputs is that of the other times a number. The
second is asked only where chance would not make it: each time that differs counts its bits.
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
"""What `marks` reads of a sample."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ROUNDED = 3  # by so many ticks of the clock a scaled sample may be off
_BITS = 40
"""What chance must be beaten by: 1 in 10^12 for each pair of trials."""
_FEW = 3  # so many equal samples are needed at least
_MOST = 50  # so many trials of one and the same sample are looked at


@dataclass(frozen=True)
class Marks:
    """What tells a trial's measured samples from those of any other.

    `digests` has a number for each that is unlike the others; `scatters` what `_scatter` gives of
    each of `_COLUMNS`.
    """

    digests: NDArray[np.uint64]
    scatters: list[tuple[tuple[object, ...], Floats | None, float]]


def marks(samples: list[Json]) -> Marks:
    """Return the marks of a trial's samples."""
    measured = [sample for sample in samples if not sample["warmup"]]
    return Marks(np.unique(_digests(measured)), [_scatter(measured, name) for name in _COLUMNS])


def same_times(every: Mapping[str, Marks]) -> Iterator[tuple[list[str], str]]:
    """Give groups of trials that have times in common, and how: a text with a place for others."""
    for pair in _shared(every):
        yield pair, "has half of its measured samples, or more, in common with {}: one is a copy"
    for pair in _scaled(every):
        yield pair, "has the times of {}, scaled or shifted: one is made of the other"


def _shared(marked: Mapping[str, Marks]) -> Iterator[list[str]]:
    """Give the pairs of trials of which one has half of its samples from the other."""
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
    """Return one number for the times of each sample, whatever its input is called."""
    found = np.zeros(len(samples), dtype=np.uint64)
    for name in _TIMES:
        found = found * _ODD + np.array([sample[name] for sample in samples], dtype=np.uint64)
    return found


def _scaled(marked: Mapping[str, Marks]) -> Iterator[list[str]]:
    for column in range(len(_COLUMNS)):
        groups: dict[tuple[object, ...], list[tuple[str, Floats, float]]] = defaultdict(list)
        for trial, own in marked.items():
            shape, scatter, slack = own.scatters[column]
            if scatter is not None:
                groups[shape].append((trial, scatter, slack))
        for alike in groups.values():
            yield from _alike(alike)


def _scatter(samples: list[Json], column: str) -> tuple[tuple[object, ...], Floats | None, float]:
    """Return the inputs with their numbers, the scatter in units of its spread, and its slack.

    No scatter, where chance might make another like it.
    """
    times: dict[str, list[int]] = defaultdict(list)
    for sample in samples:
        times[sample["input"]].append(sample[column])
    shape = tuple(sorted((name, len(own)) for name, own in times.items()))
    sides = [np.sort(np.array(times[name], dtype=np.int64)) for name, _ in shape]
    # What is equal within a trial is no evidence twice.
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
    """Give the pairs of one shape whose scatters are equal but for rounding."""
    if len(own) < 2:
        return
    place = int(np.std([scatter for _, scatter, _ in own], axis=0).argmax())
    own = sorted(own, key=lambda one: float(one[1][place]))
    for (trial, scatter, slack), (other, theirs, rest) in pairwise(own):
        if float(abs(scatter - theirs).max()) <= slack + rest:
            yield [trial, other]
