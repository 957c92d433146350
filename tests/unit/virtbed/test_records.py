from __future__ import annotations

import json
from pathlib import Path

import pytest

from virtbed import records


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    records.write_json(path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    records.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        records.write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_result_that_breaks_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(records.RecordError, match=r"result.json: \$"):
        records.write_trial(tmp_path / "t", {"schema": "virtbed.result/5"}, {}, {})
    assert not (tmp_path / "t").exists()


def test_a_failure_replaces_a_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    records.write_failure(tmp_path, {"message": "why"}, {"attested": False})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evidence.json", "failure.json"]


def test_a_failure_without_evidence_removes_that_of_the_earlier_attempt(tmp_path: Path) -> None:
    records.write_failure(tmp_path, {"message": "why"}, {"attested": False})
    records.write_failure(tmp_path, {"message": "no instance"}, None)
    assert [p.name for p in tmp_path.iterdir()] == ["failure.json"]
