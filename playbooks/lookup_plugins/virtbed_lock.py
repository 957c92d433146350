"""Lookup plugin: the path of the lock that a sweep of this controller holds."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

from virtbed.bench import RUN

DOCUMENTATION = """
name: virtbed_lock
short_description: The file that a sweep of this controller holds locked
description:
  - Returns the path of the file. Takes no terms.
author: virtbed
"""
EXAMPLES = """
- name: Show the path of the lock
  ansible.builtin.debug:
    msg: "{{ lookup('virtbed_lock') }}"
"""
RETURN = """
_raw:
  description: The path.
  type: list
  elements: path
"""


class LookupModule(LookupBase):
    """Return the path of the lock, which depends on the user."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Return a list with the one path."""
        return [str(RUN / "lock")]
