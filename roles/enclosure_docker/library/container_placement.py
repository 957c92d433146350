#!/usr/bin/python3
"""Knows alone how to read from Docker and the kernel where a container may run, and how much."""

from __future__ import annotations

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kernel_lists import allowed

DOCUMENTATION = r"""
module: container_placement
short_description: Read a running container's CPUs, quota and memory back from the kernel
description:
  - Docker says which process and image; the limits are read from /proc and the control groups,
    version 1 or 2. Changes nothing.
options:
  name:
    description: The container.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Read the container and its control group
  container_placement:
    name: virtbed-cn-pinned-c01-r01
"""
RETURN = r"""
placement:
  description: CPUs allowed, cpuset, quota in CPUs or null, memory limit, throttling, image layers.
  returned: always
  type: dict
"""


def groups(proc_cgroup: str) -> dict[str, str]:
    """Return each controller's path out of /proc/PID/cgroup; version 2's is under the name ""."""
    found = {}
    for line in proc_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def limits(paths: dict[str, str], root: Path = Path("/sys/fs/cgroup")) -> dict[str, object]:
    """Return cpuset, quota_cpus (None when unlimited), memory_mib and throttled_periods.

    The quota is the tightest from the container's group up: inside of it none above shows.
    """
    if "cpu" in paths:
        cpu, cpuset = (root / name / paths[name].lstrip("/") for name in ("cpu", "cpuset"))
        memory = root / "memory" / paths["memory"].lstrip("/")
        memory_bytes = (memory / "memory.limit_in_bytes").read_text().strip()
        cpus = (cpuset / "cpuset.cpus").read_text().strip()
    else:
        cpu = root / paths[""].lstrip("/")
        memory_bytes = (cpu / "memory.max").read_text().strip()
        cpus = (cpu / "cpuset.cpus.effective").read_text().strip()
    quotas = [quota for group in (cpu, *cpu.parents) if (quota := _quota(group)) is not None]
    stat = dict(line.split() for line in (cpu / "cpu.stat").read_text().splitlines())
    return {
        "cpuset": cpus,
        "quota_cpus": min(quotas, default=None),
        "memory_mib": None if memory_bytes == "max" else int(memory_bytes) // 2**20,
        "throttled_periods": int(stat.get("nr_throttled", 0)),
    }


def _quota(group: Path) -> float | None:
    """Return the CPU quota of one control group in CPUs; None without one."""
    if (group / "cpu.cfs_quota_us").exists():
        quota = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
    elif (group / "cpu.max").exists():  # the root group has none
        quota, period = (group / "cpu.max").read_text().split()
    else:
        return None
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}}, supports_check_mode=True
    )
    name = module.params["name"]
    _, text, _ = module.run_command(["docker", "container", "inspect", name], check_rc=True)
    container = json.loads(text)[0]
    _, text, _ = module.run_command(
        ["docker", "image", "inspect", container["Image"]], check_rc=True
    )
    pid = container["State"]["Pid"]
    if not pid:
        module.fail_json(
            msg=f"container_placement: {name} is {container['State']['Status']}, running needed"
        )
    proc = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    module.exit_json(
        changed=False,
        placement={
            "container": name,
            "pid": pid,
            "layers": json.loads(text)[0]["RootFS"]["Layers"],
            "cpus_allowed_list": allowed(pid),
            "mems_allowed_list": status["Mems_allowed_list"].strip(),
            **limits(groups((proc / "cgroup").read_text())),
        },
    )


if __name__ == "__main__":
    main()
