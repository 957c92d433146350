"""The bill of an image: what it is made of, in a form that other tools read."""

from __future__ import annotations

import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from virtbed.checkout import REPOSITORY
from virtbed.sbom import bill

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


def made(**changes: Any) -> str:
    asked: dict[str, Any] = {
        "digest": f"sha256:{'d' * 64}",
        "variant": "cpu",
        "suite": "bookworm",
        "built_at": "2026-11-29T15:00:00Z",
        "packages": ["libc6 2.36-9+deb12u7 amd64", "tzdata 2025b-0 all"],
        "wheels": ["numpy 2.4.6", "importlib_resources 7.1.0", "virtbed-contract 0.1.0"],
        "lock": LOCK,
    }
    return bill(**asked | changes)


def test_packages_have_their_version_and_wheels_their_hashes() -> None:
    found = json.loads(made())
    parts = {part["purl"]: part for part in found["components"]}
    assert {url: len(part.get("properties", [])) for url, part in parts.items()} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u7?arch=amd64&distro=bookworm": 0,
        "pkg:deb/debian/tzdata@2025b-0?arch=all&distro=bookworm": 0,
        "pkg:pypi/numpy@2.4.6": 2,
        "pkg:pypi/importlib-resources@7.1.0": 1,
        "pkg:pypi/virtbed-contract@0.1.0": 0,  # ours: built from the sources, which no lock names
    }
    assert parts["pkg:pypi/numpy@2.4.6"]["properties"][0]["value"] == "a" * 64
    assert found["metadata"]["component"]["version"] == f"sha256:{'d' * 64}"


def test_the_same_image_has_the_same_bill() -> None:
    assert made() == made()
    assert made() != made(wheels=[])


def test_it_is_valid_and_knows_the_locks_of_this_checkout() -> None:
    for lock in (REPOSITORY / "requirements").glob("workloads*.txt"):
        names = [line.split()[0] for line in lock.read_text().splitlines() if "==" in line]
        wheels = [name.replace("==", " ") for name in names if not name.startswith("#")]
        text = made(wheels=wheels, lock=lock.read_text())
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        urls = [part for part in json.loads(text)["components"] if "pypi" in part["purl"]]
        assert len(urls) == len(wheels) and all(part["properties"] for part in urls)
