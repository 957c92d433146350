"""Simulated sweeps with noise like that of a shared machine, on the logarithmic scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS = 7  # of a replicate, in random order; the baseline is one of them


def log_ratios(
    random: np.random.Generator, noise: NDArray[np.float64], replicates: int
) -> NDArray[np.float64]:
    """Return per-replicate log ratios of one cell to its baseline, whose truth is 0.

    Args:
        random: Where the noise comes from.
        noise: Shape (sweeps,): the standard deviation of a trial's own shift in each sweep.
        replicates: How many each sweep has.

    Returns:
        Shape (sweeps, replicates). A trial's logarithm is the sum of a drift common to all trials
        (first-order autoregressive over the order of trials, 0.95 from one to the next, as large
        as the noise), a shift of its own, and in one trial of 20 a slowdown (exponential, three
        times the noise in the mean), as when a neighbour wakes up.
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
    logs = (logs.reshape(shape) + random.normal(size=shape) + slowed) * noise[:, None, None]
    return np.asarray(logs[:, :, 1] - logs[:, :, 0])
