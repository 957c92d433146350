"""A remedy is one command that exists, and roles say the same."""

from __future__ import annotations

from virtbed.checkout import REPOSITORY
from virtbed_contract.remedies import setup


def test_the_remedy_is_a_target_of_make_and_what_roles_say() -> None:
    assert setup("quick") == "run make setup PLAN=quick"
    assert "\nsetup: " in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    said = [p.read_text(encoding="utf-8") for p in REPOSITORY.glob("roles/*/tasks/*.yml")]
    assert any(setup() in text for text in said)
