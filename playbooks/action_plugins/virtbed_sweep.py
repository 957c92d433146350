"""Knows alone how a playbook shows a sweep's progress while it runs, and ends it when it ends."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no type information
    """Runs `virtbed sweep PLAN` and relays its lines; ends it when ansible-playbook is gone."""

    _VALID_ARGS = frozenset({"plan"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return rc and the last line; failed unless every trial is done."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        display = Display()
        parent = os.getppid()
        command = [str(Path(sys.executable).with_name("virtbed")), "sweep", self._task.args["plan"]]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env=os.environ | {"VIRTBED_PLAIN": "1"},
        )
        assert process.stdout is not None
        last = ""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=1.0):
                    line = process.stdout.readline()
                    if not line:
                        break
                    last = line.rstrip() or last
                    display.display(line.rstrip())
                if os.getppid() != parent:  # ansible-playbook was killed: release what runs
                    process.send_signal(signal.SIGTERM)
                    parent = os.getppid()
        rc = process.wait()
        return result | {"changed": True, "failed": rc != 0, "rc": rc, "msg": last}
