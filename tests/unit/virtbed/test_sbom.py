"""Bills of materials (CycloneDX) of an image and of a release."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from virtbed.checkout import REPOSITORY
from virtbed.sbom import bill, release_bill

LOCK = """\
# made by uv
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
    # via tensorflow
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{c}
importlib-resources==7.1.0 \\
    --hash=sha256:{c}
""".format(**{digit: digit * 64 for digit in "abc"})


SHOWN = f"""\
Package: libc6
Source: glibc
Version: 2.36-9+deb12u7
Architecture: amd64
Description: GNU C Library
 Contains
 Version: of nothing.
SHA256: {"1" * 64}

Package: tzdata
Version: 2025b-0
Architecture: all
SHA256: {"2" * 64}

Package: tzdata
Version: 2025b-0
Architecture: all
SHA256: {"2" * 64}
"""


def made(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "digest": f"sha256:{'d' * 64}",
        "variant": "cpu",
        "suite": "bookworm",
        "built_at": "2026-11-29T15:00:00Z",
        "packages": SHOWN,
        "wheels": [
            f"{wheel} {'f' * 64}"
            for wheel in ("numpy 2.4.6", "importlib_resources 7.1.0", "virtbed-contract 0.1.0")
        ],
        "lock": LOCK,
    }
    return bill(**arguments | changes)


def test_packages_and_wheels_have_their_versions_and_hashes() -> None:
    found = json.loads(made())
    parts = {part["purl"]: part for part in found["components"]}
    assert len(parts) == len(found["components"])
    hashes = {url: [h["content"][0] for h in p.get("hashes", ())] for url, p in parts.items()}
    properties = {
        url: [f"{p['name']} {p['value'][0]}" for p in part.get("properties", ())]
        for url, part in parts.items()
    }
    record = "virtbed:record_sha256 f"
    assert {url: [*hashes[url], *properties[url]] for url in parts} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u7?arch=amd64&distro=bookworm": ["1"],
        "pkg:deb/debian/tzdata@2025b-0?arch=all&distro=bookworm": ["2"],
        "pkg:pypi/numpy@2.4.6": ["virtbed:locked_sha256 a", "virtbed:locked_sha256 b", record],
        "pkg:pypi/importlib-resources@7.1.0": ["virtbed:locked_sha256 c", record],
        # Ours: built from the sources, which no lock names.
        "pkg:pypi/virtbed-contract@0.1.0": [record],
    }
    assert found["metadata"]["component"]["version"] == f"sha256:{'d' * 64}"


def test_a_package_without_a_hash_is_refused() -> None:
    shown = SHOWN.replace(f"SHA256: {'1' * 64}\n", "")
    with pytest.raises(ValueError, match="no SHA256 found for the Debian package libc6, needed"):
        made(packages=shown)


def test_the_same_image_has_the_same_bill() -> None:
    assert made() == made()
    assert made() != made(wheels=[])


def test_a_bill_is_valid_and_has_the_hashes_of_this_checkouts_locks() -> None:
    for lock in (REPOSITORY / "requirements").glob("workloads*.txt"):
        names = [line.split()[0] for line in lock.read_text().splitlines() if "==" in line]
        wheels = [
            f"{name.replace('==', ' ')} {'f' * 64}" for name in names if not name.startswith("#")
        ]
        text = made(wheels=wheels, lock=lock.read_text())
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        urls = [part for part in json.loads(text)["components"] if "pypi" in part["purl"]]
        assert len(urls) == len(wheels) and all(len(p["properties"]) > 1 for p in urls)


def test_a_release_lists_each_wheel_once_with_the_locks_that_name_it() -> None:
    more = f"importlib_resources==7.1.0 \\\n    --hash=sha256:{'d' * 64}\n"
    text = release_bill("1.2.3", "2026-11-29T15:00:00+01:00", {"a.txt": LOCK, "b.txt": more})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert found["metadata"]["component"]["version"] == "1.2.3"
    parts = {part["purl"]: part["properties"] for part in found["components"]}
    assert {
        url: [f"{one['name']} {one['value'][:5]}" for one in about] for url, about in parts.items()
    } == {
        "pkg:pypi/importlib-resources@7.1.0": [
            "virtbed:lock a.txt", "virtbed:lock b.txt",
            *(f"virtbed:locked_sha256 {5 * digit}" for digit in "cd"),
        ],
        "pkg:pypi/numpy@2.4.6": [
            "virtbed:lock a.txt", *(f"virtbed:locked_sha256 {5 * digit}" for digit in "ab"),
        ],
        "pkg:pypi/numpy@2.5.5": ["virtbed:lock a.txt", "virtbed:locked_sha256 ccccc"],
    }  # fmt: skip
