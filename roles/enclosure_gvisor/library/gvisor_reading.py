#!/usr/bin/python3
"""CPUs, quota, memory and root of a running gVisor sandbox, read from the host's kernel."""

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
  - The sandbox's program runs as threads of the sandbox's process and of its stub processes; the
    CPUs of all of them are read. The gofer process serves the root. Changes nothing.
options:
  name:
    description: Name of the container.
    type: str
    required: true
  state_dir:
    description: Folder of runsc's state (C(--root)).
    type: path
    required: true
  rootfs:
    description: Tree that the sandbox must serve; the image's manifest.json is next to it.
    type: path
    required: true
  log:
    description: File of runsc's output; its end is quoted if the sandbox does not run.
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
      throttling, whether the root is the image's tree, the image's digest, gVisor's platform.
  returned: always
  type: dict
"""


_MAX_LOG_CHARACTERS = 2000


def threads_allowed(pids: list[int]) -> set[str]:
    """Return the distinct CPU lists that the threads of the processes are allowed on."""
    cpu_lists = set()
    for pid in pids:
        for thread in processes.threads(pid):
            with suppress(ProcessLookupError):  # the thread has ended
                cpu_lists.add(allowed(thread))
    return cpu_lists


def platform(command: list[str], flags: str) -> str:
    """Return the platform that a sandbox's command line names, else runsc's default."""
    for word in command:
        if word.startswith("--platform="):
            return word.partition("=")[2]
    _, _, after = flags.partition("  -platform ")
    return after.partition('(default "')[2].partition('"')[0] or "unknown"


def main() -> None:
    """Run the Ansible module."""
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
        output = Path(module.params["log"]).read_text(errors="replace").strip()
        module.fail_json(
            msg=f"gvisor_reading: {name} is {state['status']}, running needed; "
            f"runsc printed: {output[-_MAX_LOG_CHARACTERS:] or 'nothing'}"
        )
    # Some versions list the flags on standard error, others on standard output.
    _, out, log = module.run_command(["runsc", "flags"], check_rc=True)
    pid = state["pid"]
    root = Path("/")
    limited = readings.enclosed(root, pid)
    if limited is None:
        module.fail_json(msg=f"gvisor_reading: process {pid} of {name} has ended, running needed")
    # The group's processes are the sandbox, its stubs and the gofer.
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
