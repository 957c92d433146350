#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Report on a host: which platforms it can run, and what each of the others lacks."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_doctor_facts import (
    below_facts,
    cgroup_facts,
    cpu_facts,
    cpu_flags,
    disk_facts,
    has_iommu,
    image_facts,
    machine_facts,
    memory_facts,
    nodes_allowed,
    other_disks,
    system_facts,
)
from ansible.module_utils.host_doctor_gpu import gpu_facts
from ansible.module_utils.host_doctor_kernel import host_kernel
from ansible.module_utils.host_doctor_probe import (
    engine_facts,
    hwloc_facts,
    kvm_facts,
    lacking,
    loader_cache,
)
from ansible.module_utils.host_doctor_verdict import House, report
from ansible.module_utils.virtbed_contract.codec import DocumentError, decode, encode
from ansible.module_utils.virtbed_contract.documents import Platform, RoleProperties
from ansible.module_utils.virtbed_contract.kernel import topology
from ansible.module_utils.virtbed_contract.sweep import TIMES_EMULATED, TuningRow, WakingRow

DOCUMENTATION = r"""
module: host_doctor
short_description: Report which virtbed platforms a host can run, and what each of the others lacks
description:
  - Reads CPUs, cgroups, memory, disk, GPU and IOMMU from the kernel, and the CPUs' shared caches
    and cores from hwloc. Checks whether the engines of the platforms' roles answer.
  - Probes KVM by booting the testbed's own guest kernel under it, because C(/dev/kvm) may exist and
    still boot no guest. The guest is killed as soon as its kernel starts user space, or at the
    deadline.
  - Changes nothing on the host.
author: virtbed
options:
  state_dir:
    description: Directory in which virtbed keeps its images.
    type: path
    required: true
  platforms:
    description: The platforms by name, C(entries) of the lookup virtbed_platforms.
    type: dict
    required: true
  host_roles:
    description: Names of the roles that each platform needs on the host, from the same lookup.
    type: dict
    required: true
  roles:
    description: The properties of each role, from the same lookup.
    type: dict
    required: true
  tuning:
    description: The settings that disturb a measurement, as the module host_tuning returns them.
    type: list
    elements: dict
    default: []
  waking:
    description: Timers and services that may start during a trial, as host_tuning returns them.
    type: list
    elements: dict
    default: []
  waking_unknown:
    description: Why C(waking) could not be read; empty where it could.
    type: str
    default: ""
  image:
    description: Variant of the image that is needed.
    type: str
    required: true
  images:
    description:
      - The variants by name, as the lookup virtbed_images returns them. The C(key) of each shows
        whether an image was built from the present sources.
    type: dict
    required: true
  probe_kvm:
    description: Whether to boot the guest kernel under KVM.
    type: bool
    default: true
  kvm_deadline_s:
    description: Seconds for the guest kernel to start user space; times 6 on an emulated host.
    type: int
    default: 20
  needed_disk_mib:
    description:
      - Free disk space, in MiB, needed to build an image.
      - If that image is built already, a quarter of it is needed.
    type: int
    default: 20480
  needed_memory_mib:
    description: Available memory, in MiB, needed by a trial.
    type: int
    default: 6144
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Examine the host
  host_doctor:
    state_dir: /var/lib/virtbed
    platforms: "{{ lookup('virtbed_platforms').entries }}"
    host_roles: "{{ lookup('virtbed_platforms').host_roles }}"
    roles: "{{ lookup('virtbed_platforms').roles }}"
    image: cpu
    images: "{{ lookup('virtbed_images').variants }}"
  register: examined

- name: Show which platforms can run
  ansible.builtin.debug:
    msg: "{{ item.platform }} is {{ item.status }}: {{ item.reason }}"
  loop: "{{ examined.report.platforms }}"
"""

RETURN = r"""
report:
  description:
    - The contract's HostReport, a C(virtbed.doctor/2) document.
    - Each entry of C(platforms) has a C(platform), a C(status) (C(available), C(emulated) or
      C(unavailable)), a C(reason) and a C(remedy). C(facts.engines) has C(name), C(installed),
      C(running) and C(version) of each engine that a role names. C(facts.images) has each variant
      of the image, and C(facts.image) the one that is needed.
  returned: success
  type: dict
  sample:
    schema: virtbed.doctor/2
    host: bench01
    ok: true
    accelerator: kvm
    platforms:
      - {platform: bm, status: available, reason: "2 CPUs, root", remedy: ""}
"""

ARGUMENTS = {
    "state_dir": {"type": "path", "required": True},
    "platforms": {"type": "dict", "required": True},
    "host_roles": {"type": "dict", "required": True},
    "roles": {"type": "dict", "required": True},
    "tuning": {"type": "list", "elements": "dict", "default": []},
    "waking": {"type": "list", "elements": "dict", "default": []},
    "waking_unknown": {"type": "str", "default": ""},
    "image": {"type": "str", "required": True},
    "images": {"type": "dict", "required": True},
    "probe_kvm": {"type": "bool", "default": True},
    "kvm_deadline_s": {"type": "int", "default": 20},
    "needed_disk_mib": {"type": "int", "default": 20480},
    "needed_memory_mib": {"type": "int", "default": 6144},
}


def gather(root: Path, options: dict[str, Any], house: House) -> dict[str, Any]:
    """Return the `facts` of the report.

    Args:
        root: Root of the host's file system.
        options: The module's parameters.
        house: The platforms and the properties of their roles.
    """
    state_dir = Path(options["state_dir"])
    images = image_facts(state_dir, options["images"])
    image = images[options["image"]]
    # Once the image is built, only overlays and results remain to be written.
    needed_disk_mib = options["needed_disk_mib"] // (4 if image["current"] else 1)
    # Any variant has the guests' kernel.
    kernels = [each["path"] for each in (image, *images.values()) if each["path"]]
    engines = {key: each for role in house.roles.values() for key, each in role.engines.items()}
    below = below_facts(root)
    times = TIMES_EMULATED if below["emulated"] else 1
    drivers = sorted({name for role in house.roles.values() for name in role.drivers})
    hwloc = hwloc_facts(times=times)
    return {
        **system_facts(root),
        "host_kernel": host_kernel(root, drivers),
        "is_root": os.geteuid() == 0,
        "cpu": cpu_facts(root, os.sched_getaffinity(0)),
        "hwloc": hwloc,
        "nodes_with_cpus": list(topology.nodes_with_cpus(root)),
        "nodes_allowed": nodes_allowed(root),
        "memory_mib": memory_facts(root, options["needed_memory_mib"]),
        "disk": disk_facts(state_dir, needed_disk_mib),
        "disks": other_disks(role.store for role in house.roles.values() if role.store),
        "cgroup": cgroup_facts(root),
        "engines": engine_facts(engines, times),
        "lacking": lacking(house.roles, times),
        "kvm": kvm_facts(
            root / "dev/kvm",
            cpu_flags(root),
            Path(kernels[0]) if kernels else None,
            options["probe_kvm"],
            options["kvm_deadline_s"] * times,
        ),
        **gpu_facts(
            root,
            options["needed_memory_mib"],
            loader_cache(times),
            [Path(path) for path in kernels],
        ),
        "iommu": has_iommu(root),
        "below": below,
        "image": image,
        "images": images,
        # Last, because the controller compares this clock with its own.
        "machine": machine_facts(root, hwloc["xml"], time.time()),
    }


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        house = House(
            {name: decode(Platform, entry, name) for name, entry in params["platforms"].items()},
            params["host_roles"],
            {name: decode(RoleProperties, role, name) for name, role in params["roles"].items()},
        )
        tuning = [decode(TuningRow, row, "tuning") for row in params["tuning"]]
        waking = [decode(WakingRow, row, "waking") for row in params["waking"]]
    except DocumentError as error:
        module.fail_json(msg=f"host_doctor: {error}")
    host_report = replace(
        report(os.uname().nodename, gather(Path("/"), params, house), house, tuning),
        waking=tuple(waking),
        waking_unknown=params["waking_unknown"],
    )
    module.exit_json(changed=False, report=encode(host_report))


if __name__ == "__main__":
    main()
