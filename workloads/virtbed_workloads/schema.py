"""Knows where the JSON Schema of a result lies."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def result_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``result.json``, ``virtbed.result/3``."""
    text = (files(__package__) / "schemas/result-3.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
