"""The covariance of the model's means if the variance of replicates is 0."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from virtbed_analysis.cells import CELL
from virtbed_analysis.model import fit, of_trials

from .test_model import PLATFORMS, trials


def gaps(seed: int) -> pl.DataFrame:
    """Return a sweep on a steady host, a sixth of whose trials gave no result."""
    random = np.random.default_rng(seed)
    sweep = trials(random, replicates=3, sizes=(2, 3))
    noise = pl.Series(0.02 * random.standard_normal(sweep.height))
    kept = sweep.with_columns(log=17.0 + noise).filter(
        pl.Series(random.random(sweep.height) > 1 / 6)
    )
    mean = pl.col("log").mean().over(CELL)
    several = pl.len().over(CELL) > 1
    return kept.with_columns(deviation=pl.when(several).then(pl.col("log") - mean))


@pytest.mark.parametrize("seed", [0, 1, 16, 17, 24, 36, 37])
def test_without_a_replicate_effect_a_contrast_has_the_variance_of_independent_instances(
    seed: int,
) -> None:
    """Its variance is own / n on each side; it was below zero, or of the wrong size."""
    sweep = gaps(seed)
    found = fit(sweep)
    of_trials(sweep, PLATFORMS, [])
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    if found.common > 1e-4 * found.own:
        return
    each = {
        tuple(map(str, key)): own.height
        for key, own in sweep.partition_by(CELL, as_dict=True).items()
    }
    first, second = found.cells[:2]
    weights = found.contrast(first, second)
    wanted = sum(found.own / each[tuple(map(str, cell))] for cell in (first, second))
    assert weights @ found.covariance @ weights == pytest.approx(wanted, rel=1e-3)
