#!/usr/bin/python3
"""Removal of an engine's leftover, empty control groups, in every hierarchy."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import cgroups

DOCUMENTATION = r"""
module: control_group_absent
short_description: Remove an empty control group and those below it, in every hierarchy
description:
  - A leftover cpuset loses a CPU for good when that CPU goes offline, and so does the next instance
    below it. Hence an engine's parent groups are removed with its last instance.
  - Fails if a process is still in them.
options:
  path:
    description: Path of the group below each hierarchy's root.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Remove Podman's parent group
  control_group_absent:
    path: libpod_parent
"""
RETURN = r"""
removed:
  description: The directories removed.
  returned: always
  type: list
  elements: str
"""


def trees(path: str, root: Path = Path("/")) -> list[Path]:
    """Return a group's directories in every hierarchy, and those below, deepest first."""
    points = {mount.point for mount in cgroups.mounts(root).values()}
    tops = [point / path for point in points if (point / path).is_dir()]
    directories = {group for top in tops for group in (top, *top.rglob("*")) if group.is_dir()}
    return sorted(directories, key=lambda group: (-len(group.parts), group))


def remove(path: str, deadline_s: float) -> list[str]:
    """Remove a group and those below it as they become empty.

    A killed process leaves its group when it is reaped, so this tries again for `deadline_s`.

    Returns:
        The directories removed. Those that are not empty in time remain.
    """
    removed = []
    deadline = time.monotonic() + deadline_s
    while (groups := trees(path)) and time.monotonic() < deadline:
        for group in groups:
            with suppress(OSError):  # not empty, or removed already
                group.rmdir()
                removed.append(str(group))
        time.sleep(0.02)
    return removed


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "str", "required": True}}, supports_check_mode=True
    )
    path = module.params["path"].strip("/")
    if not path or ".." in path.split("/"):
        module.fail_json(msg=f"control_group_absent: path {path!r} found, a group's path needed")
    if module.check_mode:
        module.exit_json(changed=bool(trees(path)), removed=[])
    removed = remove(path, deadline_s=5)
    if left := [str(group) for group in trees(path)]:
        module.fail_json(msg=f"control_group_absent: {left} hold processes after 5 s; end them")
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
