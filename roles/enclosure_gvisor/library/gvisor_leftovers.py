#!/usr/bin/python3
"""Removal of the leftovers of gVisor sandboxes: processes, control groups, bundles, state."""

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
short_description: Remove leftovers of deleted sandboxes, and prove that nothing is left
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
    description: Prefix of the control group's name, before the container's name.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Remove leftovers, and prove that they are gone
  gvisor_leftovers:
    pattern: ^virtbed-gvisor-pinned-c01-r01$
    dir: /run/virtbed/gvisor
    cgroup: gvisor.
"""
RETURN = r"""
ended:
  description: Ids of the leftover processes that were killed.
  returned: always
  type: list
  elements: int
removed:
  description: Folders, lock files and control groups removed.
  returned: always
  type: list
  elements: str
"""


class LeftError(Exception):
    """Control groups that cannot be removed: the message names them and their processes."""


def matching(pattern: str, folders: list[Path], prefix: str = "") -> list[Path]:
    """Return the subfolders of `folders` named `prefix` and a match of `pattern`, sorted."""
    return sorted(
        entry
        for folder in folders
        if folder.is_dir()
        for entry in folder.glob(f"{prefix}*/")
        if re.match(pattern, entry.name[len(prefix) :])
    )


def processes(groups: list[Path]) -> list[int]:
    """Return the ids of the processes in the given control groups."""
    texts = ((group / "cgroup.procs").read_text() for group in groups)
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
    """Kill the processes in the control groups whose names match, and remove the groups.

    Returns:
        The processes killed, and the groups removed.

    Raises:
        LeftError: Groups are left after `deadline_s`.
    """
    ended: set[int] = set()
    removed: list[str] = []
    tops = sorted({mount.point for mount in cgroups.mounts(Path("/")).values()})
    deadline = time.monotonic() + deadline_s
    while (groups := matching(pattern, tops, prefix)) and time.monotonic() < deadline:
        for pid in processes(groups):
            ended.add(pid)
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
        removed += [str(group) for group in groups if remove(group)]
        time.sleep(0.02)
    if groups:
        raise LeftError(f"{[str(group) for group in groups]} still hold {processes(groups)}")
    return ended, removed


def tidy(pattern: str, base: Path) -> list[str]:
    """Remove the bundles and the state of the containers whose names match.

    The folders that all sandboxes share are removed with the last one: they are not empty before.

    Returns:
        The folders and lock files removed.
    """
    bundles, state = base / "bundles", base / "state"
    removed = matching(pattern, [bundles])
    for bundle in removed:
        shutil.rmtree(bundle)
    # A sandbox that failed to start leaves its lock file.
    locks = sorted(state.glob("*")) if state.is_dir() else []
    locks = [file for file in locks if re.match(pattern, file.name.partition("_sandbox:")[0])]
    for file in locks:
        file.unlink()
    shared = [path for path in (bundles, state, base) if path.is_dir() and remove(path)]
    return [str(path) for path in (*removed, *locks, *shared)]


def main() -> None:
    """Run the Ansible module."""
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
