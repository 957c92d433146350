#!/usr/bin/python3
"""Removal of what removed gVisor sandboxes leave: processes, control groups, bundles, state."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import cgroups

DOCUMENTATION = r"""
module: gvisor_leftovers
short_description: Remove what sandboxes leave behind, and prove that nothing is left
options:
  pattern:
    description: Regular expression that the containers' names match.
    type: str
    required: true
  dir:
    description: The folder that holds C(bundles) and C(state).
    type: path
    required: true
  cgroup:
    description: What the name of a container's control group begins with, before the container's.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Remove what they leave, and prove it
  gvisor_leftovers:
    pattern: ^virtbed-gvisor-pinned-c01-r01$
    dir: /run/virtbed/gvisor
    cgroup: gvisor.
"""
RETURN = r"""
ended:
  description: Processes that a sandbox had left.
  returned: always
  type: list
  elements: int
removed:
  description: Folders and control groups removed.
  returned: always
  type: list
  elements: str
"""


class LeftError(Exception):
    """Control groups that do not go; the message says which, and what is in them."""


def matching(pattern: str, folders: list[Path], prefix: str = "") -> list[Path]:
    """Return the folders in some folders whose names match after the prefix."""
    return sorted(
        entry
        for folder in folders
        if folder.is_dir()
        for entry in folder.glob(f"{prefix}*/")
        if re.match(pattern, entry.name[len(prefix) :])
    )


def processes(found: list[Path]) -> list[int]:
    """Return the processes in some control groups."""
    texts = ((group / "cgroup.procs").read_text() for group in found)
    return sorted({int(pid) for text in texts for pid in text.split()})


def remove(folder: Path) -> bool:
    """Remove an empty folder or control group; return whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # not empty, or busy
        return False
    return True


def end(pattern: str, prefix: str, deadline_s: float) -> tuple[set[int], list[str]]:
    """Kill what runs in the control groups that match, and remove these.

    Returns:
        The processes killed, and the groups removed. What is left after `deadline_s` stays.
    """
    ended: set[int] = set()
    removed: list[str] = []
    tops = sorted({mount.point for mount in cgroups.mounts(Path("/")).values()})
    deadline = time.monotonic() + deadline_s
    while (found := matching(pattern, tops, prefix)) and time.monotonic() < deadline:
        for pid in processes(found):
            ended.add(pid)
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
        removed += [str(group) for group in found if remove(group)]
        time.sleep(0.02)
    if found:
        raise LeftError(f"{[str(group) for group in found]} still hold {processes(found)}")
    return ended, removed


def tidy(pattern: str, base: Path) -> list[str]:
    """Remove the bundles and the state of containers that match; return what was removed.

    What all sandboxes share goes with the last: another's bundle keeps it.
    """
    bundles, state = base / "bundles", base / "state"
    removed = matching(pattern, [bundles])
    for bundle in removed:
        shutil.rmtree(bundle)
    # A sandbox that did not start leaves its lock.
    locks = sorted(state.glob("*")) if state.is_dir() else []
    locks = [file for file in locks if re.match(pattern, file.name.partition("_sandbox:")[0])]
    for file in locks:
        file.unlink()
    shared = [path for path in (bundles, state, base) if path.is_dir() and remove(path)]
    return [str(path) for path in (*removed, *locks, *shared)]


def main() -> None:
    """Answer as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "pattern": {"type": "str", "required": True},
            "dir": {"type": "path", "required": True},
            "cgroup": {"type": "str", "required": True},
        },
    )
    pattern = module.params["pattern"]
    try:
        ended, removed = end(pattern, module.params["cgroup"], deadline_s=10)
    except LeftError as error:
        module.fail_json(msg=f"gvisor_leftovers: {error} after SIGKILL and 10 s")
    removed += tidy(pattern, Path(module.params["dir"]))
    module.exit_json(changed=bool(removed or ended), ended=sorted(ended), removed=removed)


if __name__ == "__main__":
    main()
