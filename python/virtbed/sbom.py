"""Write CycloneDX bills of materials (SBOM): of an image's packages, and of a release.

``python -m virtbed.sbom VERSION TIME LOCK…`` prints the bill of a release; `make release` calls it.
The role image_rootfs writes the bill of an image.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?:(?!\n\S).)*)", re.M | re.S)
_FIELDS = ("Package", "Version", "Architecture", "SHA256")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill(
    digest: str,
    variant: str,
    suite: str,
    built_at: str,
    packages: str,
    wheels: Iterable[str],
    lock: str,
) -> str:
    """Return the bill of materials of an image, as JSON.

    Args:
        digest: The image's digest, ``sha256:…``.
        variant: The variant's name in images.yml.
        suite: Debian's suite.
        built_at: When the image was built, in ISO 8601.
        packages: The output of ``apt-cache show`` for its Debian packages.
        wheels: One line per Python distribution: name, version and SHA-256 of its RECORD file,
            which has the hash of each installed file.
        lock: Text of the requirements file of the installation, with the hashes of the wheels.

    Raises:
        ValueError: a package has no name, version, architecture or hash.
    """
    hashes = {
        (_plain(name), version): _HASH.findall(rest)
        for name, version, rest in _LOCKED.findall(lock)
    }
    parts = [_package(*found, suite=suite) for found in sorted(_shown(packages))]
    for line in wheels:
        name, version, record = line.split()
        locked = hashes.get((_plain(name), version), [])
        parts.append(_wheel(_plain(name), version, locked, record))
    image = Component(
        type=ComponentType.CONTAINER,
        name=f"virtbed-rootfs-{variant}",
        version=digest,
        bom_ref=digest,
    )
    return _written(image, parts, digest, built_at)


def release_bill(version: str, released_at: str, locks: Mapping[str, str]) -> str:
    """Return the bill of materials of a release, as JSON: the wheels that its hash locks name.

    Args:
        version: Version of virtbed.
        released_at: When it was released, in ISO 8601.
        locks: Texts of the requirements files, by file name. Each wheel in the bill has the names
            of the files that list it as properties.
    """
    hashes: dict[tuple[str, str], set[str]] = {}
    holders: dict[tuple[str, str], set[str]] = {}
    for lock, text in locks.items():
        for name, number, rest in _LOCKED.findall(text):
            wheel = _plain(name), number
            hashes.setdefault(wheel, set()).update(_HASH.findall(rest))
            holders.setdefault(wheel, set()).add(lock)
    parts = []
    for (name, number), found in sorted(hashes.items()):
        held = sorted(holders[name, number])
        about = [Property(name="virtbed:lock", value=lock) for lock in held]
        parts.append(_distribution(name, number, sorted(found), about))
    url = PackageURL("pypi", None, "virtbed", version)
    released = Component(
        type=ComponentType.APPLICATION, name="virtbed", version=version, purl=url, bom_ref=str(url)
    )
    return _written(released, parts, str(url), released_at)


def _written(about: Component, parts: Iterable[Component], name: str, moment: str) -> str:
    # A serial number that depends on the name only: bills of the same contents differ in the time
    # alone.
    bom = Bom(components=parts, serial_number=uuid5(NAMESPACE_URL, name))
    bom.metadata.component = about
    bom.metadata.timestamp = datetime.fromisoformat(moment)
    bom.register_dependency(about, parts)
    writer = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return writer.output_as_string(indent=1)


def _shown(text: str) -> set[tuple[str, ...]]:
    """Return the _FIELDS of each package; a set, because apt-cache lists some packages twice."""
    shown = set()
    for stanza in filter(str.strip, re.split(r"\n\s*\n", text)):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", stanza, re.M))
        if lacking := [name for name in _FIELDS if not fields.get(name)]:
            raise ValueError(
                f"no {', '.join(lacking)} found for the Debian package "
                f"{fields.get('Package', stanza[:80])}, needed; the lists of its archive have it"
            )
        shown.add(tuple(fields[name] for name in _FIELDS))
    return shown


def _package(name: str, version: str, architecture: str, sha256: str, *, suite: str) -> Component:
    url = PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": suite})
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )  # fmt: skip


def _wheel(name: str, version: str, hashes: Iterable[str], record: str) -> Component:
    own = [Property(name="virtbed:record_sha256", value=record)]
    return _distribution(name, version, hashes, own)


def _distribution(
    name: str, version: str, hashes: Iterable[str], more: Iterable[Property]
) -> Component:
    url = PackageURL("pypi", None, name, version)
    # The hashes of all files that the lock admits; one of these was installed.
    about = [Property(name="virtbed:locked_sha256", value=value) for value in hashes]
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url),
        properties=[*about, *more],
    )  # fmt: skip


def _plain(name: str) -> str:
    """Return a distribution's name, normalized as on PyPI (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    number, moment, *files = sys.argv[1:]
    print(release_bill(number, moment, {Path(f).name: Path(f).read_text("utf-8") for f in files}))
