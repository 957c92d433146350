#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""virtbed's instances, processes and changed settings on a host."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract import json_file
from ansible.module_utils.virtbed_contract.codec import DocumentError
from ansible.module_utils.virtbed_contract.kernel import processes
from ansible.module_utils.virtbed_contract.kernel.files import read
from ansible.module_utils.virtbed_contract.standing import standing

DOCUMENTATION = r"""
module: host_standing
short_description: List virtbed's instances, processes and changed settings on a host
description:
  - Lists the instances of the roles' engines, and reads the kernel. Changes nothing.
options:
  state_dir:
    description: Directory in which virtbed keeps its instances and snapshots.
    type: path
    required: true
  roles:
    description: Command that lists the instances of a role's engine, by role.
    type: dict
    required: true
  note:
    description: File in which a controller notes that it is measuring the host.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: List what virtbed has on the host
  host_standing:
    state_dir: /var/lib/virtbed
    roles: {enclosure_nspawn: [machinectl, list, --no-legend]}
    note: /run/virtbed/sweep
"""
RETURN = r"""
standing:
  description: Instances, processes and changed settings, from the contract's function C(standing).
  returned: success
  type: dict
seen:
  description: Name, boot id and uptime of the host, and the controller's note.
  returned: success
  type: dict
started:
  description: >-
    Start time, in the kernel's ticks since boot, of the process on this host that has the process
    id in the note; null if there is none.
  returned: success
  type: str
"""


def started(note: str) -> str | None:
    """Return the start time, in ticks since boot, of the process that a note names, if it runs."""
    try:
        pid = json_file.parse(note.partition("\n")[0], "it").get("pid")
    except DocumentError:
        return None
    process = processes.stat(pid) if type(pid) is int else None
    return str(process.started) if process else None


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "required": True},
            "roles": {"type": "dict", "required": True},
            "note": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    seen = {
        "name": os.uname().nodename,
        "boot": read(Path("/proc/sys/kernel/random/boot_id")) or "",
        "uptime": int(float((read(Path("/proc/uptime")) or "0").split()[0])),
        "note": read(Path(params["note"])) or "",
    }
    present = standing(params["roles"], Path(params["state_dir"]))
    module.exit_json(changed=False, standing=present, seen=seen, started=started(str(seen["note"])))


if __name__ == "__main__":
    main()
