"""The checkout and its commit, in real git repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from virtbed.checkout import REPOSITORY, UNKNOWN, CheckoutError, commit, require
from virtbed.checkout import _found as found

AS_ANYONE = ("-c", "user.name=a", "-c", "user.email=a@example.org")


def git(repository: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", *AS_ANYONE, *command], cwd=repository, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_named_and_marked_if_files_have_changed(tmp_path: Path) -> None:
    assert commit(tmp_path) == UNKNOWN
    git(tmp_path, "init", "--quiet")
    file = tmp_path / "file"
    file.write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == head
    inner = tmp_path / "copy"
    inner.mkdir()
    assert commit(inner) == UNKNOWN  # it is within the repository, and is not it
    file.write_text("two")
    assert commit(tmp_path) == f"{head}+changes"


def test_the_checkout_is_found_around_the_package_or_the_working_directory(
    tmp_path: Path,
) -> None:
    package = tmp_path / "lib" / "site-packages" / "virtbed" / "checkout.py"
    package.parent.mkdir(parents=True)
    package.touch()
    inner = tmp_path / "checkout" / "results" / "quick"
    inner.mkdir(parents=True)
    with pytest.raises(CheckoutError, match=r"no platforms.yml found in .*run it within a"):
        require(found(package, inner))
    (tmp_path / "checkout" / "platforms.yml").touch()
    assert require(found(package, inner)) == tmp_path / "checkout"
    own = REPOSITORY / "python" / "virtbed" / "checkout.py"
    assert found(own, inner) == REPOSITORY
