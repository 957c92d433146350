#!/usr/bin/python3
"""Where a running container may run, and how much, as Docker and the kernel say."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.virtbed_contract.kernel import cgroups, processes
from ansible.module_utils.virtbed_contract.kernel.cpus import allowed

DOCUMENTATION = r"""
module: container_placement
short_description: Read a running container's CPUs, quota and memory back from the kernel
description:
  - Docker says which process and image; the limits are read from /proc and the control groups,
    version 1 or 2. Changes nothing.
requirements:
  - docker (the Docker SDK for Python)
options:
  name:
    description: The container.
    type: str
    required: true
  timeout_s:
    description: Seconds that the Docker daemon gets for each answer.
    type: int
    default: 60
author: virtbed
"""
EXAMPLES = r"""
- name: Read the container and its control group
  container_placement:
    name: virtbed-cn-pinned-c01-r01
"""
RETURN = r"""
reading:
  description: CPUs allowed, cpuset, quota in CPUs or null, memory limit, throttling, image layers.
  returned: always
  type: dict
"""


def main() -> None:
    """Answer as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "timeout_s": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    # In a guest the image's wheels come first, and their requests is newer than this docker bears.
    sys.path[:] = [path for path in sys.path if not path.startswith("/usr/local/")]
    try:
        import docker  # here, so that the module's pure parts can be tested without it
    except ImportError:
        module.fail_json(
            msg=f"container_placement: {missing_required_lib('docker')} (Debian: python3-docker)",
            exception=traceback.format_exc(),
        )
    try:
        client = docker.from_env(version="auto", timeout=module.params["timeout_s"]).api
        container = client.inspect_container(name)
        image = client.inspect_image(container["Image"])
    except (docker.errors.DockerException, OSError) as error:
        module.fail_json(msg=f"container_placement: {name}: {error}; is the container still there?")
    pid = container["State"]["Pid"]
    if not pid:
        module.fail_json(
            msg=f"container_placement: {name} is {container['State']['Status']}, running needed"
        )
    module.exit_json(
        changed=False,
        reading={
            "container": name,
            "pid": pid,
            "layers": image["RootFS"]["Layers"],
            "cpus_allowed_list": allowed(pid),
            "mems_allowed_list": processes.memory_nodes(pid),
            **cgroups.limits(Path("/"), pid),
        },
    )


if __name__ == "__main__":
    main()
