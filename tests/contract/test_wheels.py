"""The wheels of all members work with only their declared dependencies, in a new environment.

The tests need PyPI or uv's cache for the dependencies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from virtbed.checkout import REPOSITORY

MEMBERS = ("contract", "python", "analysis", "workloads")
UV = str(Path(sys.executable).with_name("uv"))
# The environment without variables by which the tools or this checkout would be found.
CLEAN = {n: v for n, v in os.environ.items() if n not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def run(*command: str | Path, cwd: Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=CLEAN, text=True, capture_output=True, check=False)
    if ok:
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build the wheels once; return a function that installs one into its own environment."""
    wheels = tmp_path_factory.mktemp("wheels")
    for member in MEMBERS:
        run(UV, "build", "--quiet", "--wheel", "--out-dir", wheels, member, cwd=REPOSITORY)

    @cache
    def installed(requirement: str) -> Path:
        environment = tmp_path_factory.mktemp("environment") / "venv"
        run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=wheels)
        locks = [f"--constraint={REPOSITORY / 'requirements' / f'{n}.txt'}"
                 for n in ("virtbed", "analysis")]  # fmt: skip
        run(
            UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python",
            "--find-links", wheels, *locks, requirement, cwd=wheels,
        )  # fmt: skip
        return environment / "bin"

    return installed


def test_the_controller_needs_neither_tensorflow_nor_the_analysis(
    install: Callable[[str], Path], tmp_path: Path
) -> None:
    tools = install("virtbed")
    version = run(tools / "virtbed", "--version", cwd=tmp_path).stdout.strip()
    project = tomllib.loads((REPOSITORY / "python/pyproject.toml").read_text())["project"]
    assert version == project["version"]
    schema = json.loads(run(tools / "virtbed", "schema", "result", cwd=tmp_path).stdout)
    assert schema["title"] == "Result"
    for package in ("tensorflow", "virtbed_analysis", "polars", "matplotlib", "rocrate"):
        assert run(tools / "python", "-c", f"import {package}", cwd=tmp_path, ok=False).returncode
    (tmp_path / "trials").mkdir()
    report = run(tools / "virtbed", "report", str(tmp_path), cwd=tmp_path, ok=False)
    assert report.returncode == 2
    assert "install virtbed[report]" in report.stderr


def test_outside_of_a_checkout_the_error_names_the_searched_folders(
    install: Callable[[str], Path], tmp_path: Path
) -> None:
    tools = install("virtbed")
    refused = run(tools / "virtbed", "plan", "quick", cwd=tmp_path, ok=False)
    assert refused.returncode == 2
    assert f"no platforms.yml found in {tools.parent}" in refused.stderr
    assert str(tmp_path) in refused.stderr and "Traceback" not in refused.stderr
    code = "from virtbed.platforms import load_platforms; print(*load_platforms().entries)"
    found = run(tools / "python", "-c", code, cwd=REPOSITORY / "plans")
    assert found.stdout.split()[:4] == ["bm", "vm", "cn", "vmcn"]


def test_the_extra_report_installs_the_report_and_the_list_of_applications(
    install: Callable[[str], Path], tmp_path: Path
) -> None:
    tools = install("virtbed[report]")
    (tmp_path / "trials").mkdir()
    run(tools / "virtbed", "report", str(tmp_path), cwd=tmp_path)
    assert (tmp_path / "report.html").is_file()
    listed = run(tools / "python", "-m", "virtbed_workloads", "--list", cwd=tmp_path)
    assert "image_classification" in listed.stdout


def test_the_harness_runs_with_the_dependencies_of_the_image_null(
    install: Callable[[str], Path], tmp_path: Path
) -> None:
    tools = install("virtbed-workloads[null]")
    harness = [tools / "python", "-m", "virtbed_workloads"]
    ran = run(*harness, "null", "--scale=tiny", "--samples=2", cwd=tmp_path)
    assert json.loads(ran.stdout)["application"]["weights"] == "none"
    lacking = run(*harness, "image_classification", "--scale=tiny", cwd=tmp_path, ok=False)
    assert lacking.returncode == 1 and "No module named 'keras'" in lacking.stderr
    assert run(tools / "python", "-c", "import numpy", cwd=tmp_path, ok=False).returncode
