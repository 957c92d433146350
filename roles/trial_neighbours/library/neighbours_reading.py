#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Where the neighbours of a measured instance run, and what they have done so far."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract import neighbours

DOCUMENTATION = r"""
module: neighbours_reading
short_description: Read the processes of neighbours from the kernel, once they answer requests
description:
  - A neighbour's processes are found by its mark, and are those of the measured user.
  - Changes nothing.
options:
  names:
    description: The neighbours' ids.
    type: list
    elements: str
    required: true
  folder:
    description: The folder in which each has a folder of its id, with its files.
    type: path
    required: true
  wait_s:
    description: >-
      Seconds to wait until each has answered a request; one that ended meanwhile, or did not, is an
      error. 0 reads at once, whatever there is.
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
  description: Per neighbour what C(virtbed_contract.neighbours.reading) returns.
  returned: success
  type: list
  elements: dict
"""
_LOOK_S = 0.1


class NeighbourError(Exception):
    """A neighbour that does not answer requests; the message says which, and why."""


def wait(names: list[str], folder: Path, wait_s: float, look_s: float = _LOOK_S) -> None:
    """Wait until each neighbour has answered a request.

    Raises:
        NeighbourError: one ended, or has answered none in time.
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
                f"{wait_s:.0f} s; raise timeout_s in the plan, or ask for a smaller scale"
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
        found = [neighbours.reading(name, folder / name) for name in names]
    except (NeighbourError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, reading=found)


if __name__ == "__main__":
    main()
