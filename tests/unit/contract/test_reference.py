"""Tests that the reference page in docs/ is generated from the dataclasses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from virtbed_contract.reference import reference
from virtbed_contract.schemas import DOCUMENTS

PAGE = Path(__file__).parents[3] / "docs/reference/documents.md"


def test_the_page_is_up_to_date() -> None:
    remedy = "run python -m virtbed_contract.reference > docs/reference/documents.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), remedy


def test_every_field_of_every_document_is_on_the_page() -> None:
    page = reference()
    for name, kind in DOCUMENTS.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` |" in section
    kind = "integer, at least 0, at most 316224000000000000"
    assert f"| `samples[].infer_ns` | {kind} | Time of inference. |" in page
