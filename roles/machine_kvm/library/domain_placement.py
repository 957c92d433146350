#!/usr/bin/python3
"""Knows alone how to read from libvirt and the kernel where a guest's threads may run."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from itertools import compress, count
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kernel_lists import allowed, kernel_list

DOCUMENTATION = r"""
module: domain_placement
short_description: Read where libvirt and the kernel put a running domain's threads
description:
  - Reads the pins that libvirt keeps and, for every thread, the CPUs that the kernel allows; how
    often each vCPU's thread was moved to another CPU so far; and libvirt's CPU quotas.
  - Changes nothing.
options:
  name:
    description: The domain.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Read the domain and its threads
  domain_placement:
    name: virtbed-vm-pinned-c01-r01
"""
RETURN = r"""
placement:
  description: >-
    Accelerator, vCPUs, memory, kernel, disk, CPU quotas, and pin, allowed CPUs and migrations of
    each thread.
  returned: always
  type: dict
"""


HUGEPAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_NO_QUOTA = 17_592_186_044_415  # what libvirt calls VIR_DOMAIN_CPU_QUOTA_MAX


def memory_nodes(status: str) -> str:
    """Return Mems_allowed_list out of the text of a thread's status file."""
    pairs = (line.split(":", 1) for line in status.splitlines() if ":" in line)
    return dict(pairs)["Mems_allowed_list"].strip()


def vcpu_threads(pid: int, proc: Path = Path("/proc")) -> dict[int, int]:
    """Return the thread of each vCPU; QEMU names them "CPU 0/KVM" or "CPU 0/TCG"."""
    threads = {}
    for task in (proc / str(pid) / "task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("CPU ") and "/" in name:
            threads[int(name[4 : name.index("/")])] = int(task.name)
    return threads


def helpers_allowed(pid: int, vcpus: set[int], proc: Path = Path("/proc")) -> set[int]:
    """Return the CPUs on which any thread of a process may run but for those of its vCPUs."""
    found: set[int] = set()
    for task in (proc / str(pid) / "task").iterdir():
        if int(task.name) not in vcpus:
            with suppress(ProcessLookupError):  # I/O threads come and go
                found |= os.sched_getaffinity(int(task.name))
    return found


def migrations(pid: int, thread: int, proc: Path = Path("/proc")) -> int | None:
    """Return how often the kernel moved a thread to another CPU; None where it does not tell.

    A pin that was changed and put back shows here, whenever that was.
    """
    try:
        text = (proc / str(pid) / "task" / str(thread) / "sched").read_text()
    except FileNotFoundError:  # a kernel without CONFIG_SCHED_DEBUG
        return None
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    counts = {key.strip(): value.strip() for key, value in pairs}
    return int(counts["se.nr_migrations"]) if "se.nr_migrations" in counts else None


def quotas(parameters: dict[str, int]) -> dict[str, int]:
    """Return the CPU quotas that bind, in microseconds a period, out of libvirt's scheduler's.

    Without a limit a quota is negative, 0, or the largest that the kernel takes.
    """
    return {
        key: value
        for key, value in parameters.items()
        if key.endswith("_quota") and 0 < value < _NO_QUOTA
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}}, supports_check_mode=True
    )
    import libvirt  # here, so that the module's pure parts can be tested without it

    name = module.params["name"]
    try:
        connection = libvirt.open("qemu:///system")
        domain = connection.lookupByName(name)
        xml = ElementTree.fromstring(domain.XMLDesc())
        pins = domain.vcpuPinInfo()
        emulator = domain.emulatorPinInfo()
        limits = quotas(domain.schedulerParameters())
    except libvirt.libvirtError as error:
        module.fail_json(msg=f"domain_placement: {name}: {error}; is the guest still running?")
    pid = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
    threads = vcpu_threads(pid)
    if len(threads) != len(pins):
        module.fail_json(
            msg=f"domain_placement: {name} has {len(threads)} vCPU threads, {len(pins)} needed"
        )
    module.exit_json(
        changed=False,
        placement={
            "domain": name,
            "pid": pid,
            "accelerator": "kvm" if xml.get("type") == "kvm" else "tcg",
            "cpu_mode": xml.find("cpu").get("mode"),
            "vcpus": len(pins),
            "memory_mib": int(xml.findtext("memory")) // 1024,
            "kernel": xml.findtext("os/kernel"),
            "backing_file": xml.find("devices/disk/backingStore/source").get("file"),
            "vcpu_threads": [
                {
                    "vcpu": vcpu,
                    "thread": threads[vcpu],
                    "pin": kernel_list(compress(count(), pins[vcpu])),
                    "cpus_allowed_list": allowed(threads[vcpu]),
                    "migrations": migrations(pid, threads[vcpu]),
                    "mems_allowed_list": memory_nodes(
                        Path(f"/proc/{pid}/task/{threads[vcpu]}/status").read_text()
                    ),
                }
                for vcpu in range(len(pins))
            ],
            "emulator": {
                "pin": kernel_list(compress(count(), emulator)),
                # Of every thread that is no vCPU: main loop, I/O, and whatever else QEMU started.
                "cpus_allowed_list": kernel_list(helpers_allowed(pid, set(threads.values()))),
            },
            "quotas": limits,
            "host_transparent_hugepage": HUGEPAGES.read_text().partition("[")[2].partition("]")[0],
        },
    )


if __name__ == "__main__":
    main()
