#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""CPU hotplug: CPUs taken offline, and brought online with cpusets and interrupts restored."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import topology
from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from ansible.module_utils.virtbed_contract.kernel.files import read
from ansible.module_utils.virtbed_contract.kernel.snapshots import keep, kept

DOCUMENTATION = r"""
module: cpu_hotplug
short_description: Take all but some CPUs offline, or bring all online again
description:
  - Under control groups v1, an offlined CPU is removed for good from every cpuset below the root,
    including Docker's and libvirt's, and containers and guests then fail to start. So every cpuset
    is written to a snapshot first, restored once the CPUs are online again, and read back.
  - An interrupt all of whose CPUs go offline may be handled by any CPU from then on. So the CPUs
    of each interrupt are also in the snapshot, and restored where the kernel allows it.
  - The snapshot is synced to disk before the first change, so it survives a crash.
options:
  online:
    description: Kernel list of the CPUs to leave online; empty restores from the snapshot.
    type: str
    default: ""
  snapshot:
    description: File of the CPUs online, cpusets and interrupts before the first change.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Leave two CPUs online
  cpu_hotplug:
    online: 0-1
    snapshot: /var/lib/virtbed/hotplug.json

- name: Bring all online again
  cpu_hotplug:
    snapshot: /var/lib/virtbed/hotplug.json
"""
RETURN = r"""
online:
  description: Kernel list of the CPUs that are online now.
  returned: success
  type: str
"""

# Roots of the cpusets under v1, under v2 and in the hybrid of both.
_CPUSETS = ("sys/fs/cgroup/cpuset", "sys/fs/cgroup", "sys/fs/cgroup/unified")


class HotplugError(Exception):
    """A CPU or a cpuset is not as needed; the message has the values found and needed."""


def online(root: Path) -> set[int]:
    """Return the CPUs that are online."""
    return set(topology.online(root))


def leave_online(root: Path, staying: set[int], snapshot: Path) -> bool:
    """Take all CPUs but `staying` offline, after a snapshot; return whether any was."""
    present = online(root)
    if not staying <= present:
        raise HotplugError(
            f"cpu_hotplug: CPUs {format_cpu_list(present)} online, "
            f"{format_cpu_list(staying)} needed"
        )
    leaving = sorted(present - staying)
    fixed = [cpu for cpu in leaving if not _switch(root, cpu).exists()]
    if fixed:
        raise HotplugError(
            f"cpu_hotplug: CPUs {format_cpu_list(fixed)} cannot be taken offline on this host; use "
            "scale_up: affinity in the plan"
        )
    if not leaving:
        return False
    if not kept(snapshot):  # an existing snapshot is from before a crash: do not overwrite it
        before = {"cpusets": cpusets(root), "interrupts": interrupts(root)}
        keep(snapshot, {"online": sorted(present), **before})
    for cpu in leaving:
        _switch(root, cpu).write_text("0\n")
    _assert_online(root, staying)
    return True


def bring_back(root: Path, snapshot: Path) -> bool:
    """Restore the snapshot's CPUs, cpusets and interrupts; return whether there was a snapshot."""
    before = kept(snapshot)
    if not before:
        return False
    for cpu in sorted(set(before["online"]) - online(root)):
        _switch(root, cpu).write_text("1\n")
    _assert_online(root, set(before["online"]))
    # Parents first: a child's cpuset must be a subset of its parent's.
    for place in sorted(before["cpusets"], key=lambda place: place.count("/")):
        path, wanted = root / place, before["cpusets"][place]
        # A group may have been removed in the meantime; its daemon makes it again when needed.
        if path.exists() and path.read_text().strip() != wanted:
            path.write_text(f"{wanted}\n")
            if path.read_text().strip() != wanted:
                raise HotplugError(
                    f"cpu_hotplug: {place} is {path.read_text().strip()!r}, {wanted!r} needed, the "
                    f"value in {snapshot}"
                )
    for place, wanted in before.get("interrupts", {}).items():
        path = root / place
        if read(path) not in (None, wanted):
            with suppress(OSError):  # managed by its driver, or its device no longer exists
                path.write_text(f"{wanted}\n")
    snapshot.unlink()
    return True


def interrupts(root: Path) -> dict[str, str]:
    """Return the CPUs that may handle each interrupt, by the path of its file."""
    affinity = {path: read(path) for path in sorted(root.glob("proc/irq/[0-9]*/smp_affinity_list"))}
    return {str(path.relative_to(root)): cpus for path, cpus in affinity.items() if cpus}


def cpusets(root: Path) -> dict[str, str]:
    """Return the CPUs of every cpuset below the root cpusets, by the path of its file."""
    return {
        str(path.relative_to(root)): path.read_text().strip()
        for top in _CPUSETS
        for path in sorted((root / top).glob("*/**/cpuset.cpus"))
        if not (top == "sys/fs/cgroup" and path.is_relative_to(root / _CPUSETS[0]))
    }


def _switch(root: Path, cpu: int) -> Path:
    return root / topology.CPUS / f"cpu{cpu}/online"


def _assert_online(root: Path, wanted: set[int]) -> None:
    present = online(root)
    if present != wanted:
        raise HotplugError(
            f"cpu_hotplug: CPUs {format_cpu_list(present)} online, {format_cpu_list(wanted)} needed"
        )


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "online": {"type": "str", "default": ""},
            "snapshot": {"type": "path", "required": True},
        }
    )
    root, snapshot = Path("/"), Path(module.params["snapshot"])
    try:
        if module.params["online"]:
            changed = leave_online(root, set(parse_cpu_list(module.params["online"])), snapshot)
        else:
            changed = bring_back(root, snapshot)
    except (HotplugError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, online=format_cpu_list(online(root)))


if __name__ == "__main__":
    main()
