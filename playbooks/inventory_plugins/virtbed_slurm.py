"""The nodes of the current Slurm allocation as the group `bench`."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = r"""
name: virtbed_slurm
short_description: The nodes of the current Slurm allocation
description:
  - Makes the nodes of the job that the environment names the hosts of the group C(bench).
  - A job that has a node in part is refused, since other jobs on it would be measured along.
  - The node that it runs on is not reached over SSH, which may lead out of the job's CPUs.
options:
  plugin:
    description: Name of this plugin.
    required: true
    choices: [virtbed_slurm]
"""


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]  # ansible-core ships no type information
    """Hosts named as Slurm names its nodes, reached at the addresses that Slurm has."""

    NAME = "virtbed_slurm"

    def verify_file(self, path: str) -> bool:
        """Take YAML only; the plugin `auto` has read that it names this one."""
        return bool(super().verify_file(path)) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the nodes."""
        from virtbed.slurm.allocation import allocated, check_whole, job_of
        from virtbed.slurm.asking import SlurmError

        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            nodes = allocated(os.environ)
            check_whole(job_of(os.environ), nodes)
        except SlurmError as error:
            raise AnsibleParserError(f"virtbed_slurm: {error}") from error
        group = inventory.add_group("bench")
        for node in nodes:
            inventory.add_host(node.name, group=group)
            if node.name == os.environ.get("SLURMD_NODENAME"):
                inventory.set_variable(node.name, "ansible_connection", "local")
            else:
                inventory.set_variable(node.name, "ansible_host", node.address)
