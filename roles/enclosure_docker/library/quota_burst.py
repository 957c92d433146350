#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Burst of a CPU quota: how much unused CPU time carries over to later periods."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import cgroups
from ansible.module_utils.virtbed_contract.kernel.files import read

DOCUMENTATION = r"""
module: quota_burst
short_description: Set the burst of the CPU quota of a process's control group
description:
  - Sets C(cpu.max.burst), or under control groups v1 C(cpu.cfs_burst_us), of the group that
    directly contains the process, and reads it back.
options:
  pid:
    description: Id of the process.
    type: int
    required: true
  burst_us:
    description: Most CPU time to carry over, in microseconds; at most the quota of one period.
    type: int
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Let a container of 1 CPU carry over up to one period
  quota_burst:
    pid: 4711
    burst_us: 100000
"""
RETURN = r"""
file:
  description: The file that was written.
  returned: success
  type: str
"""


class BurstError(Exception):
    """The burst cannot be set: no kernel support, no quota of the group, or refused."""


def set_burst(root: Path, pid: int, burst_us: int) -> tuple[Path, bool]:
    """Set the burst of the control group that directly contains a process.

    Returns:
        The file of the burst, and whether it was changed.

    Raises:
        BurstError: The kernel has no bursts, the group has no quota, or the burst was refused.
    """
    groups = cgroups.lineage(root, "cpu", pid)
    files = [group / name for group in groups[:1] for name in cgroups.BURST_FILES]
    files = [file for file in files if file.exists()]
    if not files:
        where = groups[0] if groups else "no control group"
        raise BurstError(
            f"quota_burst: {where} of process {pid} has none of {', '.join(cgroups.BURST_FILES)}; "
            "Linux 5.14 or newer is needed, or remove cfs_burst from the plan"
        )
    if cgroups.own_quota_cpus(root, pid) is None:  # not the group of a container under a quota
        raise BurstError(
            f"quota_burst: {groups[0]} of process {pid} has no CPU quota of its own, one needed"
        )
    if read(files[0]) == str(burst_us):
        return files[0], False
    try:
        files[0].write_text(f"{burst_us}\n", encoding="utf-8")
    except OSError as error:
        raise BurstError(f"quota_burst: {burst_us} refused by {files[0]}: {error}") from error
    if (found := read(files[0])) != str(burst_us):
        raise BurstError(f"quota_burst: {files[0]} has {found}, {burst_us} needed")
    return files[0], True


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "pid": {"type": "int", "required": True},
            "burst_us": {"type": "int", "required": True},
        }
    )
    try:
        file, changed = set_burst(Path("/"), module.params["pid"], module.params["burst_us"])
    except BurstError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, file=str(file))


if __name__ == "__main__":
    main()
