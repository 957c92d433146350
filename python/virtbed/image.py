"""The variants of the image, and what each is made of: the sources whose change makes a new one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from virtbed.checkout import REPOSITORY, require
from virtbed.platforms import PlatformError, decoded, read_mapping
from virtbed_contract.codec import encode
from virtbed_contract.documents import ImageVariant

DEFAULT = "cpu"
"""The variant of whoever names none."""
_SNAPSHOT = re.compile(r"(\w+://\S+)/(\d{8}T\d{6}Z)/?")
_OF_SNAPSHOTS = "check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCES = (
    "contract/pyproject.toml",
    "contract/virtbed_contract",
    "workloads/pyproject.toml",
    "workloads/virtbed_workloads",
    "roles/image_rootfs",
    "roles/image_disk",
)


def load_variants(repository: Path = REPOSITORY) -> dict[str, ImageVariant]:
    """Read images.yml: the variants by name, in its order.

    Raises:
        PlatformError: it is missing, no YAML, or not as its document says.
        CheckoutError: there is no checkout.
    """
    path = require(repository) / "images.yml"
    return {
        # An unquoted null is YAML's for nothing, and a name here.
        "null" if name is None else str(name): decoded(ImageVariant, entry, path)
        for name, entry in read_mapping(path).items()
    }


def variant_of(name: str, variants: Mapping[str, ImageVariant]) -> ImageVariant:
    """Return a variant by its name.

    Raises:
        PlatformError: there is none; the message names those that there are.
    """
    if name not in variants:
        raise PlatformError(f"no image {name!r}; images.yml has: {', '.join(variants)}")
    return variants[name]


def image_key(name: str = DEFAULT, repository: Path = REPOSITORY) -> str:
    """Return the key of the image that these sources make, 64 hexadecimal digits.

    The key tells whether an image must be built again; the image's own digest tells what was built.
    Those of two variants differ, and what only one is made of changes that one's alone.

    Raises:
        PlatformError: there is no such variant, or images.yml cannot be read.
        FileNotFoundError: a source is missing.
    """
    variant = variant_of(name, load_variants(repository))
    made_of = {**encode(variant), "name": name}
    # What describes a variant, or is asked of its host, makes no other image.
    for about in ("words", "build_s", "disk_mib", "memory_mib"):
        del made_of[about]
    whole = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for source in (f"requirements/{variant.lock}", *_SOURCES):
        top = repository / source
        files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        for path in files:
            file = path.relative_to(repository)
            # What tools cache, and what only describes a role, makes no other image.
            hidden = any(part.startswith(".") for part in file.parts)
            describes = path.parent.name == "meta" or (
                path.name == "README.md" and file.parts[0] == "roles"
            )
            if hidden or path.suffix == ".pyc" or describes:
                continue
            whole.update(f"{file}\0".encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def mirrors(mirror: str, suite: str) -> list[str]:
    """Return the words that tell mmdebstrap where packages come from; none for its own default.

    Args:
        mirror: Empty, an address, or lines of addresses and of sources.list. That of a snapshot
            archive (…/archive/debian/20261129T000000Z) brings the updates of the same moment; its
            lists have expired, so when they were to expire is not asked.
        suite: Debian's suite.
    """
    found = []
    for line in filter(None, map(str.strip, mirror.splitlines())):
        snapshot = _SNAPSHOT.fullmatch(line)
        if not snapshot:
            found.append(line)
            continue
        archive, moment = snapshot.groups()
        places = [(line, suite)]
        if archive.endswith("/debian"):
            security = f"{archive}-security/{moment}"
            places += [(line, f"{suite}-updates"), (security, f"{suite}-security")]
        found += [f"deb [{_OF_SNAPSHOTS}] {place} {name} main" for place, name in places]
    return found


def check_image(
    name: str,
    applications: Collection[str],
    frameworks: Mapping[str, str | None],
    variants: Mapping[str, ImageVariant],
) -> None:
    """Check that an image exists, and can run each of a plan's applications.

    Args:
        name: The image that the plan names.
        applications: The applications that it names.
        frameworks: What each application that there is needs to run its model; None for nothing.
        variants: The images that there are.

    Raises:
        PlatformError: it does not, or cannot; the message names an image that can.
    """
    held = _held(variant_of(name, variants), frameworks)
    if lacking := sorted(set(applications) - held):
        fit = [n for n, v in variants.items() if set(applications) <= _held(v, frameworks)]
        raise PlatformError(
            f"image {name} found in the plan, which holds {', '.join(sorted(held))} and lacks "
            f"{', '.join(lacking)}; set image: {' or '.join(fit) or 'to another'}, or take "
            f"{'it' if len(lacking) == 1 else 'them'} out of applications"
        )


def _held(variant: ImageVariant, frameworks: Mapping[str, str | None]) -> set[str]:
    """Return the names of the applications that a variant can run."""
    has = {None, *variant.frameworks}
    return {name for name, framework in frameworks.items() if framework in has}
