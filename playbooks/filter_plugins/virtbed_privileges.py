"""The filter ``virtbed_excess``: the privileges of a process beyond those that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from virtbed_contract import privileges


def excess(found: Mapping[str, Any]) -> list[str]:
    """Return one sentence per privilege in excess, and per privilege that was not reported.

    Args:
        found: ``privileges`` of a reading.
    """
    unreported = (f"{name} not reported" for name in privileges.unreported(found))
    return [*privileges.excess(found), *unreported]


class FilterModule:
    """The filter by the name that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"virtbed_excess": excess}
