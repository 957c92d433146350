"""Action plugin: run `virtbed sweep`, show its output, and end it if ansible-playbook ends."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

_PREFIX = "virtbed_"


def options(arguments: Mapping[str, Any], extra_vars: Mapping[str, Any]) -> list[str]:
    """Return the options of virtbed that correspond to those of ansible-playbook.

    Args:
        arguments: The parsed arguments of ansible-playbook.
        extra_vars: Its extra variables. Only those with the prefix ``virtbed_`` are passed on.
    """
    own = {name: value for name, value in extra_vars.items() if name.startswith(_PREFIX)}
    return [
        *(f"--inventory={inventory}" for inventory in arguments.get("inventory") or ()),
        *([f"--limit={arguments['subset']}"] if arguments.get("subset") else []),
        *([f"--extra-vars={json.dumps(own)}"] if own else []),
    ]


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no type information
    """Run `virtbed sweep PLAN` or, with --check, `virtbed plan PLAN`, with -i and --limit.

    Returns ``rc`` and, as ``msg``, the last line of the output. The task fails unless every trial
    is done.
    """

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"plan"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run virtbed, and show its lines as it prints them."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        checked = bool(self._task.check_mode)
        command = [
            str(Path(sys.executable).with_name("virtbed")),
            "plan" if checked else "sweep",
            self._task.args["plan"],
            *options(context.CLIARGS, load_extra_vars(self._loader)),
        ]
        rc, last = _relayed(command)
        return result | {"changed": not checked, "failed": rc != 0, "rc": rc, "msg": last}


def _relayed(command: list[str]) -> tuple[int, str]:
    """Run a command and show its lines; return its exit status and the last line.

    If ansible-playbook ends, the command gets SIGTERM, upon which virtbed releases its instance.
    """
    display = Display()
    parent = os.getppid()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        env=os.environ | {"VIRTBED_PLAIN": "1", "COLUMNS": "160"},
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
            if os.getppid() != parent:
                process.send_signal(signal.SIGTERM)
                parent = os.getppid()
    return process.wait(), last
