"""Tests that the shared remedy is a target of make, and that roles repeat it."""

from __future__ import annotations

from virtbed.checkout import REPOSITORY
from virtbed_contract.remedies import setup


def test_the_remedy_is_a_target_of_make_and_is_in_roles() -> None:
    assert setup("quick") == "run make setup PLAN=quick"
    assert "\nsetup: " in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    said = [p.read_text(encoding="utf-8") for p in REPOSITORY.glob("roles/*/tasks/*.yml")]
    assert any(setup() in text for text in said)
