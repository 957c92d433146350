"""Inventory plugin: the nodes of the current Slurm allocation as the group `bench`."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = r"""
name: virtbed_slurm
short_description: The nodes of the current Slurm allocation
description:
  - The hosts of the group C(bench) are the nodes of the job that the environment names.
  - A node of which the job has only a part is left out with a warning, since other jobs on it
    would disturb the measurement. If no node is left, the inventory is refused.
  - The node that this runs on is used without SSH, whose processes may be outside the job's CPUs.
options:
  plugin:
    description: Name of this plugin.
    required: true
    choices: [virtbed_slurm]
"""


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]  # ansible-core ships no type information
    """Hosts with Slurm's names and addresses of the nodes."""

    NAME = "virtbed_slurm"

    def verify_file(self, path: str) -> bool:
        """Accept YAML files; the plugin `auto` has checked that the file names this plugin."""
        return bool(super().verify_file(path)) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the nodes."""
        from virtbed.bench import LEFT_OUT
        from virtbed.slurm.allocation import allocated, job_of, whole
        from virtbed.slurm.asking import SlurmError

        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            nodes, left_out = whole(job_of(os.environ), allocated(os.environ))
        except SlurmError as error:
            raise AnsibleParserError(f"virtbed_slurm: {error}") from error
        group = inventory.add_group("bench")
        inventory.set_variable(group, LEFT_OUT, "\n".join(left_out))
        for line in left_out:
            self.display.warning(f"virtbed_slurm: a node is left out: {line}")
        for node in nodes:
            inventory.add_host(node.name, group=group)
            if node.name == os.environ.get("SLURMD_NODENAME"):
                inventory.set_variable(node.name, "ansible_connection", "local")
            else:
                inventory.set_variable(node.name, "ansible_host", node.address)
