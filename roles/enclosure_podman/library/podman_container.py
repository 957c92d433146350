#!/usr/bin/python3
"""Where a running Podman container may run, and how much, as Podman and the kernel say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import cgroups, processes
from ansible.module_utils.virtbed_contract.kernel.cpus import allowed

DOCUMENTATION = r"""
module: podman_reading
short_description: Read a running Podman container back from Podman and the kernel
description:
  - Podman says which process, image, runtime and storage; limits, capabilities and seccomp mode are
    the kernel's. Podman's Python library talks to a service, a daemon that no trial needs, so its
    client is asked. Changes nothing.
options:
  name:
    description: The container.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Read the container and its control group
  podman_reading:
    name: virtbed-podman-pinned-c01-r01
"""
RETURN = r"""
reading:
  description: CPUs allowed, cpuset, quota in CPUs or null, memory limit, throttling, layers.
  returned: always
  type: dict
"""

SECCOMP = {"0": "none", "1": "strict", "2": "filter"}


def main() -> None:
    """Answer as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}}, supports_check_mode=True
    )
    name = module.params["name"]

    def ask(kind: str, what: str) -> dict[str, Any]:
        """Return what Podman says of a container or an image."""
        command = ["podman", kind, "inspect", what]
        return json.loads(module.run_command(command, check_rc=True)[1])[0]

    container = ask("container", name)
    pid = container["State"]["Pid"]
    if not pid:
        module.fail_json(
            msg=f"podman_reading: {name} is {container['State']['Status']}, running needed"
        )
    status = processes.status(pid)
    module.exit_json(
        changed=False,
        reading={
            "container": name,
            "pid": pid,
            "runtime": container["OCIRuntime"],
            "storage": container["Driver"],
            "layers": ask("image", container["Image"])["RootFS"]["Layers"],
            "capabilities": status["CapBnd"],
            "seccomp": SECCOMP[status["Seccomp"]],
            "cpus_allowed_list": allowed(pid),
            "mems_allowed_list": processes.memory_nodes(pid),
            **cgroups.limits(Path("/"), pid),
        },
    )


if __name__ == "__main__":
    main()
