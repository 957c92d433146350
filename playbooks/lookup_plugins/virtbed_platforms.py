"""Lookup plugin: the platforms of platforms.yml and the properties of their roles."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from virtbed.platforms import REPOSITORY, PlatformError, load_platforms
from virtbed_contract.codec import encode

DOCUMENTATION = """
name: virtbed_platforms
short_description: The platforms of platforms.yml and the properties of their roles
description:
  - Reads platforms.yml and the meta/virtbed.yml of each role that it names. Takes no terms.
author: virtbed
"""
EXAMPLES = """
- name: Show which roles keep a copy of the image
  ansible.builtin.debug:
    msg: "{{ stores | selectattr('value.store') | map(attribute='key') }}"
  vars:
    stores: "{{ lookup('virtbed_platforms').roles | dict2items }}"
"""
RETURN = """
_raw:
  description: >-
    One dictionary. C(entries): the platforms by name, in order. C(host_roles): the roles that each
    needs on the bench host. C(roles): the properties of each role by its full name, sorted by name,
    so that enclosures precede machines. C(entry_points): the names of each role's tasks files.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Return what `virtbed.platforms` reads, as dictionaries."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return a list with the one dictionary."""
        try:
            platforms = load_platforms()
        except PlatformError as error:
            raise AnsibleLookupError(str(error)) from error
        roles = dict(sorted(platforms.roles.items()))
        return [
            {
                "entries": encode(dict(platforms.entries)),
                "host_roles": {name: platforms.host_roles(name) for name in platforms.entries},
                "roles": encode(roles),
                "entry_points": {role: _entry_points(role) for role in roles},
            }
        ]


def _entry_points(role: str) -> list[str]:
    """Return the names of a role's tasks files, without their extension."""
    return sorted(path.stem for path in (REPOSITORY / "roles" / role / "tasks").glob("*.yml"))
