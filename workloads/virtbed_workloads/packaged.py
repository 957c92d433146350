"""Paths of weights and inputs that applications read from installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from virtbed_workloads.contract import ApplicationError


def package_file(package: str, path: str) -> Path:
    """Return the path of a file in an installed Python package, without importing the package.

    Raises:
        ApplicationError: The package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ApplicationError(
            f"the package {package} is not installed; it is one of workloads/pyproject.toml's "
            "dependencies, locked in requirements/workloads.txt"
        )
    file = Path(spec.submodule_search_locations[0]) / path
    if not file.is_file():
        raise ApplicationError(
            f"{package} holds no {path}; see workloads/pyproject.toml for the versions that hold it"
        )
    return file


def debian_file(package: str, path: str) -> Path:
    """Return the path of a file under /usr/share that a Debian package of the image installs.

    Raises:
        ApplicationError: There is no such file.
    """
    file = Path("/usr/share") / path
    if not file.is_file():
        raise ApplicationError(
            f"{file} not found; it is in the Debian package {package}, one of those that "
            "images.yml names"
        )
    return file
