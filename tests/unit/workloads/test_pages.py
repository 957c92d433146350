"""Huge pages of the harness's process: the kernel reports the setting that was requested."""

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
def test_the_process_has_the_requested_page_policy(choice: str) -> None:
    found = settings(f"--huge-pages={choice}", "--seed=7")
    assert found["page_policy"] == choice
    # The allocator is unchanged, and the process that executes itself again keeps its arguments.
    assert (found["allocator"], found["samples"]) == (DEFAULT_ALLOCATOR, 2)


def test_never_is_refused_where_the_kernel_cannot_turn_huge_pages_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuses = SimpleNamespace(prctl=lambda *_: -1)
    monkeypatch.setattr(pages.ctypes, "CDLL", lambda _: refuses)
    pages.choose("kernel")
    with pytest.raises(ApplicationError, match="PR_SET_THP_DISABLE"):
        pages.choose("never")
