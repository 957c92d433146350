"""What an image is made of: the sources whose change makes a new image."""

from __future__ import annotations

import hashlib
from pathlib import Path

from virtbed.checkout import REPOSITORY

_SOURCES = (
    "requirements/workloads.txt",
    "contract/pyproject.toml",
    "contract/virtbed_contract",
    "workloads/pyproject.toml",
    "workloads/virtbed_workloads",
    "roles/image_rootfs",
    "roles/image_disk",
)


def image_key(repository: Path = REPOSITORY) -> str:
    """Return the key of the image that these sources make, 64 hexadecimal digits.

    The key tells whether an image must be built again; the image's own digest tells what was built.

    Raises:
        FileNotFoundError: a source is missing.
    """
    whole = hashlib.sha256()
    for source in _SOURCES:
        top = repository / source
        files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        for path in files:
            name = path.relative_to(repository)
            # What tools cache, and what only describes a role, makes no other image.
            hidden = any(part.startswith(".") for part in name.parts)
            if hidden or path.suffix == ".pyc" or path.parent.name == "meta":
                continue
            whole.update(f"{name}\0".encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
