"""Any bad file of a results folder is named and left out, or does no harm."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtbed_analysis import AnalysisError, figures
from virtbed_analysis.checking import checked
from virtbed_analysis.document import document
from virtbed_analysis.files import read_csv
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_analysis.reading import Unfit
from virtbed_contract import identifiers

from .conftest import Folder, Json, failure

GOOD = "cn-vanilla-c01-image_classification-r01"
BAD = "cn-vanilla-c01-image_classification-r02"
RESULT, EVIDENCE = f"trials/{BAD}/result.json", f"trials/{BAD}/evidence.json"
FILES = (RESULT, EVIDENCE, "design.json", "doctor.json", "trials/failed/failure.json")
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 7, 2**53, 2**63 - 1, 2**63, 10**400, -(2**63) - 1, 0.5, -0.0, 1e15, 1e308,
    -1e308, 5e-324, float("nan"), float("inf"), "", "7", "\x1b[2J\x07", "../../x", "/etc/passwd",
    "a\nb", "\ud800", "$\\frac{$", "<script>alert(1)</script>", "[/red]", "{{ 7 }}", "x" * 5000, [],
    {}, [[]], [None], {"a": {"b": []}}, [2**70],
)  # fmt: skip
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e]")


def lay(path: Path) -> Folder:
    """Lay a folder with every kind of file; of the cell cn vanilla two replicates."""
    folder = Folder(path)
    for replicate in (1, 2):
        for platform, mode in (("bm", "pinned"), ("cn", "vanilla"), ("vm", "pinned")):
            times = {"a.png": [20.0 + replicate] * 3, "b.png": [45.0] * 3}
            folder.trial(platform, mode, replicate, times, warmup_ms=(90.0,))
    failed = folder.plan("vmcn", "vanilla", 1)["id"]
    folder.write(f"trials/{failed}/failure.json", failure(failed, "port <22> taken"))
    (folder.path / f"trials/{failed}").rename(folder.path / "trials/failed")
    folder.edit("trials/failed/failure.json", lambda f: f.update(id="failed"))
    folder.write("doctor.json", DOCTOR)
    return folder


DOCTOR: Json = {
    "schema": identifiers.HOST_REPORT,
    "host": "bench01",
    "ok": True,
    "accelerator": "kvm",
    "facts": {
        "cpu": {"model": "Xeon Test", "online": [0, 1]},
        "distribution": "Debian 12",
        "kernel": "6.1.0",
        "clocksource": "tsc",
        "governor": None,
        "engines": {"docker": {"name": "Docker", "version": "20.10"}},
    },
    "platforms": [
        {"platform": "podman", "status": "unavailable", "reason": "no podman", "remedy": "install"}
    ],
    "tuning": [],
}


def reported(folder: Path) -> tuple[Json, str]:
    """Return what a report says, and its page without figures; nothing of it moves a cursor."""
    content = document(read_sweep(folder))
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    text.encode()
    page = render(content)
    for text in texts(content):
        assert not UNSEEN.search(text), repr(text)
    assert "<script>" not in page
    return content, page


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from texts(item)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path of each value of a document; of a long list those of its first and last."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    if isinstance(value, list):
        for index in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[index], (*path, index))


def changed(original: Any, path: tuple[Any, ...], value: Any) -> Any:
    spoilt = copy.deepcopy(original)
    inner = spoilt
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return spoilt


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return lay(tmp_path_factory.mktemp("hostile") / "quick")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda content: {})


def test_the_folder_is_whole(written: Folder) -> None:
    content, _ = reported(written.path)
    assert content["rejected"] == []
    assert content["counts"]["analysed"] == 6
    assert content["counts"]["failed"] == 1


@pytest.mark.parametrize("name", [RESULT, EVIDENCE])
def test_each_value_of_a_trial_is_refused_with_a_reason_or_taken(
    written: Folder, name: str
) -> None:
    """Every value of the document in turn is a part of the hostile ones."""
    path = written.path / name
    whole = path.read_text()
    original = json.loads(whole)
    refused = tried = 0
    try:
        for turn, place in enumerate(places(original)):
            for value in HOSTILE[turn % 5 :: 5]:
                path.write_text(json.dumps(changed(original, place, value)))
                tried += 1
                try:
                    checked(written.path / f"trials/{BAD}", None)
                except Unfit as reason:
                    refused += 1
                    assert str(reason)
    finally:
        path.write_text(whole)
    assert refused > 0.6 * tried


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_report_is_written_for_any_value(written: Folder, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    path = written.path / name
    whole = path.read_text()
    original = json.loads(whole)
    place = data.draw(st.sampled_from(sorted(places(original), key=str)))
    try:
        path.write_text(json.dumps(changed(original, place, data.draw(st.sampled_from(HOSTILE)))))
        content, _ = reported(written.path)
    except AnalysisError as error:  # one model, host or rule among others: not the file is unfit
        assert re.search(r"results of \d+ .* are not pooled", str(error))
        assert not UNSEEN.search(str(error))
        return
    finally:
        path.write_text(whole)
    rejected = {row["file"] for row in content["rejected"]}
    if name == "design.json":  # it may tell against any trial
        rejected = {file for file in rejected if not file.startswith("trials/")}
    assert rejected <= {name, RESULT}  # a trial's evidence may tell against it
    assert all(row["reason"] for row in content["rejected"])


def holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def linked(path: Path) -> None:
    path.with_suffix(".real").write_text("{}")
    path.symlink_to(path.with_suffix(".real"))


KINDS: dict[str, Callable[[Path], object]] = {
    "empty": holding(b""),
    "cut short": holding(b'{"schema": '),
    "not UTF-8": holding(b"\xff\xfe{}"),
    "a list": holding(b"[]"),
    "nested": holding(b'{"schema":' + b"[" * 50_000),
    "NaN": holding(b'{"schema": NaN}'),
    "long number": holding(b'{"schema": ' + b"9" * 10_000 + b"}"),
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "link": linked,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_special_file_or_invalid_document_is_named(written: Folder, name: str, kind: str) -> None:
    path = written.path / name
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        KINDS[kind](path)
        sweep = read_sweep(written.path)
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        aside.rename(path)
    (rejected,) = sweep.rejected
    assert rejected.file == (RESULT if name == EVIDENCE else name)
    assert path.name in rejected.reason
    assert len(rejected.reason) <= 600


def test_an_entry_that_is_not_a_trial_is_named(written: Folder) -> None:
    trials = written.path / "trials"
    (trials / "note\x1b[2J.txt").write_text("x")
    (trials / "linked").symlink_to(trials / GOOD)
    (trials / ".hidden").write_text("x")
    try:
        sweep = read_sweep(written.path)
    finally:
        for name in ("note\x1b[2J.txt", "linked", ".hidden"):
            (trials / name).unlink()
    assert [(row.file, row.reason) for row in sweep.rejected] == [
        ("trials/linked", "is a symbolic link"),
        ("trials/note\\x1b[2J.txt", "is not the folder of a trial"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(sweep="../../x"), "sweep: '../../x' found"),
        (lambda d: d.update(sweep="x\x1b[2J"), "sweep"),
        (lambda d: d.update(sweep="x\n"), "sweep"),
        (lambda d: d["trials"].append(d["trials"][0]), "has two trials with the same id"),
        (
            lambda d: d["platforms"].append(d["platforms"][0]),
            "has two platforms with the same name",
        ),
        (lambda d: d["trials"][0].update(cores=2**40), "cores; at most"),
    ],
)
def test_a_design_that_cannot_be_one_is_named(
    written: Folder, change: Callable[[Json], None], reason: str
) -> None:
    whole = (written.path / "design.json").read_text()
    try:
        written.edit("design.json", change)
        sweep = read_sweep(written.path)
    finally:
        written.write("design.json", whole)
    assert [row.file for row in sweep.rejected] == ["design.json"]
    assert reason in sweep.rejected[0].reason
    assert sweep.name == "quick"


def test_a_table_of_prices_does_not_move_the_cursor(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("platform,price\nc\x1b[2Jn,1\n\u202evm,2\nGröße,3\n")
    assert read_csv(file, ["price"])["platform"].to_list() == ["c\ufffd[2Jn", "\ufffdvm", "Größe"]


def test_a_file_where_the_trials_should_be_is_named_in_a_whole_report(tmp_path: Path) -> None:
    folder = lay(tmp_path / "x")
    shutil.rmtree(folder.path / "trials")
    folder.write("trials", "")
    content, _ = reported(folder.path)
    assert [(row["file"], row["reason"]) for row in content["rejected"]] == [
        ("trials", "is not a folder")
    ]
