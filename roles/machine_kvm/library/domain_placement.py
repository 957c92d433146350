#!/usr/bin/python3
"""CPU placement of a guest's threads, read from libvirt and the kernel."""

from __future__ import annotations

import traceback
import xml.etree.ElementTree as ElementTree  # nosec B405 # of libvirt itself
from collections.abc import Iterable
from itertools import compress, count
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.virtbed_contract.kernel import cgroups, guests, moments
from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list

DOCUMENTATION = r"""
module: domain_placement
short_description: Read the CPU placement of a running domain's threads from libvirt and the kernel
description:
  - Reads libvirt's pins and, for every thread, the CPUs that the kernel allows; the number of times
    that each vCPU's thread has moved to another CPU; libvirt's CPU quotas; and the tightest quota
    of any control group around a vCPU. libvirt reports only its own quotas.
  - Changes nothing.
options:
  name:
    description: Name of the domain.
    type: str
    required: true
  cpus:
    description: Kernel list of the host's CPUs whose interrupts are counted.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Read the domain and its threads
  domain_placement:
    name: virtbed-vm-pinned-c01-r01
    cpus: "1"
"""
RETURN = r"""
reading:
  description: >-
    Accelerator, vCPUs, memory, kernel, disk, CPU quotas; and pin, allowed CPUs and migrations of
    each thread.
  returned: always
  type: dict
bench:
  description: >-
    Settings, counters and log of the host's kernel so far; see virtbed_contract.kernel.moments.
  returned: success
  type: dict
"""


_NO_QUOTA = 17_592_186_044_415  # libvirt's VIR_DOMAIN_CPU_QUOTA_MAX


def quotas(parameters: dict[str, int]) -> dict[str, int]:
    """Return the CPU quotas in force among libvirt's scheduler parameters, in us per period.

    A quota that is negative, 0, or the largest that the kernel accepts is no limit.
    """
    return {
        key: value
        for key, value in parameters.items()
        if key.endswith("_quota") and 0 < value < _NO_QUOTA
    }


def quota_cpus(threads: Iterable[int], root: Path = Path("/")) -> float | None:
    """Return the tightest CPU quota on any of the threads, in CPUs; None without one.

    It includes quotas of the scope or slice around the guest, which libvirt does not report.
    """
    each = [cgroups.quota_cpus(root, thread) for thread in threads]
    return min((quota for quota in each if quota is not None), default=None)


def described(xml: str) -> dict[str, Any]:
    """Return the properties of the machine in a domain's definition."""
    domain = ElementTree.fromstring(xml)  # nosec B314 # libvirt wrote it
    return {
        **_topology(domain.find("cpu")),
        "accelerator": "kvm" if domain.get("type") == "kvm" else "tcg",
        "cpu_mode": domain.find("cpu").get("mode"),
        "memory_mib": int(domain.findtext("memory")) // 1024,
        "kernel": domain.findtext("os/kernel"),
        "backing_file": domain.find("devices/disk/backingStore/source").get("file"),
    }


def _topology(cpu: ElementTree.Element) -> dict[str, Any]:
    """Return a guest's topology, with its caches and nodes; {} if it has none set."""
    topology, cache = cpu.find("topology"), cpu.find("cache")
    if topology is None:
        return {}
    sizes = {name: int(topology.get(name, "1")) for name in ("sockets", "cores", "threads")}
    cells = [cell.get("cpus") for cell in cpu.findall("numa/cell")]
    return {
        "topology": {**sizes, "cache": None if cache is None else cache.get("mode"), "cells": cells}
    }


def pins_of(xml: str, vcpus: Iterable[int]) -> dict[int, str | None] | None:
    """Return the pin per vCPU if the numbers of the vCPUs have gaps, else None.

    libvirt's call for pins cannot be used with gaps: it counts the running vCPUs from 0.
    """
    wanted = sorted(vcpus)
    if wanted == list(range(len(wanted))):
        return None
    domain = ElementTree.fromstring(xml)  # nosec B314 # libvirt wrote it
    elements = domain.findall("cputune/vcpupin")
    pins = {
        int(pin.get("vcpu")): format_cpu_list(parse_cpu_list(pin.get("cpuset"))) for pin in elements
    }
    return {vcpu: pins.get(vcpu) for vcpu in wanted}


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "cpus": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        import libvirt  # here, so that unit tests of the module's functions do not need it
    except ImportError:
        module.fail_json(
            msg=f"domain_placement: {missing_required_lib('libvirt')} (Debian: python3-libvirt)",
            exception=traceback.format_exc(),
        )
    name = module.params["name"]
    try:
        connection = libvirt.open("qemu:///system")
        domain = connection.lookupByName(name)
        definition = domain.XMLDesc()
        machine = described(definition)
        pins = domain.vcpuPinInfo()
        emulator = domain.emulatorPinInfo()
        limits = quotas(domain.schedulerParameters())
    except libvirt.libvirtError as error:
        module.fail_json(msg=f"domain_placement: {name}: {error}; is the guest still running?")
    pid = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
    threads = guests.vcpu_threads(pid)
    if len(threads) != len(pins):
        module.fail_json(
            msg=f"domain_placement: {name} has {len(threads)} vCPU threads, {len(pins)} needed"
        )
    pins_with_gaps = pins_of(definition, threads)
    module.exit_json(
        changed=False,
        bench=moments.taken(parse_cpu_list(module.params["cpus"])),
        reading={
            "domain": name,
            "pid": pid,
            **machine,
            "vcpus": len(pins),
            "vcpu_threads": [
                {
                    **row,
                    "pin": pins_with_gaps[row["vcpu"]]
                    if pins_with_gaps
                    else format_cpu_list(compress(count(), pins[row["vcpu"]])),
                }
                for row in guests.vcpu_readings(pid, threads)
            ],
            "emulator": {
                "pin": format_cpu_list(compress(count(), emulator)),
                "cpus_allowed_list": guests.helpers_allowed(pid, threads),
            },
            "quotas": limits,
            "quota_cpus": quota_cpus(threads.values()),
            "host_transparent_hugepage": guests.transparent_hugepage(),
        },
    )


if __name__ == "__main__":
    main()
