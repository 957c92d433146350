"""What to do about what is missing, in words; roles in YAML repeat it to the word."""

from __future__ import annotations

NO_GPU_YET = (
    "virtbed cannot measure on a GPU yet: no image has CUDA, and no trial attests its GPU; keep to "
    "the processor cpu (docs/tutorial/gpu.md says what is there)"
)
"""What whoever asks for a GPU is answered, until the last piece is there."""


def setup(plan: str = "…") -> str:
    """Return the command that installs and starts engines, and builds the image that a plan needs.

    Args:
        plan: Name or path of the plan, where it is known.
    """
    return f"run make setup PLAN={plan}"
