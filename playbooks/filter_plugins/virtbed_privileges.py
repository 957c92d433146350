"""The filter ``virtbed_excess``: what a process may do beyond what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from virtbed_contract import privileges


def excess(found: Mapping[str, Any]) -> list[str]:
    """Return it, a sentence each; what Linux's kernel does not tell counts, too.

    Args:
        found: ``privileges`` of a reading.
    """
    unreported = (f"{name} not reported" for name in privileges.unreported(found))
    return [*privileges.excess(found), *unreported]


class FilterModule:
    """The filter by the name that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"virtbed_excess": excess}
