"""What GPUs a host has, and which platforms could have one."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.virtbed_contract import gpus as found_gpus
from ansible.module_utils.virtbed_contract import nvml
from ansible.module_utils.virtbed_contract.codec import decode, encode
from ansible.module_utils.virtbed_contract.documents import Platform, RoleProperties
from ansible.module_utils.virtbed_contract.gpu_refusals import Refusal, limits
from ansible.module_utils.virtbed_contract.gpu_state import GpuState
from ansible.module_utils.virtbed_contract.gpus import NONE_HERE, Gpu
from ansible.module_utils.virtbed_contract.kernel import nvidia
from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list
from ansible.module_utils.virtbed_contract.remedies import NO_GPU_YET
from ansible.module_utils.virtbed_contract.sweep import PlatformVerdict

BINDINGS = "rootfs/usr/local/lib/python3.11/dist-packages/pynvml.py"
"""Of an image's folder: NVIDIA's bindings of NVML."""
NVML_DEADLINE_S = 60.0
"""For all GPUs together; one that nobody keeps ready takes seconds to start."""


def gpu_facts(root: Path, guest_mib: int, loader: str, images: Sequence[Path]) -> dict[str, Any]:
    """Return what of the report tells of GPUs.

    Returns:
        ``gpu``, each NVIDIA GPU with why it is of no use to the host or to a guest;
        ``gpu_states``, by address the state of each that the driver has, where NVML tells it;
        ``gpu_driver``, the version of its module, None for none; ``gpu_libraries``, the files of
        its libraries by the names that are loaded; ``gpu_limits``, those of guests' memory.

    Args:
        root: Of the host's file system.
        guest_mib: Memory of a guest.
        loader: What ``ldconfig -p`` printed.
        images: Folders of images, of which one may have the bindings of NVML.
    """
    found = found_gpus.read(root, guest_mib, loader)
    states = gpu_states((gpu.address for gpu in found if gpu.on_host is None), images)
    return {
        "gpu": [encode(gpu) for gpu in found_gpus.with_states(found, states)],
        "gpu_states": {at: encode(s) for at, s in states.items() if isinstance(s, GpuState)},
        "gpu_driver": nvidia.module_version(root),
        "gpu_libraries": nvidia.libraries(loader),
        "gpu_limits": encode(limits(root)),
    }


def gpu_states(addresses: Iterable[str], images: Sequence[Path]) -> dict[str, GpuState | Refusal]:
    """Return the state of each GPU by NVML, or why it tells none; nothing without the bindings."""
    wanted = list(addresses)
    paths = (image / BINDINGS for image in images)  # not every variant has them
    path = next((path for path in paths if path.is_file()), None)
    if not wanted or path is None:
        return {}
    said = apart(partial(_states, path, wanted), NVML_DEADLINE_S)
    if said is None:
        reason = f"NVML crashed, or gave no answer within {NVML_DEADLINE_S:.0f} s"
        return dict.fromkeys(wanted, Refusal("nvml", reason, "see what nvidia-smi and dmesg say"))
    return {
        at: decode(GpuState, each, at) if "uuid" in each else decode(Refusal, each, at)
        for at, each in said.items()
    }


def _states(path: Path, addresses: Iterable[str]) -> dict[str, Any]:
    """Return each GPU's state, or why NVML tells none, as JSON values."""
    loaded = nvml.bindings(path)
    found: dict[str, Any] = {}
    try:
        with nvml.opened(loaded):
            for address in addresses:
                try:
                    found[address] = encode(nvml.state(loaded, address))
                except nvml.NvmlError as error:
                    found[address] = _refused(error)
    except nvml.NvmlError as error:
        return dict.fromkeys(addresses, _refused(error))
    return found


def _refused(error: nvml.NvmlError) -> dict[str, Any]:
    return {"kind": error.kind, "reason": error.reason, "remedy": error.remedy}


def apart(read: Callable[[], Mapping[str, Any]], deadline_s: float) -> dict[str, Any] | None:
    """Call a function in a process of its own, and return what it gave; None if nothing in time.

    A driver that hangs and a library that crashes take nobody along. What hangs in the kernel
    cannot be ended by anybody: it is not waited for.
    """
    till = time.monotonic() + deadline_s
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(deadline_s) + 1)  # should nobody be left to end it
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):  # whoever reads this process's output waits for its end
                os.dup2(nothing, standard)
            with os.fdopen(say, "w", encoding="utf-8") as stream:
                json.dump(read(), stream)
        finally:
            os._exit(0)
    os.close(say)
    said = b""
    with os.fdopen(hear, "rb", buffering=0) as stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, till - time.monotonic())):
            if not (chunk := stream.read(65536)):
                break
            said += chunk
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    for _ in range(10):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.1)
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        return None
    return found


def gpu_verdict(gpus: Sequence[Gpu]) -> PlatformVerdict:
    """Return what GPUs a host has, and what keeps the host, or its guests, from them."""
    if not gpus:
        # No host with one would help yet.
        return PlatformVerdict(
            "gpu", "unavailable", _said_of(NONE_HERE)[0], _said_of(NO_GPU_YET)[1]
        )
    usable = any(gpu.on_host is None for gpu in gpus)
    refusals = [each for gpu in gpus for each in (gpu.on_host, gpu.to_guest) if each]
    return PlatformVerdict(
        "gpu",
        "available" if usable else "unavailable",
        "; ".join(map(_said, gpus)),
        "; ".join(dict.fromkeys(refusal.remedy for refusal in refusals)),
    )


def gpu_verdicts(
    gpus: Sequence[Gpu], entries: Mapping[str, Platform], roles: Mapping[str, RoleProperties]
) -> tuple[PlatformVerdict, ...]:
    """Return whether each platform could have a GPU; if not, the first thing that is missing."""
    return tuple(_verdict(gpus, entry, roles) for entry in entries.values())


def _verdict(
    gpus: Sequence[Gpu], entry: Platform, roles: Mapping[str, RoleProperties]
) -> PlatformVerdict:
    machine = roles[f"machine_{entry.machine}"]
    enclosure = roles[f"enclosure_{entry.enclosure}"]
    if not gpus:
        return PlatformVerdict(entry.name, "unavailable", *_said_of(NONE_HERE))
    parts = (
        (f"the machine {entry.machine}", machine),
        (f"the enclosure {entry.enclosure}", enclosure),
    )
    unable = next((words for words, role in parts if not role.gpu), None)
    if unable:  # no change of the host would give what virtbed cannot do
        reason, remedy = _said_of(NO_GPU_YET)
        return PlatformVerdict(
            entry.name, "unavailable", f"{unable} hands no GPU on: {reason}", remedy
        )
    judged = [(gpu, gpu.to_guest if machine.own_kernel else gpu.on_host) for gpu in gpus]
    usable = [gpu.words for gpu, refusal in judged if refusal is None]
    if usable:
        return PlatformVerdict(entry.name, "available", "; ".join(usable), "")
    lack = _together(refusal for _, refusal in judged if refusal)
    return PlatformVerdict(entry.name, "unavailable", *lack)


def _said_of(sentence: str) -> tuple[str, str]:
    """Return reason and remedy of a sentence that has both."""
    reason, _, remedy = sentence.partition("; ")
    return reason, remedy


def _together(refusals: Iterable[Refusal]) -> tuple[str, str]:
    each = list(refusals)
    reasons = dict.fromkeys(refusal.reason for refusal in each)
    return "; ".join(reasons), "; ".join(dict.fromkeys(refusal.remedy for refusal in each))


def _said(gpu: Gpu) -> str:
    """Return what a GPU is, where, and who cannot have it."""
    near = f", near node {format_cpu_list(gpu.nodes)}" if gpu.nodes else ""
    host, guest = gpu.on_host, gpu.to_guest
    if host and guest and host == guest:
        return f"{gpu.words}{near}: {host.reason}"
    why = [f"not for the host: {host.reason}"] if host else []
    why += [f"not for guests: {guest.reason}"] if guest else []
    return f"{gpu.words}{near}" + (f" ({'; '.join(why)})" if why else "")
