"""What GPUs a host has, and which platforms could have one: facts in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ansible.module_utils.virtbed_contract.documents import Platform, RoleProperties
from ansible.module_utils.virtbed_contract.gpu_refusals import Refusal
from ansible.module_utils.virtbed_contract.gpus import NONE_HERE, Gpu
from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list
from ansible.module_utils.virtbed_contract.remedies import NO_GPU_YET
from ansible.module_utils.virtbed_contract.sweep import PlatformVerdict


def gpu_verdict(gpus: Sequence[Gpu]) -> PlatformVerdict:
    """Return what GPUs a host has, and what keeps the host, or its guests, from them."""
    if not gpus:
        reason, _, remedy = NONE_HERE.partition("; ")
        return PlatformVerdict("gpu", "unavailable", reason, remedy)
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
    judged = [(gpu, gpu.to_guest if machine.own_kernel else gpu.on_host) for gpu in gpus]
    usable = [gpu.words for gpu, refusal in judged if refusal is None]
    parts = (
        (f"the machine {entry.machine}", machine),
        (f"the enclosure {entry.enclosure}", enclosure),
    )
    unable = next((words for words, role in parts if not role.gpu), None)
    if usable and not unable:
        return PlatformVerdict(entry.name, "available", "; ".join(usable), "")
    reason, _, remedy = (NO_GPU_YET if usable else NONE_HERE).partition("; ")
    lack = (f"{unable} hands no GPU on: {reason}", remedy) if usable else (reason, remedy)
    if gpus and not usable:
        lack = _together(refusal for _, refusal in judged if refusal)
    return PlatformVerdict(entry.name, "unavailable", *lack)


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
