"""The mixed-effects model: its intervals cover, or it is not shown."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from virtbed_analysis import report
from virtbed_analysis.cells import CELL
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.model import MOST_CELLS, UNLIKE, Unfit, fit, of_trials
from virtbed_analysis.next_instance import interval
from virtbed_analysis.platforms import Platforms
from virtbed_analysis.unmeasured import LEAST_SIZES, unmeasured

from . import simulation
from .conftest import DEFAULTS, LISTED

PLATFORMS = Platforms(LISTED)
KINDS = [("bm", "pinned"), ("cn", "vanilla"), ("cn", "pinned"), ("vm", "pinned")]
INSTANCE, TRIAL, COMMON = 0.01, 0.01, 0.03


def trials(
    random: np.random.Generator,
    replicates: int = 5,
    sizes: tuple[int, ...] = (1, 2),
    applications: tuple[str, ...] = ("x",),
    costs: Any = lambda platform, mode, cores, application: 0.0,
    noisy: dict[str, float] | None = None,
) -> pl.DataFrame:
    """Return a sweep's trials as `diagnostics.of_trials` has them, with a truth."""
    rows = []
    for replicate in range(1, replicates + 1):
        common = COMMON * random.normal()
        for (platform, mode), cores in itertools.product(KINDS, sizes):
            times = (noisy or {}).get(platform, 1.0)
            instance = times * INSTANCE * random.normal()
            for application in applications:
                noise = common + instance + times * TRIAL * random.normal()
                rows.append(
                    {
                        "host": "a",
                        "platform": platform,
                        "mode": mode,
                        **DEFAULTS,
                        "cores": cores,
                        "application": application,
                        "scale": "trained",
                        "scenario": "single_stream",
                        "replicate": replicate,
                        "log": 17.0 + noise + costs(platform, mode, cores, application),
                    }
                )
    frame = pl.DataFrame(rows)
    mean = pl.col("log").mean().over(CELL)
    return frame.with_columns((pl.col("log") - mean).alias("deviation"))


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_a_whole_sweep_are_those_of_analysis_of_variance(seed: int) -> None:
    """Which covers what it claims if the spread is one, and how much less if it is not."""
    sweep = trials(np.random.default_rng(seed), replicates=6)
    found = of_trials(sweep, PLATFORMS, [])
    assert found["reason"] is None
    logs = np.array([own["log"].to_list() for own in sweep.partition_by(CELL, maintain_order=True)])
    rest = logs - logs.mean(axis=1, keepdims=True)
    rest -= rest.mean(axis=0)
    freedom = (len(logs) - 1) * 5
    half = stats.t.ppf(0.975, freedom) * math.sqrt(2 * float((rest**2).sum()) / freedom / 6)
    for row in found["rows"]:
        assert math.log(row["ratio_high"] / row["ratio"]) == pytest.approx(half, rel=0.02)
    assert found["freedom"] == freedom


@pytest.mark.parametrize(("noisier", "least", "most"), [(1.0, 0.93, 0.97), (2.0, 0.78, 0.89)])
def test_one_spread_for_all_covers_as_the_page_says(
    noisier: float, least: float, most: float
) -> None:
    """Two sizes of five platforms, of which one is noisier; those where that is seen left out."""
    random = np.random.default_rng(5)
    times = np.array([1, noisier, 1, 1, 1])[None, :, None, None]
    logs = random.normal(size=(2000, 5, 2, 5)) * times
    rest = logs - logs.mean(axis=3, keepdims=True)
    rest -= rest.mean(axis=(1, 2), keepdims=True)
    half = stats.t.ppf(0.975, 36) * np.sqrt(2 * (rest**2).sum(axis=(1, 2, 3)) / 36 / 5)
    by_platform = rest.reshape(2000, 5, -1)
    alike = stats.levene(*np.moveaxis(by_platform, 1, 0), axis=1).pvalue >= UNLIKE
    ratio = np.abs(logs.mean(axis=3)[:, 1] - logs.mean(axis=3)[:, 0])
    assert least <= float((ratio[alike] <= half[alike, None]).mean()) <= most


def test_fits_of_two_applications_that_share_instances_cover() -> None:
    """A coarse check, since a fit is slow: 20 sweeps of 12 ratios each."""
    random, covered = np.random.default_rng(2112), []
    for _ in range(20):
        found = of_trials(trials(random, applications=("x", "y")), PLATFORMS, [])
        covered += [row["ratio_low"] <= 1 <= row["ratio_high"] for row in found["rows"]]
    assert len(covered) > 100
    assert np.mean(covered) > 0.88


@pytest.mark.parametrize("replicates", [3, 5, 10, 30])
@pytest.mark.parametrize("noisier", [0.5, 1.0, 4.0])
def test_prediction_intervals_cover_the_next_instance(replicates: int, noisier: float) -> None:
    """The spread of other platforms has no influence, since a cell's own replicates are used."""
    random = np.random.default_rng(replicates)
    logs = INSTANCE * np.hypot(1, noisier) * random.normal(size=(2000, replicates + 1))
    ends = np.array([interval(own[:-1]) for own in logs])
    inside = (ends[:, 0] <= logs[:, -1]) & (logs[:, -1] <= ends[:, 1])
    assert 0.93 <= float(inside.mean()) <= 0.97


def test_prediction_intervals_cover_with_the_noise_of_a_shared_machine() -> None:
    """With drift and one trial of twenty slowed, coverage is two points lower."""
    noise = np.full(2000, 0.03)
    logs = simulation.log_ratios(np.random.default_rng(1), noise, 9)
    ends = np.array([interval(own[:-1]) for own in logs])
    inside = (ends[:, 0] <= logs[:, -1]) & (logs[:, -1] <= ends[:, 1])
    assert 0.92 <= float(inside.mean()) <= 0.97


def test_its_ratios_are_the_plain_ones_and_its_intervals_narrower(folder: Any) -> None:
    random = np.random.default_rng(3)
    for replicate in range(1, 4):
        drift = math.exp(0.03 * random.normal())
        for (platform, mode), cores in itertools.product(KINDS, (1, 2)):
            own = 20 * drift * math.exp(0.01 * random.normal())
            folder.trial(platform, mode, replicate, {"a": [own]}, cores=cores)
    content = document(read_sweep(folder.path))
    found = content["model"]
    assert found["reason"] is None
    assert len(found["rows"]) == len(content["next_instance"]) == 6
    for row, predicted in zip(found["rows"], content["next_instance"], strict=True):
        assert predicted["low"] < row["plain_low"] < row["plain_high"] < predicted["high"]
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["plain"], rel=1e-6)
    widths = [
        [math.log(row[f"{kind}_high"] / row[f"{kind}_low"]) for row in found["rows"]]
        for kind in ("ratio", "plain")
    ]
    assert np.median(widths[0]) < 0.7 * np.median(widths[1])
    page = report(folder.path).html.read_text()
    assert 'id="next-instance"' in page and 'id="model"' in page
    assert "its interval by the model covers about 85%" in page
    assert "not measured: no platform was measured at enough sizes" in page


@pytest.mark.parametrize("noisy", ["cn", "bm"])
def test_no_model_is_shown_if_one_platform_is_noisier(noisy: str) -> None:
    random = np.random.default_rng(4)
    reasons = [
        of_trials(trials(random, replicates=8, noisy={noisy: 4.0}), PLATFORMS, [])["reason"]
        for _ in range(20)
    ]
    differing = [reason for reason in reasons if reason and "the spread differs between" in reason]
    assert len(differing) >= 17
    words = {"cn": "container, ", "bm": "bare metal, "}[noisy]
    assert any(f"for {words}" in reason and f"({noisy} " in reason for reason in differing)


def test_an_interaction_is_reported_with_its_size() -> None:
    def costs(platform: str, mode: str, cores: int, application: str) -> float:
        return {"cn": 0.3 / cores, "vm": 0.1, "bm": 0.0}[platform]

    random = np.random.default_rng(6)
    for _ in range(10):  # of which one or two may be refused
        sweep = trials(random, costs=costs, applications=("x", "y"))
        found = of_trials(sweep, PLATFORMS, [])
        if found["reason"] is None:
            break
    by_factor = {row["about"]: row for row in found["interactions"]}
    assert by_factor["size"]["seen"]
    assert by_factor["size"]["most"] == pytest.approx(math.exp(0.15), abs=0.05)
    assert by_factor["size"]["where"].startswith("container")
    assert set(by_factor) == {"size", "mode", "application"}


def test_without_an_interaction_one_is_seldom_reported() -> None:
    random = np.random.default_rng(7)
    fits = [of_trials(trials(random), PLATFORMS, [])["interactions"] for _ in range(25)]
    wrong = [any(row["seen"] for row in rows) for rows in fits if rows]
    assert np.mean(wrong) <= 0.2


def test_a_fit_that_does_not_converge_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.regression import mixed_linear_model

    whole = mixed_linear_model.MixedLM.fit

    def stopped(self: Any, **options: Any) -> Any:
        found = whole(self, **options)
        found.converged = False
        return found

    monkeypatch.setattr(mixed_linear_model.MixedLM, "fit", stopped)
    found = of_trials(trials(np.random.default_rng(1)), PLATFORMS, [])
    assert (found["reason"], found["rows"]) == ("the fit does not converge.", [])


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (trials(np.random.default_rng(1), replicates=2), "2 replicates of 8 cells found"),
        (
            trials(np.random.default_rng(1), sizes=tuple(range(1, 30))),
            rf"116 cells found, at most {MOST_CELLS} are fitted",
        ),
        (
            trials(np.random.default_rng(1)).with_columns(
                host=pl.when(pl.col("replicate") > 2).then(pl.lit("b")).otherwise(pl.lit("a"))
            ),
            "2 hosts found",
        ),
        (trials(np.random.default_rng(1)).with_columns(log=pl.lit(17.0)), "alike to the last"),
        (trials(np.random.default_rng(1)).head(0), "0 replicates of 0 cells"),
    ],
)
def test_a_sweep_that_cannot_be_fitted_has_a_reason(frame: pl.DataFrame, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        fit(frame)


def test_a_report_without_a_model_gives_the_reason_and_imports_no_statsmodels(folder: Any) -> None:
    """In earlier tests, it may have been imported: only the page is looked at then."""
    before = "statsmodels" in sys.modules
    folder.trial("bm", "pinned", 1, {"a": [10.0]})
    folder.trial("cn", "pinned", 1, {"a": [11.0]})
    page = report(folder.path).html.read_text()
    assert "No model is shown: 0 replicates of 0 cells found" in page
    assert before or "statsmodels" not in sys.modules


SIZES = np.array([1.0, 2, 4, 8, 16, 32])


def test_a_size_between_is_predicted_with_the_error_of_leaving_one_out() -> None:
    random, covered, shown = np.random.default_rng(8), [], 0
    for _ in range(500):
        found = unmeasured(SIZES, 0.05 + 0.4 / SIZES + 0.01 * random.normal(size=len(SIZES)))
        assert found["error"] < 0.3
        shown += found["why"] is None
        for row in found["predicted"]:
            truth = math.exp(0.05 + 0.4 / row["cores"] + 0.01 * random.normal())
            covered.append(row["low"] <= truth <= row["high"])
    assert {row["cores"] for row in unmeasured(SIZES, 0.4 / SIZES)["predicted"]} <= {3, 6, 12, 24}
    assert shown / 500 > 0.6
    assert 0.93 <= np.mean(covered) <= 0.975


def test_a_curve_that_does_not_fit_its_form_predicts_nothing() -> None:
    logs = 0.05 + 0.4 / SIZES + np.array([0, 0.001, -0.001, 0.001, 0, 0.3])
    found = unmeasured(SIZES, logs)
    assert found["predicted"] == []
    assert "1 of 6 sizes are outside the intervals that the others predict for them" in found["why"]


def test_too_few_sizes_predict_nothing() -> None:
    found = unmeasured(SIZES[: LEAST_SIZES - 1], np.zeros(LEAST_SIZES - 1))
    assert found["why"] == "4 of at least 5 sizes measured"
    assert (found["predicted"], found["error"]) == ([], None)


def test_a_report_predicts_sizes_of_a_curve_that_fits_its_form(folder: Any) -> None:
    random = np.random.default_rng(12)
    for replicate, cores in itertools.product(range(1, 5), (1, 2, 4, 8, 16)):
        for platform, cost in (("bm", 0.0), ("cn", 0.02 + 0.3 / cores)):
            own = 20 * math.exp(cost + 0.002 * random.normal())
            folder.trial(platform, "pinned", replicate, {"a": [own]}, cores=cores)
    found = document(read_sweep(folder.path))["model"]
    (row,) = found["sizes"]
    assert (row["measured"], row["why"]) == ([1, 2, 4, 8, 16], None)
    assert [one["cores"] for one in row["predicted"]] == [3, 6, 12]
    for one in row["predicted"]:
        assert one["low"] < math.exp(0.02 + 0.3 / one["cores"]) < one["high"]
    assert "3 cores: " in report(folder.path).html.read_text()
