"""Simulated sweeps with noise like that of a shared machine, on the logarithmic scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CELLS = 7  # of a replicate, in random order; the baseline is one of them


def log_ratios(
    random: np.random.Generator, noise: NDArray[np.float64], replicates: int
) -> NDArray[np.float64]:
    """Return per-replicate log ratios of one cell to its baseline, whose truth is 0.

    Shape (sweeps, replicates); see `log_times`.
    """
    logs = log_times(random, noise, replicates)
    return np.asarray(logs[:, :, 1] - logs[:, :, 0])


def log_times(
    random: np.random.Generator, noise: NDArray[np.float64], replicates: int
) -> NDArray[np.float64]:
    """Return the logarithms of the times of a sweep's cells, whose true times are equal.

    Args:
        random: Where the noise comes from.
        noise: Shape (sweeps,): the standard deviation of a trial's own shift in each sweep.
        replicates: How many each sweep has.

    Returns:
        Shape (sweeps, replicates, CELLS), with the mean 0 but for slow trials. A trial's logarithm
        is the sum of a drift common to all trials (first-order autoregressive over the order of
        trials, 0.95 from one to the next, as large as the noise), a shift of its own, and in one
        trial of 20 a slowdown (exponential, three times the noise in the mean), as when a
        neighbour wakes up.
    """
    sweeps = len(noise)
    trials = CELLS * replicates
    drift = np.empty((sweeps, trials))
    drift[:, 0] = random.normal(size=sweeps)
    for trial in range(1, trials):
        step = random.normal(size=sweeps)
        drift[:, trial] = 0.95 * drift[:, trial - 1] + np.sqrt(1 - 0.95**2) * step
    ranks = random.random((sweeps, replicates, CELLS)).argsort(axis=2)
    order = np.arange(replicates)[:, None] * CELLS + ranks
    shape = (sweeps, replicates, CELLS)
    slowed = (random.random(shape) < 0.05) * random.exponential(3, shape)
    logs = np.take_along_axis(drift[:, None, :], order.reshape(sweeps, 1, -1), axis=2)
    return np.asarray(
        (logs.reshape(shape) + random.normal(size=shape) + slowed) * noise[:, None, None]
    )


Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int, int], Floats]
SLOW = np.log(3)  # what a slow instance takes, of the usual time


def _own(random: np.random.Generator, sweeps: int, replicates: int, scale: float) -> Floats:
    """Noise of single trials: the difference of two in one replicate is symmetric."""
    return scale * random.normal(size=(sweeps, replicates))


def alike(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    return log_ratios(random, np.exp(random.normal(np.log(0.03), 0.5, sweeps)), replicates)


def drifting(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    """A host that slows down by half over the sweep: each replicate's order is random."""
    shape = (sweeps, replicates, CELLS)
    ranks = random.random(shape).argsort(axis=2)
    when = (np.arange(replicates)[:, None] * CELLS + ranks) / (replicates * CELLS)
    logs = np.log(1.5) * when + 0.03 * random.normal(size=shape)
    return np.asarray(logs[:, :, 1] - logs[:, :, 0])


def heavy(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    """Heavy symmetric tails on one side of the ratio."""
    tails = random.standard_t(2.5, (sweeps, replicates))
    return _own(random, sweeps, replicates, 0.02) + 0.03 * tails


def skewed(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    """Lognormal noise on one side of the ratio: some instances are slow, a few very slow."""
    late = random.lognormal(0, 1, (sweeps, replicates)) - np.exp(0.5)
    return _own(random, sweeps, replicates, 0.01) + 0.05 * late


def very_skewed(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    """As `skewed`, with slow moments that are rare and long."""
    late = random.lognormal(0, 2, (sweeps, replicates)) - np.exp(2)
    return _own(random, sweeps, replicates, 0.01) + 0.05 * late


def exponential(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    """Exponential noise on one side of the ratio."""
    late = random.exponential(size=(sweeps, replicates)) - 1
    return _own(random, sweeps, replicates, 0.01) + 0.05 * late


def slow_instances(share: float) -> Noise:
    """A share of one side's instances takes three times as long."""

    def noise(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
        slow = random.random((sweeps, replicates)) < share
        return _own(random, sweeps, replicates, 0.03) + SLOW * (slow - share)

    return noise


def two_kinds(share: float) -> Noise:
    """A share of one side's instances is 15% slower: another NUMA node, say."""

    def noise(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
        slow = random.random((sweeps, replicates)) < share
        return _own(random, sweeps, replicates, 0.02) + 0.15 * (slow - share)

    return noise


def wandering(correlation: float) -> Noise:
    """A ratio that is autoregressive over replicates."""

    def noise(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
        steps = random.normal(size=(sweeps, replicates)) * np.sqrt(1 - correlation**2)
        logs = np.empty((sweeps, replicates))
        logs[:, 0] = random.normal(size=sweeps)
        for n in range(1, replicates):
            logs[:, n] = correlation * logs[:, n - 1] + steps[:, n]
        return 0.03 * logs

    return noise


def unequal(random: np.random.Generator, sweeps: int, replicates: int) -> Floats:
    """Some replicates are noisier than others, on a busy day."""
    busy = np.exp(random.normal(0, 0.5, (sweeps, replicates)))
    return busy * _own(random, sweeps, replicates, 0.03)


def covered(logs: Floats, confidence: float = 0.95) -> NDArray[np.bool_]:
    """Return which sweeps' Student's t intervals contain the truth, 0."""
    n = logs.shape[1]
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * logs.std(axis=1, ddof=1) / np.sqrt(n)
    return np.asarray(abs(logs.mean(axis=1)) <= half)
