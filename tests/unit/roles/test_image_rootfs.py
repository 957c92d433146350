"""Tasks of image_rootfs on a made-up folder: find, keep and remove images; mask units."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.image import image_key
from virtbed_contract.documents import image_name

CPU, NULL, OLD = (f"sha256:{digit * 64}" for digit in "abc")
REPORTED = (
    "{{ image_rootfs_variant }} {{ image_rootfs_found }} {{ image_rootfs_kept.values() | list }}"
)


def set_up(folder: Path, plan: str) -> str:
    """Find and prune images as testbed.yml does for a plan; return the role's variables as text."""

    def tasks(name: str) -> dict[str, Any]:
        return {"ansible.builtin.include_role": {"name": "image_rootfs", "tasks_from": name,
                                                 "public": True}}  # fmt: skip

    book = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"virtbed_state_dir": str(folder)},
            "tasks": [
                tasks("find"),
                {"ansible.builtin.copy": {"dest": str(folder / "reported"), "content": REPORTED}},
                tasks("prune"),
            ],
        }
    ]
    played(folder, book, "-e", f"plan={plan}")
    return (folder / "reported").read_text()


def played(folder: Path, book: list[dict[str, Any]], *options: str) -> None:
    """Run a playbook on this machine, with the plugins of this checkout."""
    playbook = folder / "playbook.yml"
    playbook.write_text(yaml.safe_dump(book))
    plugins = REPOSITORY / "playbooks"
    plugin_folders = {
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_LOOKUP_PLUGINS": str(plugins / "lookup_plugins"),
        "ANSIBLE_FILTER_PLUGINS": str(plugins / "filter_plugins"),
    }
    tool = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [tool, "-i", "localhost,", "-c", "local", playbook, *options],
        env=os.environ | plugin_folders, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "small.yml"
    path.write_text(
        "name: small\nimage: null\napplications: [{name: null, scale: tiny}]\n"
        "platforms: {bm: [pinned]}\ncores: [1]\n"
    )
    return str(path)


def publish(folder: Path, digest: str, variant: str, key: str) -> None:
    place = folder / "images" / image_name(digest)
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"digest": digest, "key": key}))
    link = folder / "images" / f"current-{variant}"
    link.unlink(missing_ok=True)
    link.symlink_to(place.name)


def test_images_of_the_present_sources_stay_and_others_go(tmp_path: Path, plan: str) -> None:
    publish(tmp_path, OLD, "cpu", "older")
    publish(tmp_path, CPU, "cpu", image_key("cpu"))
    publish(tmp_path, NULL, "null", image_key("null"))
    (tmp_path / "images/building").mkdir()
    (tmp_path / "images/current").symlink_to(image_name(OLD))  # the link's name before variants
    assert set_up(tmp_path, plan) == f"null True {[image_name(CPU), image_name(NULL)]}"
    names = {image_name(CPU), image_name(NULL), "current-cpu", "current-null"}
    assert {path.name for path in (tmp_path / "images").iterdir()} == names


def test_an_image_of_other_sources_is_not_found_and_other_variants_stay(tmp_path: Path) -> None:
    publish(tmp_path, CPU, "cpu", image_key("null"))
    publish(tmp_path, NULL, "null", image_key("null"))
    assert set_up(tmp_path, "quick") == f"cpu False {[image_name(NULL)]}"


def test_a_guest_masks_its_packages_timers_and_the_services_that_tuning_stops(
    tmp_path: Path,
) -> None:
    """Runs the role's tasks, except that the command is written to a file and not run."""
    folder = tmp_path / "rootfs/usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for unit in ("fstrim.timer", "motd-news.timer", "cron.service", "ssh.service", "dbus.socket"):
        (folder / unit).touch()
    (folder / "linked.timer").symlink_to("fstrim.timer")
    tasks = yaml.safe_load((REPOSITORY / "roles/image_rootfs/tasks/guest.yml").read_text())
    listing, masking = (
        next(task for task in tasks if task["name"].startswith(words)) for words in ("List", "Mask")
    )
    command = masking["ansible.builtin.command"]["argv"].strip("{} ")
    reported = "{{ (" + command + ") | to_json }}"
    book = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"image_rootfs_building_dir": str(tmp_path), "__image_rootfs_enter": []},
            "vars_files": [str(tmp_path / "vars.yml")],
            "tasks": [
                listing,
                {"ansible.builtin.copy": {"dest": str(tmp_path / "reported"), "content": reported}},
            ],
        }
    ]  # fmt: skip
    variables = yaml.safe_load((REPOSITORY / "roles/image_rootfs/vars/main.yml").read_text())
    boot = "__image_rootfs_boot_units"
    (tmp_path / "vars.yml").write_text(yaml.safe_dump({boot: variables[boot]}))
    played(tmp_path, book)
    assert json.loads((tmp_path / "reported").read_text()) == [
        "systemctl", "mask", "e2scrub_reap.service", "systemd-pstore.service",
        "cron.service", "fstrim.timer", "linked.timer", "motd-news.timer",
    ]  # fmt: skip


def test_applications_can_read_the_kernel_log_of_a_guest() -> None:
    """Debian restricts it to privileged users, and the measured process is not privileged."""
    tasks = yaml.safe_load((REPOSITORY / "roles/image_rootfs/tasks/guest.yml").read_text())
    files = {item["dest"]: item.get("content") for item in tasks[0]["loop"]}
    assert files["etc/sysctl.d/virtbed.conf"] == "kernel.dmesg_restrict = 0\n"


def test_the_digest_is_computed_by_the_trees_tar_not_the_hosts(tmp_path: Path) -> None:
    """Versions of tar write different streams, and hosts have different versions."""
    variables = yaml.safe_load((REPOSITORY / "roles/image_rootfs/vars/main.yml").read_text())
    root = tmp_path / "rootfs"
    for name in (shutil.which("tar") or "", *loaded_by("tar")):
        place = root / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, place)
    other = tmp_path / "bin/tar"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho another version\n")
    other.chmod(0o755)
    read = subprocess.run(
        ["unshare", "--map-root-user", "sh", "-c", variables["image_rootfs_tar"]], cwd=tmp_path,
        env={"PATH": f"{other.parent}:{os.environ['PATH']}"}, capture_output=True, check=True,
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(read.stdout)) as archive:
        names = archive.getnames()
    assert names[0] == "." and "./usr/bin/tar" in names


def loaded_by(program: str) -> list[str]:
    """Return the paths of the libraries that a program loads."""
    reported = subprocess.run(
        ["ldd", shutil.which(program) or ""], capture_output=True, text=True, check=True
    )
    return re.findall(r"(/\S+) \(", reported.stdout)
