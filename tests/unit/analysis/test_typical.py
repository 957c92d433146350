"""Typical times of cells, also of those that share no replicate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from virtbed_analysis.typical import typical_logs

from .test_best import cell


def test_cells_that_never_ran_together_are_compared_through_one_that_ran_with_both() -> None:
    """Replicates 3 and 4 took twice as long, which is no cell's fault."""
    drift = {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}
    cells = [
        cell("one", {r: 10 * drift[r] for r in (1, 2)}),
        cell("both", {r: 20 * drift[r] for r in drift}),
        cell("other", {r: 15 * drift[r] for r in (3, 4)}),
    ]
    one, both, other = typical_logs(cells)
    assert both - one == pytest.approx(math.log(2), abs=0.01)
    assert other - one == pytest.approx(math.log(1.5), abs=0.01)


def test_one_bad_instance_moves_no_cell() -> None:
    good = dict.fromkeys(range(1, 8), 10.0)
    bad = {**dict.fromkeys(range(1, 8), 11.0), 4: 500.0}
    first, second = typical_logs([cell("good", good), cell("bad", bad)])
    assert second - first == pytest.approx(math.log(1.1), abs=0.01)


def test_only_differences_mean_something() -> None:
    cells = [cell("a", {1: 10.0, 2: 12.0}), cell("b", {1: 20.0, 2: 24.0})]
    scaled = [cell("a", {1: 1e4, 2: 1.2e4}), cell("b", {1: 2e4, 2: 2.4e4})]
    assert np.diff(typical_logs(cells)) == pytest.approx(np.diff(typical_logs(scaled)))
