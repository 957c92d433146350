"""Terminal output about a host's images: whether they are built and current, and build times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtbed.progress import minutes

Image = Mapping[str, Any]


def state(image: Image) -> str:
    """Return the state of an image: its digest if it is built and current, else how to build it.

    Args:
        image: An entry of a host report's `facts.images`.

    Returns:
        A text; unless the image is current, with the placeholder `{remedy}` for a command.
    """
    if image["digest"] and image["current"]:
        return f"{image['digest']}, of these sources"
    problem = "of other sources than these" if image["digest"] else "not built"
    return f"{problem}: {{remedy}} builds it, in about {minutes(image['build_s'])}"


def image_line(image: Image, plan: str) -> str:
    """Return the line about a plan's image: its name, its contents in words, and its state.

    Without an image no platform can run; the lines about them (`not_run_lines`) have the remedy.
    """
    words = state(image).format(remedy=f"make setup PLAN={plan}")
    if not image["digest"]:
        words = f"not built; that takes about {minutes(image['build_s'])}"
    return f"image {image['variant']} ({image['words']}): {words}"
