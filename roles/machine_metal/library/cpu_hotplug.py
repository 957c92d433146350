#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""CPUs taken offline, and brought back with cpusets and interrupts as they were."""

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
short_description: Leave some CPUs online and take the others offline, or bring all back
description:
  - Under control groups v1 an offlined CPU leaves every cpuset below the root for good, Docker's
    and libvirt's among them, and what they start next fails. So every cpuset is written to a
    snapshot first, put back once the CPUs are online again, and read again.
  - An interrupt all of whose CPUs go offline may come to any CPU from then on. Each one's CPUs are
    written to the snapshot, too, and put back where somebody can.
  - The snapshot is synced to disk before the first change, and outlives a crash.
options:
  online:
    description: Kernel list of the CPUs to leave online; empty brings back what the snapshot holds.
    type: str
    default: ""
  snapshot:
    description: The file that holds the CPUs, cpusets and interrupts found before the first change.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Leave two CPUs
  cpu_hotplug:
    online: 0-1
    snapshot: /var/lib/virtbed/hotplug.json

- name: Bring all back
  cpu_hotplug:
    snapshot: /var/lib/virtbed/hotplug.json
"""
RETURN = r"""
online:
  description: Kernel list of the CPUs that are online now.
  returned: success
  type: str
"""

# Where the cpusets lie under v1, under v2 and in the hybrid of both.
_CPUSETS = ("sys/fs/cgroup/cpuset", "sys/fs/cgroup", "sys/fs/cgroup/unified")


class HotplugError(Exception):
    """A CPU or a cpuset that is not as needed; the message says which, and what was found."""


def online(root: Path) -> set[int]:
    """Return the CPUs that are online."""
    return set(topology.online(root))


def leave_online(root: Path, staying: set[int], snapshot: Path) -> bool:
    """Take all CPUs but `staying` offline; return whether that changed anything."""
    found = online(root)
    if not staying <= found:
        raise HotplugError(
            f"cpu_hotplug: CPUs {format_cpu_list(staying)} needed, {format_cpu_list(found)} online"
        )
    leaving = sorted(found - staying)
    fixed = [cpu for cpu in leaving if not _switch(root, cpu).exists()]
    if fixed:
        raise HotplugError(
            f"cpu_hotplug: CPUs {format_cpu_list(fixed)} cannot be taken offline on this host; use "
            "scale_up: affinity in the plan"
        )
    if not leaving:
        return False
    if not kept(snapshot):  # one that is there holds what was before a crash
        before = {"cpusets": cpusets(root), "interrupts": interrupts(root)}
        keep(snapshot, {"online": sorted(found), **before})
    for cpu in leaving:
        _switch(root, cpu).write_text("0\n")
    _assert_online(root, staying)
    return True


def bring_back(root: Path, snapshot: Path) -> bool:
    """Bring the snapshot's CPUs online and its cpusets back; return whether there was one."""
    before = kept(snapshot)
    if not before:
        return False
    for cpu in sorted(set(before["online"]) - online(root)):
        _switch(root, cpu).write_text("1\n")
    _assert_online(root, set(before["online"]))
    # Parents first: a child may hold no CPU that its parent lacks.
    for place in sorted(before["cpusets"], key=lambda place: place.count("/")):
        path, wanted = root / place, before["cpusets"][place]
        # A group may have gone meanwhile, and its daemon makes it again.
        if path.exists() and path.read_text().strip() != wanted:
            path.write_text(f"{wanted}\n")
            if path.read_text().strip() != wanted:
                raise HotplugError(
                    f"cpu_hotplug: {place} is {path.read_text().strip()!r}, {wanted!r} needed as "
                    f"{snapshot} has it"
                )
    for place, wanted in before.get("interrupts", {}).items():
        path = root / place
        if read(path) not in (None, wanted):
            with suppress(OSError):  # the driver's own, or its device is gone
                path.write_text(f"{wanted}\n")
    snapshot.unlink()
    return True


def interrupts(root: Path) -> dict[str, str]:
    """Return the CPUs that each interrupt may come to, by the path of its file."""
    found = {path: read(path) for path in sorted(root.glob("proc/irq/[0-9]*/smp_affinity_list"))}
    return {str(path.relative_to(root)): cpus for path, cpus in found.items() if cpus}


def cpusets(root: Path) -> dict[str, str]:
    """Return the CPUs of every cpuset below the root ones, by the path of its file."""
    return {
        str(path.relative_to(root)): path.read_text().strip()
        for top in _CPUSETS
        for path in sorted((root / top).glob("*/**/cpuset.cpus"))
        if not (top == "sys/fs/cgroup" and path.is_relative_to(root / _CPUSETS[0]))
    }


def _switch(root: Path, cpu: int) -> Path:
    return root / topology.CPUS / f"cpu{cpu}/online"


def _assert_online(root: Path, wanted: set[int]) -> None:
    found = online(root)
    if found != wanted:
        raise HotplugError(
            f"cpu_hotplug: CPUs {format_cpu_list(found)} online, {format_cpu_list(wanted)} needed"
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
