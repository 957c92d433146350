"""Sweeps of an application that computes nothing on real engines, to be killed and broken.

`make faults` runs them; `make test` has a few of the kind, in tests/integration.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from ..commands import ENVIRONMENT, TIED
from ..integration.conftest import write_plan as write_plan
from .host import changes, facts

NULL: dict[str, Any] = {
    "image": "null",
    "applications": [{"name": "null", "scale": "tiny", "samples": 20, "warmup": 3}],
    "emulated": {"scale": "tiny", "samples": 3, "warmup": 1},
}
_MOST_S = 600  # of one sweep, whatever is done to it


@pytest.fixture
def as_before() -> Iterator[None]:
    """Compare the host before a test with the host after it."""
    before = facts()
    yield
    assert changes(before) == []


def start(*command: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, as in a terminal; it dies with the tests."""
    return subprocess.Popen(
        [*TIED, *command], cwd=REPOSITORY, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 200) -> Any:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def end(sweep: subprocess.Popen[str]) -> str:
    """Wait for the end of a sweep, and return what it printed."""
    said, _ = sweep.communicate(timeout=_MOST_S)
    return said


def results(folder: Path) -> dict[str, int]:
    """Return each result's inode: a trial that is repeated gets another."""
    return {p.parent.name: p.stat().st_ino for p in folder.glob("trials/*/result.json")}
