"""Refusals and removals of the lab that need no running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from virtbed.cli import app
from virtbed.cli import lab as commands
from virtbed.lab import LabError, server
from virtbed.lab.image import Image
from virtbed.lab.server import remove_all, start
from virtbed.lab.shape import Shape


def started(name: str, lab: Path) -> None:
    start(name, Image(lab / "image", "0" * 16), Shape(), print, tied=True, lab=lab)


@pytest.mark.parametrize("name", ["../kept", ".", "", "a/b", "/etc", "-F", "*", "A", "a\n", "ä"])
def test_an_invalid_name_is_refused_and_removes_nothing(tmp_path: Path, name: str) -> None:
    lab = tmp_path / "lab"
    kept = lab / "kept" / "file"
    for file in (kept, lab / "servers" / "other" / "file"):
        file.parent.mkdir(parents=True)
        file.touch()
    with pytest.raises(LabError, match=r"server name .* found, .* needed"):
        started(name, lab)
    assert kept.exists() and (lab / "servers" / "other" / "file").exists()


def test_a_name_is_refused_before_an_image_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "build", lambda *_: pytest.fail("an image is built"))
    done = CliRunner().invoke(app, ["lab", "up", "../images"])
    assert done.exit_code == 2 and "server name '../images' found" in done.output


def test_without_qemu_the_message_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"apt install qemu-system-x86 qemu-utils openssh-client"):
        started("a", tmp_path / "lab")
    assert not (tmp_path / "lab").exists()


def test_cleaning_the_lab_keeps_other_files_in_its_folder(tmp_path: Path) -> None:
    for part in ("servers/a", "images/b", "snapshots/c", "consoles/d", "bench", "mine"):
        (tmp_path / part).mkdir(parents=True)
    remove_all(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "mine").rmdir()
    remove_all(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize(("done", "folder"), [("", "/var/cache/virtbed-lab"), ("x", "{}/x")])
def test_an_empty_virtbed_lab_means_the_default_and_a_relative_one_becomes_absolute(
    tmp_path: Path, done: str, folder: str
) -> None:
    program = "from virtbed.lab import FOLDER; print(FOLDER)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"VIRTBED_LAB": done}, cwd=tmp_path,
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == folder.format(tmp_path)


@pytest.mark.parametrize("command", [["up"], ["down"], ["ssh"], ["status"], ["clean"]])
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), LabError("no end")])
def test_errors_of_the_lab_are_refusals_with_a_message(
    monkeypatch: pytest.MonkeyPatch, command: list[str], error: Exception
) -> None:
    def refused(*_: object) -> None:
        raise error

    for module, name in ((commands, "servers"), (server, "servers"), (commands, "build")):
        monkeypatch.setattr(module, name, refused)
    done = CliRunner().invoke(app, ["lab", *command])
    assert done.exit_code == 2 and done.output.startswith("virtbed: ")
    reported = "no end" if isinstance(error, LabError) else "set VIRTBED_LAB"
    assert reported in done.output
