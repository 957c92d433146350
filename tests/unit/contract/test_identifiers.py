"""Tests that documents have distinct identifiers, each with a major version only."""

from __future__ import annotations

import re

from virtbed_contract import identifiers
from virtbed_contract.schemas import DOCUMENTS, SCHEMAS

NAMES = {name: value for name, value in vars(identifiers).items() if name.isupper()}


def test_each_document_has_a_unique_name_and_a_whole_version() -> None:
    assert len(NAMES) > 8 and len(set(NAMES.values())) == len(NAMES)
    for value in NAMES.values():
        assert re.fullmatch(r"virtbed\.[a-z]+/[1-9]\d*", value), value


def test_a_schema_accepts_its_own_identifier_only() -> None:
    for name in DOCUMENTS:
        own = [value for value in NAMES.values() if value.startswith(f"virtbed.{name}/")]
        field = SCHEMAS[name]()["properties"]["schema"]
        assert [field.get("const"), *field.get("enum", [])].count(own[0]) == 1, field
