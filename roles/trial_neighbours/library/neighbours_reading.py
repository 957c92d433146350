#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""CPU placement and progress of a measured instance's neighbours."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract import neighbours

DOCUMENTATION = r"""
module: neighbours_reading
short_description: Read neighbours' processes from the kernel, optionally once they answer requests
description:
  - A neighbour's processes have its mark in their environment, and run as the measured user.
  - Changes nothing.
options:
  names:
    description: Ids of the neighbours.
    type: list
    elements: str
    required: true
  folder:
    description: Folder with one subfolder per neighbour, named by its id, for its files.
    type: path
    required: true
  wait_s:
    description: >-
      Seconds within which each neighbour must have answered a request. It is an error if one has
      not, or has ended. 0 does not wait.
    type: int
    default: 0
author: virtbed
"""
EXAMPLES = r"""
- name: Wait until a neighbour answers requests
  neighbours_reading:
    names: [bm-pinned-c01-neighbours_1-r01-n1]
    folder: /run/virtbed/neighbours
    wait_s: 600
"""
RETURN = r"""
reading:
  description: The result of C(virtbed_contract.neighbours.reading) per neighbour.
  returned: success
  type: list
  elements: dict
"""
_LOOK_S = 0.1


class NeighbourError(Exception):
    """A neighbour does not answer requests; the message has its name and the reason."""


def wait(names: list[str], folder: Path, wait_s: float, look_s: float = _LOOK_S) -> None:
    """Wait until each neighbour has answered a request.

    Raises:
        NeighbourError: A neighbour ended, or has not answered in time.
    """
    deadline = time.monotonic() + wait_s
    pending = list(names)
    while pending:
        for name in pending:
            if (end := neighbours.ended(folder / name)) is not None:
                raise NeighbourError(
                    f"neighbours_reading: the neighbour {name} ended before it answered a request, "
                    f"with {end}"
                )
        pending = [name for name in pending if neighbours.answered(folder / name) is None]
        if pending and time.monotonic() > deadline:
            raise NeighbourError(
                f"neighbours_reading: the neighbour {pending[0]} answered no request within "
                f"{wait_s:.0f} s; raise timeout_s in the plan, or choose a smaller scale"
            )
        if pending:
            time.sleep(look_s)


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "wait_s": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    names, folder = module.params["names"], Path(module.params["folder"])
    try:
        if module.params["wait_s"]:
            wait(names, folder, module.params["wait_s"])
        readings = [neighbours.reading(name, folder / name) for name in names]
    except (NeighbourError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, reading=readings)


if __name__ == "__main__":
    main()
