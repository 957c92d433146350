"""One pairing: the table of ratios, the effects and the stopping rule say the same of a sweep."""

from __future__ import annotations

import numpy as np
import pytest

from virtbed_analysis.cells import cell_of
from virtbed_analysis.effects import effects, of_sweep
from virtbed_analysis.estimate import ratio_to_bare_metal
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.per_trial import log_means
from virtbed_analysis.precision import _difference

from .conftest import Folder


def test_ratio_effect_and_stopping_rule_agree(folder: Folder) -> None:
    """Inputs and replicates are not the same everywhere, and some samples are far out."""
    random = np.random.default_rng(18)
    ids: dict[tuple[str, int], str] = {}
    for replicate in range(1, 6):
        for platform, factor in (("bm", 1.0), ("cn", 1.4), ("vm", 1.2)):
            if (platform, replicate) in {("bm", 2), ("vm", 4), ("vm", 5)}:
                continue
            names = [name for name in "abcd" if random.random() < 0.8] or ["a"]
            times = {
                name: list(factor * 10 * (1 + place) * random.lognormal(0, 0.3, 4))
                for place, name in enumerate(names)
            }
            ids[platform, replicate] = folder.trial(platform, "pinned", replicate, times)
    sweep = read_sweep(folder.path)
    units, logs = of_sweep(sweep.samples, sweep.platforms), log_means(sweep.samples)
    rows = ratio_to_bare_metal(sweep.samples).to_dicts()
    assert {row["platform"] for row in rows} == {"cn", "vm"}
    for row in rows:
        cell = cell_of({**row, "weights": "trained"})
        (effect,) = effects([("", [units.cost(cell)])])
        wanted = [row["ratio"], row["ratio_low"], row["ratio_high"]]
        assert [effect.value, effect.low, effect.high] == pytest.approx(wanted, rel=1e-12)
        assert effect.n == row["ratio_replicates"]
        pairs = [
            _difference(logs[ids[row["platform"], r]], logs[ids["bm", r]])
            for r in range(1, 6)
            if {(row["platform"], r), ("bm", r)} <= ids.keys()
        ]
        known = [pair for pair in pairs if pair is not None]
        assert float(np.exp(np.mean(known))) == pytest.approx(row["ratio"], rel=1e-12)
