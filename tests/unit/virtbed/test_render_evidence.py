"""`virtbed attest`: recorded evidence as sentences."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from virtbed.render.evidence import AttestError, explain

from ..analysis.conftest import Folder, quiet
from ..analysis.test_hostile_files import HOSTILE, changed, places

PROCESS = {
    "cpus_allowed_list": "1",
    "cpus_visible": 2,
    "cgroup": {"quota_cpus": None},
    "memory_policy": "bind:0",
    "clocksource": "tsc",
}
INSIDE = PROCESS | {"threads": {"intra_op": 0}}
ASKED = {
    "platform": "vm", "mode": "pinned", "own_kernel": True, "cores": 1, "cpus": "1", "mems": "0",
    "allowed": "0-1", "memory_mib": 4096, "accelerator": "kvm",
    "image_digest": "sha256:" + "a" * 64, "placement": ["within one L3", "one thread per core"],
}  # fmt: skip
MACHINE = {
    "vcpus": 1, "memory_mib": 4096, "accelerator": "kvm", "quotas": {},
    "emulator": {"pin": "0", "cpus_allowed_list": "0"},
    "vcpu_threads": [{"vcpu": 0, "pin": "1", "cpus_allowed_list": "1"}],
}  # fmt: skip
READING = {"machine": MACHINE, "enclosure": PROCESS}
RESULT = {
    "confounders": {
        "window_ns": 2_000_000_000, "steal_share": 0.2, "others_share": 0.0, "cpus": "0",
        "throttling": None, "pressure": {"memory": None, "io": None}, "ran_on": [0], "looks": 4,
        "mhz": {"before": None, "after": None}, "clock_apart_share": 0.0, "migrations": 3,
        "siblings_share": 0.25,
        "load_1min": {"before": 0.2, "after": 0.9}, "governor": "performance",
        "temperature_c": 51.0, "transparent_hugepage": "madvise",
    },
    "trial": {"mode": "pinned", "enclosure": "process"},
    "rusage": {"major_faults": 0, "voluntary_switches": 12, "involuntary_switches": 4},
    "environment": {"isa": ["avx", "avx2"], "onednn_isa": "Intel AVX2", "clocksource": "tsc"},
    "settings": {"samples": 5},
}  # fmt: skip


def lay(folder: Path, **changes: Any) -> Path:
    evidence = {
        "trial": "vm-pinned-c01-x-r01", "asked": ASKED, "before": READING, "inside": INSIDE,
        "after": READING, "attested": True, "mismatches": [],
    } | changes  # fmt: skip
    (folder / "evidence.json").write_text(json.dumps(evidence))
    return folder


def test_evidence_reads_as_sentences(tmp_path: Path) -> None:
    (lay(tmp_path) / "result.json").write_text(json.dumps(RESULT))
    attested, lines = explain(tmp_path / "result.json")
    text = "\n".join(lines)
    assert attested is True
    assert "requested vm pinned: 1 core(s) on CPUs 1 with memory of nodes 0, 4096 MiB" in text
    assert "These CPUs were chosen: within one L3; one thread per core." in lines
    assert "Read back before the trial: the guest has 1 vCPU(s)" in text
    assert "vCPU 0 pinned to 1, allowed on 1; emulator pinned to 0, allowed on 0" in text
    assert "thread pools of a size that the framework chooses" in text
    assert "CPU quotas none" in text
    assert "SUSPECT: steal: 20.0% of the CPU time, at most 1.0% expected" in text
    assert "of CPUs 0 and 25.0% of the same cores' other threads" in text
    assert "its threads were seen on CPUs [0] in 4 samples" in text
    assert "moved to another CPU 3 times, left their CPU 12 times voluntarily and 4 times" in text
    assert "saw avx, avx2, oneDNN chose Intel AVX2" in text
    assert "load 0.2 before and 0.9 after" in text
    assert "the guest's clock apart by 0.00%" in text


def test_a_mismatch_is_printed(tmp_path: Path) -> None:
    lay(tmp_path, attested=False, mismatches=["pinned to 0-1"], inside=None, after=None)
    (tmp_path / "failure.json").write_text('{"stage": "trial", "message": "pinned to 0-1"}')
    attested, lines = explain(tmp_path)
    assert attested is False
    assert "NOT attested: pinned to 0-1" in lines
    assert "Read back after the trial: nothing; the trial did not get that far." in lines
    assert lines[-1] == "The trial failed at stage trial: pinned to 0-1"


def test_a_guest_without_libvirts_pins_is_explained(tmp_path: Path) -> None:
    machine = {
        "vcpus": 1, "memory_mib": 4096, "accelerator": "tcg", "quota_cpus": None,
        "emulator": {"cpus_allowed_list": "0"},
        "vcpu_threads": [{"vcpu": 0, "cpus_allowed_list": "1"}],
    }  # fmt: skip
    _, lines = explain(lay(tmp_path, before={"machine": machine, "enclosure": PROCESS}))
    assert any("vCPU 0 allowed on 1; emulator allowed on 0; CPU quotas none" in s for s in lines)


def test_a_containers_limits_are_printed(tmp_path: Path) -> None:
    container = {
        "container": "c", "cpuset": "0-1", "quota_cpus": 1.0, "memory_mib": 4096,
        "throttled_periods": 7,
    }  # fmt: skip
    reading = {"machine": {"cpus_online": "0-1"}, "enclosure": container}
    _, lines = explain(lay(tmp_path, before=reading))
    assert any("quota 1 CPU," in line and "throttled in 7 periods" in line for line in lines)


def test_the_message_without_evidence_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(AttestError, match=r"no evidence\.json found; give a trial's folder"):
        explain(tmp_path)
    (tmp_path / "evidence.json").write_text("{")
    with pytest.raises(AttestError, match="not JSON"):
        explain(tmp_path)


@pytest.mark.parametrize("name", ["evidence.json", "result.json"])
def test_evidence_with_any_wrong_value_is_explained_or_refused_with_a_message(
    tmp_path: Path, name: str
) -> None:
    folder = Folder(tmp_path / "quick")
    folder.trial("cn", "vanilla", 1, {"a.png": [20.0] * 2})
    (path,) = folder.path.glob(f"trials/*/{name}")
    original = json.loads(path.read_text())
    for turn, place in enumerate(places(original)):
        for value in HOSTILE[turn % 7 :: 7]:
            path.write_text(json.dumps(changed(original, place, value)))
            with suppress(AttestError):
                explain(path)


def test_settings_and_kernel_counts_are_printed(tmp_path: Path) -> None:
    moved = quiet(aimed=["36 nvme0q1"], device_interrupts=5000, throttled=None)
    result = RESULT | {
        "confounders": RESULT["confounders"] | {"moved": quiet()},  # type: ignore[dict-item]
        "environment": RESULT["environment"]
        | {
            "process_settings": {"seccomp": "filter"},
            "kernel_settings": {"ksm": "on", "swap": None},
        },  # type: ignore[operator]
        "bench": {"settings": {}, "moved": moved},
    }
    (lay(tmp_path) / "result.json").write_text(json.dumps(result))
    text = "\n".join(explain(tmp_path)[1])
    assert "Set for the process: seccomp filter." in text
    assert "Set for its kernel: merging of equal pages (KSM) on." in text
    assert "counted during the trial, on CPUs 0: interrupts of devices 20, most by 36" in text
    assert "bench host's kernel counted from before to after, on CPUs 0: interrupts of" in text
    assert "throttled by heat unknown" in text
    assert "SUSPECT: moved interrupts: 1 devices, at most 0 expected (36 nvme0q1)" in text


def test_neighbours_are_printed_with_their_cpus_and_their_work(tmp_path: Path) -> None:
    placed = {"cpus": "0", "mems": "0", "shares": "L3", "housekeeping": True}
    process = {"cpus_allowed_list": "0", "ran_on": [0], "cpu_s": 12.34}
    runs = {"instance": "vm-n1", "requests": 40, "ended": None, "processes": [process]}
    gone = {**runs, "ended": "exit status 137: nothing logged", "processes": []}
    lay(
        tmp_path, asked={**ASKED, "neighbours": [placed]},
        before={**READING, "neighbours": [runs]}, after={**READING, "neighbours": [gone]},
    )  # fmt: skip
    text = "\n".join(explain(tmp_path)[1])
    assert "neighbour 1 of the same size on CPUs 0 (same L3, with housekeeping)." in text
    assert (
        "Read back before the trial: the neighbour vm-n1 runs on CPUs 0, found on [0], 12.3 s of "
        "CPU time, and has answered 40 requests."
    ) in text
    assert "after the trial: the neighbour vm-n1 ended, with exit status 137" in text
