"""Tests of the inventory of a host: instances, processes, overlays and snapshots."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from virtbed_contract import standing as module
from virtbed_contract.kernel import snapshots
from virtbed_contract.standing import standing

NAME = "cn-pinned-c01-r01"


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def process(proc: Path, pid: int, cmdline: str = "", **variables: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_text(cmdline.replace(" ", "\0"))
    environment = "\0".join(f"{name}={value}" for name, value in variables.items())
    (proc / str(pid) / "environ").write_text(environment)


def test_a_process_is_recognized_by_its_mark_or_by_the_instance_in_its_command(
    tmp_path: Path,
) -> None:
    process(tmp_path, 5, VIRTBED_INSTANCE=NAME)
    process(tmp_path, 6, f"qemu -name guest=virtbed-vm-{NAME[3:]},x")
    process(tmp_path, 7, "vim virtbed.py", HOME="/root")
    process(tmp_path, 8, VIRTBED_INSTANCE="not an instance")
    process(tmp_path, os.getpid(), VIRTBED_INSTANCE=NAME)  # the reader itself
    found = standing({}, tmp_path / "state", tmp_path)
    assert found["processes"] == [{"pid": 5, "name": NAME}, {"pid": 6, "name": f"vm-{NAME[3:]}"}]
    assert found["unseen"] == []


def test_only_instances_of_virtbed_are_listed(tmp_path: Path) -> None:
    roles = {
        "enclosure_box": ["printf", f"virtbed-{NAME}\\nother\\n"],
        "enclosure_gone": ["no-such-program-at-all"],
    }
    found = standing(roles, tmp_path / "state", tmp_path)
    assert found["instances"] == [{"role": "enclosure_box", "name": f"virtbed-{NAME}"}]
    assert found["unseen"] == []


@pytest.mark.parametrize("argv", [["false"], ["sleep", "600"]])
def test_an_engine_that_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.2)
    found = standing({"enclosure_box": argv}, tmp_path / "state", tmp_path)
    assert found["instances"] == []
    (unseen,) = found["unseen"]
    assert unseen.startswith(f"{argv[0]} gives no answer") and "enclosure_box" in unseen


def test_without_root_unseen_instances_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = standing({"enclosure_box": ["false"]}, tmp_path / "state", tmp_path)
    assert found["unseen"] == ["instances of enclosure_box are not seen: root is needed"]


def test_overlays_and_changed_settings_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("of now\n")
    monkeypatch.setattr(snapshots, "BOOT", boot)
    state = tmp_path / "state"
    (state / "instances" / f"virtbed-{NAME}").mkdir(parents=True)
    for name, content in {
        "tuning": {"boot": "of now", "values": {"turbo": "1", "governor": "x"}},
        "daemons": {"boot": "of before", "values": {"dockerd": "0-1"}},
        "host": {"program": {"docker": True}},
    }.items():
        (state / f"{name}.json").write_text(json.dumps(content))
    (state / "torn.json").write_text("{")
    found = standing({}, state, tmp_path)
    assert found["overlays"] == [f"virtbed-{NAME}"]
    assert found["changed"] == [
        {"snapshot": str(state / "tuning.json"), "settings": ["governor", "turbo"]}
    ]
