"""Filters about plans: why one cannot be read, and why a host can never carry one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def problem(plan: str) -> str:
    """Return why a plan cannot be read, or needs an unknown image; empty if it is valid.

    Args:
        plan: The plan, by the name of one in plans/ or by its path.
    """
    from virtbed.image import load_variants, variant_of
    from virtbed.plan import PlanError, load_plan, plan_path
    from virtbed.platforms import PlatformError

    try:
        variant_of(load_plan(plan_path(plan)).image, load_variants())
    except (PlatformError, PlanError, OSError) as error:
        return str(error)
    return ""


def refused(report: Mapping[str, Any], plan: str) -> str:
    """Return why a host can never carry a plan out; empty if nothing speaks against it.

    Args:
        report: The host's report, of the role host_doctor.
        plan: The plan, by the name of one in plans/ or by its path.
    """
    # Imported here, since sweeps load every filter, and do not need these.
    from virtbed.placement import PlacementError
    from virtbed.plan import load_plan, plan_path
    from virtbed.platforms import load_platforms
    from virtbed.sweep.admission import check_facts
    from virtbed.sweep.interruption import SweepError
    from virtbed_contract.codec import decode
    from virtbed_contract.sweep import HostReport

    read = decode(HostReport, dict(report), "the host's report")
    try:
        check_facts(load_plan(plan_path(plan)), read, load_platforms())
    except (PlacementError, SweepError) as error:
        return str(error)
    return ""


class FilterModule:
    """The filters by the names that playbooks use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names."""
        return {"virtbed_plan_problem": problem, "virtbed_refused": refused}
