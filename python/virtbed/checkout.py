"""Knows alone which state of virtbed's own sources carries a sweep out."""

from __future__ import annotations

import subprocess
from pathlib import Path

from virtbed.image import REPOSITORY

UNKNOWN = "unknown: git tells of none"


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
