from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from virtbed.checkout import REPOSITORY
from virtbed.image import image_key


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    sources = ("contract", "workloads", "roles/image_rootfs", "roles/image_disk", "requirements")
    for name in sources:
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_a_copy_of_the_sources_has_the_same_key(sources: Path) -> None:
    assert image_key(sources) == image_key()


@pytest.mark.parametrize(
    "changed",
    [
        "requirements/workloads.txt",
        "contract/virtbed_contract/kernel/cpus.py",
        "workloads/virtbed_workloads/harness.py",
        "roles/image_rootfs/vars/main.yml",
        "roles/image_disk/tasks/main.yml",
    ],
)
def test_a_changed_source_makes_another_key(sources: Path, changed: str) -> None:
    with (sources / changed).open("a") as file:
        file.write("\n# changed\n")
    assert image_key(sources) != image_key()


@pytest.mark.parametrize("cache", ["__pycache__/x.cpython-311.pyc", ".ruff_cache/x"])
def test_a_cache_does_not(sources: Path, cache: str) -> None:
    path = sources / "workloads" / "virtbed_workloads" / cache
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert image_key(sources) == image_key()
