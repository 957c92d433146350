#!/usr/bin/python3
"""What only Podman can tell of a running container of its own."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import processes

DOCUMENTATION = r"""
module: podman_container
short_description: Ask Podman which process, image, runtime and storage a running container has
description:
  - Podman's Python library talks to a service, a daemon that no trial needs, so its client is
    asked. Changes nothing.
options:
  name:
    description: The container.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Ask Podman which process it started
  podman_container:
    name: virtbed-podman-pinned-c01-r01
"""
RETURN = r"""
container:
  description:
    - C(container) (its name), C(pid) and C(started) (clock ticks since boot) of its first process,
      C(runtime), C(storage), and C(layers), the digests of its image's layers.
  returned: success
  type: dict
"""


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
    process = processes.stat(pid) if pid else None
    if process is None:
        module.fail_json(
            msg=f"podman_container: {name} is {container['State']['Status']}, running needed"
        )
    module.exit_json(
        changed=False,
        container={
            "container": name,
            "pid": pid,
            "started": process.started,
            "runtime": container["OCIRuntime"],
            "storage": container["Driver"],
            "layers": ask("image", container["Image"])["RootFS"]["Layers"],
        },
    )


if __name__ == "__main__":
    main()
