"""Run commands of the checkout as a user does; for tests on real hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY

TOOLS = Path(sys.executable).parent
TIED = ("setpriv", "--pdeathsig=KILL")
ENVIRONMENT = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}


def run(*command: str, ok: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository; it is killed together with the tests.

    Args:
        command: The command's words.
        ok: Whether to fail, with the command's whole output, if its exit code is not 0.
        options: Further arguments of `subprocess.run`.
    """
    done = subprocess.run(
        [*TIED, *command], cwd=REPOSITORY, env=ENVIRONMENT, text=True, capture_output=True,
        check=False, **options,
    )  # fmt: skip
    if ok:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
