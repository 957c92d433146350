"""Tests of snapshots of host settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtbed_contract.codec import DocumentError
from virtbed_contract.kernel.snapshots import keep, kept


def test_a_snapshot_is_valid_for_its_boot_only(tmp_path: Path) -> None:
    boot, snapshot = tmp_path / "boot", tmp_path / "state" / "tuning.json"
    boot.write_text("first\n")
    assert kept(snapshot, boot) == {}
    keep(snapshot, {"a": "1"}, boot)
    keep(snapshot, {"a": "2"}, boot)
    assert kept(snapshot, boot) == {"a": "2"}
    boot.write_text("second\n")
    assert kept(snapshot, boot) == {}
    assert not snapshot.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1, "values": {}}', '{"boot": "first"}'])
def test_a_file_that_is_no_snapshot_is_refused_with_a_remedy(tmp_path: Path, text: str) -> None:
    boot, snapshot = tmp_path / "boot", tmp_path / "tuning.json"
    boot.write_text("first\n")
    snapshot.write_text(text)
    with pytest.raises(DocumentError, match=r"tuning\.json: .*restore them by hand"):
        kept(snapshot, boot)
    assert snapshot.read_text() == text
