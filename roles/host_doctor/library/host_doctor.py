#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The report on a host: which platforms it can run, and why not the others."""

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
short_description: Say which virtbed platforms a host can run, and why not the others
description:
  - Reads CPUs, cgroups, memory, disk, GPU and IOMMU from the kernel, asks hwloc which CPUs share
    what, and the engines of the platforms' roles whether they answer.
  - Probes KVM by booting the testbed's own guest kernel under it, because a C(/dev/kvm) that
    exists proves nothing. The guest is killed as soon as its kernel starts user space, or at the
    deadline.
  - Changes nothing on the host.
author: virtbed
options:
  state_dir:
    description: Where the testbed keeps its images.
    type: path
    required: true
  platforms:
    description: The platforms by name, as the lookup virtbed_platforms gives them as C(entries).
    type: dict
    required: true
  host_roles:
    description: The roles that each platform needs on the host, of the same lookup.
    type: dict
    required: true
  roles:
    description: The properties of each role, of the same lookup.
    type: dict
    required: true
  tuning:
    description: The settings that disturb a measurement, as the module host_tuning shows them.
    type: list
    elements: dict
    default: []
  waking:
    description: What may wake up while trials run, as the module host_tuning lists it.
    type: list
    elements: dict
    default: []
  waking_unknown:
    description: Why nobody can tell what may wake up; empty where it is known.
    type: str
    default: ""
  image:
    description: The variant of the image that is needed.
    type: str
    required: true
  images:
    description:
      - The variants by name, as the lookup virtbed_images gives them. An image of other sources is
        recognised by the C(key) of each.
    type: dict
    required: true
  probe_kvm:
    description: Whether to boot the guest kernel under KVM.
    type: bool
    default: true
  kvm_deadline_s:
    description: Seconds the guest kernel gets to start user space; 6 times if the host is emulated.
    type: int
    default: 20
  needed_disk_mib:
    description:
      - Free disk space, in MiB, that building an image takes.
      - Where that image is built already, a quarter of it is asked for.
    type: int
    default: 20480
  needed_memory_mib:
    description: Available memory, in MiB, that a trial takes.
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

- name: Say what can run
  ansible.builtin.debug:
    msg: "{{ item.platform }} is {{ item.status }}: {{ item.reason }}"
  loop: "{{ examined.report.platforms }}"
"""

RETURN = r"""
report:
  description:
    - The contract's HostReport, a C(virtbed.doctor/2) document.
    - Each of C(platforms) has a C(platform), a C(status) (C(available), C(emulated) or
      C(unavailable)), a C(reason) and a C(remedy). C(facts.engines) has C(name), C(installed),
      C(running) and C(version) of each engine that a role names. C(facts.images) has each
      variant of the image, and C(facts.image) the one that is needed.
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
    """Return the `facts` of the report for the host whose file system is at root."""
    state_dir = Path(options["state_dir"])
    images = image_facts(state_dir, options["images"])
    image = images[options["image"]]
    # What remains to be written after a finished image is overlays and results.
    needed_disk_mib = options["needed_disk_mib"] // (4 if image["current"] else 1)
    # Any variant has the kernel that a guest boots.
    kernels = [found["path"] for found in (image, *images.values()) if found["path"]]
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
        "machine": machine_facts(root, hwloc["xml"], time.time()),  # last: the clock is compared
    }


def main() -> None:
    """Examine the host and answer as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    asked = module.params
    try:
        house = House(
            {name: decode(Platform, entry, name) for name, entry in asked["platforms"].items()},
            asked["host_roles"],
            {name: decode(RoleProperties, role, name) for name, role in asked["roles"].items()},
        )
        tuning = [decode(TuningRow, row, "tuning") for row in asked["tuning"]]
        waking = [decode(WakingRow, row, "waking") for row in asked["waking"]]
    except DocumentError as error:
        module.fail_json(msg=f"host_doctor: {error}")
    found = replace(
        report(os.uname().nodename, gather(Path("/"), asked, house), house, tuning),
        waking=tuple(waking),
        waking_unknown=asked["waking_unknown"],
    )
    module.exit_json(changed=False, report=encode(found))


if __name__ == "__main__":
    main()
