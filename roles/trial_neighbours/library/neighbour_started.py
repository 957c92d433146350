#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The application of a neighbour: it outlives the task that starts it, and is found by its mark."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.neighbours import END, LOG, MARK, OUT
from ansible.module_utils.virtbed_contract.privileges import OUTLIVES

DOCUMENTATION = r"""
module: neighbour_started
short_description: Start what runs next to a measured instance, and leave it running
description:
  - What starts it has the mark of its instance, too, and a session of its own. So it outlives this
    module and its playbook, and whoever releases the instance ends both.
  - What it prints and logs, and its exit status once it has ended, are files in its folder.
options:
  name:
    description: The neighbour's id.
    type: str
    required: true
  argv:
    description: The command.
    type: list
    elements: str
    required: true
  cpus:
    description: Kernel list of the CPUs for what starts it, such as an engine's client.
    type: str
    required: true
  folder:
    description: Where its files are; those of an earlier one are removed.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Start a neighbour
  neighbour_started:
    name: bm-pinned-c01-neighbours_1-r01-n1
    argv: [taskset, -c, "0", python3, -m, virtbed_workloads, image_classification, --endless]
    cpus: "0"
    folder: /run/virtbed/neighbours/bm-pinned-c01-neighbours_1-r01-n1
"""
RETURN = r"""
pid:
  description: The process that started it, and waits for its end.
  returned: success
  type: int
"""

# POSIX sh; $0 is the folder, the command follows. An empty pipe, not /dev/null: see trial_process.
_KEEPER = f"""\
: | "$@" > "$0/{OUT}" 2> "$0/{LOG}"
echo "$?" > "$0/{END}"
"""


def start(name: str, argv: list[str], cpus: str, folder: Path) -> int:
    """Start a neighbour's command; return the number of the process that waits for it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    for file in (OUT, LOG, END):
        (folder / file).unlink(missing_ok=True)
    keeper = subprocess.Popen(
        [*OUTLIVES, "taskset", "--cpu-list", cpus, "sh", "-c", _KEEPER, str(folder), *argv],
        env={**os.environ, MARK.rstrip("="): name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    return keeper.pid


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "cpus": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
        }
    )
    asked = module.params
    try:
        pid = start(asked["name"], asked["argv"], asked["cpus"], Path(asked["folder"]))
    except OSError as error:
        module.fail_json(msg=f"neighbour_started: {asked['name']} cannot be started: {error}")
    module.exit_json(changed=True, pid=pid)


if __name__ == "__main__":
    main()
