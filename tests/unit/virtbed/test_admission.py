"""Whether a host can carry a plan out."""

from __future__ import annotations

import pytest

from virtbed.placement import PlacementError
from virtbed.plan import Plan
from virtbed.sweep.admission import check_memory

from .conftest import report


def test_more_memory_than_the_host_has_is_refused_in_words(plan: Plan) -> None:
    there = report()
    check_memory(plan.model_copy(update={"memory_mib": 100_000}), there)
    with pytest.raises(
        PlacementError, match="memory_mib 100001 asked, this host has 100000 MiB; lower memory_mib"
    ):
        check_memory(plan.model_copy(update={"memory_mib": 100_001}), there)


def test_what_a_host_does_not_tell_refuses_nothing(plan: Plan) -> None:
    there = report()
    there.facts["numa"] = []
    check_memory(plan, there)
