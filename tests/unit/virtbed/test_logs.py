from __future__ import annotations

from pathlib import Path

import pytest

from virtbed import logs
from virtbed.logs import FILES, Logs, tail


@pytest.fixture
def printed(tmp_path: Path) -> Path:
    path = tmp_path / "stdout"
    path.write_text("what Ansible printed")
    return path


def test_the_newest_few_logs_are_kept_in_order(tmp_path: Path, printed: Path) -> None:
    kept = Logs(tmp_path / "ansible")
    for number in range(FILES + 3):
        kept.keep("block" if number % 2 else "clear", printed)
    names = sorted(path.name for path in (tmp_path / "ansible").iterdir())
    assert len(names) == FILES
    assert (names[0], names[-1]) == ("0004-block.log", f"{FILES + 3:04d}-clear.log")
    Logs(tmp_path / "ansible").keep("examine", printed)  # the next call goes on counting
    assert (tmp_path / "ansible" / f"{FILES + 4:04d}-examine.log").exists()


def test_a_long_log_keeps_its_end(
    tmp_path: Path, printed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 7)
    Logs(tmp_path / "ansible").keep("block", printed)
    kept = (tmp_path / "ansible" / "0001-block.log").read_text()
    assert kept == "[the first 13 bytes were left out]\nprinted"


def test_only_the_end_of_a_log_is_read(tmp_path: Path, printed: Path) -> None:
    assert tail(printed, 7) == b"printed"
    assert tail(printed, 1000) == b"what Ansible printed"
    assert tail(tmp_path / "none", 7) == b""


def test_nothing_is_written_before_there_is_a_folder(tmp_path: Path, printed: Path) -> None:
    kept = Logs()
    kept.keep("examine", printed)
    kept.keep("examine", tmp_path / "never started")
    kept.move_to(tmp_path / "ansible")
    kept.keep("clear", printed)
    names = sorted(path.name for path in (tmp_path / "ansible").iterdir())
    assert names == ["0001-examine.log", "0002-clear.log"]
