"""Knows which applications exist, without importing any. A new application is one line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from virtbed_workloads.contract import Application


@dataclass(frozen=True)
class Entry:
    """Where an application lives, and at which scales it runs."""

    target: str
    """``module:Class`` within this package."""
    scales: tuple[str, ...]
    summary: str
    hidden: bool = False
    """A fake for the tests: ``--list`` leaves it out."""

    def create(self) -> Application:
        """Import the application's module, frameworks and all, and make an instance."""
        module, _, name = self.target.partition(":")
        made: Application = getattr(importlib.import_module(f"{__package__}.{module}"), name)()
        return made


APPLICATIONS = {
    "image_classification": Entry(
        "image_classification:ImageClassification",
        ("trained", "tiny"),
        "EfficientNet-Lite0 names what a photograph shows",
    ),
    "null": Entry("null:Null", ("tiny",), "computes nothing; a fake for tests", hidden=True),
}
