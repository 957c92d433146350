"""Huge pages of the harness's own process: what it asks for is what the kernel then tells of it."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from virtbed_contract.likeness import DEFAULT_ALLOCATOR
from virtbed_workloads import pages
from virtbed_workloads.contract import ApplicationError


def settings(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "virtbed_workloads", "null", "--scale=tiny", "--samples=2"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    found: dict[str, Any] = document["environment"]["process_settings"]
    return found | {"samples": document["settings"]["samples"]}


@pytest.mark.parametrize("choice", pages.CHOICES)
def test_the_process_has_what_it_was_asked_for(choice: str) -> None:
    found = settings(f"--huge-pages={choice}", "--seed=7")
    assert found["page_policy"] == choice
    # Asking for huge pages is no other allocator; all arguments hold in the process started again.
    assert (found["allocator"], found["samples"]) == (DEFAULT_ALLOCATOR, 2)


def test_a_kernel_that_cannot_turn_them_off_for_one_process_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuses = SimpleNamespace(prctl=lambda *_: -1)
    monkeypatch.setattr(pages.ctypes, "CDLL", lambda _: refuses)
    pages.choose("kernel")
    with pytest.raises(ApplicationError, match="PR_SET_THP_DISABLE"):
        pages.choose("never")
