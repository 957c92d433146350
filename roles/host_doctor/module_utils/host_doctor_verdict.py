"""Knows alone what each platform needs of a host, and so why one is missing and what to do.

Pure: facts in, verdicts out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
# One thing that is missing: (reason, remedy).
Lack = tuple[str, str]

SCHEMA = "virtbed.doctor/1"
PLATFORMS = ("bm", "vm", "cn", "vmcn")
USABLE = ("available", "emulated")
TESTBED = "run `make testbed`"


def accelerator(facts: Facts) -> str | None:
    """Return "kvm" where it boots a guest, "tcg" where there is only QEMU, else None."""
    if facts["qemu"]["installed"]:
        return "kvm" if facts["kvm"]["usable"] else "tcg"
    return None


def common_lacks(facts: Facts) -> list[Lack]:
    """Return what every platform misses on this host."""
    disk, memory = facts["disk"], facts["memory_mib"]
    lacks = []
    if not facts["is_root"]:
        lacks.append(("not running as root", "run as root, or with become"))
    if disk["free_mib"] < disk["needed_mib"]:
        lacks.append(
            (
                f"{disk['free_mib']} MiB free for {disk['path']}, {disk['needed_mib']} MiB needed",
                "free some, or set host_doctor_state_dir to a larger file system",
            )
        )
    if memory["available"] < memory["needed"]:
        lacks.append(
            (
                f"{memory['available']} MiB of memory available, {memory['needed']} MiB needed",
                "stop other programs, or use a larger host",
            )
        )
    if facts["image"]["digest"] is None:
        lacks.append(("the image is not built yet", f"{TESTBED}, which builds it"))
    return lacks


def _docker_lacks(facts: Facts) -> list[Lack]:
    docker, cgroup = facts["docker"], facts["cgroup"]
    lacks = []
    if not docker["installed"]:
        lacks.append(("no Docker engine installed", f"{TESTBED}, which installs docker.io"))
    elif not docker["running"]:
        lacks.append(("the Docker daemon does not answer", f"{TESTBED}, which starts it"))
    missing = {"cpu", "cpuset", "memory"} - set(cgroup["controllers"])
    if missing:
        names = ", ".join(sorted(missing))
        lacks.append((f"no cgroup controller {names}", "mount it, or enable it at boot"))
    return lacks


def _guest_lacks(facts: Facts) -> list[Lack]:
    libvirt = facts["libvirt"]
    lacks = []
    if not facts["qemu"]["installed"]:
        lacks.append(("no QEMU installed", f"{TESTBED}, which installs it"))
    if not libvirt["installed"]:
        lacks.append(("no libvirt installed", f"{TESTBED}, which installs it"))
    elif not libvirt["running"]:
        lacks.append(("libvirt does not answer at qemu:///system", f"{TESTBED}, which starts it"))
    return lacks


def _verdict(platform: str, status: str, reason: str, remedy: str = "") -> dict[str, str]:
    return {"platform": platform, "status": status, "reason": reason, "remedy": remedy}


def _unavailable(platform: str, lacks: Sequence[Lack]) -> dict[str, str]:
    remedies = dict.fromkeys(remedy for _, remedy in lacks)
    reason = "; ".join(reason for reason, _ in lacks)
    return _verdict(platform, "unavailable", reason, "; ".join(remedies))


def _guest_verdict(platform: str, facts: Facts) -> dict[str, str]:
    kvm = facts["kvm"]
    if kvm["usable"]:
        return _verdict(platform, "available", kvm["detail"])
    if kvm["probe"] == "not-run":
        remedy = "let the boot probe run, to learn whether KVM is usable"
    elif kvm["device"]:
        remedy = (
            "enable nested virtualization in the hypervisor below this host, or use a host"
            " with VT-x or AMD-V of its own"
        )
    else:
        remedy = (
            "enable VT-x or AMD-V in the firmware (or nested virtualization in the hypervisor"
            " below) and load kvm_intel or kvm_amd, or use a host that has it"
        )
    return _verdict(platform, "emulated", f"KVM is not usable: {kvm['detail']}", remedy)


def _gpu_verdict(facts: Facts) -> dict[str, str]:
    gpus = facts["gpu"]
    if not gpus:
        remedy = "use a host with an NVIDIA GPU, or keep to `processor: cpu`"
        return _verdict("gpu", "unavailable", "no NVIDIA GPU on the PCI bus", remedy)
    names = ", ".join(f"{gpu['name']} at {gpu['pci']}" for gpu in gpus)
    if not any(gpu["driver"] == "nvidia" for gpu in gpus):
        reason = f"{names}: not bound to the nvidia driver"
        return _verdict("gpu", "unavailable", reason, "install and load the NVIDIA driver")
    if not facts["iommu"]:
        remedy = "enable the IOMMU in the firmware and on the kernel command line to give it to vm"
        return _verdict("gpu", "available", f"{names}; no IOMMU, so not for vm and vmcn", remedy)
    return _verdict("gpu", "available", names)


def verdicts(facts: Facts) -> list[dict[str, str]]:
    """Return one {platform, status, reason, remedy} for bm, vm, cn, vmcn and gpu, in that order."""
    common = common_lacks(facts)
    # Docker inside the guest comes with the image, so vmcn asks of the host what vm asks.
    lacks = {
        "bm": common,
        "vm": common + _guest_lacks(facts),
        "cn": common + _docker_lacks(facts),
        "vmcn": common + _guest_lacks(facts),
    }
    good = {
        "bm": f"{len(facts['cpu']['allowed'])} CPUs, root",
        "cn": f"Docker {facts['docker']['version']}, cgroup v{facts['cgroup']['version']}",
    }
    rows = []
    for platform in PLATFORMS:
        if lacks[platform]:
            rows.append(_unavailable(platform, lacks[platform]))
        elif platform in good:
            rows.append(_verdict(platform, "available", good[platform]))
        else:
            rows.append(_guest_verdict(platform, facts))
    return [*rows, _gpu_verdict(facts)]


def report(host: str, facts: Facts) -> dict[str, Any]:
    """Return the whole document; `ok` says that all four platforms can run, emulated or not."""
    rows = verdicts(facts)
    return {
        "schema": SCHEMA,
        "host": host,
        "ok": all(row["status"] in USABLE for row in rows if row["platform"] in PLATFORMS),
        "facts": dict(facts),
        "platforms": rows,
        "accelerator": accelerator(facts),
    }
