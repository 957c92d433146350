"""What a measured process may do, in the words of those who start it."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

from virtbed_contract import privileges

DOCUMENTATION = """
name: virtbed_privileges
short_description: How a measured process is kept from what it does not need
description:
  - Its user, and how a process and a container give all else up. Takes no terms.
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
    One dictionary. C(user): the number of its user and group. C(process): the argv prefix by which
    root gives all else up. C(container): options of docker run and podman run. C(pids): how many
    processes and threads a container may have. C(outlives): the argv prefix of what stays when its
    playbook ends.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Return the contract's `privileges`."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return a list of the one dictionary."""
        return [
            {
                "user": privileges.USER,
                "process": list(privileges.PROCESS),
                "container": list(privileges.CONTAINER),
                "pids": privileges.PIDS,
                "outlives": list(privileges.OUTLIVES),
            }
        ]
