"""Two builds of the same sources have the same digest, on any day and host."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import REPOSITORY, module

TOOLS = Path(sys.executable).parent
ROLE = REPOSITORY / "roles/image_rootfs"
SITE = "usr/local/lib/python3.11/dist-packages"
NAMING = ("Install the wheels", "Remove files that", "Empty the machine", "Compute the digest")


def block() -> dict[str, Any]:
    """Return the block of tasks that makes the tree and computes its digest."""
    (task,) = (t for t in yaml.safe_load((ROLE / "tasks/main.yml").read_text()) if "block" in t)
    return dict(task)


def tasks() -> list[dict[str, Any]]:
    """Return the tasks that install wheels, clean the tree, and compute its digest."""
    ours = yaml.safe_load((ROLE / "tasks/applications.yml").read_text())
    selected = [task for task in [*ours, *block()["block"]] if task["name"].startswith(NAMING)]
    assert len(selected) == len(NAMING)
    return selected


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build one wheel without commands, and one with commands."""
    folder = tmp_path_factory.mktemp("wheels")
    for member in ("contract", "python"):
        command = [TOOLS / "uv", "build", "--quiet", "--wheel", f"--out-dir={folder}"]
        subprocess.run([*command, REPOSITORY / member], check=True)
    return [str(path) for path in folder.glob("*.whl")]


def build(
    folder: Path, wheels: list[str], day: int, python: str, umask: int, **environment: str
) -> Path:
    """Build a small tree as an image is built on some day; return the building directory."""
    root = folder / "building/rootfs"
    made = {
        "etc/machine-id": f"{day:032x}\n",
        "etc/shadow": "root:*:19518::::::\n",
        "etc/shadow-": f"root:*:{day}::::::\n",
        "etc/apt/sources.list.d/0000main.sources": f"URIs: http://mirror{day}\n",
        "etc/apt/apt.conf.d/99mmdebstrap": f"# {day}\n",
        "etc/resolv.conf": f"nameserver 10.0.0.{day % 255}\n",
        "var/log/dpkg.log": f"{day} install\n",
        "var/lib/apt/extended_states": f"Package: of-{day}\n",
        "var/lib/apt/lists/archive_Packages": f"{day}\n",
        "var/lib/dpkg/status-old": f"{day}\n",
        "var/cache/ldconfig/aux-cache": f"{day}\n",
    }
    for name, content in sorted(made.items(), reverse=bool(day % 2)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
        os.utime(root / name, (day, day))
    (root / SITE).mkdir(parents=True)
    venv = folder / "venv"
    subprocess.run([TOOLS / "uv", "venv", "--quiet", f"--python={python}", venv], check=True)
    uv = folder / "building/uv"
    uv.symlink_to(TOOLS / "uv")
    for wheel in wheels:
        copied = folder / "building" / Path(wheel).name
        copied.write_bytes(Path(wheel).read_bytes())
        os.utime(copied, (day, day))
    # With the host's tar, because this small tree has none; another test uses the tree's own.
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    tar = variables["image_rootfs_tar"].replace(
        "/usr/sbin/chroot rootfs tar", "tar --directory=rootfs"
    )
    extra = {"image_rootfs_tar": tar, "image_rootfs_building_dir": str(folder / "building"),
             "image_rootfs_suite": "bookworm",
             "__image_rootfs_wheel": {"files": [{"path": wheel} for wheel in wheels]}}  # fmt: skip
    book = [{
        "hosts": "localhost", "connection": "local", "gather_facts": False,
        "vars_files": [str(ROLE / "vars/main.yml")],
        "environment": block()["environment"], "tasks": tasks(),
    }]  # fmt: skip
    (folder / "play.yml").write_text(yaml.safe_dump(book))
    (folder / "vars.json").write_text(json.dumps(extra))
    done = subprocess.run(
        [TOOLS / "ansible-playbook", folder / "play.yml", "-e", f"@{folder / 'vars.json'}"],
        env={**os.environ, "ANSIBLE_LIBRARY": str(ROLE / "library"), "VIRTUAL_ENV": str(venv),
             **environment},
        cwd=REPOSITORY, capture_output=True, text=True, check=False, umask=umask,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "building"


def listed(building: Path) -> list[dict[str, Any]]:
    with gzip.open(building / "contents.jsonl.gz") as file:
        return [json.loads(line) for line in file]


def test_a_tree_built_on_another_day_and_by_another_user_has_the_same_digest(
    tmp_path: Path, wheels: list[str]
) -> None:
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
    one = build(tmp_path / "one", wheels, 20_786, sys.executable, 0o022)
    another = build(tmp_path / "another", wheels, 21_001, "/usr/bin/python3", 0o077,
                    TAR_OPTIONS="--mode=0700", UV_LINK_MODE="copy")  # fmt: skip
    # The lists are compared first, because they show what differs.
    *ours, end = listed(one)
    *theirs, other_end = listed(another)
    others = {each["path"]: each for each in theirs}
    assert [each for each in ours if others.get(each["path"]) != each] == []
    assert len(ours) == len(theirs) and end == other_end
    paths = set(others)
    assert f"./{SITE}/virtbed_contract/codec.py" in paths
    of_installers = ("uv_cache.json", "direct_url.json", "/bin/virtbed")
    assert not {path for path in paths if path.endswith(of_installers)}
    records = (one / "rootfs" / SITE).glob("*.dist-info/RECORD")
    for line in "".join(path.read_text() for path in records).splitlines():
        name = line.split(",")[0].strip('"')
        assert f"./{SITE}/{name}" in paths, line


def test_tools_that_use_the_date_get_a_fixed_one() -> None:
    """shadow writes the date to each account, initramfs-tools the time to each file."""
    inside = {task["name"]: task for task in block()["block"]}
    assert {"Bootstrap the Debian tree", "Configure the guest", "Install the applications"} < {
        *inside
    }
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    assert block()["environment"] == "{{ __image_rootfs_environment }}"
    # With 0, shadow would treat passwords as expired.
    assert int(variables["__image_rootfs_environment"]["SOURCE_DATE_EPOCH"]) > 86400


def test_the_users_environment_reaches_no_program_that_makes_the_tree() -> None:
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    kept = "|".join(variables["__image_rootfs_environment"])
    begin = [
        word.replace("{{ __image_rootfs_environment | join('|') }}", kept)
        for word in variables["__image_rootfs_alone"]
    ]
    environment = {
        "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "ZSTD_CLEVEL": "3",
        "LINES": "a\nPERL5LIB=b", "https_proxy": "http://proxy", "TZ": "UTC",
    }  # fmt: skip
    done = subprocess.run(
        [*begin, "/usr/bin/env"], env=environment, capture_output=True, text=True, check=True
    )
    names = {line.split("=")[0] for line in done.stdout.splitlines()} - {"PWD", "_", "SHLVL"}
    assert names == {"PATH", "https_proxy", "TZ"}
    commands = [
        task["ansible.builtin.command"]["argv"]
        for task in block()["block"]
        if "ansible.builtin.command" in task
    ]
    begins = ("alone", "enter", "look", "install")
    assert all(argv.lstrip("{ ").startswith(tuple(f"__image_rootfs_{b}" for b in begins))
               for argv in commands)  # fmt: skip
    for name in begins[1:]:
        assert "__image_rootfs_alone + " in variables[f"__image_rootfs_{name}"]


def test_python_files_are_compiled_by_one_process() -> None:
    (task,) = (t for t in block()["block"] if t["name"].startswith("Compile"))
    argv = task["ansible.builtin.command"]["argv"]
    assert "'-j', '1'" in argv and "'unchecked-hash'" in argv


def test_the_list_has_every_member_of_a_tar(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    (root / "folder/file").write_bytes(b"hello\n")
    (root / "folder/file").chmod(0o4751)
    os.link(root / "folder/file", root / "hard")
    (root / "link").symlink_to("folder/file")
    os.mkfifo(root / "fifo")
    (root / ("long" * 60)).touch()
    command = "tar --sort=name --mtime=@0 --numeric-owner --format=gnu -C tree -cf - ."
    stream = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
    dest = tmp_path / "contents.jsonl.gz"
    digest, count = module("image_rootfs", "image_contents").listed(
        command, str(tmp_path), str(dest)
    )
    assert digest == f"sha256:{hashlib.sha256(stream.stdout).hexdigest()}"
    *lines, end = listed(tmp_path)
    assert end == {"digest": digest, "files": count} and count == len(lines) == 7
    members = {line.pop("path"): line for line in lines}
    owner = f"{os.geteuid()}:{os.getegid()}"
    assert members["./folder/file"] == {
        "type": "file", "mode": "4751", "owner": owner, "size": 6,
        "sha256": hashlib.sha256(b"hello\n").hexdigest(),
    }  # fmt: skip
    assert (
        members["./hard"]["type"] == "hard link" and members["./hard"]["target"] == "./folder/file"
    )
    assert members["./link"]["target"] == "folder/file" and members["./fifo"]["type"] == "FIFO"
    assert members["."]["type"] == "folder" and "./" + "long" * 60 in members


@pytest.mark.parametrize("command", ["exit 3", "yes no tar", "tar -cf - . missing"])
def test_a_failed_tar_is_an_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4000)
    with pytest.raises(RuntimeError, match=r"ended with"):
        module("image_rootfs", "image_contents").listed(
            command, str(tmp_path), str(tmp_path / "list")
        )
