"""Reader of a GPU's state through NVML, with NVIDIA's own bindings (nvidia-ml-py).

The contract has no dependencies, so callers pass in the module ``pynvml``. Only functions that
every driver from version 535 on has are used. If a function has two names, the newer is tried
first.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

from .gpu_state import GpuProcess, GpuState, Use
from .kernel import pci

MIB = 2**20
_SENSOR, _SM, _MEMORY = 0, 1, 2  # NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM
_CORRECTED, _UNCORRECTED, _SINCE_LOADED = 0, 1, 0
_REASONS = {
    0x1: "idle", 0x2: "asked_clocks", 0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost",
    0x20: "sw_thermal", 0x40: "hw_thermal", 0x80: "power_brake", 0x100: "display_clocks",
    0x200: "board_limit", 0x400: "reliability",
}  # fmt: skip
_POLICIES = {"power": 0, "heat": 1, "the board's limit": 3, "its reliability": 5}
_COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive"}
_PROCESSES: dict[Use, str] = {
    "compute": "nvmlDeviceGetComputeRunningProcesses",
    "graphics": "nvmlDeviceGetGraphicsRunningProcesses",
    "mps": "nvmlDeviceGetMPSComputeRunningProcesses",
}
_VERSIONS = ("_v3", "_v2")
"""Suffixes of these functions; those without a suffix raise exceptions other than NVMLError."""
_CLOCK_REASONS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)
_MODES = {"ecc": "nvmlDeviceGetEccMode", "mig": "nvmlDeviceGetMigMode"}
_ERRORS = ("nvmlDeviceGetTotalEccErrors",)
# By field of the state: names of the function, the newer first, and its arguments after the GPU.
_NUMBERS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "link_width": (("nvmlDeviceGetCurrPcieLinkWidth",), ()),
    "link_width_most": (("nvmlDeviceGetMaxPcieLinkWidth",), ()),
    "link_generation": (("nvmlDeviceGetCurrPcieLinkGeneration",), ()),
    "link_generation_most": (("nvmlDeviceGetMaxPcieLinkGeneration",), ()),
    "performance": (("nvmlDeviceGetPerformanceState",), ()),
    "sm_mhz": (("nvmlDeviceGetClockInfo",), (_SM,)),
    "sm_mhz_most": (("nvmlDeviceGetMaxClockInfo",), (_SM,)),
    "memory_mhz": (("nvmlDeviceGetClockInfo",), (_MEMORY,)),
    "memory_mhz_most": (("nvmlDeviceGetMaxClockInfo",), (_MEMORY,)),
    "temperature_c": (("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), (_SENSOR,)),
    "power_mw": (("nvmlDeviceGetPowerUsage",), ()),
    "power_limit_mw": (("nvmlDeviceGetEnforcedPowerLimit",), ()),
    "energy_mj": (("nvmlDeviceGetTotalEnergyConsumption",), ()),
    "ecc_uncorrected": (_ERRORS, (_UNCORRECTED, _SINCE_LOADED)),
    "ecc_corrected": (_ERRORS, (_CORRECTED, _SINCE_LOADED)),
}
_NOT_SUPPORTED, _NO_FUNCTION = 3, 13
_NO_NUMBER = (2**32 - 1, 2**64 - 1)
"""Values that NVML returns for an unknown number (NVML_VALUE_NOT_AVAILABLE)."""
_NO_NUMBER_WORDS = "NVML has no number"
_WHY = {
    _NOT_SUPPORTED: "the GPU does not support it",
    4: "no permission",
    _NO_FUNCTION: "the driver does not have it",
}
# Errors that end a reading of the whole state: kind, reason and remedy by NVML's error number.
_FATAL = {
    4: ("permission", "this user may not open /dev/nvidiactl",
        "run as root, or let the user's group have the device nodes"),
    9: ("module", "NVIDIA's kernel module is not loaded",
        "modprobe nvidia; if that fails, dmesg shows why: Secure Boot refuses a module with an "
        "unknown signature, and nouveau may have the GPU"),
    12: ("library", "no libnvidia-ml.so.1 found",
         "install the libraries of the NVIDIA driver (Debian: libnvidia-ml1); a container must be "
         "given the host's"),
    15: ("lost", "the GPU is lost: it has fallen off the bus",
         "dmesg names an Xid; power the host off and on again"),
    16: ("reset", "the GPU must be reset", "nvidia-smi --gpu-reset, or reboot the host"),
    18: ("mismatch", "the libraries and the kernel module have different versions",
         "reboot the host after an update of the driver, or give a container the host's "
         "libraries"),
    999: ("nodes", "NVML reports Unknown Error: the process may not open the GPU's device nodes, "
          "which a container loses at `systemctl daemon-reload`",
          "create the instance again, and do not reload systemd while it exists"),
}  # fmt: skip
# Errors that end the whole reading even if a single function raises them.
_ANYWHERE = frozenset({1, 9, 15, 16})


class NvmlError(RuntimeError):
    """NVML cannot read the state of a GPU.

    Attributes:
        kind: The reason in one word, for programs.
        reason: Why the state cannot be read.
        remedy: What to change so that it can.
    """

    def __init__(self, kind: str, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.kind, self.reason, self.remedy = kind, reason, remedy


class _Uncompiled(SourceFileLoader):
    """Loader that writes no bytecode next to the source, so that an image's tree is not changed."""

    def set_data(self, path: Any, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing."""


def bindings(path: Path) -> ModuleType:
    """Return NVIDIA's bindings, ``pynvml``, loaded from a file as the module ``virtbed_pynvml``.

    Args:
        path: The file ``pynvml.py``.

    Raises:
        FileNotFoundError: There is no such file.
    """
    name = "virtbed_pynvml"
    specification = importlib.util.spec_from_file_location(
        name, path, loader=_Uncompiled(name, str(path))
    )
    assert specification is not None and specification.loader is not None  # a loader was passed
    # The bindings look themselves up in sys.modules while they are loaded.
    loaded = sys.modules[name] = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


@contextmanager
def opened(nvml: Any) -> Iterator[None]:
    """Keep NVML initialized during a ``with`` block.

    Args:
        nvml: The module ``pynvml``.

    Raises:
        NvmlError: NVML cannot be initialized.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise _error(error) from error
    try:
        yield
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def state(nvml: Any, named: str, clock: Callable[[], int] = time.monotonic_ns) -> GpuState:
    """Return the state of a GPU.

    Args:
        nvml: The module ``pynvml``, initialized by `opened`.
        named: UUID or PCI address of the GPU.
        clock: Monotonic clock in nanoseconds.

    Raises:
        NvmlError: There is no such GPU, or it does not answer.
    """
    handle, at_ns = _handle(nvml, named), clock()
    uuid, address, name, driver = _identity(nvml, handle, named)
    query = _Query(nvml, handle, named)
    bar1 = query("bar1_mib", "nvmlDeviceGetBAR1MemoryInfo")
    if bar1 is None:
        query.unknown["bar1_used_mib"] = query.unknown["bar1_mib"]
    reasons = query("throttle", *_CLOCK_REASONS)
    modes = {name: query(name, function) for name, function in _MODES.items()}
    numbers: dict[str, Any] = {
        name: query(name, *functions, arguments=arguments)
        for name, (functions, arguments) in _NUMBERS.items()
    }
    numbers["performance"] = _level(numbers["performance"], query.unknown)
    persistence = query("persistence", "nvmlDeviceGetPersistenceMode")
    mode = query("compute_mode", "nvmlDeviceGetComputeMode")
    return GpuState(
        at_ns=at_ns,
        uuid=uuid,
        address=address,
        name=name,
        driver=driver,
        cuda=_cuda(nvml, query.unknown),
        throttle=None if reasons is None else _reasons(reasons),
        throttled_ns=_throttled(query),
        ecc=_current(modes["ecc"]),
        mig=_current(modes["mig"]),
        compute_mode=None if mode is None else _COMPUTE_MODES.get(mode, f"mode {mode}"),
        persistence=None if persistence is None else bool(persistence),
        processes=_processes(query),
        bar1_mib=None if bar1 is None else bar1.bar1Total // MIB,
        bar1_used_mib=None if bar1 is None else bar1.bar1Used // MIB,
        unknown=query.unknown,
        **numbers,
    )


class _Query:
    """Caller of NVML's functions for one GPU; `unknown` has the reason per failed reading."""

    def __init__(self, nvml: Any, handle: Any, named: str) -> None:
        self._nvml, self._handle, self._named = nvml, handle, named
        self.unknown: dict[str, str] = {}

    def __call__(self, what: str, *functions: str, arguments: tuple[int, ...] = ()) -> Any:
        """Return a reading by the first of some functions that the driver has; None if it fails."""
        for function in functions:
            try:
                value = getattr(self._nvml, function)(self._handle, *arguments)
            except self._nvml.NVMLError as error:
                if error.value in _ANYWHERE:
                    raise _error(error, self._named) from error
                self.unknown[what] = _WHY.get(error.value, str(error))
                if error.value != _NO_FUNCTION:
                    break
                continue
            self.unknown.pop(what, None)
            if not (isinstance(value, int) and value in _NO_NUMBER):
                return value
            self.unknown[what] = _NO_NUMBER_WORDS
            break
        return None


def _current(modes: Optional[list[int]]) -> Optional[bool]:
    """Return the current mode from a pair (current, pending)."""
    return None if modes is None else bool(modes[0])


def _error(error: Any, named: str = "") -> NvmlError:
    about = f"{named}: " if named else ""
    if error.value in _FATAL:
        kind, reason, remedy = _FATAL[error.value]
        return NvmlError(kind, f"{about}{reason}", remedy)
    reason = f"{about}NVML reports {error} (error number {error.value})"
    return NvmlError("nvml", reason, "see the output of nvidia-smi and dmesg")


def _handle(nvml: Any, named: str) -> Any:
    at = pci.address(named)
    try:
        if at is not None:
            return nvml.nvmlDeviceGetHandleByPciBusId(at)
        return nvml.nvmlDeviceGetHandleByUUID(named)
    except nvml.NVMLError as error:
        if error.value in _FATAL:
            raise _error(error, named) from error
        known = ", ".join(_known(nvml)) or "none"
        reason = f"no GPU {named!r} found by NVML (it reports {error})"
        raise NvmlError("absent", reason, f"name one that NVML knows: {known}") from error


def _known(nvml: Any) -> Iterator[str]:
    """Yield the UUIDs of all GPUs that NVML can read."""
    with suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            with suppress(nvml.NVMLError):
                yield nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))


def _identity(nvml: Any, handle: Any, named: str) -> tuple[str, str, str, str]:
    """Return UUID, address, name and driver version; every state must have them."""
    try:
        at = nvml.nvmlDeviceGetPciInfo(handle).busId
        return (
            nvml.nvmlDeviceGetUUID(handle),
            pci.address(at) or at,
            nvml.nvmlDeviceGetName(handle),
            nvml.nvmlSystemGetDriverVersion(),
        )
    except nvml.NVMLError as error:
        raise _error(error, named) from error


def _cuda(nvml: Any, unknown: dict[str, str]) -> Optional[str]:
    try:
        number = nvml.nvmlSystemGetCudaDriverVersion_v2()
    except nvml.NVMLError as error:
        unknown["cuda"] = _WHY.get(error.value, str(error))
        return None
    return f"{number // 1000}.{number % 1000 // 10}"


def _level(number: Optional[int], unknown: dict[str, str]) -> Optional[int]:
    if number is not None and number > 15:  # NVML_PSTATE_UNKNOWN is 32
        unknown["performance"] = "the driver does not know it"
        return None
    return number


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(
        _REASONS.get(1 << place, f"bit_{place}")
        for place in range(bits.bit_length())
        if bits >> place & 1
    )


def _throttled(query: _Query) -> Optional[dict[str, int]]:
    """Return the time in ns for which each of `_POLICIES` slowed the GPU, if it counts that."""
    times_ns = {}
    for why, policy in _POLICIES.items():
        status = query("throttled_ns", "nvmlDeviceGetViolationStatus", arguments=(policy,))
        if status is not None and status.violationTime not in _NO_NUMBER:
            times_ns[why] = status.violationTime
    if times_ns:
        query.unknown.pop("throttled_ns", None)
        return times_ns
    query.unknown.setdefault("throttled_ns", _NO_NUMBER_WORDS)
    return None


def _processes(query: _Query) -> Optional[tuple[GpuProcess, ...]]:
    processes: dict[int, GpuProcess] = {}
    for kind, function in _PROCESSES.items():
        of_kind = query("processes", *(function + version for version in _VERSIONS))
        why = query.unknown.pop("processes", None)
        # "Not supported" for graphics or MPS means that the GPU has no such processes.
        if of_kind is None and (kind == "compute" or why != _WHY[_NOT_SUPPORTED]):
            query.unknown["processes"] = str(why)
            return None
        for each in of_kind or ():
            used = each.usedGpuMemory
            memory_mib = None if used is None else used // MIB
            processes.setdefault(each.pid, GpuProcess(each.pid, kind, memory_mib))
    return tuple(processes[pid] for pid in sorted(processes))
