"""Fixtures of the tests that kill and break sweeps of the application null on real engines.

`make faults` runs all these tests; `make test` runs those that are marked `quick`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY

from ..commands import ENVIRONMENT, TIED, run
from ..integration.conftest import write_plan as write_plan
from .host import changes, facts

NULL: dict[str, Any] = {
    "image": "null",
    "applications": [{"name": "null", "scale": "tiny", "samples": 20, "warmup": 3}],
    "emulated": {"scale": "tiny", "samples": 3, "warmup": 1},
}
_MOST_S = 600  # time limit of one sweep, whatever is done to it


@pytest.fixture(scope="session")
def null_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Build the image of the application null if it does not exist."""
    plan = tmp_path_factory.mktemp("plans") / "null.yml"
    content = NULL | {"name": "test-null", "replicates": 1, "platforms": {"bm": ["pinned"]}}
    plan.write_text(yaml.safe_dump(content))
    run("ansible-playbook", "playbooks/testbed.yml", "-e", f"plan={plan}")


@pytest.fixture
def as_before() -> Iterator[None]:
    """Check that the host is the same before and after a test."""
    before = facts()
    yield
    assert changes(before) == []


def start(*command: str) -> subprocess.Popen[str]:
    """Start a command in its own session, as in a terminal; it is killed with the tests."""
    return subprocess.Popen(
        [*TIED, *command], cwd=REPOSITORY, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 200) -> Any:
    """Wait until a condition is true, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition was not met within {seconds} s"
        time.sleep(0.05)
    return value


def end(sweep: subprocess.Popen[str]) -> str:
    """Wait for the end of a sweep, and return its output."""
    output, _ = sweep.communicate(timeout=_MOST_S)
    return output


def results(folder: Path) -> dict[str, int]:
    """Return each result's inode by trial; a trial that is repeated gets another inode."""
    return {p.parent.name: p.stat().st_ino for p in folder.glob("trials/*/result.json")}
