"""Fixtures with trees of /proc and /sys, synthetic or recorded."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

RECORDED = Path(__file__).parents[4].parent / "shared/reference/topologies"


def lay(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the root of a recorded machine, given the start of its archive's name."""
    unpacked: dict[str, Path] = {}

    def root(name: str) -> Path:
        found = sorted(RECORDED.glob(f"{name}*.tar.*"))
        if not found:
            pytest.skip(f"no {name} in {RECORDED}, which holds recorded machines")
        if name not in unpacked:
            folder = tmp_path_factory.mktemp("recorded")
            with tarfile.open(found[0]) as archive:
                # Python 3.11.2, which Debian 12 has, knows no filters yet.
                if hasattr(tarfile, "data_filter"):
                    archive.extraction_filter = tarfile.data_filter
                archive.extractall(folder)
            (unpacked[name],) = {path.parent for path in folder.glob("**/sys") if path.is_dir()}
        return unpacked[name]

    return root
