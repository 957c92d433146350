"""The applications with their real weights on this machine: answers, refusals, factors."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from virtbed.here import current_image
from virtbed_workloads.registry import APPLICATIONS
from virtbed_workloads.schema import result_schema

from .conftest import NOTHING, read, run, traces

NAMES = [name for name, entry in APPLICATIONS.items() if not entry.hidden]


def truncated_wav(seconds: float = 1.0) -> bytes:
    """Return a WAV file that ends before the length in its header."""
    frames = int(16000 * seconds)
    form = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + 2 * frames, b"WAVE", b"fmt ", 16, 1, 1,
                       16000, 32000, 2, 16)  # fmt: skip
    return form + struct.pack("<4sI", b"data", 2 * frames) + b"\0" * frames


def flat_nifti() -> bytes:
    """Return a NIfTI-1 image of two dimensions."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 2, 8, 8, 1, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)  # unsigned bytes
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(64)


BROKEN = {
    "image_classification": ("broken.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 100),
    "face_detection": ("broken.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 100),
    "medical_segmentation": ("flat.nii", flat_nifti()),
    "question_answering": ("empty.txt", b""),
    "audio_transcription": ("cut.wav", truncated_wav()),
}


@pytest.mark.parametrize("name", NAMES)
def test_run_gives_right_answers_with_trained_weights(name: str) -> None:
    document = json.loads(run("virtbed", "run", name, "--samples", "2", "--json").stdout)
    assert document["application"]["weights"] == "trained"
    answers = document["answers"]
    assert answers["checked"] == len(document["samples"])
    assert len(answers["by_input"]) >= 4
    assert all(row["expected"] for row in answers["by_input"])
    assert document["memory_kib"]["peak"] >= document["memory_kib"]["after_samples"] > 0


def test_run_shows_where_the_time_goes() -> None:
    shown = run("virtbed", "run", "image_classification", "--scale", "tiny").stdout
    for word in ("pre", "infer", "post", "e2e", "share of e2e", "answers", "LoadGen", "memory"):
        assert word in shown


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_request_is_named_in_the_error(name: str, tmp_path: Path) -> None:
    file, content = BROKEN[name]
    (tmp_path / file).write_bytes(content)
    done = run(
        "virtbed", "run", name, "--scale", "tiny", "--inputs", str(tmp_path), "--json", ok=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert f"{name} failed: {file}: " in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_without_a_gpu_processor_gpu_is_refused() -> None:
    done = run(
        "virtbed", "run", "image_classification", "--scale", "tiny", "--processor", "gpu", ok=False
    )
    assert done.returncode == 1
    assert "processor gpu requested, but tensorflow finds no GPU" in " ".join(done.stderr.split())


def test_run_passes_a_usage_error_of_the_harness_on() -> None:
    done = run("virtbed", "run", "image_classification", "--scale", "huge", ok=False)
    assert done.returncode == 2
    assert "has no scale 'huge'" in done.stderr


@pytest.fixture
def broken_photograph() -> Iterator[str]:
    """Truncate the image's photograph of a cat, as a bad disk would; return its name."""
    (photograph,) = (
        (current_image() / "rootfs")
        .resolve()
        .glob("usr/local/lib/python3*/dist-packages/skimage/data/chelsea.png")
    )
    whole = photograph.read_bytes()
    photograph.write_bytes(whole[: len(whole) // 2])
    try:
        yield photograph.name
    finally:
        photograph.write_bytes(whole)


def test_a_trial_with_a_broken_input_fails_and_the_sweep_continues(
    write_plan: Any, broken_photograph: str
) -> None:
    applications = [
        {"name": name, "scale": "tiny", "samples": 2, "warmup": 1}
        for name in ("image_classification", "question_answering")
    ]
    plan, folder = write_plan("broken", applications=applications)
    done = run("virtbed", "sweep", plan, ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = folder / "trials" / "bm-pinned-c01-image_classification-r01"
    assert not (failed / "result.json").exists()
    assert broken_photograph in read(failed / "failure.json")["message"]
    assert (folder / "trials" / "bm-pinned-c01-question_answering-r01" / "result.json").exists()
    assert traces() == NOTHING


def test_threads_are_a_factor_and_logs_are_next_to_the_result(write_plan: Any) -> None:
    plan, folder = write_plan(
        "threads",
        platforms={"cn": ["vanilla"]},
        threads=["default", "matched"],
        applications=[
            {"name": "question_answering", "scale": "tiny", "samples": 4, "warmup": 1},
            {"name": "question_answering", "scale": "tiny", "samples": 4, "warmup": 1,
             "scenario": "offline"},
        ],
    )  # fmt: skip
    run("virtbed", "sweep", plan)
    trials = folder / "trials"
    names = {p.name for p in trials.iterdir()}
    stem = "cn-vanilla-c01-question_answering"
    assert names == {
        f"{stem}{scenario}{threads}-r01"
        for scenario in ("", "-offline")
        for threads in ("", "-matched")
    }
    for name in names:
        result = read(trials / name / "result.json")
        jsonschema.validate(result, result_schema())
        threads = result["environment"]["threads"]
        # A quota of one CPU does not change the affinity: only `matched` reads the quota.
        wanted = 1 if "matched" in name else 0
        assert (threads["intra_op"], threads["inter_op"]) == (wanted, wanted)
        assert threads["usable_cores"] == 1
        log = (trials / name / "mlperf_log_summary.txt").read_text()
        assert ("Scenario : Offline" in log) == ("offline" in name)
        assert (trials / name / "mlperf_log_detail.txt").stat().st_size > 1000
