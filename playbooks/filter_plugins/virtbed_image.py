"""The name of an image, for playbooks and roles."""

from __future__ import annotations

from collections.abc import Callable

from virtbed_contract.documents import image_name


class FilterModule:
    """The filter by the name that roles use."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        """Return it."""
        return {"virtbed_image_name": image_name}
