"""What to do about what is missing, in words; roles in YAML repeat it to the word."""

from __future__ import annotations


def setup(plan: str = "…") -> str:
    """Return the command that installs and starts engines, and builds the image that a plan needs.

    Args:
        plan: Name or path of the plan, where it is known.
    """
    return f"run make setup PLAN={plan}"
