"""The archive of a sweep: written, checked, and damaged in many ways."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed_analysis import AnalysisError, crate, members
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
    """Rewrite an archive, its files changed or, where `change` gives None, left out."""
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
def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.zip"
    file.write_bytes(content)
    with pytest.raises(AnalysisError, match="not an archive of virtbed"):
        list(problems(file))


def test_another_zip_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("a", "b")
    with pytest.raises(AnalysisError, match=r"no manifest-sha256.txt in it"):
        list(problems(file))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "is a link to /etc/passwd, outside the"),
        (lambda path: path.symlink_to("/proc"), "is a link to /proc"),
        (lambda path: path.symlink_to("../../../x"), r"is a link to \.\./\.\./\.\./x"),
        (os.mkfifo, "is neither a file nor a folder"),
    ],
)
def test_files_that_are_not_part_of_the_sweep_are_not_archived(
    quick: Any, tmp_path: Path, locks: dict[str, Path], make: Callable[[Path], object], reason: str
) -> None:
    make(quick.path / "trials/more")
    with pytest.raises(AnalysisError, match=reason):
        archive(quick.path, tmp_path / "quick.zip", locks)
    assert not (tmp_path / "quick.zip").exists()
    assert not (quick.path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("a\nb", 1, r"b has unprintable characters in its name; virtbed verify refuses"),
        (os.fsdecode(b"bad\xff"), 1, r"bad\\udcff has unprintable characters in its name"),
        ("a\\b", 1, r"would be unpacked outside of its folder"),
        ("zeros", 2**21, r"the file quick/zeros unpacks to more than 100 times its size"),
        ("large", members.MOST_MEMBER_BYTES + 1, r"large has 1024 MiB, at most 1024 MiB"),
    ],
)
def test_a_file_with_which_an_archive_would_be_refused_is_named(
    quick: Any, tmp_path: Path, name: str, size: int, found: str
) -> None:
    with (quick.path / name).open("wb") as file:
        file.truncate(size)
    with pytest.raises(AnalysisError, match=found):
        archive(quick.path, tmp_path / "quick.zip", {})
    assert not (tmp_path / "quick.zip").exists()


def test_a_design_does_not_name_the_place_of_an_archive(
    quick: Any, tmp_path: Path, locks: dict[str, Path]
) -> None:
    quick.edit("design.json", lambda design: design.update(sweep="../../x"))
    archive(quick.path, tmp_path / "quick.zip", locks)
    with zipfile.ZipFile(tmp_path / "quick.zip") as file:
        assert not [name for name in file.namelist() if ".." in name]


def sealed(file: Path) -> None:
    """Remake the manifest of an archive, as a forger does."""
    with zipfile.ZipFile(file) as packed:
        names = [name for name in packed.namelist() if name != "manifest-sha256.txt"]
        sums = [f"{hashlib.sha256(packed.read(name)).hexdigest()}  {name}\n" for name in names]
    manifest = "".join(sums).encode()
    rewrite(file, lambda n, text: manifest if n == "manifest-sha256.txt" else text)


FORGED: list[tuple[Callable[[str, bytes], bytes | None], str]] = [
    (lambda n, t: None if n.endswith("report.html") else t, "its report cannot be made again"),
    (lambda n, t: None if "/report." in n else t, "the archive has no report"),
    (lambda n, t: b"{" if n == "ro-crate-metadata.json" else t, "does not describe a crate"),
    (
        lambda n, t: t.replace(b"bench01", b"bench02") if "cn-" in n else t,
        "results of 2 hosts are not pooled",
    ),
]


@pytest.mark.parametrize(("change", "reason"), FORGED, ids=[reason for _, reason in FORGED])
def test_a_consistent_forged_archive_is_detected(
    packed: Path, change: Callable[[str, bytes], bytes | None], reason: str
) -> None:
    rewrite(packed, change)
    sealed(packed)
    assert any(reason in problem for problem in problems(packed))


def test_names_in_an_archive_do_not_move_the_cursor(packed: Path) -> None:
    rewrite(packed, lambda _, text: text, **{"x\x1b[2J": b"x"})
    assert list(problems(packed)) == ["x\\x1b[2J has unprintable characters in its name"]


def test_a_manifest_that_is_no_text_is_named(packed: Path) -> None:
    rewrite(packed, lambda n, text: b"\xff" if n == "manifest-sha256.txt" else text)
    (problem,) = problems(packed)
    assert problem.startswith("manifest-sha256.txt cannot be read")


def test_an_archive_that_unpacks_to_more_than_any_sweep_is_refused(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtbed_analysis.members.MOST_BYTES", 1000)
    (problem,) = problems(packed)
    assert "GiB, at most" in problem


def made(path: Path, members: dict[str | zipfile.ZipInfo, bytes], **options: Any) -> Path:
    """Make an archive of these members, with a manifest that is right."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        lines = []
        for member, content in members.items():
            file.writestr(member, content)
            name = member if isinstance(member, str) else member.filename
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        file.writestr("manifest-sha256.txt", "".join(lines))
    return path


def member(name: str, mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.compress_type = mode << 16, method
    return info


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("/etc/x", b"", "would be unpacked outside of its folder"),
        ("a/../../x", b"", "would be unpacked outside of its folder"),
        ("a\\..\\x", b"", "would be unpacked outside of its folder"),
        ("a//b", b"", "is not the name of a file"),
        ("a/", b"", "is not the name of a file"),
        ("a/\x1b[2J", b"", r"\x1b[2J has unprintable characters in its name"),
        ("a/\u202egnp", b"", "has unprintable characters in its name"),
        ("x" * 300, b"", "has a name that is too long for a file"),
        (member("quick/link", 0o120777), b"/etc/passwd", "quick/link is a link"),
        (member("quick/pipe", 0o010644), b"", "quick/pipe is not a regular file"),
        (member("x", method=zipfile.ZIP_BZIP2), b"", "x is packed by method 12"),
        (member("x", method=zipfile.ZIP_LZMA), b"", "x is packed by method 14"),
        ("x", b"\0" * 2**22, "x unpacks to more than 100 times its size"),
    ],
)
def test_a_harmful_member_is_named_and_nothing_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, content: bytes, message: str
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr("virtbed_analysis.members.unpack", refused)
    file = made(tmp_path / "x.zip", {name: content})
    assert any(message in problem for problem in problems(file))


def test_members_that_share_their_bytes_are_measured_by_the_file(tmp_path: Path) -> None:
    file = made(tmp_path / "x.zip", {f"x/{n}": b"\0" * 10**6 for n in range(50)})
    assert any("times its size, at most 100 times" in problem for problem in problems(file))


def test_more_files_than_any_sweep_has_are_not_even_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtbed_analysis.members.MOST_FILES", 10)
    file = made(tmp_path / "x.zip", {f"x/{n}": b"" for n in range(20)})
    with pytest.raises(AnalysisError, match="11 members or more found, at most 10 accepted"):
        list(problems(file))


def without(packed: Path, *names: str) -> None:
    """Take files out of an archive, and out of its manifest."""
    with zipfile.ZipFile(packed) as file:
        kept = {
            n: file.read(n) for n in file.namelist() if n not in {*names, "manifest-sha256.txt"}
        }
    made(packed, kept)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["quick/report.json", "quick/report.html"],
            "0 reports of sweeps found in the archive, one needed",
        ),
        (["quick/report.json"], "0 reports of sweeps found in the archive, one needed"),
        (
            ["quick/report.html"],
            "quick: its report cannot be made again: no report.html found, one needed",
        ),
    ],
)
def test_an_archive_without_a_report_is_not_whole(
    packed: Path, names: list[str], message: str
) -> None:
    without(packed, *names)
    assert message in list(problems(packed))


def test_damage_anywhere_is_reported_in_words(tmp_path: Path) -> None:
    """Each byte of a small archive in turn is another; a flip may also do no harm."""
    whole = made(tmp_path / "x.zip", {"x/report.json": b"{}", "x/y": b"abc" * 9}).read_bytes()
    file = tmp_path / "y.zip"
    for at in range(len(whole)):
        for flip in (0x01, 0xFF):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                found = list(members_of(file))
            except AnalysisError as error:
                found = [str(error)]
            assert all(found)


def members_of(file: Path) -> Iterator[str]:
    """Give what is wrong with an archive's members; its report is not made."""
    with members.opened(file) as packed:
        yield from members.faults(file, packed)
        if "manifest-sha256.txt" in packed.namelist():
            yield from crate._unlike(packed)
