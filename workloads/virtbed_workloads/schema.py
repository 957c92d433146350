"""The JSON Schema of a result."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from virtbed_contract.codec import json_schema
from virtbed_contract.result import Result


def result_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``result.json``; the same object every time."""
    return _generated()


@lru_cache(maxsize=1)
def _generated() -> dict[str, Any]:
    return json_schema(Result)
