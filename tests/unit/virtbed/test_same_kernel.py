"""A bench host of the controller's own name is not taken for the controller's machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[3] / "playbooks/action_plugins/block_started.py"
OWN = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize(
    ("boot_id", "same"), [(OWN, True), ("6f1c8a2e-0000-4000-8000-000000000000", False), ("", False)]
)
def test_it_is_the_machine_only_if_the_kernel_is_the_same(boot_id: str, same: bool) -> None:
    spec = importlib.util.spec_from_file_location("block_started", PATH)
    assert spec and spec.loader
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    asked: list[str] = []

    def answer(command: str, **_: Any) -> dict[str, Any]:
        asked.append(command)
        return {"rc": 0, "stdout": f"{boot_id}\r\n", "stderr": ""}

    action = object.__new__(plugin.ActionModule)
    action._low_level_execute_command = answer
    assert action._same_kernel() is same
    assert asked == ["cat /proc/sys/kernel/random/boot_id"]
