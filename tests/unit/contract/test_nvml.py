"""Tests of the reader of a GPU's state: NVIDIA's bindings on a stand-in for the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

from virtbed_contract import nvml
from virtbed_contract.codec import decode, encode
from virtbed_contract.gpu_state import GpuProcess, GpuState
from virtbed_contract.nvml import NvmlError

from .nvml_library import PROCESSES, UUID, Library, install

NONE = 2**64 - 1


def read(
    monkeypatch: pytest.MonkeyPatch, named: str = UUID, **how: Any
) -> GpuState:  # fmt: skip
    library = Library(**how)
    install(monkeypatch, library)
    try:
        with nvml.opened(pynvml):
            found = nvml.state(pynvml, named, lambda: 42)
    finally:
        assert library.shut == 1
    assert decode(GpuState, json.loads(json.dumps(encode(found)))) == found
    return found


WHOLE = GpuState(
    at_ns=42, uuid=UUID, address="0000:41:00.0", name="NVIDIA H100 PCIe", driver="535.261.03",
    cuda="12.2", link_width=16, link_width_most=16, link_generation=4, link_generation_most=5,
    performance=0, sm_mhz=1410, sm_mhz_most=1980, memory_mhz=2619, memory_mhz_most=2619,
    throttle=("asked_clocks", "sw_power_cap", "bit_11"),
    throttled_ns={"power": 11, "heat": 22, "the board's limit": 33, "its reliability": 44},
    temperature_c=51, power_mw=312_000, power_limit_mw=350_000, energy_mj=5 * 10**12, ecc=True,
    ecc_uncorrected=0, ecc_corrected=3, mig=False, compute_mode="exclusive", persistence=True,
    processes=(GpuProcess(815, "compute", None), GpuProcess(4711, "compute", 700)),
    bar1_mib=128 * 1024, bar1_used_mib=5, unknown={},
)  # fmt: skip


@pytest.mark.parametrize("named", [UUID, "0000:41:00.0", "41:00.0", "00000000:41:00.0"])
def test_each_reading(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    assert read(monkeypatch, named) == WHOLE


# Functions in C, each with the readings that depend on it.
READINGS = [
    ("nvmlSystemGetCudaDriverVersion_v2", "cuda"),
    ("nvmlDeviceGetCurrPcieLinkWidth", "link_width"),
    ("nvmlDeviceGetMaxPcieLinkWidth", "link_width_most"),
    ("nvmlDeviceGetCurrPcieLinkGeneration", "link_generation"),
    ("nvmlDeviceGetMaxPcieLinkGeneration", "link_generation_most"),
    ("nvmlDeviceGetPerformanceState", "performance"),
    ("nvmlDeviceGetClockInfo", "sm_mhz memory_mhz"),
    ("nvmlDeviceGetMaxClockInfo", "sm_mhz_most memory_mhz_most"),
    ("nvmlDeviceGetCurrentClocksEventReasons", "throttle"),
    ("nvmlDeviceGetViolationStatus", "throttled_ns"),
    ("nvmlDeviceGetTemperature", "temperature_c"),
    ("nvmlDeviceGetPowerUsage", "power_mw"),
    ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_mw"),
    ("nvmlDeviceGetTotalEnergyConsumption", "energy_mj"),
    ("nvmlDeviceGetEccMode", "ecc"),
    ("nvmlDeviceGetTotalEccErrors", "ecc_uncorrected ecc_corrected"),
    ("nvmlDeviceGetMigMode", "mig"),
    ("nvmlDeviceGetComputeMode", "compute_mode"),
    ("nvmlDeviceGetPersistenceMode", "persistence"),
    ("nvmlDeviceGetComputeRunningProcesses_v3", "processes"),
    ("nvmlDeviceGetBAR1MemoryInfo", "bar1_mib bar1_used_mib"),
]


def test_the_failure_of_every_reading_is_tested() -> None:
    always = {"at_ns", "uuid", "address", "name", "driver", "unknown"}
    tried = {name for _, names in READINGS for name in names.split()}
    assert tried == set(encode(WHOLE)) - always


@pytest.mark.parametrize(("function", "names"), READINGS, ids=[name for _, name in READINGS])
@pytest.mark.parametrize(
    ("number", "why"),
    [
        (3, "the GPU does not support it"),
        (4, "no permission"),
        (10, "Timeout"),
        (999, "Unknown Error"),
    ],
)
def test_a_refused_reading_is_null_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, function: str, names: str, number: int, why: str
) -> None:
    found = read(monkeypatch, fails={function: number})
    refused = dict.fromkeys(names.split())
    assert encode(found) == encode(WHOLE) | refused | {"unknown": dict.fromkeys(refused, why)}


@pytest.mark.parametrize(
    "function",
    [function for function, names in READINGS if "cuda" not in names],  # needs no GPU
)
def test_a_gpu_lost_during_a_reading_ends_the_reading(
    monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    with pytest.raises(NvmlError, match=rf"{UUID}: the GPU is lost: .* Xid") as raised:
        read(monkeypatch, fails={function: 15})
    assert raised.value.kind == "lost"


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlSystemGetDriverVersion"]
)
def test_a_gpu_without_an_identity_is_not_read(
    monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    with pytest.raises(NvmlError, match="NVML reports Timeout"):
        read(monkeypatch, fails={function: 10})


def test_older_function_names_of_an_older_driver_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"nvmlDeviceGetCurrentClocksThrottleReasons": 0x2 | 0x4 | 0x800}
    new = "nvmlDeviceGetCurrentClocksEventReasons"
    assert read(monkeypatch, lacks=(new,), numbers=old) == WHOLE
    found = read(monkeypatch, lacks=(new, "nvmlDeviceGetCurrentClocksThrottleReasons"))
    assert found.throttle is None
    assert found.unknown == {"throttle": "the driver does not have it"}
    lists = [
        f"nvmlDeviceGet{kind}RunningProcesses" for kind in ("Compute", "Graphics", "MPSCompute")
    ]
    older = {f"{name}_v2": PROCESSES[f"{name}_v3"] for name in lists}
    assert read(monkeypatch, lacks=tuple(f"{name}_v3" for name in lists), processes=older) == WHOLE


@pytest.mark.parametrize("kind", ["Graphics", "MPSCompute"])
def test_unsupported_kinds_of_processes_count_as_none(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    function = f"nvmlDeviceGet{kind}RunningProcesses_v3"
    assert read(monkeypatch, fails={function: 3}) == WHOLE
    hidden = read(monkeypatch, fails={function: 4})
    assert hidden.processes is None and hidden.unknown == {"processes": "no permission"}


def test_no_processes_are_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = {f"nvmlDeviceGet{kind}RunningProcesses_v3": [] for kind in ("Compute", "Graphics")}
    assert read(monkeypatch, processes=nobody).processes == ()


@pytest.mark.parametrize(
    ("function", "number", "name"),
    [
        ("nvmlDeviceGetTotalEnergyConsumption", NONE, "energy_mj"),
        ("nvmlDeviceGetPowerUsage", 2**32 - 1, "power_mw"),
        ("nvmlDeviceGetCurrPcieLinkWidth", 2**32 - 1, "link_width"),
        ("nvmlDeviceGetPerformanceState", 32, "performance"),
    ],
)
def test_numbers_that_mean_unknown_are_null(
    monkeypatch: pytest.MonkeyPatch, function: str, number: int, name: str
) -> None:
    found = read(monkeypatch, numbers={function: number})
    assert getattr(found, name) is None and found.unknown[name]


def test_throttling_reasons_that_a_gpu_does_not_count_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = {"nvmlDeviceGetViolationStatus": {0: 11, 1: NONE, 3: NONE, 5: NONE}}
    found = read(monkeypatch, numbers=counted)
    assert found.throttled_ns == {"power": 11} and found.unknown == {}
    none = {"nvmlDeviceGetViolationStatus": dict.fromkeys((0, 1, 3, 5), NONE)}
    found = read(monkeypatch, numbers=none)
    assert found.throttled_ns is None and found.unknown["throttled_ns"] == "NVML has no number"


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (4, "permission", "/dev/nvidiactl"),
        (9, "module", "Secure Boot"),
        (12, "library", "libnvidia-ml.so.1"),
        (15, "lost", "fallen off the bus"),
        (16, "reset", "nvidia-smi --gpu-reset"),
        (18, "mismatch", "kernel module have different versions"),
        (999, "nodes", "systemctl daemon-reload"),
        (23, "nvml", "number 23"),
    ],
)
def test_nvml_that_cannot_be_initialized_is_an_error(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: str, words: str
) -> None:
    library = Library(
        fails={"nvmlInitWithFlags": number, "nvmlErrorString": 0}, lacks=("nvmlErrorString",)
    )
    install(monkeypatch, library)
    with pytest.raises(NvmlError, match=words) as raised, nvml.opened(pynvml):
        pass
    assert raised.value.kind == kind and library.shut == 0


def test_a_machine_without_the_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    with (
        pytest.raises(NvmlError, match=r"no libnvidia-ml\.so\.1 found; install"),
        nvml.opened(pynvml),
    ):
        pass


@pytest.mark.parametrize("named", ["GPU-0", "0000:42:00.0"])
def test_an_unknown_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    with pytest.raises(NvmlError, match=f"no GPU '{named}' found by NVML .*: {UUID}$"):
        read(monkeypatch, named)
    with pytest.raises(NvmlError, match=r"that NVML knows: none$"):
        read(monkeypatch, named, fails={"nvmlDeviceGetHandleByIndex_v2": 15})


def test_a_gpu_without_its_power_cable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML lists such a GPU, but returns no handle of it."""
    with pytest.raises(NvmlError, match="it reports Insufficient External Power"):
        read(monkeypatch, fails={"nvmlDeviceGetHandleByUUID": 8})


def test_the_bindings_are_loaded_from_one_file(tmp_path: Path) -> None:
    loaded = nvml.bindings(Path(pynvml.__file__))
    assert loaded is not pynvml and loaded.NVML_ERROR_GPU_IS_LOST == 15
    assert issubclass(loaded.NVMLError_GpuIsLost, loaded.NVMLError)
    with pytest.raises(FileNotFoundError):
        nvml.bindings(tmp_path / "pynvml.py")


def test_loading_the_images_bindings_does_not_change_its_tree(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pynvml.py"
    shutil.copy(pynvml.__file__, file)
    code = f"""
import pathlib
from virtbed_contract import nvml
print(nvml.bindings(pathlib.Path({str(file)!r})).NVMLError_GpuIsLost.__name__)
"""
    here = {"PYTHONPATH": str(Path(nvml.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=here
    )
    assert done.stdout == "NVMLError_GpuIsLost\n"
    assert list(tmp_path.iterdir()) == [file]


STAND_IN = r"""
#include <string.h>
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_info;
static int here;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    strncpy(text, "535.261.03", size);
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12020; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *name, void **device) {
    if (strcmp(name, "0000:41:00.0")) return 6;
    *device = &here;
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    if (device != &here) return 2;
    strncpy(text, "GPU-1", size);
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    strncpy(text, "H100", size);
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void *device, pci_info *info) {
    strcpy(info->bus_id, "00000000:41:00.0");
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) {
    *mj = 1ull << 40;
    return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later) {
    *now = 1, *later = 0;
    return 0;
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) {
    *mhz = 1000 + kind;
    return 0;
}
"""


def test_a_shared_library_is_called_as_c_code_is(tmp_path: Path) -> None:
    """Uses a compiled library with few functions, like that of a driver which lacks the others."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here, which makes a library that stands in")
    (tmp_path / "nvml.c").write_text(STAND_IN)
    library = str(tmp_path / "libnvidia-ml.so.1")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", "-o", library, str(tmp_path / "nvml.c")], check=True
    )
    code = """
import json, sys, pynvml
from virtbed_contract import nvml
from virtbed_contract.codec import encode
with nvml.opened(pynvml):
    print(json.dumps(encode(nvml.state(pynvml, "41:00.0"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
    )  # fmt: skip
    found = json.loads(done.stdout)
    known = {
        "uuid": "GPU-1", "address": "0000:41:00.0", "name": "H100", "driver": "535.261.03",
        "cuda": "12.2", "energy_mj": 2**40, "mig": True, "sm_mhz": 1001, "memory_mhz": 1002,
    }  # fmt: skip
    assert {name: found[name] for name in known} == known
    refused = set(found) - set(known) - {"at_ns", "unknown"}
    assert all(found[name] is None for name in refused)
    assert found["unknown"] == dict.fromkeys(refused, "the driver does not have it")
