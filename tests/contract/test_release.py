"""`make release` in a clean checkout: packages, sources, bill of materials, signed checksums."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from virtbed.checkout import REPOSITORY

PACKAGES = ("virtbed", "virtbed_analysis", "virtbed_contract", "virtbed_workloads")


def run(*command: str | Path, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, input=text, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clone the committed state; use the tools of this checkout."""
    clone = tmp_path_factory.mktemp("release") / "virtbed"
    done = run("git", "clone", "--quiet", REPOSITORY, clone, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    (clone / ".venv").symlink_to(REPOSITORY / ".venv")
    # .gitignore lists .venv as a folder, which does not match the link.
    (clone / ".git/info/exclude").write_text(".venv\n")
    return clone


def release(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # The tools are this checkout's, so make must not install them again for the clone.
    return run("make", "--old-file=.venv/.made", "release", *words, cwd=checkout)


def test_a_release_is_complete_and_its_checksums_are_signed(checkout: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, cwd=tmp_path)
    done = release(checkout, f"KEY={key}")
    assert done.returncode == 0, done.stdout + done.stderr
    dist = checkout / "dist"
    (bill,) = dist.glob("*.cdx.json")
    version = bill.name.removeprefix("virtbed-").removesuffix(".cdx.json")
    names = {path.name for path in dist.iterdir()}
    assert names == {
        *(f"{package}-{version}-py3-none-any.whl" for package in PACKAGES),
        *(f"{package}-{version}.tar.gz" for package in PACKAGES),
        f"virtbed-checkout-{version}.tar.gz", bill.name, "SHA256SUMS", "SHA256SUMS.sig",
    }  # fmt: skip
    sums = (dist / "SHA256SUMS").read_text()
    assert {line.split("  ")[1] for line in sums.splitlines()} == {
        name for name in names if not name.startswith("SHA256SUMS")
    }
    assert f"{hashlib.sha256(bill.read_bytes()).hexdigest()}  {bill.name}" in sums
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.read_text()) is None
    signers = tmp_path / "signers"
    signers.write_text(f"maintainer {key.with_suffix('.pub').read_text()}")
    verify = ("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "maintainer", "-n", "file",
              "-s", dist / "SHA256SUMS.sig")  # fmt: skip
    assert run(*verify, cwd=tmp_path, text=sums).returncode == 0
    assert run(*verify, cwd=tmp_path, text=sums.replace("0", "1")).returncode != 0


def test_a_checkout_with_uncommitted_changes_is_refused(checkout: Path) -> None:
    (checkout / "new.txt").touch()
    done = release(checkout)
    (checkout / "new.txt").unlink()
    assert done.returncode != 0
    assert "changes that are not committed found, a clean checkout needed" in done.stderr
