"""Filters about images: names, bills of materials, the command that enters a tree, masked units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from virtbed_contract.documents import image_name
from virtbed_contract.quiet import quiet_units
from virtbed_contract.tree import enter


def kept(published: Mapping[str, Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the published images that were built from these sources, by variant.

    Args:
        published: The manifest of each variant's current image, by variant.
        keys: The key of each variant, which identifies these sources.
    """
    return {
        variant: image_name(manifest["digest"])
        for variant, manifest in published.items()
        if manifest.get("key") == keys.get(variant)
    }


def bill(digest: str, *about: Any) -> str:
    """Return the bill of materials of an image; see `virtbed.sbom.bill`."""
    from virtbed.sbom import bill as bill_of  # a slow import, which sweeps do not need

    return bill_of(digest, *about)


def mirrors(mirror: str, suite: str) -> list[str]:
    """Return the sources of Debian's packages; see `virtbed.image.mirrors`."""
    from virtbed.image import mirrors as mirrors_of

    return mirrors_of(mirror, suite)


class FilterModule:
    """The filters by the names that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return {
            "virtbed_image_name": image_name,
            "virtbed_images_kept": kept,
            "virtbed_enter": enter,
            "virtbed_quiet_units": quiet_units,
            "virtbed_bill": bill,
            "virtbed_mirrors": mirrors,
        }
