"""Commands of the checkout, as a user types them, for tests on real hosts."""

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
    """Run a command in the repository; with `ok`, fail with all it said unless it ends well.

    It dies with the tests, also when they are killed.
    """
    done = subprocess.run(
        [*TIED, *command], cwd=REPOSITORY, env=ENVIRONMENT, text=True, capture_output=True,
        check=False, **options,
    )  # fmt: skip
    if ok:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
