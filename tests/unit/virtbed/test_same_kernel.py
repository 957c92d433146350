"""A bench host that has the controller's name is not mistaken for the controller."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "playbooks/action_plugins/block_started.py"
OWN = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
NAME = os.uname().nodename


@pytest.mark.parametrize(
    ("name", "boot", "same"),
    [
        (NAME, OWN, True),
        (NAME, "6f1c8a2e-0000-4000-8000-000000000000", False),
        (NAME, "", False),
        (f"{NAME}2", OWN, False),
    ],
)
def test_a_host_is_this_machine_only_if_name_and_boot_id_are_equal(
    name: str, boot: str, same: bool
) -> None:
    spec = importlib.util.spec_from_file_location("block_started", PATH)
    assert spec and spec.loader
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    assert plugin.is_this_machine(name, boot) is same
