#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""What of virtbed's stands on a host."""

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
short_description: Say which instances, processes and changed settings of virtbed's stand on a host
description:
  - Asks the engines of the platforms' roles, and reads the kernel. Changes nothing.
options:
  state_dir:
    description: Where the testbed keeps its instances and snapshots.
    type: path
    required: true
  roles:
    description: By role, the command that lists its engine's instances.
    type: dict
    required: true
  note:
    description: The file in which a controller notes that it measures the host.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Say what stands
  host_standing:
    state_dir: /var/lib/virtbed
    roles: {enclosure_nspawn: [machinectl, list, --no-legend]}
    note: /run/virtbed/sweep
"""
RETURN = r"""
standing:
  description: What the contract's C(standing) returns.
  returned: success
  type: dict
seen:
  description: Name, boot id and uptime of the host, and the note that a controller made.
  returned: success
  type: dict
started:
  description: >-
    When the process started that has, on this host, the number in the note, in the kernel's ticks
    since boot; null if there is none.
  returned: success
  type: str
"""


def started(note: str) -> str | None:
    """Return when the process of a note's number started, if there is one on this host."""
    try:
        pid = json_file.parse(note.partition("\n")[0], "it").get("pid")
    except DocumentError:
        return None
    found = processes.stat(pid) if type(pid) is int else None
    return str(found.started) if found else None


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
    asked = module.params
    seen = {
        "name": os.uname().nodename,
        "boot": read(Path("/proc/sys/kernel/random/boot_id")) or "",
        "uptime": int(float((read(Path("/proc/uptime")) or "0").split()[0])),
        "note": read(Path(asked["note"])) or "",
    }
    found = standing(asked["roles"], Path(asked["state_dir"]))
    module.exit_json(changed=False, standing=found, seen=seen, started=started(str(seen["note"])))


if __name__ == "__main__":
    main()
