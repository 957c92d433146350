"""The registry of applications: complete, and readable without importing an application."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import virtbed_workloads
from virtbed.checkout import REPOSITORY
from virtbed.image import load_variants
from virtbed_contract.factors import NAME, SCALES
from virtbed_workloads.contract import Application
from virtbed_workloads.null import Null
from virtbed_workloads.registry import APPLICATIONS, Entry

FOLDER = Path(virtbed_workloads.__file__).parent


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_entry_names_scales_and_classes_that_exist(name: str) -> None:
    entry = APPLICATIONS[name]
    assert re.fullmatch(NAME, name) and set(entry.scales) <= {*SCALES}
    for target in entry.scales.values():
        module, _, wanted = target.partition(":")
        tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
        assert wanted in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_every_application_can_run_in_a_variant_of_the_image() -> None:
    frameworks = {name for variant in load_variants().values() for name in variant.frameworks}
    for entry in APPLICATIONS.values():
        assert entry.framework is None or entry.framework in frameworks


def test_an_entry_creates_the_application_of_a_scale() -> None:
    made = APPLICATIONS["null"].create("tiny")
    assert isinstance(made, Null) and isinstance(made, Application)
    with pytest.raises(KeyError):
        APPLICATIONS["null"].create("trained")
    with pytest.raises(ModuleNotFoundError, match="gone"):
        Entry("", {"tiny": "gone:Gone"}).create("tiny")


def test_the_registry_imports_no_framework() -> None:
    heavy = {"tensorflow", "keras", "PIL"}
    text = (FOLDER / "registry.py").read_text(encoding="utf-8")
    imported = {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)}
    assert not imported & heavy


def test_the_applications_files_are_in_the_wheel() -> None:
    """The package's folder is built whole, and the passages are in it."""
    project = tomllib.loads((REPOSITORY / "workloads/pyproject.toml").read_text(encoding="utf-8"))
    backend = project["tool"]["uv"]["build-backend"]
    assert backend == {"module-name": "virtbed_workloads", "module-root": ""}
    assert [*(FOLDER / "passages").glob("*.txt")]
