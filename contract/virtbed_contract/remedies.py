"""Remedies that several messages share; the YAML of roles repeats them word for word."""

from __future__ import annotations

NO_GPU_YET = (
    "virtbed cannot measure on a GPU yet: no image has CUDA, and no trial attests its GPU; keep to "
    "the processor cpu (docs/tutorial/gpu.md lists what is ready)"
)
"""Message for a plan that requests a GPU, until GPUs are fully supported."""


def setup(plan: str = "…") -> str:
    """Return the command that installs engines and builds the image for a plan, as an instruction.

    Args:
        plan: Name or path of the plan; "…" if it is not known.
    """
    return f"run make setup PLAN={plan}"
