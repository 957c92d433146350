"""The checkout of virtbed: where its platforms, plans, roles and playbooks lie, and its commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

UNKNOWN = "unknown: git knows no commit"
_MARK = "platforms.yml"


class CheckoutError(RuntimeError):
    """No checkout of virtbed where one is needed; the message says where it was looked for."""


def _found(package: Path, working: Path) -> Path:
    """Return the checkout around a package, else the one around a folder, else the package's."""
    own = package.resolve().parents[2]
    folders = (own, working, *working.parents)
    return next((folder for folder in folders if (folder / _MARK).is_file()), own)


REPOSITORY = _found(Path(__file__), Path.cwd())


def require(repository: Path = REPOSITORY) -> Path:
    """Return the checkout.

    Raises:
        CheckoutError: virtbed was installed as a package, and runs outside of a checkout.
    """
    if not (repository / _MARK).is_file():
        raise CheckoutError(
            f"no {_MARK} found in {repository}, in {Path.cwd()} or above: virtbed was installed "
            "without its platforms, plans and roles; run it within a checkout of virtbed"
        )
    return repository


def commit(repository: Path = REPOSITORY) -> str:
    """Return the commit that is checked out, with "+changes" where tracked files differ from it."""
    try:
        # A copy inside of another checkout is not that one's commit.
        if Path(_git(repository, "rev-parse", "--show-toplevel")) != repository.resolve():
            return UNKNOWN
        return _git(
            repository, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"
        )
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def _git(repository: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=repository, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
