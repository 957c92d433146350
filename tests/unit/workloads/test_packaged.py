"""Files of installed packages: found without an import, or an error that names their source."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.packaged import debian_file, package_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package that must not be imported."""
    folder = tmp_path / "weights_of_ours"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
    (folder / "model.bin").write_bytes(b"\0\1")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_a_file_is_found_without_importing_its_package(package: str) -> None:
    assert package_file(package, "model.bin").read_bytes() == b"\0\1"
    assert package not in sys.modules


def test_a_missing_package_or_file_is_named_with_its_source(package: str) -> None:
    with pytest.raises(ApplicationError, match=r"no-such is not installed.*pyproject\.toml"):
        package_file("no-such", "model.bin")
    with pytest.raises(ApplicationError, match=rf"{package} holds no other\.bin; see workloads"):
        package_file(package, "other.bin")
    with pytest.raises(ApplicationError, match="sys is not installed"):  # it has no folder
        package_file("sys", "model.bin")


def test_a_missing_debian_file_is_named_with_its_package() -> None:
    with pytest.raises(ApplicationError, match=r"/usr/share/no/such not found.* package ours"):
        debian_file("ours", "no/such")
    share = Path("/usr/share")
    existing = next(path for path in share.rglob("*") if path.is_file())
    assert debian_file("any", str(existing.relative_to(share))) == existing
