"""Lookup plugin: user and options by which the roles restrict a measured process."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

from virtbed_contract import privileges

DOCUMENTATION = """
name: virtbed_privileges
short_description: The user and options that restrict the privileges of a measured process
description:
  - The user of a measured process, and the commands and options that drop all other privileges.
  - Takes no terms.
author: virtbed
"""
EXAMPLES = """
- name: Start a container
  ansible.builtin.command:
    argv: "{{ ['docker', 'run'] + lookup('virtbed_privileges').container + ['debian', 'true'] }}"
"""
RETURN = """
_raw:
  description: >-
    One dictionary. C(user): the number of the user and group. C(process): the argv prefix by which
    root drops all other privileges. C(container): options of docker run and podman run. C(pids):
    the most processes and threads of a container. C(outlives): the argv prefix of a process that
    continues when its playbook ends.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Return the constants of `virtbed_contract.privileges`."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return a list with the one dictionary."""
        return [
            {
                "user": privileges.USER,
                "process": list(privileges.PROCESS),
                "container": list(privileges.CONTAINER),
                "pids": privileges.PIDS,
                "outlives": list(privileges.OUTLIVES),
            }
        ]
