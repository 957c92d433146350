"""Stand-in for libnvidia-ml, which `pynvml` calls through ctypes, with one synthetic GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import pynvml
import pytest

UUID = "GPU-11111111-2222-3333-4444-555555555555"
ADDRESS = "00000000:41:00.0"
MIB = 2**20
# Numbers by function, or by function and its argument.
NUMBERS: dict[str, Any] = {
    "nvmlSystemGetCudaDriverVersion_v2": 12020,
    "nvmlDeviceGetCount_v2": 1,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetCurrPcieLinkGeneration": 4,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetClockInfo": {1: 1410, 2: 2619},
    "nvmlDeviceGetMaxClockInfo": {1: 1980, 2: 2619},
    "nvmlDeviceGetCurrentClocksEventReasons": 0x2 | 0x4 | 0x800,
    "nvmlDeviceGetTemperature": 51,
    "nvmlDeviceGetPowerUsage": 312_000,
    "nvmlDeviceGetEnforcedPowerLimit": 350_000,
    "nvmlDeviceGetTotalEnergyConsumption": 5 * 10**12,
    "nvmlDeviceGetTotalEccErrors": {0: 3, 1: 0},
    "nvmlDeviceGetComputeMode": 3,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetViolationStatus": {0: 11, 1: 22, 3: 33, 5: 44},
}
PAIRS = {"nvmlDeviceGetEccMode": (1, 0), "nvmlDeviceGetMigMode": (0, 1)}
TEXTS = {
    "nvmlDeviceGetUUID": UUID,
    "nvmlDeviceGetName": "NVIDIA H100 PCIe",
    "nvmlSystemGetDriverVersion": "535.261.03",
}
PROCESSES: dict[str, list[tuple[int, int]]] = {
    "nvmlDeviceGetComputeRunningProcesses_v3": [(4711, 700 * MIB), (815, 2**64 - 1)],
    "nvmlDeviceGetGraphicsRunningProcesses_v3": [(4711, 700 * MIB)],
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": [],
}
TOO_SMALL, NOT_FOUND = 7, 6


class Library:
    """Stand-in for the object that `ctypes.CDLL` returns; functions have their names in C.

    Attributes:
        fails: Error numbers that functions return, by the function's name.
        lacks: Functions that the library lacks, like that of an older driver.
        numbers: Replacements for entries of `NUMBERS`.
        shut: How often the library was shut down.
    """

    def __init__(
        self, fails: Mapping[str, int] | None = None, lacks: tuple[str, ...] = (),
        numbers: Mapping[str, Any] | None = None,
        processes: Mapping[str, list[tuple[int, int]]] | None = None,
        pairs: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        # A driver of version 535 has only the older of NVML's two functions for the temperature.
        self.fails, self.lacks = dict(fails or {}), ("nvmlDeviceGetTemperatureV", *lacks)
        self.numbers = {**NUMBERS, **(numbers or {})}
        self.processes = {**PROCESSES, **(processes or {})}
        self.pairs = {**PAIRS, **(pairs or {})}
        self.shut = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml") or name in self.lacks:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            return self.fails.get(name) or self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name == "nvmlShutdown":
            self.shut += 1
        elif name.startswith("nvmlDeviceGetHandleBy"):
            requested = getattr(arguments[0], "value", None)
            known = (UUID.encode(), b"0000:41:00.0")
            if "Index" not in name and requested not in known:
                return NOT_FOUND
        elif name in self.processes:
            return self._list(self.processes[name], *arguments[1:])
        elif name in TEXTS:
            arguments[-2].value = TEXTS[name].encode()
        elif name in self.pairs:
            for argument, number in zip(arguments[1:], self.pairs[name], strict=True):
                argument._obj.value = number
        elif name == "nvmlDeviceGetPciInfo_v3":
            arguments[1]._obj.busId = ADDRESS.encode()
        elif name == "nvmlDeviceGetBAR1MemoryInfo":
            arguments[1]._obj.bar1Total, arguments[1]._obj.bar1Used = 128 * 1024 * MIB, 5 * MIB
        elif name in self.numbers:
            self._number(name, arguments)
        elif name != "nvmlInitWithFlags":
            raise AssertionError(f"{name}: the stand-in does not have it")
        return 0

    def _number(self, name: str, arguments: tuple[Any, ...]) -> None:
        number, place = self.numbers[name], arguments[-1]._obj
        if isinstance(number, dict):
            number = number[arguments[1].value]
        if name == "nvmlDeviceGetViolationStatus":
            place.violationTime = number
        else:
            place.value = number

    def _list(self, found: list[tuple[int, int]], count: Any, places: Any) -> int:
        room, count._obj.value = count._obj.value, len(found)
        if places is None:
            return TOO_SMALL if found else 0
        assert room >= len(found)
        for place, (pid, used) in zip(places, found, strict=False):
            place.pid, place.usedGpuMemory = pid, used
        return 0


def install(monkeypatch: pytest.MonkeyPatch, library: Library | None) -> None:
    """Make `pynvml` call this library; None: as on a machine without a driver."""

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "CDLL", missing)
