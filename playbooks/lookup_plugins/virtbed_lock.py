"""The lock that a sweep of this controller holds."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

from virtbed.bench import RUN

DOCUMENTATION = """
name: virtbed_lock
short_description: The file that a sweep of this controller holds locked
description:
  - Its path. Takes no terms.
author: virtbed
"""
EXAMPLES = """
- name: Say where it is
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
    """Return the path."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Return a list of the one path."""
        return [str(RUN / "lock")]
