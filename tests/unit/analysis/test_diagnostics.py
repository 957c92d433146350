"""Components, drift and the best number of samples, of sweeps whose truth is known."""

from __future__ import annotations

import itertools
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed_analysis import best_samples as read_by
from virtbed_analysis import diagnostics, report, samples_per_trial, words
from virtbed_analysis.diagnostics import MOST_POINTS, of_sweep, of_trials
from virtbed_analysis.document import document
from virtbed_analysis.figures import draw
from virtbed_analysis.frames import read_sweep

from .conftest import DEFAULTS

WITHIN, BETWEEN, COMMON = 0.05, 0.02, 0.04
KINDS = [("bm", "pinned"), ("cn", "vanilla"), ("cn", "pinned"), ("vm", "vanilla"), ("vm", "pinned")]
START = datetime(2026, 1, 2, tzinfo=UTC)


def ran(
    seed: int = 1,
    replicates: int = 40,
    samples: int = 30,
    hourly: float = 0.0,
    spread: tuple[float, float, float] = (WITHIN, BETWEEN, COMMON),
    trial_s: float = 60.0,
    unlike: float = 1.0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the samples and trials of a sweep: two inputs, requests of 20 ms, KINDS in order.

    `hourly` is a steady drift of the logarithm; `spread` within, between instances, common;
    `unlike` how many times as long the second input takes.
    """
    random = np.random.default_rng(seed)
    within, between, common = spread
    parts, trials = [], []
    for replicate in range(1, replicates + 1):
        shift = common * random.normal()
        for platform, mode in KINDS:
            position = len(trials) + 1
            hours = position * trial_s / 3600
            log = shift + between * random.normal() + hourly * hours
            noise = np.exp(within * random.normal(size=samples))
            name = f"{platform}-{mode}-r{replicate:02d}"
            about = {
                "trial": name, "host": "a", "platform": platform, "mode": mode, **DEFAULTS,
                "weights": "trained",
                "cores": 1, "application": "x", "scale": "trained", "scenario": "single_stream",
                "replicate": replicate, "position": position, "emulated": False,
                "started_at": (START + timedelta(hours=hours)).isoformat(),
                "machine": "metal" if platform != "vm" else "kvm",
                "enclosure": "process" if platform != "cn" else "docker",
            }  # fmt: skip
            trials.append(about | {"spawn_ns": 10**9, "import_ns": 0, "load_ns": 0,
                                   "first_call_ns": 0, "suspicions": []})  # fmt: skip
            times = 20e6 * math.exp(log) * noise * np.where(np.arange(samples) % 2, unlike, 1.0)
            parts.append(
                pl.DataFrame({"e2e_ns": times.astype(np.int64), "warmup": False})
                .with_row_index("n")
                .with_columns(input=(pl.col("n") % 2).cast(pl.String))
                .with_columns(**{key: pl.lit(value) for key, value in about.items()})
            )
    frame = pl.DataFrame(trials, schema_overrides={"suspicions": pl.List(pl.String)})
    whole = pl.concat(parts).join(frame.select("trial", "suspicions"), on="trial")
    return whole, frame


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return of_sweep(*ran())


def test_components_are_those_of_the_simulation(found: Any) -> None:
    (row,) = found["samples"]
    assert row["within"] == pytest.approx(WITHIN, rel=0.1)
    assert row["between"] == pytest.approx(BETWEEN, rel=0.15)
    assert row["common"] == pytest.approx(COMMON, rel=0.25)


def test_the_spread_between_instances_by_platform_includes_drift(found: Any) -> None:
    assert len(found["components"]) == len(KINDS)
    for row in found["components"]:
        assert row["within"] == pytest.approx(WITHIN, rel=0.1)
        assert row["between"] == pytest.approx(math.hypot(BETWEEN, COMMON), rel=0.35)
        squares = row["between"] ** 2, row["within"] ** 2
        assert row["icc"] == pytest.approx(squares[0] / sum(squares))


@pytest.mark.parametrize("between", [0.001, BETWEEN])
def test_inputs_of_unequal_length_add_no_spread_between_instances(between: float) -> None:
    """A logarithm of a sum over inputs has the spread of the long ones: there are fewer of those.

    The truth of the best number is by search: the variance of the mean of what a time allows.
    """
    spread, share = (0.1, between, 0.0), np.array([1.0, 100.0]) / 101
    found = of_sweep(*ran(spread=spread, unlike=100.0, samples=200))
    (row,) = found["samples"]
    assert row["within"] == pytest.approx(0.1, rel=0.1)
    assert row["between"] == pytest.approx(between, abs=0.004)
    assert all(one["between"] == pytest.approx(between, abs=0.006) for one in found["components"])
    left = 2 * 0.1**2 * float((share**2).sum())  # of one sample
    if between == BETWEEN:
        costs = {
            n: (between**2 + left / n) * (row["setup_s"] + n * row["sample_s"])
            for n in range(1, 400)
        }
        assert row["best"] == pytest.approx(min(costs, key=lambda n: costs[n]), rel=0.15)


def test_the_best_number_of_samples_is_where_time_times_variance_is_least() -> None:
    best = samples_per_trial.best_samples(WITHIN, BETWEEN, 58.0, 0.02)
    costs = {n: (BETWEEN**2 + WITHIN**2 / n) * (58.0 + 0.02 * n) for n in range(1, 1000)}
    assert min(costs, key=lambda n: costs[n]) == round(best)


def test_the_best_number_uses_the_time_from_start_to_start(found: Any) -> None:
    (row,) = found["samples"]
    assert row["setup_s"] == pytest.approx(60 - 30 * 0.02, rel=0.01)
    assert row["sample_s"] == pytest.approx(0.02, rel=0.1)
    exact = math.sqrt(row["setup_s"] / row["sample_s"]) * row["within"] / row["between"]
    assert row["best"] == pytest.approx(exact, rel=0.05)
    assert f"{row['best']} samples per trial would be best, not 30" in row["sentence"]
    assert row["longer"] == f"samples: {row['best']}"


def test_a_number_near_the_best_gives_no_recommendation() -> None:
    (row,) = of_sweep(*ran(samples=140, replicates=15))["samples"]
    assert "140 samples per trial are about as good" in row["sentence"]
    assert row["longer"] is None
    (row,) = of_sweep(*ran(samples=900, replicates=15))["samples"]
    assert "samples per trial would be best, not 900" in row["sentence"] and row["longer"] is None


def test_no_spread_between_instances_gives_no_number() -> None:
    (row,) = of_sweep(*ran(spread=(WITHIN, 0.0, 0.0), seed=5))["samples"]
    assert row["best"] is None or row["best"] > 200
    (row,) = of_sweep(*ran(replicates=2))["samples"]
    assert (row["best"], "not known" in row["sentence"]) == (None, True)


@pytest.mark.parametrize("hourly", [0.03, -0.03])
def test_a_steady_drift_is_reported(hourly: float) -> None:
    (row,) = of_sweep(*ran(replicates=12, hourly=hourly, spread=(0.01, 0.005, 0.002)))["drift"]
    assert row["low"] < hourly < row["high"]
    assert ("slower" if hourly > 0 else "faster") in row["sentence"]


def test_without_drift_one_sweep_of_twenty_reports_one() -> None:
    frame, _ = ran(replicates=8, samples=2)
    trials = of_trials(frame)
    random, seen = np.random.default_rng(3), 0
    for _ in range(400):
        shift = dict(enumerate(random.normal(size=9) * COMMON))
        noise = random.normal(size=trials.height) * BETWEEN
        common = np.array([shift[replicate] for replicate in trials["replicate"]])
        logs = trials.with_columns(deviation=pl.Series(noise + common))
        row = diagnostics._drift("a", logs)
        seen += row["low"] > 0 or row["high"] < 0
    assert 0.02 <= seen / 400 <= 0.08


def test_drift_within_replicates_is_reported() -> None:
    frame, _ = ran(replicates=10, samples=2)
    trials = of_trials(frame)
    wave = np.sin(np.arange(trials.height) / 4)
    row = diagnostics._drift("a", trials.with_columns(deviation=pl.Series(wave)))
    assert "the host drifts within replicates" in row["sentence"]
    assert "wanders" not in of_sweep(*ran(spread=(0.01, 0.02, 0.0)))["drift"][0]["sentence"]


def test_a_point_of_the_run_order_is_a_trial_or_the_mean_of_several() -> None:
    frame, trials = ran(replicates=5, samples=2)
    points = of_sweep(frame, trials)["run_order"]
    assert [point["first"] for point in points] == list(range(1, 26))
    assert points[1]["platform"] == "cn" and sum(p["deviation"] for p in points) == pytest.approx(0)
    many = of_trials(frame)
    many = pl.concat([many.with_columns(position=pl.col("position") + 25 * n) for n in range(90)])
    thin = diagnostics._run_order(many)
    assert len(thin) <= MOST_POINTS
    assert (thin[0]["first"], thin[-1]["last"], thin[0]["platform"]) == (1, many.height, None)


def test_unreadable_start_times_give_no_drift_and_no_error() -> None:
    frame, trials = ran(replicates=4, samples=2)
    odd = {"started_at": pl.lit("soon")}
    found = of_sweep(frame.with_columns(**odd), trials.with_columns(**odd))
    assert found["drift"][0]["slope"] is None
    assert found["samples"][0]["setup_s"] == 1.0  # what the start of the process took


def test_a_report_has_the_plot_the_sentences_and_the_tables(folder: Any) -> None:
    wobble = itertools.cycle([0.99, 1.0, 1.02, 0.985, 1.01, 1.003, 0.996])
    for replicate in range(1, 6):
        for platform, mode in KINDS[:3]:
            own = next(wobble)
            times = {"a": [20 * own * next(wobble) for _ in range(8)]}
            odd = {"steal_share": 0.2} if (replicate, platform) == (3, "bm") else None
            folder.trial(platform, mode, replicate, times, confounders=odd)
    page = report(folder.path).html.read_text()
    content = json.loads((folder.path / "report.json").read_text())
    assert 'id="run_order-1-' in page and "1 of them suspect" in page
    assert page.count("Order and drift</h2>") == 1 and 'id="components"' in page
    most = max(abs(row["bias_most"]) for row in content["drift"]["cells"])
    assert f"Drift changes no ratio by more than {words.percentage(most)} (95% confidence)" in page
    (slope,) = content["drift"]["slopes"]
    assert f"changed by {words.signed(slope['per_step'])} per {slope['unit']} (" in page
    (row,) = content["diagnostics"]["samples"]
    assert row["sentence"].replace("'", "&#39;") in page
    assert read_by(folder.path) == ([row] if row["best"] else [])
    assert read_by(folder.path / "nowhere") == []


def test_with_one_replicate_the_page_does_not_claim_that_nothing_drifted(folder: Any) -> None:
    for platform, mode in KINDS[:3]:
        folder.trial(platform, mode, 1, {"a": [20.0, 21.0]})
    page = report(folder.path).html.read_text()
    assert "The drift is unknown" in page
    assert "Drift changes" not in page


def test_an_empty_sweep_has_no_diagnostics(folder: Any) -> None:
    folder.plan("bm", "pinned", 1)
    content = document(read_sweep(folder.path))
    assert content["diagnostics"] == {
        "run_order": [], "drift": [], "components": [], "samples": []
    }  # fmt: skip
    assert "run_order" not in draw(content)
