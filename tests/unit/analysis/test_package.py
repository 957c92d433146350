"""The public interface: lazy imports, examples, and the README's list of modules."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import virtbed_analysis

HEAVY = ("polars", "matplotlib", "rocrate", "jinja2", "jsonschema_rs")


def imported(code: str) -> list[str]:
    """Run some code in a fresh interpreter; return the heavy packages that it imported."""
    script = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_sweep_imports_no_heavy_package() -> None:
    assert imported("import virtbed_analysis") == []
    names = "AnalysisError, earlier_attempts, log_means, suspicions, unneeded_trials"
    assert imported(f"from virtbed_analysis import {names}") == []
    assert "polars" in imported("from virtbed_analysis import report")


def test_every_public_name_exists_and_no_module_hides_one() -> None:
    assert sorted(virtbed_analysis._PLACES) == virtbed_analysis.__all__
    modules = {path.stem for path in Path(virtbed_analysis.__file__).parent.glob("*.py")}
    assert not modules & set(virtbed_analysis.__all__)
    for name in virtbed_analysis.__all__:
        assert callable(getattr(virtbed_analysis, name)), name


def test_every_public_function_has_an_example() -> None:
    """`make unit` runs them."""
    public = [getattr(virtbed_analysis, name) for name in virtbed_analysis.__all__]
    for function in filter(inspect.isfunction, public):
        assert ">>> " in str(function.__doc__), function


def test_the_readme_names_every_module() -> None:
    package = Path(virtbed_analysis.__file__).parent
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    readme = (package.parent / "README.md").read_text()
    assert sorted(name for name in modules if f"`{name}`" not in readme) == []
    named = set(re.findall(r"`([a-z_]+\.py)`", readme))
    assert named - modules == set()


def test_an_unknown_name_is_refused() -> None:
    assert not hasattr(virtbed_analysis, "nothing")
