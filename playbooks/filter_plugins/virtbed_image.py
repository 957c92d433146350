"""Names and bills of images, the command that enters a tree, and what is masked there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from virtbed_contract.documents import image_name
from virtbed_contract.quiet import quiet_units
from virtbed_contract.tree import enter


def kept(published: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each variant's image that was made of these sources, by the variant.

    Args:
        published: The manifest of each variant's current image, by the variant.
        keys: The key of each variant that these sources make.
    """
    return {
        variant: image_name(manifest["digest"])
        for variant, manifest in published.items()
        if manifest.get("key") == keys.get(variant)
    }


def bill(digest: str, *about: Any) -> str:
    """Return the bill of materials of an image; see `virtbed.sbom.bill`."""
    from virtbed.sbom import bill as written  # takes long to import, and sweeps have no use for it

    return written(digest, *about)


def mirrors(mirror: str, suite: str) -> list[str]:
    """Return where packages come from; see `virtbed.image.mirrors`."""
    from virtbed.image import mirrors as words

    return words(mirror, suite)


class FilterModule:
    """The filters by the names that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {
            "virtbed_image_name": image_name,
            "virtbed_images_kept": kept,
            "virtbed_enter": enter,
            "virtbed_quiet_units": quiet_units,
            "virtbed_bill": bill,
            "virtbed_mirrors": mirrors,
        }
