"""`virtbed image diff`: two images compared by the files that are stored next to their trees."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from virtbed.cli import app
from virtbed.image_diff import CONTENTS, folder_of
from virtbed.sbom import bill

A, B = (f"sha256:{digit * 64}" for digit in "ab")
FILES: dict[str, dict[str, Any]] = {
    ".": {"type": "folder", "mode": "0755", "owner": "0:0"},
    "./etc": {"type": "folder", "mode": "0755", "owner": "0:0"},
    "./etc/shadow": {"type": "file", "mode": "0640", "owner": "0:42", "size": 5, "sha256": "aa"},
    "./lib": {"type": "symbolic link", "mode": "0777", "owner": "0:0", "target": "usr/lib"},
    "./opt/old": {"type": "folder", "mode": "0755", "owner": "0:0"},
    "./opt/old/one": {"type": "file", "mode": "0644", "owner": "0:0", "size": 1, "sha256": "bb"},
}
PACKAGES = {"libc6": ("2.36-9+deb12u7", "1"), "tzdata": ("2025b-0", "2"), "bash": ("5.2", "3")}
WHEELS = {"numpy": ("2.4.6", "4"), "virtbed-workloads": ("0.1.0", "5")}


def image(
    folder: Path,
    digest: str,
    files: dict[str, dict[str, Any]] | None = None,
    packages: dict[str, tuple[str, str]] | None = None,
    wheels: dict[str, tuple[str, str]] | None = None,
) -> str:
    """Write the files next to an image's tree; return its folder."""
    folder.mkdir(parents=True)
    manifest = {"digest": digest, "variant": "null", "suite": "bookworm", "built_at": "2026-11-29"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shown = "\n".join(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nSHA256: {hash * 64}\n"
        for name, (version, hash) in (PACKAGES | (packages or {})).items()
    )
    lines = [f"{n} {v} {h * 64}" for n, (v, h) in (WHEELS | (wheels or {})).items()]
    text = bill(digest, "null", "bookworm", "2026-11-29T15:00:00Z", shown, lines, "")
    (folder / "sbom.cdx.json").write_text(text)
    kept = {name: about for name, about in (FILES | (files or {})).items() if about}
    lines = [{"path": name, **about} for name, about in kept.items()]
    listed(folder, [*lines, {"digest": digest, "files": len(lines)}])
    return str(folder)


def listed(folder: Path, lines: list[dict[str, Any]]) -> None:
    with gzip.open(folder / CONTENTS, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def diff(*words: str, status: int) -> str:
    done = CliRunner().invoke(app, ["image", "diff", *words])
    assert done.exit_code == status, done.output
    return done.output


def test_two_folders_with_one_digest_are_one_image(tmp_path: Path) -> None:
    a, b = image(tmp_path / "a", A), image(tmp_path / "b", A)
    assert "one image: the digests are the same" in diff(a, b, status=0)
    assert json.loads(diff(a, b, "--json", status=0))["same"] is True


def changed(tmp_path: Path) -> tuple[str, str]:
    gone: dict[str, Any] = {}
    b = image(
        tmp_path / "b", B,
        {
            "./etc": FILES["./etc"] | {"mode": "0700"},
            "./etc/shadow": FILES["./etc/shadow"] | {"size": 6, "sha256": "cc", "owner": "0:43"},
            "./lib": FILES["./lib"] | {"target": "usr/lib64"},
            "./opt/old": gone, "./opt/old/one": gone,
            "./srv": FILES["./etc"],
        },
        {"libc6": ("2.36-9+deb12u8", "6"), "tzdata": ("2025b-0", "7"), "curl": ("8", "8")},
        {"virtbed-workloads": ("0.1.0", "9")},
    )  # fmt: skip
    return image(tmp_path / "a", A), b


def test_differences_are_printed_in_words_within_80_columns(tmp_path: Path) -> None:
    text = diff(*changed(tmp_path), status=1)
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert rows > {
        "curl (deb) only in b: 8",
        "libc6 (deb) 2.36-9+deb12u7 -> 2.36-9+deb12u8",
        "tzdata (deb) other bytes of the same version",
        "virtbed-workloads (pypi) other files of the same version",
        "/etc mode 0755 -> 0700",
        "/etc/shadow content, 5 -> 6 bytes; owner 0:42 -> 0:43",
        "/lib target usr/lib -> usr/lib64",
        "/opt/old only in a, with 1 in it",
        "/srv only in b",
    }
    assert "bash" not in text and "numpy" not in text
    # Of the digests alone a line is longer: they are not broken.
    assert max(len(line) for line in text.splitlines() if "sha256:" not in line) <= 80


def test_differences_are_printed_as_json(tmp_path: Path) -> None:
    found = json.loads(diff(*changed(tmp_path), "--json", status=1))
    assert found["same"] is False and found["a"]["digest"] == A
    assert found["files"]["changed"]["/etc"] == {"mode": ["0755", "0700"]}
    assert set(found["files"]["only_a"]) == {"/opt/old", "/opt/old/one"}
    assert found["packages"]["changed"]["libc6 (deb)"]["version"][1] == "2.36-9+deb12u8"
    assert found["packages"]["only_b"]["curl (deb)"]["version"] == "8"


def test_two_digests_without_different_files_are_two_images(tmp_path: Path) -> None:
    text = diff(image(tmp_path / "a", A), image(tmp_path / "b", B), status=1)
    assert "two digests, but no file differs" in text


def test_rows_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    many = {f"./srv{n}": FILES["./etc"] for n in range(100)}
    text = diff(image(tmp_path / "a", A), image(tmp_path / "b", B, many), status=1)
    assert "and 60 more; --json prints all of them" in text


def test_an_image_of_the_host_is_found_by_digest_name_and_variant(tmp_path: Path) -> None:
    place = tmp_path / ("a" * 16)
    image(place, A)
    (tmp_path / "current-null").symlink_to(place.name)
    for name in (A, "a" * 16, "null"):
        assert folder_of(name, lambda: tmp_path).resolve() == place
    # A folder needs no host, and so no inventory.
    assert folder_of(str(place), lambda: pytest.fail("asked")) == place


def cut(folder: Path) -> None:
    content = (folder / CONTENTS).read_bytes()
    (folder / CONTENTS).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "manifest.json").unlink(), "no image .* found, a folder with"),
        (lambda f: (f / "sbom.cdx.json").unlink(), "no sbom.cdx.json in its folder"),
        (lambda f: (f / "sbom.cdx.json").write_text("{}"), "no bill of an image found"),
        (lambda f: (f / CONTENTS).unlink(), "no .*jsonl.gz found, an image's list of files"),
        (lambda f: (f / CONTENTS).write_text("none"), "damaged"),
        (cut, "damaged"),
        (lambda f: listed(f, []), "damaged"),
        (lambda f: listed(f, [{"digest": B, "files": 0}]), "it belongs to another image"),
        (lambda f: listed(f, [{"path": 1}, {"digest": A, "files": 1}]), "damaged"),
        (lambda f: (f / "manifest.json").write_text(f'{{"digest": "{B}"}}'), "belong to one image"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_image_is_refused_with_a_message(
    tmp_path: Path, spoil: Any, words: str
) -> None:
    a, b = image(tmp_path / "a", A), image(tmp_path / "b", A)
    spoil(tmp_path / "a")
    done = CliRunner().invoke(app, ["image", "diff", a, b])
    assert done.exit_code == 2, done.output
    assert re.search(words, done.output), done.output
