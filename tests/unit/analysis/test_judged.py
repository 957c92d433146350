"""Every section uses the measure that a scenario is judged by: sweeps with a known truth.

In each scenario the container's requests take 1.1 times as long as bare metal's. What a user pays
is another figure where requests wait, or are a batch: that is what pages and advice must show.
"""

from __future__ import annotations

import json
import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed.render.results import advice_legend, advice_lines, advice_table, comparison_tables
from virtbed_analysis import calibration, drift, figures, per_trial
from virtbed_analysis.advice import Question, advise
from virtbed_analysis.comparison import compare
from virtbed_analysis.document import document
from virtbed_analysis.effects import of_sweep
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.frames import Sweep, load, read_sweep, write_parquet
from virtbed_analysis.page import render, render_comparison
from virtbed_analysis.precision import log_means, unneeded_trials
from virtbed_contract.factors import SCENARIOS
from virtbed_contract.measures import JUDGED_BY, Judged

from .conftest import Folder, Json
from .test_latency import load as lay

REPLICATES = range(1, 7)
E2E_MS = 20.0
SERVICE = 1.1
"""Ratio of a request's time in the container to bare metal."""
# The wait of one request in the queue of a server, in ms: bare metal's, and the container's.
WAITS = 5.0, 50.0
SIZE, QUERIES, BATCH = 4, 25, 100
# The time that a scenario is judged by, of bare metal and of the container, in ms.
TRUTH = {
    "single_stream": (E2E_MS, SERVICE * E2E_MS),
    "server": (E2E_MS + WAITS[0], SERVICE * E2E_MS + WAITS[1]),
    "multi_stream": (SIZE * E2E_MS + 0.01, SIZE * SERVICE * E2E_MS + 0.01 + 30.0),
    "offline": (E2E_MS, SERVICE * E2E_MS + 3.0),
}


def waits_of(
    scenario: str, e2e_ms: float, container: bool, noise: float
) -> tuple[list[float], int]:
    """Return the wait of each sample, and the number of queries.

    The container loses time between requests, too, in which none is served: that is in the wait of
    those which follow, and in no request's own time.
    """
    if scenario == "multi_stream":
        lost = 30.0 * noise if container else 0.0
        waits = [0.01 * noise + place * e2e_ms for place in range(SIZE)]
        waits[-1] += lost
        return waits * QUERIES, QUERIES
    if scenario == "offline":
        lost = 3.0 * noise if container else 0.0
        return [place * e2e_ms + (place + 1) * lost for place in range(BATCH)], 1
    wait = 0.004 if scenario == "single_stream" else WAITS[container] * noise
    return [wait] * BATCH, BATCH


def sweep_of(folder: Folder, scenario: str, seed: int = 5) -> Folder:
    """Write a sweep of bare metal and a container with little noise."""
    chance = np.random.default_rng(seed)
    for replicate in REPLICATES:
        for platform in ("bm", "cn"):
            container = platform == "cn"
            noise = math.exp(0.002 * chance.standard_normal())
            e2e_ms = noise * E2E_MS * (SERVICE if container else 1.0)
            waits, queries = waits_of(scenario, e2e_ms, container, noise)
            trial = lay(
                folder, scenario, waits, platform=platform, replicate=replicate,
                e2e_ms=e2e_ms, queries=queries,
            )  # fmt: skip
            folder.edit(f"trials/{trial}/result.json", says_what_it_did)
    return folder


def says_what_it_did(result: Json) -> None:
    """Set LoadGen's figures to those of the samples."""
    scenario = result["settings"]["scenario"]
    measured = [s for s in result["samples"] if not s["warmup"]]
    took = [s["queue_ns"] + s["e2e_ns"] for s in measured]
    if scenario == "single_stream":
        took = [s["e2e_ns"] for s in measured]
    if scenario == "multi_stream":
        took = took[SIZE - 1 :: SIZE]
    took.sort()
    own: Json = {f"{p}.00": took[p * len(took) // 100] for p in (50, 90, 99)}
    rate = 1e9 * len(measured) / max(took) if scenario == "offline" else None
    result["loadgen"] |= {"percentiles_ns": own, "samples_per_second": rate}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("judged")
    return {name: sweep_of(Folder(place / name), name).path for name in SCENARIOS}


@pytest.fixture(scope="module")
def read(sweeps: dict[str, Path]) -> dict[str, Sweep]:
    return {name: read_sweep(path) for name, path in sweeps.items()}


@pytest.fixture(scope="module")
def contents(read: dict[str, Sweep]) -> dict[str, Json]:
    return {name: document(sweep) for name, sweep in read.items()}


@pytest.fixture(scope="module")
def pages(contents: dict[str, Json]) -> dict[str, str]:
    found = {name: unescape(render(content)) for name, content in contents.items()}
    return {name: " ".join(page.split()) for name, page in found.items()}


def truth(scenario: str) -> float:
    metal, container = TRUTH[scenario]
    return container / metal


def near(value: float, rel: float = 4e-3) -> Any:
    return pytest.approx(value, rel=rel)


def test_every_scenario_is_judged_by_a_measure() -> None:
    assert set(JUDGED_BY) == set(SCENARIOS)
    assert JUDGED_BY["offline"].better == "higher"
    assert {JUDGED_BY[name].name for name in ("server", "multi_stream")} == {"latency"}


def test_ratios_of_what_is_better_when_higher_are_of_its_inverse() -> None:
    own = {"name": "throughput", "unit": "1", "grain": "trial", "words": "throughput"}
    with pytest.raises(ValueError, match="its inverse if higher is"):
        Judged(**own, better="higher", time="throughput", meaning="M.")  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_ratio_of_the_document_is_of_the_judged_time(
    scenario: str, contents: dict[str, Json], read: dict[str, Sweep]
) -> None:
    content, true = contents[scenario], truth(scenario)
    metal, container = content["cells"]
    name = JUDGED_BY[scenario].name
    assert (metal["judged_by"], container["judged_by"]) == (name, name)
    assert container["ratio"] == near(true)
    assert container["ratio_low"] < true < container["ratio_high"]
    assert container["answer"] == "differs"
    assert metal["judged_typical_ms"] == near(TRUTH[scenario][0])
    assert container["judged_typical_ms"] == near(TRUTH[scenario][1])
    assert container["e2e_typical_ms"] == near(SERVICE * E2E_MS)
    assert content["judged_by"][scenario]["name"] == name
    (resolved,) = content["resolution"]["rows"]
    assert resolved["replicates"] == 6 and 1 < resolved["detectable"] < 1.02
    (ahead,) = content["next_instance"]
    assert ahead["low"] < true < ahead["high"] < 1.03 * true
    (modelled,) = content["model"]["rows"]
    assert (modelled["ratio"], modelled["plain"]) == (near(true), container["ratio"])
    (option,) = content["headline"]["applications"][0]["options"]
    assert option["cells"][0]["ratio"] == container["ratio"]
    (timed,) = content["drift"]["cells"]
    half = math.sqrt(container["ratio_high"] / container["ratio_low"]) - 1
    assert timed["half"] == near(half, 0.02)
    units = of_sweep(read[scenario].samples, read[scenario].platforms)
    costs = units.cost(units.cells(platform="cn")[0])
    assert costs is not None and math.exp(costs.mean()) == near(container["ratio"], 1e-9)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_page_shows_the_judged_ratio_and_names_its_measure(
    scenario: str, pages: dict[str, str], contents: dict[str, Json]
) -> None:
    page, true = pages[scenario], truth(scenario)
    shown = {float(text) for text in re.findall(r"\b\d\.\d{3}\b", page)}
    assert any(abs(value / true - 1) < 4e-3 for value in shown)
    judged = JUDGED_BY[scenario]
    lead = contents[scenario]["summary"]
    share = 100 * (true - 1)
    costs = re.findall(r"([\d.]+)% to ([\d.]+)% more", lead)
    assert costs, lead
    assert float(costs[0][0]) - 0.5 < share < float(costs[0][1]) + 0.5
    assert f"{judged.time} / pinned bare metal" in page
    assert f"{judged.time} against its cell's mean" in page
    if judged.name != "e2e":
        assert "e2e time / pinned bare metal" not in page
        assert re.search(rf"Ratios are of {judged.time}, [a-z ]+ \({scenario}\)\.", page)
        assert "Inputs that differ" not in page
    if judged.name == "throughput":
        less = 100 * (1 - 1 / true)
        reach = re.search(r"\(([\d.]+)% to ([\d.]+)% less throughput\)", lead)
        assert reach and float(reach[1]) < less < float(reach[2])
        assert f"{less:.1f}"[:-1] in page
        metal, container = contents[scenario]["loadgen"]["throughput"]
        assert metal["per_second"] == near(1000 / TRUTH[scenario][0])
        assert container["throughput_ratio"] == near(1 / true)
        assert container["throughput_ratio_low"] == near(
            1 / contents[scenario]["cells"][1]["ratio_high"]
        )
    elif judged.name == "latency":
        metal, container = contents[scenario]["loadgen"]["latency"]
        assert container["latency_ratio"] == contents[scenario]["cells"][1]["ratio"]
        assert container["e2e_ratio"] == near(SERVICE)
        assert container["latency_typical_ms"] == near(TRUTH[scenario][1])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_report_can_be_written_of_every_scenario(
    scenario: str, contents: dict[str, Json]
) -> None:
    """JSON has no NaN, which would stop the report of a sweep: see `page.report_of`."""
    json.dumps(contents[scenario], allow_nan=False)
    for row in contents[scenario]["diagnostics"]["components"]:
        assert (row["within"] is None) == (JUDGED_BY[scenario].grain == "trial")
        assert row["icc"] is None or scenario == "single_stream"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_loadgens_own_figures_are_ours(scenario: str, contents: dict[str, Json]) -> None:
    for cell in contents[scenario]["loadgen"]["cells"]:
        assert (cell["valid"], cell["trials"], cell["differ"]) == (6, 6, 0)
        if scenario == "offline":
            place = cell["platform"] == "cn"
            assert cell["per_second"]["loadgen"] == near(1000 / TRUTH[scenario][place])
            assert cell["percentiles"] == []
        else:
            assert all(
                row["ours_ms"]
                == row["loadgen_ms"]
                == near(TRUTH[scenario][cell["platform"] == "cn"])
                for row in cell["percentiles"]
            )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_figures_are_of_the_judged_time(scenario: str, contents: dict[str, Json]) -> None:
    drawn = figures.draw(contents[scenario])
    judged = JUDGED_BY[scenario]
    (panel,) = drawn["ratios"].panels
    assert f"{judged.time} / pinned bare metal" in panel
    (order,) = drawn["run_order"].panels
    assert f"{judged.time} against its cell's mean" in unescape(order)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_advice_compares_by_the_judged_time(scenario: str, read: dict[str, Sweep]) -> None:
    advice = advise(read[scenario], Question("image_classification", scenario=scenario))
    assert advice["question"]["compared"] == JUDGED_BY[scenario].name
    assert (advice["answer"], advice["choice"]["platform"]) == ("best", "bm")
    over = advice["runner_up"]["over"]
    assert over["value"] == near(truth(scenario))
    assert over["low"] < truth(scenario) < over["high"]
    text = " ".join(advice_lines(advice))
    headings = [column.heading for column in advice_table(advice).columns]
    row = advice["candidates"][1]
    if scenario == "offline":
        assert row["throughput_per_s"] == near(1000 / TRUTH[scenario][1])
        assert (
            row["throughput_least_per_s"] < row["throughput_per_s"] < row["throughput_most_per_s"]
        )
        assert f"{100 * (1 - 1 / truth(scenario)):.0f}." in text and "less throughput" in text
        assert "samples/s" in headings
        assert "above 1 is less throughput" in advice_legend(advice)
    else:
        assert row["throughput_per_s"] is None
        key = "e2e_ms" if scenario == "single_stream" else "latency_ms"
        assert row[key] == near(TRUTH[scenario][1])
        assert f"{advice['question']['compared']} ms" in headings


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_million_requests_cost_the_work(scenario: str, read: dict[str, Sweep]) -> None:
    """In offline, the work is the time of the batch."""
    prices = {("bm", 1, "cpu"): 3.6, ("cn", 1, "cpu"): 3.6}
    question = Question("image_classification", scenario=scenario, prices=prices)
    advice = advise(read[scenario], question)
    metal, container = advice["candidates"]
    paid_ms = TRUTH["offline"][1] if scenario == "offline" else SERVICE * E2E_MS
    assert metal["cost"] == near(3.6 * E2E_MS / 3.6)
    assert container["cost"] == near(3.6 * paid_ms / 3.6)
    assert container["over"]["value"] == near(container["cost"] / metal["cost"], 1e-6)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_stopping_rule_looks_at_the_judged_time(scenario: str, read: dict[str, Sweep]) -> None:
    sweep = read[scenario]
    means = per_trial.log_means(sweep.samples)
    assert len(means) == 12
    for trial, own in means.items():
        container = trial.startswith("cn")
        assert math.exp(next(iter(own.values()))) / 1e6 == near(TRUTH[scenario][container], 0.01)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_result_alone_gives_what_the_sweep_gives(
    scenario: str, sweeps: dict[str, Path], read: dict[str, Sweep]
) -> None:
    files = sorted(sweeps[scenario].glob("trials/*/result.json"))
    found = {file.parent.name: log_means(json.loads(file.read_text())) for file in files}
    expected = per_trial.log_means(read[scenario].samples)
    assert found.keys() == expected.keys()
    for trial, own in found.items():
        assert own == pytest.approx(expected[trial], rel=1e-12)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_comparison_is_of_the_judged_time(
    scenario: str, sweeps: dict[str, Path], tmp_path: Path
) -> None:
    """The second sweep's waits, and its time between requests, are doubled on both platforms."""
    second = sweep_of(Folder(tmp_path / "second"), scenario, seed=6)
    for file in second.path.glob("trials/*/result.json"):

        def slower(result: Json) -> None:
            for sample in result["samples"]:
                sample["queue_ns"] *= 2
            result["confounders"]["window_ns"] *= 3

        name = file.parent.name
        second.edit(f"trials/{name}/result.json", slower)
        second.edit(
            f"trials/{name}/evidence.json",
            lambda proof: proof.update(process_wall_ns=5 * proof["process_wall_ns"]),
        )
    content = compare(sweeps[scenario], second.path)
    metal, _ = content["cells"]
    assert metal["judged_by"] == JUDGED_BY[scenario].name
    expected = {
        "single_stream": 1.0,
        "server": (E2E_MS + 2 * WAITS[0]) / (E2E_MS + WAITS[0]),
        "multi_stream": (2 * (SIZE - 1) + 1) / SIZE,
        "offline": (2 * (BATCH - 1) + 1) / BATCH,
    }
    assert metal["time"]["value"] == near(expected[scenario])
    page = " ".join(unescape(render_comparison(content)).split())
    judged = JUDGED_BY[scenario]
    assert f"{judged.time}, second / first" in page
    text = re.search(rf"Time here is {judged.time}, [a-z ]+ \({scenario}\)", content["summary"])
    assert (text is None) == (judged.name == "e2e")
    assert [table.title for table in comparison_tables(content)]


def test_offline_has_no_latency_that_a_bound_could_be_on() -> None:
    with pytest.raises(AnalysisError, match=r"50 ms found for offline.*leave out --slo-ms"):
        Question("image_classification", scenario="offline", slo_ms=50.0)
    with pytest.raises(AnalysisError, match="'batch' found, one of single_stream"):
        Question("image_classification", scenario="batch")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_invalid_run_leaves_advice_with_its_reason(scenario: str, folder: Folder) -> None:
    sweep_of(folder, scenario)
    for file in folder.path.glob("trials/cn-*/result.json"):
        folder.edit(
            f"trials/{file.parent.name}/result.json",
            lambda r: r["loadgen"].update(validity="INVALID", reasons=["Reduce target QPS."]),
        )
    sweep = read_sweep(folder.path)
    advice = advise(sweep, Question("image_classification", scenario=scenario))
    assert [row["platform"] for row in advice["candidates"]] == ["bm"]
    (left,) = advice["left_out"]
    assert left["cell"]["platform"] == "cn" and "Reduce target QPS." in left["reason"]
    (option,) = document(sweep)["headline"]["applications"][0]["options"]
    assert "LoadGen calls 6 of 6 trials INVALID" in option["answer"]


def test_a_growing_wait_is_drift_although_the_e2e_time_is_constant(folder: Folder) -> None:
    """The queue of a server doubles over six replicates; the time of a request stays."""
    for replicate in REPLICATES:
        for platform in ("bm", "cn"):
            wait = 10.0 * 2 ** ((replicate - 1) / 5)
            lay(folder, "server", [wait] * 20, platform=platform, replicate=replicate)
    sweep = read_sweep(folder.path)
    (slope,) = drift.order(sweep.trials, sweep.samples)["slopes"]
    assert slope["low"] > 0
    (course,) = document(sweep)["diagnostics"]["drift"]
    assert "The host drifted: requests became" in course["sentence"]


def test_one_long_wait_marks_the_ratio_of_latency(folder: Folder) -> None:
    """A bad instance makes one replicate's wait long: the mark is on the ratio of latency."""
    for replicate in range(1, 11):
        for platform in ("bm", "cn"):
            noise = 1 + 0.001 * (replicate % 3) + 0.0007 * (replicate % 4) * (platform == "cn")
            wait = 400.0 if (platform, replicate) == ("cn", 4) else 10.0 * noise
            lay(folder, "server", [wait] * 20, platform=platform, replicate=replicate)
    content = document(read_sweep(folder.path))
    row = content["doubts"]["rows"][0]
    assert row["of"] == "latency over bare metal's"
    assert content["cells"][1]["second_high"] is None  # and its page can be made all the same
    assert "no limit" in " ".join(warning["text"] for warning in row["warnings"])
    assert "far-out" in {warning["kind"] for warning in row["warnings"]}
    assert "Replicate 4" in row["warnings"][0]["text"]
    for table in (content["loadgen"]["latency"], content["next_instance"]):
        assert table[-1]["doubt"] == row["number"]
    page = render(content)
    latency = page[page.index('<table id="latency"') :].partition("</table>")[0]
    assert latency.count(f'href="#doubt-{row["number"]}"') == 1


def test_stopping_early_waits_for_the_latency_to_be_known(folder: Folder) -> None:
    """Requests take equally long, so e2e is precise at once; waits differ much."""
    chance = np.random.default_rng(11)
    folder.design |= {"precision": 0.02, "min_replicates": 3}
    for replicate in range(1, 5):
        for platform in ("bm", "cn"):
            wait = 40.0 * math.exp(0.3 * chance.standard_normal())
            noise = 1 + 1e-4 * chance.standard_normal()
            lay(
                folder, "server", [wait] * 10,
                platform=platform, replicate=replicate, e2e_ms=20 * noise,
            )  # fmt: skip
    folder.plan("bm", "pinned", 5, scenario="server")
    folder.plan("cn", "pinned", 5, scenario="server")
    sweep = read_sweep(folder.path)
    assert sweep.design is not None
    assert unneeded_trials(sweep.design, per_trial.log_means(sweep.samples)) == frozenset()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_export_names_the_measure_of_each_scenario(
    scenario: str, sweeps: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "samples.parquet"
    write_parquet(load(sweeps[scenario]), file)
    assert set(pl.read_parquet(file)["judged_by"]) == {JUDGED_BY[scenario].name}


def test_a_calibration_is_of_the_work_alone(folder: Folder) -> None:
    """The growth of a server's queue with slowed requests is not a known truth."""
    for replicate in REPLICATES:
        noise = 1 + 0.001 * (replicate % 3)
        lay(folder, "server", [5.0] * 20, e2e_ms=20.0 * noise, replicate=replicate)
        waits = [90.0] * 20
        trial = folder.trial(
            "bm", "pinned", replicate, {"a": [22.0 * noise + 0.003 * replicate] * 20},
            scenario="server", variant="slowed", slowdown=0.1,
        )  # fmt: skip

        def wait(result: Json, own: list[float] = waits) -> None:
            for sample, ms in zip(result["samples"], own, strict=True):
                sample["queue_ns"] = round(ms * 1e6)

        folder.edit(f"trials/{trial}/result.json", wait)
    found = calibration.calibrate(folder.path)
    (check,) = found["checks"]
    assert found["measure"] == "e2e"
    assert check["estimate"] == near(1.1)


def test_scenarios_side_by_side_keep_their_measures(folder: Folder) -> None:
    for scenario in ("single_stream", "server", "offline"):
        sweep_of(folder, scenario)
    content = document(read_sweep(folder.path))
    found = {c["scenario"]: c["ratio"] for c in content["cells"] if c["platform"] == "cn"}
    assert found == {name: near(truth(name)) for name in found} and len(found) == 3
    page = " ".join(unescape(render(content)).split())
    assert (
        "Ratios are of e2e time (single_stream); latency, queue included (server); time per "
        "sample, of which more is less throughput (offline)."
    ) in page
    assert content["published"]["rows"] == [] or {
        row["scenario"] for row in content["published"]["rows"]
    } == {"single_stream"}
    assert {row["setup_s"] is None for row in content["diagnostics"]["samples"]} == {True, False}
