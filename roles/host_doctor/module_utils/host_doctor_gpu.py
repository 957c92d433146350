"""The GPUs of a host for the report of host_doctor, and which platforms could use one."""

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
"""Path of NVIDIA's Python bindings of NVML in an image's folder."""
NVML_DEADLINE_S = 60.0
"""For all GPUs together. A GPU without persistence mode takes seconds to initialize."""


def gpu_facts(root: Path, guest_mib: int, loader: str, images: Sequence[Path]) -> dict[str, Any]:
    """Return the part of the report's facts that is about GPUs.

    Args:
        root: Root of the host's file system.
        guest_mib: Memory of a guest, in MiB.
        loader: Output of ``ldconfig -p``.
        images: Folders of images, of which one may have the bindings of NVML.

    Returns:
        ``gpu``, each NVIDIA GPU, and why the host or a guest cannot use it;
        ``gpu_states``, by PCI address the state of each GPU that the driver has, where NVML
        reports one; ``gpu_driver``, the version of the driver's module, None for none;
        ``gpu_libraries``, the files of its libraries by the names that are loaded;
        ``gpu_limits``, the limits of guests' memory.
    """
    gpus = found_gpus.read(root, guest_mib, loader)
    states = gpu_states((gpu.address for gpu in gpus if gpu.on_host is None), images)
    return {
        "gpu": [encode(gpu) for gpu in found_gpus.with_states(gpus, states)],
        "gpu_states": {at: encode(s) for at, s in states.items() if isinstance(s, GpuState)},
        "gpu_driver": nvidia.module_version(root),
        "gpu_libraries": nvidia.libraries(loader),
        "gpu_limits": encode(limits(root)),
    }


def gpu_states(addresses: Iterable[str], images: Sequence[Path]) -> dict[str, GpuState | Refusal]:
    """Return each GPU's state from NVML, or its refusal; {} if no image has the bindings."""
    wanted = list(addresses)
    paths = (image / BINDINGS for image in images)  # not every variant has them
    path = next((path for path in paths if path.is_file()), None)
    if not wanted or path is None:
        return {}
    states = in_child_process(partial(_states, path, wanted), NVML_DEADLINE_S)
    if states is None:
        reason = f"NVML crashed, or gave no answer within {NVML_DEADLINE_S:.0f} s"
        remedy = "see the output of nvidia-smi and dmesg"
        return dict.fromkeys(wanted, Refusal("nvml", reason, remedy))
    return {
        at: decode(GpuState, each, at) if "uuid" in each else decode(Refusal, each, at)
        for at, each in states.items()
    }


def _states(path: Path, addresses: Iterable[str]) -> dict[str, Any]:
    """Return each GPU's state, or NVML's refusal, as JSON values by PCI address."""
    loaded = nvml.bindings(path)
    states: dict[str, Any] = {}
    try:
        with nvml.opened(loaded):
            for address in addresses:
                try:
                    states[address] = encode(nvml.state(loaded, address))
                except nvml.NvmlError as error:
                    states[address] = _refused(error)
    except nvml.NvmlError as error:
        return dict.fromkeys(addresses, _refused(error))
    return states


def _refused(error: nvml.NvmlError) -> dict[str, Any]:
    return {"kind": error.kind, "reason": error.reason, "remedy": error.remedy}


def in_child_process(
    read: Callable[[], Mapping[str, Any]], deadline_s: float
) -> dict[str, Any] | None:
    """Call a function in a child process and return its result; None if it fails or is late.

    A driver that hangs or a library that crashes then affects only the child. A child that hangs
    inside the kernel cannot be killed, so it is not waited for.
    """
    till = time.monotonic() + deadline_s
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(deadline_s) + 1)  # ends the child even if the parent is gone
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):  # a reader of this process's output waits until it is closed
                os.dup2(nothing, standard)
            with os.fdopen(sender, "w", encoding="utf-8") as stream:
                json.dump(read(), stream)
        finally:
            os._exit(0)
    os.close(sender)
    output = b""
    with os.fdopen(receiver, "rb", buffering=0) as stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, till - time.monotonic())):
            if not (chunk := stream.read(65536)):
                break
            output += chunk
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    for _ in range(10):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.1)
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError:
        return None
    return result


def gpu_verdict(gpus: Sequence[Gpu]) -> PlatformVerdict:
    """Return the verdict on a host's GPUs: each one, and why the host or guests cannot use it."""
    if not gpus:
        # A host with a GPU would not help yet: hence the remedy of NO_GPU_YET.
        return PlatformVerdict("gpu", "unavailable", _split(NONE_HERE)[0], _split(NO_GPU_YET)[1])
    usable = any(gpu.on_host is None for gpu in gpus)
    refusals = [each for gpu in gpus for each in (gpu.on_host, gpu.to_guest) if each]
    return PlatformVerdict(
        "gpu",
        "available" if usable else "unavailable",
        "; ".join(map(_described, gpus)),
        "; ".join(dict.fromkeys(refusal.remedy for refusal in refusals)),
    )


def gpu_verdicts(
    gpus: Sequence[Gpu], entries: Mapping[str, Platform], roles: Mapping[str, RoleProperties]
) -> tuple[PlatformVerdict, ...]:
    """Return per platform whether it could have a GPU; if not, the first thing that is missing."""
    return tuple(_verdict(gpus, entry, roles) for entry in entries.values())


def _verdict(
    gpus: Sequence[Gpu], entry: Platform, roles: Mapping[str, RoleProperties]
) -> PlatformVerdict:
    machine = roles[f"machine_{entry.machine}"]
    enclosure = roles[f"enclosure_{entry.enclosure}"]
    if not gpus:
        return PlatformVerdict(entry.name, "unavailable", *_split(NONE_HERE))
    parts = (
        (f"the machine {entry.machine}", machine),
        (f"the enclosure {entry.enclosure}", enclosure),
    )
    unable = next((words for words, role in parts if not role.gpu), None)
    if unable:  # virtbed lacks the feature, so no change of the host helps
        reason, remedy = _split(NO_GPU_YET)
        return PlatformVerdict(
            entry.name, "unavailable", f"{unable} cannot pass a GPU on: {reason}", remedy
        )
    judged = [(gpu, gpu.to_guest if machine.own_kernel else gpu.on_host) for gpu in gpus]
    usable = [gpu.words for gpu, refusal in judged if refusal is None]
    if usable:
        return PlatformVerdict(entry.name, "available", "; ".join(usable), "")
    lack = _joined(refusal for _, refusal in judged if refusal)
    return PlatformVerdict(entry.name, "unavailable", *lack)


def _split(sentence: str) -> tuple[str, str]:
    """Return reason and remedy of a sentence of the form "reason; remedy"."""
    reason, _, remedy = sentence.partition("; ")
    return reason, remedy


def _joined(refusals: Iterable[Refusal]) -> tuple[str, str]:
    each = list(refusals)
    reasons = dict.fromkeys(refusal.reason for refusal in each)
    return "; ".join(reasons), "; ".join(dict.fromkeys(refusal.remedy for refusal in each))


def _described(gpu: Gpu) -> str:
    """Return a GPU's name, its node, and why the host or guests cannot use it."""
    near = f", near node {format_cpu_list(gpu.nodes)}" if gpu.nodes else ""
    host, guest = gpu.on_host, gpu.to_guest
    if host and guest and host == guest:
        return f"{gpu.words}{near}: {host.reason}"
    why = [f"not for the host: {host.reason}"] if host else []
    why += [f"not for guests: {guest.reason}"] if guest else []
    return f"{gpu.words}{near}" + (f" ({'; '.join(why)})" if why else "")
