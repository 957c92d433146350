from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.image import check_image, image_key, load_variants, mirrors
from virtbed.platforms import PlatformError
from virtbed_workloads.registry import APPLICATIONS

FRAMEWORKS = {"image_classification": "tensorflow", "null": None}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    sources = ("contract", "workloads", "roles/image_rootfs", "roles/image_disk", "requirements")
    for name in sources:
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("images.yml", "platforms.yml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_a_copy_of_the_sources_has_the_same_key(sources: Path) -> None:
    assert image_key("cpu", sources) == image_key()


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
    assert image_key("cpu", sources) != image_key()


@pytest.mark.parametrize(
    "file",
    [
        "workloads/virtbed_workloads/__pycache__/x.cpython-311.pyc",
        "workloads/virtbed_workloads/.ruff_cache/x",
        "roles/image_rootfs/README.md",
    ],
)
def test_caches_and_descriptions_of_roles_do_not_change_the_key(sources: Path, file: str) -> None:
    path = sources / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert image_key("cpu", sources) == image_key()


def edited(sources: Path, variant: str, **values: object) -> Path:
    """Change an entry of images.yml."""
    path = sources / "images.yml"
    variants = yaml.safe_load(path.read_text())
    variants[variant] |= values
    path.write_text(yaml.safe_dump(variants))
    return sources


def test_each_variant_has_a_key_of_its_own_which_only_its_own_sources_change(
    sources: Path,
) -> None:
    before = {name: image_key(name, sources) for name in ("cpu", "null")}
    assert before["cpu"] != before["null"]
    edited(sources, "null", packages=["zstd"])
    assert image_key("cpu", sources) == before["cpu"]
    assert image_key("null", sources) != before["null"]
    with (sources / "requirements" / "workloads.txt").open("a") as file:
        file.write("# changed\n")
    edited(sources, "null", packages=[])
    assert image_key("null", sources) == before["null"]
    assert image_key("cpu", sources) != before["cpu"]


def test_a_variants_description_does_not_change_its_key(sources: Path) -> None:
    before = image_key("null", sources)
    edited(sources, "null", words="other", build_s=1, disk_mib=1, memory_mib=1)
    assert image_key("null", sources) == before


@pytest.mark.parametrize("written", ["null", "~"])
def test_a_variant_whose_name_is_not_text_is_refused(sources: Path, written: str) -> None:
    path = sources / "images.yml"
    path.write_text(path.read_text().replace('"null":', f"{written}:"))
    with pytest.raises(PlatformError, match=r"images\.yml: .*key 'None' found, a text needed"):
        load_variants(sources)


def test_an_image_that_lacks_an_application_is_refused_and_one_that_has_it_is_named() -> None:
    variants = load_variants()
    check_image("cpu", ["image_classification", "null"], FRAMEWORKS, variants)
    check_image("null", ["null"], FRAMEWORKS, variants)
    with pytest.raises(PlatformError) as refused:
        check_image("null", ["null", "image_classification"], FRAMEWORKS, variants)
    assert str(refused.value) == (
        "image null found in the plan, which has null and lacks image_classification; set image: "
        "cpu, or take it out of applications"
    )
    with pytest.raises(PlatformError, match=r"no image 'gpu'; images.yml has: cpu, null"):
        check_image("gpu", ["null"], FRAMEWORKS, variants)


def test_each_application_runs_in_a_variant_and_every_lock_exists() -> None:
    variants = load_variants()
    frameworks = {name: entry.framework for name, entry in APPLICATIONS.items()}
    check_image("cpu", list(APPLICATIONS), frameworks, variants)
    check_image("null", ["null"], frameworks, variants)
    for variant in variants.values():
        assert (REPOSITORY / "requirements" / variant.lock).is_file()
        # The harness needs LoadGen, whatever runs.
        assert "mlcommons-loadgen==" in (REPOSITORY / "requirements" / variant.lock).read_text()


def test_the_small_variant_has_only_the_packages_that_the_harness_needs() -> None:
    members = tomllib.loads((REPOSITORY / "workloads" / "pyproject.toml").read_text())["project"]
    lock = (REPOSITORY / "requirements" / load_variants()["null"].lock).read_text()
    locked = [line.split("==")[0] for line in lock.splitlines() if "==" in line]
    wanted = members["optional-dependencies"]["null"]
    assert locked == [line.split(">=")[0] for line in wanted]


def test_packages_are_from_mmdebstraps_default_a_mirror_or_lines_of_sources() -> None:
    assert mirrors("", "bookworm") == []
    assert mirrors(" http://mirror/debian\n", "bookworm") == ["http://mirror/debian"]
    lines = ["deb http://a/debian bookworm main", "http://b/debian"]
    assert mirrors("\n".join(lines) + "\n\n", "bookworm") == lines


@pytest.mark.parametrize("end", ["", "/"])
def test_a_snapshot_brings_updates_of_the_same_moment_and_its_expired_lists_are_accepted(
    end: str,
) -> None:
    found = mirrors(f"http://snapshot.debian.org/archive/debian/20261129T000000Z{end}", "bookworm")
    assert all(line.startswith("deb [check-valid-until=no ") for line in found)
    places = [line.replace("Z/ ", "Z ").partition("debian.org/")[2] for line in found]
    assert places == [
        "archive/debian/20261129T000000Z bookworm main",
        "archive/debian/20261129T000000Z bookworm-updates main",
        "archive/debian-security/20261129T000000Z bookworm-security main",
    ]


def test_a_snapshot_of_another_archive_brings_no_updates() -> None:
    (line,) = mirrors("https://snapshots.example/mine/20261129T000000Z", "bookworm")
    assert line.endswith("] https://snapshots.example/mine/20261129T000000Z bookworm main")
