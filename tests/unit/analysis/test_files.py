"""CSV tables of users and files of a results folder: read, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtbed_analysis import AnalysisError
from virtbed_analysis.files import MOST_BYTES, read_csv
from virtbed_analysis.reading import Unfit, left_out, read


def test_a_table_is_text_without_control_characters(tmp_path: Path) -> None:
    table = tmp_path / "prices.csv"
    table.write_text("platform,price\ncn,0.10\n\x1b[2Jvm,1\n")
    found = read_csv(table, ["platform", "price"])
    assert found["price"].to_list() == ["0.10", "1"]
    assert found["platform"].to_list() == ["cn", "\ufffd[2Jvm"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("platform\ncn\n", "columns platform found, price needed too; see --help"),
        ("", "cannot be read as CSV"),
        (None, "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str | None, why: str
) -> None:
    table = tmp_path / "prices.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(AnalysisError, match=why):
        read_csv(table, ["platform", "price"], "; see --help")


def test_a_special_or_too_large_file_is_not_opened(tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for path in (large, tmp_path):
        with pytest.raises(AnalysisError, match=f"a file of at most {MOST_BYTES} needed"):
            read_csv(path, [])


def test_a_document_of_another_schema_is_unfit(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"schema": "virtbed.result/1", "a": 1}')
    assert read(path, "virtbed.result/1")["a"] == 1
    with pytest.raises(Unfit, match=r"has schema 'virtbed.result/1', .*/2' needed by"):
        read(path, "virtbed.result/2")
    path.write_text("{")
    with pytest.raises(Unfit, match=r"result\.json"):
        read(path, "virtbed.result/1")


def test_a_reason_is_one_bounded_line_that_is_fit_to_be_printed() -> None:
    rejected = left_out("a\nb\x1b", "x\n" * 900 + "\x1b[2J")
    assert rejected.file == "a\\nb\\x1b"
    assert len(rejected.reason) == 600 and rejected.reason.endswith("...")
    assert "\n" not in rejected.reason
