#!/usr/bin/python3
"""Where a running gVisor sandbox may run, and how much, as the host's kernel says."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import cgroups, processes, readings
from ansible.module_utils.virtbed_contract.kernel.cpus import allowed

DOCUMENTATION = r"""
module: gvisor_reading
short_description: Read a running sandbox's CPUs, quota, memory and root back from the host's kernel
description:
  - What runs in the sandbox is threads of the sandbox's process and of its stubs; all of them are
    read. The gofer serves the root. Changes nothing.
options:
  name:
    description: The container.
    type: str
    required: true
  state_dir:
    description: The folder that runsc keeps its state in (C(--root)).
    type: path
    required: true
  rootfs:
    description: The tree that it is to serve; its manifest.json lies next to it.
    type: path
    required: true
  log:
    description: What runsc printed, in a file; its end is quoted if the sandbox does not run.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Read the sandbox
  gvisor_reading:
    name: virtbed-gvisor-pinned-c01-r01
    state_dir: /run/virtbed/gvisor/state
    rootfs: /var/lib/virtbed/images/0123456789abcdef/rootfs
    log: /run/virtbed/gvisor/bundles/virtbed-gvisor-pinned-c01-r01/log
"""
RETURN = r"""
reading:
  description:
    - CPUs allowed (C(mixed) if threads differ), cpuset, quota in CPUs or null, memory limit,
      throttling, whether the root is the tree, its digest, platform.
  returned: always
  type: dict
"""


_MOST_SAID = 2000  # characters


def threads_allowed(pids: list[int]) -> set[str]:
    """Return the kernel lists of CPUs that the threads of some processes may run on."""
    found = set()
    for pid in pids:
        for thread in processes.threads(pid):
            with suppress(ProcessLookupError):  # it ended meanwhile
                found.add(allowed(thread))
    return found


def platform(command: list[str], flags: str) -> str:
    """Return the platform of a sandbox's command line, else runsc's default."""
    for word in command:
        if word.startswith("--platform="):
            return word.partition("=")[2]
    _, _, after = flags.partition("  -platform ")
    return after.partition('(default "')[2].partition('"')[0] or "unknown"


def main() -> None:
    """Answer as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state_dir": {"type": "path", "required": True},
            "rootfs": {"type": "path", "required": True},
            "log": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    name, rootfs = module.params["name"], Path(module.params["rootfs"])
    runsc = ["runsc", f"--root={module.params['state_dir']}"]
    _, text, _ = module.run_command([*runsc, "state", name], check_rc=True)
    state = json.loads(text)
    if state["status"] != "running":
        said = Path(module.params["log"]).read_text(errors="replace").strip()[-_MOST_SAID:]
        module.fail_json(
            msg=f"gvisor_reading: {name} is {state['status']}, running needed; "
            f"runsc said: {said or 'nothing'}"
        )
    # One line for both: standard error in one version, standard output in another.
    _, out, log = module.run_command(["runsc", "flags"], check_rc=True)
    pid = state["pid"]
    root = Path("/")
    limited = readings.enclosed(root, pid)
    if limited is None:
        module.fail_json(msg=f"gvisor_reading: process {pid} of {name} has ended, running needed")
    # The group's members are the sandbox, its stubs and the gofer.
    members = cgroups.lineage(root, "cpu", pid)[0] / "cgroup.procs"
    pids = [int(line) for line in members.read_text().split()]
    commands = {member: Path(f"/proc/{member}/cmdline").read_text().split("\0") for member in pids}
    gofers = [member for member, words in commands.items() if words[0].endswith("runsc-gofer")]
    cpus = threads_allowed(pids)
    module.exit_json(
        changed=False,
        reading={
            "container": name,
            "pid": pid,
            "processes": len(pids),
            "platform": platform(commands.get(pid, []), out + log),
            "serves_rootfs": len(gofers) == 1
            and os.path.samestat(Path(f"/proc/{gofers[0]}/root/").stat(), rootfs.stat()),
            "image": json.loads((rootfs.parent / "manifest.json").read_text())["digest"],
            **limited,
            "cpus_allowed_list": cpus.pop() if len(cpus) == 1 else "mixed",
        },
    )


if __name__ == "__main__":
    main()
