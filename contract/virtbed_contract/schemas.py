"""JSON Schemas of the documents, by the names that ``virtbed schema`` takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .codec import Json, json_schema
from .hosts import HostReports
from .result import Result
from .sweep import Design, Evidence, Failure, HostReport

DOCUMENTS = {
    "result": Result,
    "design": Design,
    "evidence": Evidence,
    "failure": Failure,
    "doctor": HostReport,
    "doctors": HostReports,
}
SCHEMAS: dict[str, Callable[[], Json]] = {
    name: partial(json_schema, kind) for name, kind in DOCUMENTS.items()
}
