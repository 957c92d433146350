"""One file, made of a sweep, checked, and broken in every way."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtbed_analysis import AnalysisError
from virtbed_analysis.crate import archive, problems


@pytest.fixture
def locks(tmp_path: Path) -> dict[str, Path]:
    lock = tmp_path / "analysis.txt"
    lock.write_text("numpy==2.0 --hash=sha256:0\n")
    return {"analysis.txt": lock}


@pytest.fixture
def packed(quick: Any, tmp_path: Path, locks: dict[str, Path]) -> Path:
    file = tmp_path / "quick.zip"
    (quick.path / "ledger.sqlite-wal").write_text("journal")
    archive(quick.path, file, locks)
    return file


def rewrite(file: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> None:
    """Write an archive anew, its files changed or, where `change` gives None, left out."""
    with zipfile.ZipFile(file) as before:
        content = {name: change(name, before.read(name)) for name in before.namelist()}
    with zipfile.ZipFile(file, "w") as after:
        for name, text in {**content, **added}.items():
            if text is not None:
                after.writestr(name, text)


def test_a_whole_archive_has_no_problem(packed: Path) -> None:
    assert list(problems(packed)) == []
    with zipfile.ZipFile(packed) as file:
        names = file.namelist()
        crate = json.loads(file.read("ro-crate-metadata.json"))
    assert "locks/analysis.txt" in names
    assert "quick/design.json" in names and "quick/report.html" in names
    assert sum(name.endswith("evidence.json") for name in names) == 17
    assert not [name for name in names if "ledger" in name]
    files = {entity["@id"] for entity in crate["@graph"] if entity["@type"] == "File"}
    assert "datePublished" in next(e for e in crate["@graph"] if e["@id"] == "./")
    assert files == set(names) - {"ro-crate-metadata.json", "manifest-sha256.txt"}


def test_the_same_sweep_gives_the_same_bytes(
    quick: Any, packed: Path, locks: dict[str, Path]
) -> None:
    again = packed.with_name("again.zip")
    archive(quick.path, again, locks)
    assert again.read_bytes() == packed.read_bytes()


def test_a_changed_file_is_named(packed: Path) -> None:
    rewrite(packed, lambda n, text: text + b" " if n == "quick/design.json" else text)
    (problem,) = problems(packed)
    assert problem.startswith("quick/design.json was changed: SHA-256")


def test_a_missing_and_an_added_file_are_named(packed: Path) -> None:
    rewrite(packed, lambda n, text: None if n == "quick/design.json" else text, more=b"x")
    assert list(problems(packed)) == [
        "quick/design.json is missing",
        "more was added: manifest-sha256.txt does not name it",
    ]


def test_a_file_that_would_leave_its_folder_is_not_unpacked(packed: Path) -> None:
    rewrite(packed, lambda _, text: text, **{"../escaped": b"x"})
    assert "../escaped would be unpacked outside of its folder" in list(problems(packed))


def test_a_report_that_the_results_do_not_give_is_named(packed: Path) -> None:
    """Whoever changes a report and mends the manifest is found out."""

    def forge(name: str, text: bytes) -> bytes:
        return text.replace(b"1.35", b"1.05") if name == "quick/report.html" else text

    rewrite(packed, forge)
    with zipfile.ZipFile(packed) as file:
        sums = [
            f"{hashlib.sha256(file.read(name)).hexdigest()}  {name}\n"
            for name in file.namelist()
            if name != "manifest-sha256.txt"
        ]
    manifest = "".join(sums).encode()
    rewrite(packed, lambda n, text: manifest if n == "manifest-sha256.txt" else text)
    (problem,) = problems(packed)
    assert problem.startswith("quick/report.html is not what this version of the analysis makes")


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.zip"
    file.write_bytes(content)
    with pytest.raises(AnalysisError, match="no archive of virtbed's"):
        list(problems(file))


def test_another_zip_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("a", "b")
    with pytest.raises(AnalysisError, match=r"no manifest-sha256.txt in it"):
        list(problems(file))
