"""Tests of reading kernel files and of atomic writing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtbed_contract.kernel.files import chosen, fields, read, write_text, write_whole


def test_a_kernel_file_is_read_without_surrounding_white_space(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b" 0-3\n\0")
    assert read(tmp_path / "file") == "0-3"
    assert read(tmp_path / "none") is None
    assert read(tmp_path) is None


def test_the_chosen_word() -> None:
    assert chosen("always [madvise] never") == "madvise"
    assert chosen("performance") is None
    assert chosen(None) is None


def test_the_first_value_of_a_key_counts() -> None:
    text = "processor : 0\nflags\t\t: a b\n\nprocessor : 1\nno colon"
    assert fields(text) == {"processor": "0", "flags": "a b"}
    assert fields(None) == {}


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    write_text(path, (part for part in ("n", "ew")), mode=0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_interrupted_write_keeps_the_old_content_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def broken(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, broken)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_device_a_fifo_or_a_folder_is_not_replaced(tmp_path: Path) -> None:
    """As root, a rename onto /dev/null would replace it for the whole machine."""
    os.mkfifo(fifo := tmp_path / "fifo")
    (link := tmp_path / "link").symlink_to("/dev/null")
    for path in (fifo, link, tmp_path):
        with pytest.raises(OSError, match="it is no regular file, one needed"):
            write_text(path, "new")
    assert fifo.is_fifo() and link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [fifo, link]
