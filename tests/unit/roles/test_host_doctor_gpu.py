"""Facts of GPUs that host_doctor reads: kernel files, the loader's cache, NVML."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
import pynvml
import pytest

from virtbed_contract.codec import encode

from ..contract.nvml_library import Library, install
from ..contract.test_gpus import AT, SONAMES, UUID, VERSION, clean, driver
from ..contract.test_nvml import WHOLE
from .conftest import REPOSITORY

ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_doctor/module_utils"))

from ansible.module_utils import host_doctor_gpu as doctor  # noqa: E402 - after the line above

NOBODY = {f"nvmlDeviceGet{kind}RunningProcesses_v3": [] for kind in ("Compute", "Graphics")}


def image(folder: Path) -> Path:
    """Make an image's folder with a file of bindings."""
    path = folder / "image" / doctor.BINDINGS
    path.parent.mkdir(parents=True)
    path.write_text("")
    return folder / "image"


def facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library | None, **versions: str
) -> dict[str, Any]:
    """Return the facts of a host with one GPU, whose NVML is `library`."""
    install(monkeypatch, library)
    monkeypatch.setattr(doctor.nvml, "bindings", lambda path: pynvml)
    host = clean(tmp_path / "host")
    loader = driver(host, {name.replace("_", "."): text for name, text in versions.items()})
    host_facts: dict[str, Any] = doctor.gpu_facts(
        host.root, 4096, loader, [tmp_path / "null", image(tmp_path)]
    )
    return host_facts


def test_the_facts_have_a_gpus_driver_libraries_and_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_facts = facts(tmp_path, monkeypatch, Library(processes=NOBODY))
    (gpu,) = host_facts["gpu"]
    assert (gpu["address"], gpu["uuid"], gpu["on_host"], gpu["to_guest"]) == (AT, UUID, None, None)
    assert host_facts["gpu_driver"] == VERSION and set(host_facts["gpu_libraries"]) == set(SONAMES)
    state = host_facts["gpu_states"][AT]
    assert host_facts["gpu_limits"] == {"address_bits": 46, "lockable_mib": None}
    assert state | {"at_ns": 42} == encode(WHOLE) | {"processes": []}


@pytest.mark.parametrize(
    ("library", "kind", "words"),
    [
        (Library(processes=NOBODY, numbers={"nvmlDeviceGetComputeMode": 2}), "prohibited",
         "compute mode"),
        (Library(), "busy", "processes use 0000:41:00.0: 815 (compute), 4711 (compute)"),
    ],
)  # fmt: skip
def test_a_refusal_from_nvmls_state_holds_for_host_and_guests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library, kind: str, words: str
) -> None:
    (gpu,) = facts(tmp_path, monkeypatch, library)["gpu"]
    assert gpu["on_host"] == gpu["to_guest"]
    assert gpu["on_host"]["kind"] == kind and words in gpu["on_host"]["reason"]


def test_mig_without_instances_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(processes=NOBODY, pairs={"nvmlDeviceGetMigMode": (1, 1)})
    (gpu,) = facts(tmp_path, monkeypatch, library)["gpu"]
    assert gpu["on_host"] == gpu["to_guest"]
    assert gpu["on_host"]["reason"] == "MIG is on at 0000:41:00.0"
    assert "--multi-instance-gpu=0" in gpu["on_host"]["remedy"]


@pytest.mark.parametrize(
    ("library", "kind"),
    [(None, "library"), (Library(fails={"nvmlInitWithFlags": 9}), "module"),
     (Library(fails={"nvmlDeviceGetPowerUsage": 15}), "lost")],
)  # fmt: skip
def test_nvml_that_does_not_answer_is_no_refusal_for_guests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library | None, kind: str
) -> None:
    host_facts = facts(tmp_path, monkeypatch, library)
    (gpu,) = host_facts["gpu"]
    assert gpu["on_host"]["kind"] == kind and gpu["on_host"]["remedy"]
    assert gpu["to_guest"] is None and host_facts["gpu_states"] == {}


def test_nvml_is_not_queried_if_a_refusal_is_known_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_facts = facts(tmp_path, monkeypatch, Library(), libcuda_so_1="550.163.01")
    assert host_facts["gpu_states"] == {} and host_facts["gpu"][0]["on_host"]["kind"] == "mismatch"


def test_nvml_is_not_queried_without_an_image(tmp_path: Path) -> None:
    host = clean(tmp_path)
    loader = driver(host)
    for images in ([], [tmp_path / "image"]):
        host_facts = doctor.gpu_facts(host.root, 4096, loader, images)
        assert host_facts["gpu_states"] == {} and host_facts["gpu"][0]["on_host"] is None


def hang() -> None:
    time.sleep(60)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise KeyError("x")


@pytest.mark.parametrize("read", [hang, crash, fail])
def test_a_driver_that_hangs_or_crashes_does_not_end_the_examination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], None]
) -> None:
    started: list[int] = []
    real = os.fork

    def fork() -> int:
        started.append(real())
        return started[-1]

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(doctor, "NVML_DEADLINE_S", 2.0)
    monkeypatch.setattr(doctor.nvml, "state", lambda *arguments: read())
    began = time.monotonic()
    host_facts = facts(tmp_path, monkeypatch, Library())
    assert time.monotonic() - began < 30
    (gpu,) = host_facts["gpu"]
    assert (gpu["on_host"]["kind"], gpu["to_guest"], host_facts["gpu_states"]) == ("nvml", None, {})
    assert gpu["on_host"]["reason"] == "NVML crashed, or gave no answer within 2 s"
    (child,) = started
    with pytest.raises(ProcessLookupError):  # the child has ended
        os.kill(child, 0)


def test_the_facts_of_a_host_without_a_gpu_are_empty(tmp_path: Path) -> None:
    assert doctor.gpu_facts(tmp_path, 4096, "", []) == {
        "gpu": [], "gpu_states": {}, "gpu_driver": None, "gpu_libraries": {},
        "gpu_limits": {"address_bits": None, "lockable_mib": None},
    }  # fmt: skip
