#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Start of a neighbour's application, which survives the task that starts it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.neighbours import END, LOG, MARK, OUT
from ansible.module_utils.virtbed_contract.privileges import OUTLIVES

DOCUMENTATION = r"""
module: neighbour_started
short_description: Start a neighbour's application, and leave it running
description:
  - The process that starts it gets a session of its own, so it survives this module and its
    playbook. It has its instance's mark in its environment, as the application has, so the release
    of the instance ends both.
  - The application's output, its log, and its exit status once it has ended, are files in its
    folder.
options:
  name:
    description: Id of the neighbour.
    type: str
    required: true
  argv:
    description: Command that starts the application.
    type: list
    elements: str
    required: true
  cpus:
    description: Kernel list of the CPUs for the process that starts it, such as an engine's client.
    type: str
    required: true
  folder:
    description: Folder of its files; those of an earlier start are removed.
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
  description: Id of the process that starts it and waits for its end.
  returned: success
  type: int
"""

# POSIX sh; $0 is the folder, the command follows. An empty pipe, not /dev/null: see trial_process.
_KEEPER = f"""\
: | "$@" > "$0/{OUT}" 2> "$0/{LOG}"
echo "$?" > "$0/{END}"
"""


def start(name: str, argv: list[str], cpus: str, folder: Path) -> int:
    """Start a neighbour's command; return the id of the process that waits for its end."""
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
    params = module.params
    try:
        pid = start(params["name"], params["argv"], params["cpus"], Path(params["folder"]))
    except OSError as error:
        module.fail_json(msg=f"neighbour_started: {params['name']} cannot be started: {error}")
    module.exit_json(changed=True, pid=pid)


if __name__ == "__main__":
    main()
