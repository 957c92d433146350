#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CPU and memory placement of a microVM, read from QEMU and the host's kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qmp import Monitor, QmpError
from ansible.module_utils.virtbed_contract.kernel import cgroups, guests, moments, processes
from ansible.module_utils.virtbed_contract.kernel.cpus import parse_cpu_list

DOCUMENTATION = r"""
module: microvm_placement
short_description: Read the placement of a running microVM's threads and memory
description:
  - Reads accelerator, size, kernel and disk from QEMU; and from the kernel every thread's CPUs, the
    number of times that each vCPU's thread has moved to another CPU, memory nodes and CPU quotas.
  - Changes nothing.
options:
  monitor:
    description: QEMU's QMP socket.
    type: path
    required: true
  cpus:
    description: Kernel list of the host's CPUs whose interrupts are counted.
    type: str
    required: true
  disk:
    description: QEMU's node name for the root disk.
    type: str
    default: root
author: virtbed
"""
EXAMPLES = r"""
- name: Read the microVM and its threads
  microvm_placement:
    monitor: /var/lib/virtbed/instances/x/qemu/qmp.sock
    cpus: "1"
"""
RETURN = r"""
reading:
  description: >-
    Accelerator, vCPUs, memory and its nodes, kernel, disk, CPU quota; and allowed CPUs and
    migrations of each thread.
  returned: success
  type: dict
bench:
  description: Settings, counters and log of the host's kernel; see virtbed_contract.kernel.moments.
  returned: success
  type: dict
"""


def query(monitor: Monitor, disk: str) -> dict[str, Any]:
    """Return the guest's properties from QEMU's monitor; `disk` is the root disk's node name."""
    nodes = {
        node["node-name"]: node for node in monitor.execute("query-named-block-nodes", flat=True)
    }
    memory = monitor.execute("query-memory-size-summary")
    return {
        "guest": monitor.execute("query-name").get("name"),
        "machine_type": monitor.execute("qom-get", path="/machine", property="type"),
        "accelerator": "kvm" if monitor.execute("query-kvm")["enabled"] else "tcg",
        "status": monitor.execute("query-status")["status"],
        "memory_mib": (memory["base-memory"] + memory.get("plugged-memory", 0)) // 2**20,
        "kernel": monitor.execute("qom-get", path="/machine", property="kernel"),
        "kernel_arguments": monitor.execute("qom-get", path="/machine", property="append"),
        "backing_file": nodes[disk]["image"].get("full-backing-filename"),
    }


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "monitor": {"type": "path", "required": True},
            "disk": {"type": "str", "default": "root"},
            "cpus": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        with Monitor(module.params["monitor"], timeout_s=10.0) as monitor:
            properties = query(monitor, module.params["disk"])
            threads = {
                vcpu["cpu-index"]: vcpu["thread-id"] for vcpu in monitor.execute("query-cpus-fast")
            }
            pid = monitor.pid
        reading = {
            **properties,
            "pid": pid,
            "vcpus": len(threads),
            "vcpu_threads": guests.vcpu_readings(pid, threads),
            "emulator": {"cpus_allowed_list": guests.helpers_allowed(pid, threads)},
            "bound_nodes": processes.bound_nodes(pid),
            "quota_cpus": cgroups.quota_cpus(Path("/"), pid),
            "host_transparent_hugepage": guests.transparent_hugepage(),
        }
    except (QmpError, OSError) as error:
        module.fail_json(
            msg=f"microvm_placement: {error}; is the guest still running? Its console is "
            "in the folder of its socket"
        )
    bench = moments.taken(parse_cpu_list(module.params["cpus"]))
    module.exit_json(changed=False, bench=bench, reading=reading)


if __name__ == "__main__":
    main()
