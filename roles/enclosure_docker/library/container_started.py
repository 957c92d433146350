#!/usr/bin/python3
"""A container, made and started by Docker."""

from __future__ import annotations

import sys
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.virtbed_contract.kernel import processes

DOCUMENTATION = r"""
module: container_started
short_description: Start a container without a network on a read-only image
description:
  - Makes the container, starts it, and returns what only Docker can tell of it.
  - A new file system in memory is its /tmp. Nothing is pulled.
requirements:
  - docker (the Docker SDK for Python)
options:
  name:
    description: The container.
    type: str
    required: true
  label:
    description: Value of its label C(virtbed).
    type: str
    required: true
  image:
    description: Image in Docker's store.
    type: str
    required: true
  command:
    description: The process that it runs.
    type: list
    elements: str
    required: true
  memory_mib:
    description: Limit of its memory.
    type: int
    required: true
  quota_cpus:
    description:
      - Quota of CPU time, in CPUs. What C(docker run --cpus) sets, of any number of CPUs. That
        refuses more than Docker's daemon may use itself.
    type: int
  cpuset_cpus:
    description: Kernel list of the CPUs that it may use.
    type: str
  cpuset_mems:
    description: Kernel list of the memory nodes that it may use.
    type: str
  timeout_s:
    description: Seconds that Docker's daemon gets for each answer.
    type: int
    default: 60
author: virtbed
"""
EXAMPLES = r"""
- name: Start the container
  container_started:
    name: virtbed-cn-pinned-c01-r01
    label: cn-pinned-c01-r01
    image: virtbed/rootfs:0123456789abcdef
    command: [sleep, infinity]
    memory_mib: 4096
    cpuset_cpus: "1"
    cpuset_mems: "0"
"""
RETURN = r"""
container:
  description:
    - C(container) (its name), C(pid) and C(started) (clock ticks since boot) of its first process,
      and C(layers), the digests of its image's layers.
  returned: success
  type: dict
"""

_PERIOD_US = 100_000


def main() -> None:
    """Answer as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "label": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "memory_mib": {"type": "int", "required": True},
            "quota_cpus": {"type": "int"},
            "cpuset_cpus": {"type": "str"},
            "cpuset_mems": {"type": "str"},
            "timeout_s": {"type": "int", "default": 60},
        },
    )
    asked = module.params
    name, quota = asked["name"], asked["quota_cpus"]
    # In a guest the image's wheels come first, and their requests is newer than this docker bears.
    sys.path[:] = [path for path in sys.path if not path.startswith("/usr/local/")]
    try:
        import docker  # here, so that a host without it is told so in words
    except ImportError:
        module.fail_json(
            msg=f"container_started: {missing_required_lib('docker')} (Debian: python3-docker)",
            exception=traceback.format_exc(),
        )
    try:
        client = docker.from_env(version="auto", timeout=asked["timeout_s"]).api
        limits = client.create_host_config(
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": ""},
            mem_limit=f"{asked['memory_mib']}m",
            cpu_period=_PERIOD_US if quota else None,
            cpu_quota=quota * _PERIOD_US if quota else None,
            cpuset_cpus=asked["cpuset_cpus"],
            cpuset_mems=asked["cpuset_mems"],
        )
        made = client.create_container(
            asked["image"], asked["command"], name=name, labels={"virtbed": asked["label"]},
            host_config=limits,
        )  # fmt: skip
        client.start(made["Id"])
        told = client.inspect_container(made["Id"])
        layers = client.inspect_image(told["Image"])["RootFS"]["Layers"]
    except (docker.errors.DockerException, OSError) as error:
        module.fail_json(msg=f"container_started: {name}: {error}")
    pid = told["State"]["Pid"]
    process = processes.stat(pid) if pid else None
    if process is None:
        module.fail_json(
            msg=f"container_started: {name} is {told['State']['Status']}, running needed"
        )
    container = {"container": name, "pid": pid, "started": process.started, "layers": layers}
    module.exit_json(changed=True, container=container)


if __name__ == "__main__":
    main()
