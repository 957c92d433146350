"""Knows alone which state of virtbed's own sources carries a sweep out."""

from __future__ import annotations

import subprocess
from pathlib import Path

from virtbed.image import REPOSITORY

UNKNOWN = "unknown: no git checkout"


def commit(repository: Path = REPOSITORY) -> str:
    """Return the commit that is checked out, with "+changes" where tracked files differ from it."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"],
            cwd=repository, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return told.stdout.strip()
