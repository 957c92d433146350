"""The variants of the image (images.yml), and the key of the sources that an image is built from.

The roles image_* build and store images; `virtbed.image_diff` compares two.
"""

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
"""The variant of plans that name none."""
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
    """Read images.yml: the variants by name, in the file's order.

    Raises:
        PlatformError: the file is missing, is no YAML, or does not satisfy its document.
        CheckoutError: there is no checkout.
    """
    path = require(repository) / "images.yml"
    return {
        # An unquoted null is None in YAML; here it is the name of a variant.
        "null" if name is None else str(name): decoded(ImageVariant, entry, path)
        for name, entry in read_mapping(path).items()
    }


def variant_of(name: str, variants: Mapping[str, ImageVariant]) -> ImageVariant:
    """Return a variant by its name.

    Raises:
        PlatformError: there is no such variant; the message lists the existing ones.
    """
    if name not in variants:
        raise PlatformError(f"no image {name!r}; images.yml has: {', '.join(variants)}")
    return variants[name]


def image_key(name: str = DEFAULT, repository: Path = REPOSITORY) -> str:
    """Return the key of a variant's sources: SHA-256, 64 hexadecimal digits.

    An image must be built again if its key has changed; the image's digest identifies what was
    built. Each variant has its own key; sources of one variant do not change the keys of others.

    Args:
        name: The variant.
        repository: The checkout.

    Raises:
        PlatformError: there is no such variant, or images.yml cannot be read.
        FileNotFoundError: a source is missing.
    """
    variant = variant_of(name, load_variants(repository))
    made_of = {**encode(variant), "name": name}
    # The description and the requirements on the host do not change the image.
    for about in ("words", "build_s", "disk_mib", "memory_mib"):
        del made_of[about]
    whole = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for source in (f"requirements/{variant.lock}", *_SOURCES):
        top = repository / source
        files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        for path in files:
            file = path.relative_to(repository)
            # Caches of tools, and files that only describe a role, do not change the image.
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
    """Return mmdebstrap's arguments for the mirror; none for mmdebstrap's default.

    Args:
        mirror: Empty, a URL, or lines of URLs or of sources.list. The URL of a snapshot archive
            (…/archive/debian/20261129T000000Z) also brings the updates and security updates of the
            same moment. The lists of a snapshot have expired, so their date is not checked.
        suite: Debian's suite.
    """
    arguments = []
    for line in filter(None, map(str.strip, mirror.splitlines())):
        snapshot = _SNAPSHOT.fullmatch(line)
        if not snapshot:
            arguments.append(line)
            continue
        archive, moment = snapshot.groups()
        places = [(line, suite)]
        if archive.endswith("/debian"):
            security = f"{archive}-security/{moment}"
            places += [(line, f"{suite}-updates"), (security, f"{suite}-security")]
        arguments += [f"deb [{_OF_SNAPSHOTS}] {place} {name} main" for place, name in places]
    return arguments


def check_image(
    name: str,
    applications: Collection[str],
    frameworks: Mapping[str, str | None],
    variants: Mapping[str, ImageVariant],
) -> None:
    """Check that an image exists, and that it can run each of a plan's applications.

    Args:
        name: The plan's image.
        applications: Names of the plan's applications.
        frameworks: The framework that each existing application needs, by name; None for none.
        variants: The existing variants, by name.

    Raises:
        PlatformError: the image does not exist, or cannot run an application; the message names
            images that can.
    """
    held = _held(variant_of(name, variants), frameworks)
    if lacking := sorted(set(applications) - held):
        fit = [n for n, v in variants.items() if set(applications) <= _held(v, frameworks)]
        raise PlatformError(
            f"image {name} found in the plan, which has {', '.join(sorted(held))} and lacks "
            f"{', '.join(lacking)}; set image: {' or '.join(fit) or 'to another'}, or take "
            f"{'it' if len(lacking) == 1 else 'them'} out of applications"
        )


def _held(variant: ImageVariant, frameworks: Mapping[str, str | None]) -> set[str]:
    """Return the names of the applications that a variant can run."""
    has = {None, *variant.frameworks}
    return {name for name, framework in frameworks.items() if framework in has}
