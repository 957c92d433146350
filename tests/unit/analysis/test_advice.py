"""Choices with a known right answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from virtbed_analysis import AnalysisError
from virtbed_analysis.advice import Question, advise, read_prices
from virtbed_analysis.frames import read_sweep

from .conftest import Folder

RANDOM = np.random.default_rng(3)
APP = "image_classification"


def lay(folder: Folder, platform: str, mode: str, cores: int, ms: float, **changes: Any) -> None:
    """Six replicates of a hundred requests; two in a hundred take three times as long."""
    for replicate in range(1, 7):
        own = ms * float(np.exp(0.01 * RANDOM.standard_normal()))
        times = [own] * 98 + [3 * own] * 2
        folder.trial(platform, mode, replicate, {"a": times}, cores=cores, **changes)


@pytest.fixture
def sizes(folder: Folder) -> Folder:
    lay(folder, "bm", "pinned", 1, 100)
    lay(folder, "bm", "pinned", 2, 55)
    lay(folder, "cn", "pinned", 2, 56)
    lay(folder, "cn", "vanilla", 1, 150)
    return folder


def ask(folder: Folder, **question: Any) -> dict[str, Any]:
    answer = advise(read_sweep(folder.path), Question(APP, **question))
    json.dumps(answer, allow_nan=False)
    return answer


def named(cell: dict[str, Any] | None) -> tuple[str, str, int] | None:
    return (cell["platform"], cell["mode"], cell["cores"]) if cell else None


def test_without_a_bound_the_fastest(sizes: Folder) -> None:
    answer = ask(sizes)
    assert named(answer["choice"]) == ("bm", "pinned", 2)
    assert named(answer["runner_up"]) == ("cn", "pinned", 2)
    assert answer["because"] == "The fastest of 4."


def test_a_clear_choice_says_so_and_a_close_one_does_too(sizes: Folder) -> None:
    clear = ask(sizes, cores_max=1)
    assert float(clear["sure"].split()[3]) == pytest.approx(1.5, rel=0.05)
    assert clear["sure"].endswith("95%): clearly more.")
    lay(sizes, "vm", "pinned", 1, 100)
    assert ask(sizes, platforms=("vm", "bm"), cores_max=1)["sure"].endswith("may swap them.")


def test_with_a_bound_the_fewest_cores_that_hold_it_whole(sizes: Folder) -> None:
    assert named(ask(sizes, slo_ms=330)["choice"]) == ("bm", "pinned", 1)
    tight = ask(sizes, slo_ms=200)
    assert named(tight["choice"]) == ("bm", "pinned", 2)
    assert [named(left["cell"]) for left in tight["left_out"]] == [
        ("bm", "pinned", 1), ("cn", "vanilla", 1),
    ]  # fmt: skip
    assert "at most 200 asked of the whole interval" in tight["left_out"][0]["reason"]


def test_a_bound_within_the_interval_is_not_held(sizes: Folder) -> None:
    slowest = ask(sizes, platforms=("cn",), cores_max=1)["choice"]
    between = (slowest["p99_ms"] + slowest["p99_high_ms"]) / 2
    assert ask(sizes, platforms=("cn",), cores_max=1, slo_ms=between)["choice"] is None
    above = slowest["p99_high_ms"] * 1.001
    assert ask(sizes, platforms=("cn",), cores_max=1, slo_ms=above)["choice"] == slowest


def test_a_bound_that_nothing_holds_has_no_evidence(sizes: Folder) -> None:
    answer = ask(sizes, slo_ms=1)
    assert (answer["choice"], answer["sure"]) == (None, None)
    assert answer["because"].startswith("No evidence that any of the 4 cells")


def test_too_few_requests_show_no_99th_percentile(folder: Folder) -> None:
    for replicate in (1, 2):
        folder.trial("bm", "pinned", replicate, {"a": [10.0] * 99})
    (left,) = ask(folder, slo_ms=100)["left_out"]
    assert left["reason"] == "no p99: under 100 requests a trial"


def test_with_prices_the_cheapest_and_its_cost(sizes: Folder) -> None:
    prices = {("bm", 1, "cpu"): 1.0, ("bm", 2, "cpu"): 2.0, ("cn", 2, "cpu"): 1.2}
    answer = ask(sizes, prices=prices)
    assert named(answer["choice"]) == ("cn", "pinned", 2)
    mean_h = 56 * 1.04 / 3.6e6
    assert answer["choice"]["cost"] == pytest.approx(1.2 * mean_h * 1e6, rel=0.02)
    assert answer["choice"]["cost_low"] < answer["choice"]["cost"] < answer["choice"]["cost_high"]
    assert answer["left_out"][0]["reason"] == "no price of cn with 1 cores on cpu"
    assert "times the cost" in answer["sure"]


def test_wrong_answers_are_no_choice(folder: Folder) -> None:
    lay(folder, "bm", "pinned", 1, 100)
    lay(folder, "cn", "pinned", 1, 50, answers="d")
    answer = ask(folder)
    assert named(answer["choice"]) == ("bm", "pinned", 1)
    assert answer["left_out"][0]["reason"] == "its answers are not those of bare metal"


def test_emulated_results_are_no_evidence(folder: Folder) -> None:
    lay(folder, "vm", "pinned", 1, 100, emulated=True)
    assert ask(folder)["because"] == (
        "No evidence: the sweep has no real (not emulated) result of image_classification, trained."
    )


def test_best_of_many_alike_is_rarely_called_clear() -> None:
    """Ten cells that do not differ: at most one sweep in twenty may say that the best is better."""
    from virtbed_analysis.advice import _sure

    clear = 0
    for _ in range(1000):
        cells = [
            {"_logs": dict(enumerate(RANDOM.standard_normal(6) / 50)), "cores": 1}
            for _ in range(10)
        ]
        cells.sort(key=lambda cell: sum(cell["_logs"].values()))
        clear += "clearly" in str(_sure(Question(APP), cells))
    assert clear / 1000 < 0.05


def test_prices_are_read(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("platform,cores,processor,price_per_hour,note\nvm,2,cpu,0.19,x\n")
    assert read_prices(file) == {("vm", 2, "cpu"): 0.19}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("platform,cores\nvm,2\n", "columns platform, cores found, .*price_per_hour needed"),
        ("platform,cores,processor,price_per_hour\nvm,two,cpu,1\n", "line 2 has vm, two, cpu, 1;"),
        ("platform,cores,processor,price_per_hour\nvm,2,cpu,0\n", "a positive price needed"),
        ("platform,cores,processor,price_per_hour\nvm,2,,1\n", "line 2 has vm, 2, None, 1"),
        ("platform,cores,processor,price_per_hour\nvm,2,cpu,1\nvm,2,cpu,2\n", "line 3 .* again"),
    ],
)
def test_bad_prices_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(text)
    with pytest.raises(AnalysisError, match=message):
        read_prices(file)
