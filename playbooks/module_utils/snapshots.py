"""Knows alone, among the modules, how what a host was like is kept through a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def keep(snapshot: Path, values: dict[str, Any]) -> None:
    """Write a snapshot so that a crash leaves the old one or the new one, whole."""
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    temporary = snapshot.with_name(f".{snapshot.name}")
    with temporary.open("w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(snapshot)
    folder = os.open(snapshot.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
