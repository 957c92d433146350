"""What an image is made of, as a CycloneDX bill of materials (SBOM)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?:(?!\n\S).)*)", re.M | re.S)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill(
    digest: str,
    variant: str,
    suite: str,
    built_at: str,
    packages: Iterable[str],
    wheels: Iterable[str],
    lock: str,
) -> str:
    """Return the bill of an image, as JSON.

    Args:
        digest: The image's, ``sha256:…``.
        variant: Its name in images.yml.
        suite: Debian's suite.
        built_at: When it was built, in ISO 8601.
        packages: Debian packages, a line each: name, version and architecture.
        wheels: Python distributions, a line each: name and version.
        lock: The requirements file by which they were installed; tells their hashes.
    """
    hashes = {
        (_plain(name), version): _HASH.findall(rest)
        for name, version, rest in _LOCKED.findall(lock)
    }
    parts = [_package(*line.split(), suite=suite) for line in packages]
    for line in wheels:
        name, version = line.split()
        parts.append(_wheel(_plain(name), version, hashes.get((_plain(name), version), [])))
    image = Component(
        type=ComponentType.CONTAINER,
        name=f"virtbed-rootfs-{variant}",
        version=digest,
        bom_ref=digest,
    )
    # The same image has the same bill, to the byte.
    bom = Bom(components=parts, serial_number=uuid5(NAMESPACE_URL, digest))
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.fromisoformat(built_at)
    bom.register_dependency(image, parts)
    writer = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return writer.output_as_string(indent=1)


def _package(name: str, version: str, architecture: str, *, suite: str) -> Component:
    url = PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": suite})
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url)
    )


def _wheel(name: str, version: str, hashes: Iterable[str]) -> Component:
    url = PackageURL("pypi", None, name, version)
    # Of each file that the lock admits; one of them was installed.
    locked = [Property(name="virtbed:locked_sha256", value=value) for value in hashes]
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url),
        properties=locked,
    )  # fmt: skip


def _plain(name: str) -> str:
    """Return a distribution's name as PyPI writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()
