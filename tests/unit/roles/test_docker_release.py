"""The script that releases Docker's containers, with clients that answer or fail."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import yaml

from .conftest import REPOSITORY


def released(
    folder: Path, instance: str, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    variables = yaml.safe_load((REPOSITORY / "roles/enclosure_docker/vars/main.yml").read_text())
    environment = jinja2.Environment()
    environment.filters["quote"] = shlex.quote
    script = environment.from_string(variables["__enclosure_docker_remove"])
    words = ["sh", "-c", script.render(virtbed_instance={"id": instance})]
    return subprocess.run(
        words, env={"PATH": f"{folder}:{path}"}, capture_output=True, text=True, check=False
    )


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def shim() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with the command line of a container's shim."""
    monitor = subprocess.Popen(["bash", "-c", "sleep 60; :", "x", "-namespace", "moby"])
    yield monitor
    monitor.kill()
    monitor.wait()


@pytest.mark.parametrize(
    ("instance", "running", "status"),
    [(".*", False, 0), (".*", True, 1), ("cn-pinned-c01-r01", False, 1)],
)
def test_a_failing_client_is_an_error_only_if_containers_may_run(
    tmp_path: Path, shim: subprocess.Popen[bytes], instance: str, running: bool, status: int
) -> None:
    program(tmp_path / "docker", "exit 1")
    program(tmp_path / "pgrep", f"echo {shim.pid if running else os.getpid()}")
    done = released(tmp_path, instance)
    assert done.returncode == status and done.stdout == ""
    assert ("and containers run" in done.stderr) == running


def test_matching_containers_are_removed_and_others_stay(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("virtbed-a-1\nother\nvirtbed-b-1\n")
    remove = f'shift 2; for n; do sed -i "/^$n$/d" {names}; done'
    program(tmp_path / "docker", f"case $1 in ps) cat {names};; rm) {remove};; esac")
    assert released(tmp_path, "a-1").returncode == 0
    assert names.read_text().split() == ["other", "virtbed-b-1"]
    assert released(tmp_path, ".*").returncode == 0
    assert names.read_text().split() == ["other"]


def test_without_pgrep_containers_are_assumed_to_run(tmp_path: Path) -> None:
    program(tmp_path / "docker", "exit 1")
    for name in ("sh", "timeout", "grep", "tr"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = released(tmp_path, ".*", path=str(tmp_path))
    assert done.returncode == 1 and "no pgrep found (package procps)" in done.stderr
