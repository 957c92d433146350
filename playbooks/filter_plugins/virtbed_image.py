"""The name of an image, and the command that enters its tree, for playbooks and roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from virtbed_contract.documents import image_name
from virtbed_contract.tree import enter


class FilterModule:
    """The filters by the names that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {"virtbed_image_name": image_name, "virtbed_enter": enter}
