"""Choices with a known right answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed_analysis import AnalysisError
from virtbed_analysis.advice import Question, advise, read_prices
from virtbed_analysis.frames import read_sweep

from .conftest import Folder, failure

RANDOM = np.random.default_rng(3)
APP = "image_classification"


def lay(folder: Folder, platform: str, mode: str, cores: int, ms: float, **changes: Any) -> None:
    """Six replicates of a hundred requests; two in a hundred take three times as long."""
    for replicate in range(1, 7):
        own = ms * float(np.exp(0.01 * RANDOM.standard_normal()))
        times = ([own] * 49 + [3 * own]) * 2
        folder.trial(platform, mode, replicate, {"a": times}, cores=cores, **changes)


@pytest.fixture
def sizes(folder: Folder) -> Folder:
    lay(folder, "bm", "pinned", 1, 100)
    lay(folder, "bm", "pinned", 2, 55)
    lay(folder, "cn", "pinned", 2, 57.5)
    lay(folder, "cn", "vanilla", 1, 150)
    return folder


def fail(folder: Folder, message: str, replicates: range, **cell: Any) -> None:
    for replicate in replicates:
        trial = folder.plan(replicate=replicate, **cell)["id"]
        folder.write(f"trials/{trial}/failure.json", failure(trial, message))


def ask(folder: Folder, **question: Any) -> dict[str, Any]:
    answer = advise(read_sweep(folder.path), Question(APP, **question))
    json.dumps(answer, allow_nan=False)
    return answer


def named(cell: dict[str, Any] | None) -> tuple[str, str, int] | None:
    return (cell["platform"], cell["mode"], cell["cores"]) if cell else None


def reasons(answer: dict[str, Any]) -> dict[tuple[str, str, int] | None, str]:
    return {named(left["cell"]): left["reason"] for left in answer["left_out"]}


def test_without_a_bound_the_fastest_of_all(sizes: Folder) -> None:
    answer = ask(sizes, margin=0.01)
    assert (answer["answer"], named(answer["choice"])) == ("best", ("bm", "pinned", 2))
    assert [named(cell) for cell in answer["may_be_best"]] == [("bm", "pinned", 2)]
    assert named(answer["runner_up"]) == ("cn", "pinned", 2)
    assert answer["because"] == "The fastest of 4."
    assert answer["choice"]["name"] == "bare metal, pinned, 2 cores"
    times = [answer["choice"][f"e2e{end}_ms"] for end in ("_least", "", "_most")]
    assert times == sorted(times) and times[1] == pytest.approx(55 * 1.04, rel=0.02)


def test_what_is_said_of_the_runner_up_agrees_with_its_interval(sizes: Folder) -> None:
    clear = ask(sizes, cores_max=1)
    assert float(clear["sure"].split()[3]) == pytest.approx(1.5, rel=0.05)
    assert clear["sure"].endswith("95%): clearly more.")
    over = clear["runner_up"]["over"]
    assert f"({over['low']:.3f} to {over['high']:.3f}, 95%)" in clear["sure"] and over["low"] > 1
    lay(sizes, "vm", "pinned", 1, 100)
    same = ask(sizes, platforms=("vm", "bm"), cores_max=1)
    assert (same["answer"], len(same["may_be_best"])) == ("equivalent", 2)
    assert "clearly" not in same["sure"]
    exact = ask(sizes, platforms=("vm", "bm"), cores_max=1, margin=0.0001)
    assert exact["answer"] == "cannot tell" and exact["more_replicates"] > 10
    assert exact["because"] == "2 cells may be the fastest of the 2 suitable cells."
    assert "the two cannot be distinguished" in exact["sure"]
    assert exact["sure"].endswith(" more replicates would decide, if the ratios are as measured.")


def test_with_a_bound_the_fewest_cores_of_which_no_instance_broke_it(sizes: Folder) -> None:
    loose = ask(sizes, slo_ms=330)
    assert (loose["answer"], named(loose["choice"])) == ("best", ("bm", "pinned", 1))
    assert loose["sure"] == "The runner-up needs more cores."
    assert loose["choice"]["slo"]["verdict"] == "not seen broken"
    assert loose["notes"][0] == (
        "0 of 6 instances broke 330 ms at p99; up to 62% may (82% for all cells at once)."
    )
    tight = ask(sizes, slo_ms=200)
    assert named(tight["choice"]) == ("bm", "pinned", 2)
    assert reasons(tight) == {
        ("bm", "pinned", 1): "6 of 6 instances broke 200 ms at p99; 21% to 100% may",
        ("cn", "vanilla", 1): "6 of 6 instances broke 200 ms at p99; 21% to 100% may",
    }


@pytest.mark.parametrize("together", [False, True])
def test_slow_requests_that_come_together_tell_less(folder: Folder, together: bool) -> None:
    for replicate in range(1, 4):
        times = [20.0 + 0.01 * replicate] * 120
        for place in range(12):
            times[place if together else 10 * place] = 30.0
        folder.trial("bm", "pinned", replicate, {"a": times[:60], "b": times[60:]})
    answer = ask(folder, slo_ms=50)
    rows = answer["candidates"] or [row["cell"] for row in answer["left_out"]]
    assert (rows[0]["slo"]["apart"] < 0.2) == together
    assert answer["answer"] == ("cannot tell" if together else "best")
    text = " ".join([*answer["notes"], *reasons(answer).values()])
    assert ("of which bursts leave 10% independent" in text) == together
    assert ("Slow requests are not clustered here" in text) != together


def test_one_instance_in_ten_that_breaks_a_bound_breaks_it(folder: Folder) -> None:
    for replicate in range(1, 11):
        times = [60.0 if replicate == 4 else 20.0] * 100
        folder.trial("bm", "pinned", replicate, {"a": times})
    answer = ask(folder, slo_ms=50)
    assert (answer["answer"], answer["choice"]) == ("none", None)
    assert list(reasons(answer).values()) == [
        "1 of 10 instances broke 50 ms at p99; 0.1% to 70% may"
    ]
    assert ask(folder, slo_ms=60)["choice"]["slo"]["verdict"] == "not seen broken"


def test_the_queue_is_part_of_the_wait(folder: Folder) -> None:
    def queued(result: dict[str, Any]) -> None:
        for sample in result["samples"]:
            sample["queue_ns"] += 1_000_000_000

    for replicate in (1, 2, 3):
        trial = folder.trial("bm", "pinned", replicate, {"a": [20.0] * 100}, scenario="server")
        folder.edit(f"trials/{trial}/result.json", queued)
    assert ask(folder, slo_ms=50, scenario="server")["choice"] is None
    answer = ask(folder, slo_ms=1_100, scenario="server")
    assert answer["choice"]["p99_ms"] == pytest.approx(1_020, rel=1e-3)
    assert answer["choice"]["latency_ms"] == pytest.approx(1_020, rel=1e-3)
    assert answer["question"]["compared"] == "latency"


def test_a_bound_that_nothing_keeps_has_no_evidence(sizes: Folder) -> None:
    answer = ask(sizes, slo_ms=1)
    assert (answer["answer"], answer["choice"], answer["sure"]) == ("none", None, None)
    assert answer["because"].startswith("No evidence that any of the 4 cells")


def test_too_few_requests_show_no_99th_percentile(folder: Folder) -> None:
    for replicate in (1, 2):
        folder.trial("bm", "pinned", replicate, {"a": [10.0] * 99})
    answer = ask(folder, slo_ms=100)
    assert (answer["answer"], answer["choice"]) == ("cannot tell", None)
    assert list(reasons(answer).values()) == ["no p99: under 100 requests per trial"]


def test_a_smaller_cell_of_which_it_cannot_be_decided_keeps_the_answer_open(folder: Folder) -> None:
    for replicate in range(1, 6):
        folder.trial("bm", "pinned", replicate, {"a": [10.0] * 50}, cores=1)
        folder.trial("bm", "pinned", replicate, {"a": [9.0] * 100}, cores=2)
    answer = ask(folder, slo_ms=100)
    assert (answer["answer"], named(answer["choice"])) == ("cannot tell", ("bm", "pinned", 2))
    assert ("bm", "pinned", 1) in [named(cell) for cell in answer["may_be_best"]]


def test_a_runner_up_that_is_slower_by_less_than_the_margin_will_do_as_well(folder: Folder) -> None:
    for replicate in range(1, 7):
        for platform, ms in (("bm", 10.0), ("cn", 10.1)):
            noise = 1 + 0.001 * (replicate % 3) * (1 if platform == "bm" else 1.5)
            folder.trial(platform, "pinned", replicate, {"a": [ms * noise]})
    answer = ask(folder)
    assert answer["answer"] == "best" and len(answer["equivalent"]) == 2
    assert answer["sure"].endswith("more, but by less than 3%, so either is suitable.")


def test_copies_and_single_replicates_are_not_said_to_differ_too_much(folder: Folder) -> None:
    for replicate in range(1, 4):
        for platform in ("bm", "cn"):
            folder.trial(platform, "pinned", replicate, {"a": [10.0]})
    assert "alike to the last digit: no interval" in ask(folder)["sure"]
    for platform in ("bm", "cn"):
        folder.trial(platform, "pinned", 1, {"a": [10.0]}, application="faces")
    once = advise(read_sweep(folder.path), Question("faces"))
    assert once["sure"].endswith("from one replicate. Measure both in several replicates.")


def test_a_cost_of_the_work_alone_says_that_no_wait_is_in_it(folder: Folder) -> None:
    lay(folder, "bm", "pinned", 1, 10, scenario="server")
    lay(folder, "cn", "pinned", 1, 20, scenario="server")
    prices = {("bm", 1, "cpu"): 1.0, ("cn", 1, "cpu"): 0.1}
    advice = ask(folder, scenario="server", prices=prices)
    assert any("how long requests wait" in note for note in advice["notes"])
    bounded = ask(folder, scenario="server", prices=prices, slo_ms=1000.0)
    assert not any("how long requests wait" in note for note in bounded["notes"])


def test_with_prices_the_cheapest_and_its_cost(sizes: Folder) -> None:
    prices = {("bm", 1, "cpu"): 1.0, ("bm", 2, "cpu"): 2.0, ("cn", 2, "cpu"): 1.2}
    answer = ask(sizes, prices=prices)
    assert (answer["answer"], named(answer["choice"])) == ("best", ("cn", "pinned", 2))
    mean_h = 57.5 * 1.04 / 3.6e6
    assert answer["choice"]["cost"] == pytest.approx(1.2 * mean_h * 1e6, rel=0.02)
    assert answer["choice"]["cost_least"] < answer["choice"]["cost"] < answer["choice"]["cost_most"]
    assert reasons(answer)["cn", "vanilla", 1] == "no price for cn with 1 core on cpu"
    assert "times the cost" in answer["sure"]


def test_cost_is_linear_in_time(folder: Folder) -> None:
    """One replicate in five takes four times as long: 16 on average, 13.2 by logarithms."""
    for replicate in range(1, 11):
        time = 40.0 if replicate % 5 == 0 else 10.0
        folder.trial("cn", "pinned", replicate, {"a": [time] * 10})
    cost = ask(folder, prices={("cn", 1, "cpu"): 3.6})["choice"]["cost"]
    assert cost == pytest.approx(16.0)


def test_wrong_answers_are_no_choice(folder: Folder) -> None:
    lay(folder, "bm", "pinned", 1, 100)
    lay(folder, "cn", "pinned", 1, 50, answers="d")
    answer = ask(folder)
    assert named(answer["choice"]) == ("bm", "pinned", 1)
    assert answer["left_out"][0]["reason"] == "its answers differ from bare metal's"


def test_emulated_results_are_no_evidence(folder: Folder) -> None:
    lay(folder, "vm", "pinned", 1, 100, emulated=True)
    assert ask(folder)["because"] == (
        "No evidence: the sweep has no real (not emulated) result of image_classification, trained."
    )


def test_a_platform_that_fails_more_often_is_not_chosen(folder: Folder) -> None:
    for replicate in range(1, 11):
        folder.trial("bm", "pinned", replicate, {"a": [100.0, 101.0]})
    for replicate in range(1, 5):
        folder.trial("cn", "pinned", replicate, {"a": [80.0, 81.0]})
    fail(folder, "port <22> taken", range(5, 11), platform="cn", mode="pinned")
    answer = ask(folder)
    assert named(answer["choice"]) == ("bm", "pinned", 1)
    assert reasons(answer)["cn", "pinned", 1] == (
        "6 of 10 trials failed; up to 85% may be lost: more than the 0 of 10 of another candidate"
    )
    alone = ask(folder, platforms=("cn",))
    assert named(alone["choice"]) == ("cn", "pinned", 1)
    assert "Its trials: 6 of 10 trials failed; up to 85% may be lost." in alone["notes"]
    assert (alone["choice"]["failed"], alone["choice"]["replicates"]) == (6, 4)


def test_one_failure_is_said_and_does_not_change_the_choice(sizes: Folder) -> None:
    fail(sizes, "port <22> taken", range(7, 8), platform="bm", mode="pinned", cores=2)
    answer = ask(sizes, margin=0.01)
    assert named(answer["choice"]) == ("bm", "pinned", 2)
    assert "Its trials: 1 of 7 trials failed; up to 52% may be lost." in answer["notes"]


@pytest.mark.parametrize(
    "message",
    [
        "trial_process: still running after 300 s; raise timeout_s in the plan",
        "the playbook block hung in the task x: it did not end within 900 s, and was ended",
        "Timed out",
    ],
)
def test_slow_trials_that_were_ended_do_not_flatter_their_cell(
    folder: Folder, message: str
) -> None:
    """What ended took 90 ms, what did not may have taken 300: no reason to prefer it to 100."""
    for replicate in range(1, 7):
        folder.trial("bm", "pinned", replicate, {"a": [100.0 + replicate] * 3})
        if replicate < 6:
            folder.trial("cn", "pinned", replicate, {"a": [90.0 + replicate] * 3})
    fail(folder, message, range(6, 7), platform="cn", mode="pinned")
    answer = ask(folder)
    assert named(answer["choice"]) == ("bm", "pinned", 1)
    explained = reasons(answer)["cn", "pinned", 1]
    assert explained.startswith("1 of 6 trials failed (1 at a time limit)")
    assert "the slow ones may be missing" in explained
    alone = ask(folder, platforms=("cn",))
    assert alone["choice"]["survivors_only"]
    assert "Its times are those of the trials that succeeded" in " ".join(alone["notes"])
    folder.trial("vm", "pinned", 1, {"a": [91.0] * 3})
    fail(folder, message, range(2, 4), platform="vm", mode="pinned")
    both = ask(folder, platforms=("cn", "vm"))
    assert both["sure"].endswith("No number of replicates can show what the lost trials hide.")


def test_a_cell_that_never_gave_a_result_is_named(sizes: Folder) -> None:
    fail(sizes, "no boot", range(1, 4), platform="vm", mode="pinned", cores=2)
    assert reasons(ask(sizes)) == {
        ("vm", "pinned", 2): "no result to choose by: 3 of 3 trials failed"
    }
    assert reasons(ask(sizes, cores_max=1))["vm", "pinned", 2] == "2 cores, at most 1 required"


def test_what_loadgen_calls_invalid_is_no_evidence(sizes: Folder) -> None:
    def invalid(result: dict[str, Any]) -> None:
        result["loadgen"] |= {"validity": "INVALID", "reasons": ["Min duration: no"]}

    for path in sorted((sizes.path / "trials").glob("bm-pinned-c02*")):
        sizes.edit(f"trials/{path.name}/result.json", invalid)
    answer = ask(sizes)
    assert named(answer["choice"]) == ("cn", "pinned", 2)
    assert "LoadGen calls 6 of 6 trials INVALID" in reasons(answer)["bm", "pinned", 2]
    some = sorted((sizes.path / "trials").glob("cn-pinned-c02*"))[0]
    sizes.edit(f"trials/{some.name}/result.json", invalid)
    choice = ask(sizes)["choice"]
    assert (choice["invalid"], choice["replicates"]) == (1, 5)


def test_a_quick_run_that_loadgen_finds_short_is_evidence(sizes: Folder) -> None:
    def with_reason(reason: str, rules: str = "quick") -> dict[str, Any]:
        sweep = read_sweep(sizes.path)
        said = {
            "loadgen_validity": pl.lit("INVALID"),
            "loadgen_reasons": pl.lit([reason], dtype=pl.List(pl.String)),
            "rules": pl.lit(rules),
        }
        changed = replace(
            sweep,
            trials=sweep.trials.with_columns(**said),
            samples=sweep.samples.with_columns(**said),
        )
        return advise(changed, Question(APP))

    short = (
        " * Only processed 12 queries.  * Need to process at least 64 queries for early stopping."
    )
    explained = with_reason(short)
    assert named(explained["choice"]) == ("bm", "pinned", 2)
    assert "LoadGen calls 6 of its 6 trials INVALID for their length alone" in explained["notes"][1]
    assert with_reason(short, "study")["answer"] == "none"
    slow = with_reason(" * Run unsuccessful.  * Processed 96 queries.")
    assert slow["choice"] is None
    assert "INVALID (Run unsuccessful. Processed 96 queries.)" in slow["left_out"][0]["reason"]


def test_a_result_that_cannot_be_trusted_counts_against_its_cell(sizes: Folder) -> None:
    path = sorted((sizes.path / "trials").glob("bm-pinned-c02*"))[0]
    sizes.write(f"trials/{path.name}/result.json", "{")
    choice = ask(sizes, margin=0.01)["choice"]
    assert (named(choice), choice["rejected"], choice["replicates"]) == (("bm", "pinned", 2), 1, 5)


def test_suspect_trials_are_counted_next_to_it(folder: Folder) -> None:
    lay(folder, "bm", "pinned", 1, 100, confounders={"steal_share": 0.2})
    answer = ask(folder)
    assert answer["choice"]["suspect"] == 6
    assert "6 of its 6 trials are suspect: see the report." in answer["notes"]
    assert answer["without_suspects"] == {"answer": "none", "choice": None}
    lay(folder, "cn", "pinned", 1, 130)
    lay(folder, "bm", "vanilla", 1, 140)
    answer = ask(folder)
    assert named(answer["choice"]) == ("bm", "pinned", 1)
    assert "Without the suspect trials, it would be container, pinned, 1 core." in answer["notes"]


def test_of_survivors_alone_none_is_called_the_best(folder: Folder) -> None:
    for name, ms in (("bm", 100), ("cn", 150)):
        lay(folder, name, "pinned", 1, ms)
        fail(folder, "still running after 9 s", range(7, 8), platform=name, mode="pinned")
    answer = ask(folder)
    assert (answer["answer"], len(answer["may_be_best"])) == ("cannot tell", 2)
    assert "No candidate without such failures is left." in " ".join(answer["notes"])


def test_failures_of_no_known_cell_are_said(sizes: Folder) -> None:
    fail(sizes, "port taken", range(9, 10), platform="bm", mode="pinned", cores=2)
    (sizes.path / "design.json").unlink()
    assert "Failures that count against no cell: 1." in ask(sizes)["notes"][-1]


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
