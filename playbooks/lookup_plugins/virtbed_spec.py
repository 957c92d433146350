"""The argument spec of a document of the contract, generated from its dataclass."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from virtbed_contract import documents
from virtbed_contract.codec import argument_spec

DOCUMENTATION = """
name: virtbed_spec
short_description: The argument spec of a document of the contract
options:
  _terms:
    description: Names of documents, such as C(Instance).
    required: true
author: virtbed
"""
EXAMPLES = """
- name: Validate the instance
  ansible.builtin.validate_argument_spec:
    argument_spec:
      virtbed_instance: {type: dict, required: true, options: "{{ lookup('virtbed_spec', 'Instance') }}"}
    provided_arguments:
      virtbed_instance: "{{ virtbed_instance }}"
"""
RETURN = """
_raw:
  description: One argument spec per term, an entry per field.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Return what `virtbed_contract.codec.argument_spec` makes of each document."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return one spec per term."""
        kinds = [getattr(documents, term, None) for term in terms]
        for term, kind in zip(terms, kinds, strict=True):
            if not dataclasses.is_dataclass(kind):
                raise AnsibleLookupError(f"virtbed_spec: no document {term!r} in the contract")
        return [argument_spec(kind) for kind in kinds if kind is not None]
