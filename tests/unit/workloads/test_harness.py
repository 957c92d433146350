"""The harness with the null application, run as a launcher runs it: one process per trial."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from virtbed_contract import identifiers
from virtbed_contract.factors import FACTORS
from virtbed_workloads import harness as run
from virtbed_workloads import loadgen
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.harness import Settings
from virtbed_workloads.null import Null
from virtbed_workloads.registry import APPLICATIONS, Entry
from virtbed_workloads.schema import result_schema

TRIAL = {
    "id": "cn-vanilla-c01-image_classification-r03",
    "sweep": "quick",
    "plan_digest": "sha256:" + "a" * 64,
    "platform": "cn",
    "machine": "metal",
    "enclosure": "docker",
    "mode": "vanilla",
    "quota_cpus": 1.0,
    "cores": 1,
    **{factor.name: factor.default for factor in FACTORS},
    "memory_mib": 4096,
    "application": "image_classification",
    "scale": "trained",
    "replicate": 3,
    "position": 17,
    "accelerator": "none",
    "emulated": False,
    "host": "bench01",
    "image_digest": "sha256:" + "b" * 64,
    "started_at": "2026-01-02T03:04:05Z",
    "attempt": 1,
}


def harness(*arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIRTBED_NULL": fault}
    command = [sys.executable, "-m", "virtbed_workloads", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def trial(*arguments: str, fault: str = "") -> dict[str, Any]:
    done = harness("null", "--scale", "tiny", *arguments, fault=fault)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    spawned_at_ns = str(time.time_ns())
    return trial("--samples", "7", "--warmup", "2", "--spawned-at-ns", spawned_at_ns)


def stored(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result as the controller stores it: without logs, with the controller's fields."""
    kept = {key: value for key, value in result.items() if key != "files"}
    clock = {"clock_apart_share": None}
    return kept | {"trial": TRIAL, "confounders": kept["confounders"] | clock}


def test_result_fits_the_schema(result: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(result_schema())
    jsonschema.validate(stored(result), result_schema())


@pytest.mark.parametrize(
    "break_it",
    [
        lambda r: r.pop("trial"),
        lambda r: r.update(extra=1),
        lambda r: r["samples"][0].update(e2e_ns=1.5),
        lambda r: r["answers"].update(wrong=1),
        lambda r: r["trial"].update(id="cn-vanilla-1"),
    ],
)
def test_the_schema_refuses_a_broken_result(result: dict[str, Any], break_it: Any) -> None:
    broken = json.loads(json.dumps(stored(result)))
    break_it(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, result_schema())


def test_warmups_come_first_and_answer_every_input(result: dict[str, Any]) -> None:
    samples = result["samples"]
    assert [s["warmup"] for s in samples] == [True] * 3 + [False] * 7
    assert [s["input"] for s in samples[:3]] == ["one", "three", "two"]
    assert result["settings"]["samples"] == 7


def test_a_slowdown_delays_each_request_by_its_share() -> None:
    result = trial("--samples", "20", "--slowdown", "0.5")
    assert result["settings"]["slowdown"] == 0.5
    # The delay is added to postprocessing, whose own time is negligible: 0.5 of 1.5.
    shares = [1 - row["post_ns"] / row["e2e_ns"] for row in result["samples"]]
    assert statistics.median(shares) == pytest.approx(2 / 3, abs=0.02)
    assert max(shares) <= 2 / 3


def test_equal_seeds_issue_equal_requests_and_different_seeds_do_not() -> None:
    def issued(seed: str) -> list[str]:
        return [s["input"] for s in trial("--samples", "16", "--seed", seed)["samples"]]

    assert issued("1") == issued("1") != issued("2")


@pytest.mark.parametrize(
    ("scenario", "issued"),
    [("single_stream", 10), ("multi_stream", 16), ("offline", 10), ("server", 10)],
)
def test_every_scenario_issues_its_number_of_requests(scenario: str, issued: int) -> None:
    # Slow enough for the two clocks to agree, and for a queue where the scenario has one.
    load = ("--scenario", scenario, "--target-qps", "100", "--target-latency-ms", "99")
    result = trial("--samples", "10", *load)
    jsonschema.validate(stored(result), result_schema())
    measured = [s for s in result["samples"] if not s["warmup"]]
    assert len(measured) == result["settings"]["samples"] == issued
    waited_ns = [s["queue_ns"] for s in measured]
    infer_ns = sum(s["infer_ns"] for s in measured[:-1])
    if scenario == "offline":  # all at once: the last one waits for all others
        assert max(waited_ns) >= infer_ns
    if scenario == "single_stream":
        assert max(waited_ns) < min(s["infer_ns"] for s in measured)
    loadgen_says = result["loadgen"]
    assert loadgen_says["clocks"]["apart"] < 0.2
    log = result["files"]["mlperf_log_summary.txt"]
    assert f"Scenario : {loadgen.SCENARIOS[scenario]}" in log
    detail = loadgen.read_detail(result["files"]["mlperf_log_detail.txt"])
    assert detail["result_validity"] == loadgen_says["validity"]
    if scenario == "multi_stream":  # its latency is that of a query of eight
        p99 = loadgen_says["percentiles_ns"]["99.00"]
        assert p99 == detail["result_99.00_percentile_per_query_latency_ns"]
        assert p99 >= loadgen_says["percentiles_ns"]["50.00"] > 6 * min(waited_ns[1::8])
    counts = scenario in ("offline", "server")
    assert (loadgen_says["samples_per_second"] is not None) == counts


def test_clocks_that_disagree_are_flagged() -> None:
    assert loadgen.clocks([100, 101, 102], 101)["agree"]
    assert not loadgen.clocks([100, 101, 102], 103)["agree"]
    slow = trial("--samples", "5")
    assert slow["loadgen"]["clocks"]["agree"] != any("two clocks" in w for w in slow["warnings"])


def test_a_server_without_a_rate_is_refused() -> None:
    done = harness("null", "--scale", "tiny", "--scenario", "server")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--target-qps" in done.stderr


def test_matched_threads_that_an_application_does_not_state_are_refused_before_measuring() -> None:
    done = harness("null", "--scale", "tiny", "--threads", "matched")
    assert (done.returncode, done.stdout) == (1, "")
    assert "threads matched requested" in done.stderr and "0 and 0 found" in done.stderr
    assert "use threads default" in done.stderr


@pytest.mark.parametrize(("stated", "good"), [((3, 3), True), ((3, 4), False), ((1, 3), False)])
def test_an_application_without_keras_states_the_threads_of_its_runtime(
    stated: tuple[int, int], good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Null):
        def threads(self) -> tuple[int, int]:
            assert os.environ["OMP_NUM_THREADS"] == "3"  # sized before it is loaded
            return stated

    entry = APPLICATIONS["null"]
    settings = Settings("null", "tiny", 1, loadgen.Load(), threads="matched")
    monkeypatch.setattr(run, "usable_cores", lambda: 3)
    monkeypatch.setattr(Entry, "create", lambda *_: Own())
    monkeypatch.setattr(run.gc, "freeze", lambda: None)
    for name in run.POOLS:
        monkeypatch.setenv(name, "1")
    if good:
        assert run._pools(run._warmed_up(entry, settings).trial.application, None) == stated
    else:
        with pytest.raises(ApplicationError, match=f"{stated[0]} and {stated[1]} found"):
            run._warmed_up(entry, settings)


def test_own_inputs_are_answered_and_not_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("abcd")
    answers = trial("--inputs", str(tmp_path), "--samples", "2")["answers"]
    assert answers["checked"] == 0
    assert answers["by_input"] == [
        {"input": "mine.txt", "answer": "four", "expected": None, "score": None}
    ]


@pytest.mark.parametrize("scenario", ["single_stream", "offline", "server"])
def test_an_invalid_request_is_named_in_the_error(scenario: str) -> None:
    load = ("--scenario", scenario, "--target-qps", "50", "--target-latency-ms", "99")
    done = harness("null", "--scale", "tiny", *load, fault="broken")
    assert (done.returncode, done.stdout) == (1, "")
    assert "null failed: three: b'\\xff' found, UTF-8 needed" in done.stderr


@pytest.mark.parametrize("scenario", ["single_stream", "offline", "server"])
@pytest.mark.parametrize("samples", [5, 20], ids=["at the last", "in the midst"])
def test_an_answer_that_changes_fails_the_trial(scenario: str, samples: int) -> None:
    load = (
        "--scenario", scenario, "--target-qps", "50", "--target-latency-ms", "99", "--samples",
        str(samples),
    )  # fmt: skip
    done = harness("null", "--scale", "tiny", *load, fault="fickle")
    assert (done.returncode, done.stdout) == (3, "")
    assert "expected the same answer every time" in done.stderr


def test_memory_is_that_of_this_process(result: dict[str, Any]) -> None:
    memory = result["memory_kib"]
    assert 5_000 < memory["after_warmup"] <= memory["peak"] < 200_000
    assert memory["after_samples"] <= memory["peak"]


def test_phases_add_up_to_the_end_to_end_time(result: dict[str, Any]) -> None:
    for sample in result["samples"]:
        phases = sample["pre_ns"] + sample["infer_ns"] + sample["post_ns"]
        assert sample["e2e_ns"] == phases > 0


def test_start_up_is_timed(result: dict[str, Any]) -> None:
    startup = result["startup"]
    assert 0 < startup["spawn_ns"] < 60e9
    assert all(startup[name] > 0 for name in ("import_ns", "load_ns", "first_call_ns"))
    assert trial("--samples", "1")["startup"]["spawn_ns"] is None


def test_answers_and_placement_are_recorded(result: dict[str, Any]) -> None:
    answers = result["answers"]
    assert (answers["checked"], answers["wrong"]) == (10, 0)
    assert [each["answer"] for each in answers["by_input"]] == ["one", "three", "two"]
    assert answers["digest"] == trial("--samples", "3")["answers"]["digest"]
    assert result["environment"]["affinity"] == sorted(os.sched_getaffinity(0))


def test_affinity_is_read_not_assumed() -> None:
    cpu = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(cpu), sys.executable, "-m", "virtbed_workloads"]
    done = subprocess.run(
        [*command, "null", "--scale", "tiny"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["environment"]["affinity"] == [cpu]


def test_native_output_does_not_reach_standard_output() -> None:
    done = harness("null", "--scale", "tiny", fault="noisy")
    assert "a library's banner" in done.stderr
    assert json.loads(done.stdout)["schema"] == identifiers.RESULT


def test_a_gpu_is_refused_for_an_application_without_keras() -> None:
    done = harness("null", "--scale", "tiny", "--processor", "gpu")
    assert done.returncode == 1 and done.stdout == ""
    assert "null failed: processor gpu requested, cpu needed" in done.stderr


def test_a_wrong_answer_has_its_own_exit_code_and_is_named() -> None:
    done = harness("null", "--scale", "tiny", fault="wrong")
    assert (done.returncode, done.stdout) == (3, "")
    assert "one: answered 'two'" in done.stderr and "expected 'one'" in done.stderr


def test_a_failing_application_exits_with_1() -> None:
    done = harness("null", "--scale", "tiny", fault="fails")
    assert (done.returncode, done.stdout) == (1, "")
    assert "VIRTBED_NULL=fails" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image_clasification"], "there are: image_classification"),
        ([], "there are: image_classification"),
        (["image_classification", "--scale", "huge"], "it has: trained, mlperf, tiny"),
        (["null", "--scale", "tiny", "--samples", "0"], "0 found, at least 1 needed"),
        (["null", "--scale", "tiny", "--warmup", "-1"], "-1 found, at least 0 needed"),
        (["null", "--scale", "tiny", "--samples", "few"], "a whole number needed"),
    ],
)
def test_a_usage_error_exits_with_2_and_names_what_is_needed(
    arguments: list[str], message: str
) -> None:
    done = harness(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_list_hides_the_null_application() -> None:
    listed = {e["name"]: e["scales"] for e in json.loads(harness("--list", "--json").stdout)}
    assert set(listed) == {
        "image_classification",
        "face_detection",
        "medical_segmentation",
        "question_answering",
        "audio_transcription",
    }
    assert all(scales == ["trained", "mlperf", "tiny"] for scales in listed.values())
    assert "null" in harness("--list", "--all").stdout
    assert "trained, mlperf, tiny" in harness("--list").stdout


def test_the_command_line_imports_no_framework() -> None:
    code = (
        "import sys, virtbed_workloads.__main__\n"
        "print({'tensorflow', 'keras', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
