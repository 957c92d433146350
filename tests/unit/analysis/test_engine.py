"""One engine: tables of ratios, effects and the stopping rule agree on a sweep."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import virtbed_analysis
from virtbed_analysis import reduction
from virtbed_analysis.best import contrast_of
from virtbed_analysis.cells import cell_of
from virtbed_analysis.document import document
from virtbed_analysis.effects import effects, of_sweep
from virtbed_analysis.engine import Logs, contrast, effect, equal
from virtbed_analysis.estimate import ratio_to_bare_metal
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.margin import answer
from virtbed_analysis.per_trial import log_means
from virtbed_analysis.robust import signs
from virtbed_contract.factors import SCENARIOS

from .conftest import Folder
from .test_latency import load


def lay(folder: Folder) -> dict[tuple[str, int], str]:
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
    return ids


def test_ratio_effect_and_stopping_rule_agree(folder: Folder) -> None:
    ids = lay(folder)
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
            Logs.of({r: (list(logs[i]), list(logs[i].values())) for r in (1, 2, 3, 4, 5)
                     if (i := ids.get((platform, r)))})
            for platform in (row["platform"], "bm")
        ]  # fmt: skip
        stopping = contrast((1.0, pairs[0]), (-1.0, pairs[1]))
        assert float(np.exp(np.mean(stopping))) == pytest.approx(row["ratio"], rel=1e-12)


def test_quantiles_of_students_t_are_computed_in_one_place() -> None:
    """An interval that is made a second time, elsewhere, is one that can differ."""
    sources = Path(virtbed_analysis.__file__).parent.glob("*.py")
    makers = {path.name for path in sources if re.search(r"stats\.t\b", path.read_text())}
    # Powers, and how many pairs a gap needs, are of no interval that is shown.
    assert makers == {"intervals.py", "calibration.py"}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_report_groups_its_samples_once(
    scenario: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scenario == "single_stream":
        lay(folder)
    else:
        for replicate, platform in itertools.product((1, 2, 3), ("bm", "cn")):
            waits = [0.01 + n + replicate / 7 for n in range(8)]
            load(folder, scenario, waits, platform=platform, replicate=replicate)
    sweep, grouped = read_sweep(folder.path), []
    original = reduction.steady

    def counted(samples: pl.DataFrame, emulated: bool = False) -> pl.DataFrame:
        grouped.append(samples.height)
        return original(samples, emulated)

    monkeypatch.setattr(reduction, "steady", counted)
    document(sweep)
    assert sum(grouped) == sweep.samples.height


def test_matrices_with_gaps_give_what_each_pair_gives() -> None:
    """Inputs and units that only one side has are in no pair, whatever their place."""
    random = np.random.default_rng(5)
    sides: list[dict[int, dict[str, float]]] = [
        {
            unit: {name: random.normal() for name in "abcde" if random.random() < 0.6}
            for unit in range(12)
            if random.random() < 0.8
        }
        for _ in range(3)
    ]
    weights = (1.0, -2.0, 1.0)
    expected = []
    for unit in sorted(set.intersection(*(set(side) for side in sides))):
        names = set.intersection(*(set(side[unit]) for side in sides))
        if names:
            means = [math.log(sum(math.exp(s[unit][n]) for n in names) / len(names)) for s in sides]
            expected.append(sum(w * mean for w, mean in zip(weights, means, strict=True)))
    logs = [Logs.of({u: (list(own), list(own.values())) for u, own in s.items()}) for s in sides]
    found = contrast(*zip(weights, logs, strict=True))
    assert found is not None and found == pytest.approx(np.array(expected), rel=1e-12)
    assert contrast((1.0, logs[0]), (-1.0, None)) is None


@pytest.mark.parametrize(("spread", "message"), [(2e-7, False), (1e-5, True)])
def test_one_threshold_decides_whether_values_have_spread(spread: float, message: bool) -> None:
    """Whoever asks gets one answer: margin, findings, signs, contrasts of advice."""
    random = np.random.default_rng(2)
    logs = 0.05 + spread * random.normal(size=10)
    found = effect("", [logs])
    assert found.low is not None and found.high is not None
    assert (answer(found.low, found.high) == "differs") is message
    assert equal(logs) is not message
    assert bool(np.isfinite(signs(logs[None, :]).outlier_p[0])) is message
    times = np.exp(logs)
    assert (contrast_of(times, np.ones(10), 1.0, 0.95).low is not None) is message
