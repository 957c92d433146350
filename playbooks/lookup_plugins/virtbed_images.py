"""Lookup plugin: the variants of the image and their keys, and the variant that a plan needs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from virtbed.image import DEFAULT, image_key, load_variants, variant_of
from virtbed.plan import PlanError, load_plan, plan_path
from virtbed.platforms import PlatformError
from virtbed_contract.codec import encode

DOCUMENTATION = """
name: virtbed_images
short_description: The variants of the image, their keys, and the variant that a plan needs
description:
  - Reads images.yml, and computes the key of each variant from the sources of this checkout.
options:
  _terms:
    description: >-
      A plan, by the name of one in plans/ or by its path. Without one, the wanted variant is the
      default.
author: virtbed
"""
EXAMPLES = """
- name: Show which image a plan needs
  ansible.builtin.debug:
    msg: "{{ lookup('virtbed_images', 'quick').wanted }}"
"""
RETURN = """
_raw:
  description: >-
    One dictionary. C(variants): the entries of images.yml by name, each with its C(key).
    C(wanted): the name of the variant that the plan needs.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Return what `virtbed.image` reads, as dictionaries."""

    def run(
        self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return a list with the one dictionary."""
        try:
            variants = load_variants()
            wanted = [load_plan(plan_path(str(term))).image for term in terms] or [DEFAULT]
            variant_of(wanted[0], variants)
            known = {
                name: {**encode(variant), "key": image_key(name)}
                for name, variant in variants.items()
            }
        except (PlatformError, PlanError, OSError) as error:
            raise AnsibleLookupError(str(error)) from error
        return [{"variants": known, "wanted": wanted[0]}]
