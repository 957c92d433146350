"""The checkout of virtbed (the folder with platforms.yml, plans, roles, …), and its commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

UNKNOWN = "unknown: git knows no commit"
_MARK = "platforms.yml"


class CheckoutError(RuntimeError):
    """No checkout of virtbed was found; the message lists the folders that were searched."""


def _found(package: Path, working: Path) -> Path:
    """Return the checkout around the package, or around the working directory.

    If there is neither, return the folder in which the package's checkout would be.
    """
    own = package.resolve().parents[2]
    folders = (own, working, *working.parents)
    return next((folder for folder in folders if (folder / _MARK).is_file()), own)


REPOSITORY = _found(Path(__file__), Path.cwd())


def require(repository: Path = REPOSITORY) -> Path:
    """Return the checkout, after checking that it is one.

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
    """Return the commit that is checked out, with "+changes" if tracked files differ from it."""
    try:
        # In a copy inside another repository, git would report that repository's commit.
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
