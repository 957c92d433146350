"""The images of a host in a terminal: which are there, of which sources, and what a build takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtbed.progress import minutes

Image = Mapping[str, Any]


def state(image: Image) -> str:
    """Return whether an image is there: "sha256:…, of these sources", or what is to be done.

    Args:
        image: An entry of a host report's `facts.images`.
    """
    if image["digest"] and image["current"]:
        return f"{image['digest']}, of these sources"
    found = "of other sources than these" if image["digest"] else "not built"
    return f"{found}: {{remedy}} builds it, in about {minutes(image['build_s'])}"


def image_line(image: Image, plan: str) -> str:
    """Return the line of a plan's image: its name, what it holds, whether it is there."""
    said = state(image).format(remedy=f"make setup PLAN={plan}")
    return f"image {image['variant']} ({image['words']}): {said}"
