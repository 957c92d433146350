from __future__ import annotations

from pathlib import Path

from virtbed_contract.kernel.snapshots import keep, kept


def test_a_snapshot_holds_for_its_boot(tmp_path: Path) -> None:
    boot, snapshot = tmp_path / "boot", tmp_path / "state" / "tuning.json"
    boot.write_text("first\n")
    assert kept(snapshot, boot) == {}
    keep(snapshot, {"a": "1"}, boot)
    keep(snapshot, {"a": "2"}, boot)
    assert kept(snapshot, boot) == {"a": "2"}
    boot.write_text("second\n")
    assert kept(snapshot, boot) == {}
    assert not snapshot.exists()
