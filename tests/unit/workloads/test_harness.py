"""Run the harness on the null application, as a launcher does: one fresh process a trial."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import jsonschema
import pytest

from virtbed_workloads.schema import result_schema

TRIAL = {
    "id": "cn-vanilla-c01-image_classification-r03",
    "sweep": "quick",
    "plan_digest": "sha256:" + "a" * 64,
    "platform": "cn",
    "machine": "metal",
    "enclosure": "docker",
    "mode": "vanilla",
    "cores": 1,
    "memory_mib": 4096,
    "application": "image_classification",
    "scale": "trained",
    "processor": "cpu",
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
    spawned_at_ns = str(time.monotonic_ns())
    return trial("--samples", "7", "--warmup", "2", "--spawned-at-ns", spawned_at_ns)


def test_result_fits_the_schema(result: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(result_schema())
    jsonschema.validate({**result, "trial": TRIAL}, result_schema())


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
def test_schema_refuses(result: dict[str, Any], break_it: Any) -> None:
    broken = json.loads(json.dumps({**result, "trial": TRIAL}))
    break_it(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, result_schema())


def test_warmups_come_first_and_both_start_at_the_first_input(result: dict[str, Any]) -> None:
    samples = result["samples"]
    assert [s["warmup"] for s in samples] == [True] * 2 + [False] * 7
    names = ["one", "three", "two"]
    assert [s["input"] for s in samples] == names[:2] + (names * 3)[:7]


def test_phases_make_up_the_whole(result: dict[str, Any]) -> None:
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
    assert (answers["checked"], answers["wrong"]) == (7, 0)
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
    assert json.loads(done.stdout)["schema"] == "virtbed.result/1"


def test_wrong_answer() -> None:
    done = harness("null", "--scale", "tiny", fault="wrong")
    assert (done.returncode, done.stdout) == (3, "")
    assert "one: answered 'two'" in done.stderr and "expected 'one'" in done.stderr


def test_failing_application() -> None:
    done = harness("null", "--scale", "tiny", fault="fails")
    assert (done.returncode, done.stdout) == (1, "")
    assert "VIRTBED_NULL=fails" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image_clasification"], "there are: image_classification"),
        ([], "there are: image_classification"),
        (["image_classification", "--scale", "huge"], "it has: trained, tiny"),
        (["null", "--scale", "tiny", "--samples", "0"], "0 found, at least 1 needed"),
        (["null", "--scale", "tiny", "--warmup", "-1"], "-1 found, at least 0 needed"),
        (["null", "--scale", "tiny", "--samples", "few"], "a whole number needed"),
    ],
)
def test_usage(arguments: list[str], message: str) -> None:
    done = harness(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_list_hides_the_fake() -> None:
    assert [e["name"] for e in json.loads(harness("--list", "--json").stdout)] == [
        "image_classification"
    ]
    assert "null" in harness("--list", "--all").stdout
    assert "trained, tiny" in harness("--list").stdout


def test_the_command_line_imports_no_framework() -> None:
    code = (
        "import sys, virtbed_workloads.__main__\n"
        "print({'tensorflow', 'keras', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
