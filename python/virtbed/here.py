"""Run one application directly on this machine, without an instance: `virtbed run`.

The image's root filesystem is entered with Bubblewrap; it provides the frameworks, the checkout
provides the applications.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from virtbed.ansible import AnsibleError, bench_variables
from virtbed.bench import LOCAL
from virtbed.checkout import REPOSITORY, require
from virtbed.image import DEFAULT
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.remedies import setup
from virtbed_contract.tree import enter

_INPUTS = "/tmp/inputs"  # nosec B108 # in a tmpfs of its own
_CHECKOUT = "/tmp/virtbed"  # nosec B108 # in a tmpfs of its own
_TOOLS = "/tmp/tools"  # nosec B108 # in a tmpfs of its own
_JAX_INSIDE = "/tmp/jax"  # nosec B108 # in a tmpfs of its own
_JAX = REPOSITORY / ".venv" / "jax"
_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
# Packages that the image has, too; those of this checkout are first on Python's path.
_SOURCES = ("contract/virtbed_contract", "workloads/virtbed_workloads")


class RunError(RuntimeError):
    """The application could not be run, or failed.

    Attributes:
        code: The harness's exit code; 2 if it was not run.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def current_image(inventories: Sequence[str] = (LOCAL,)) -> Path:
    """Return the folder of the current default image on an inventory's bench host.

    Raises:
        RunError: the inventory cannot be read, or has no virtbed_state_dir.
    """
    try:
        hosts = bench_variables(inventories)
    except AnsibleError as error:
        raise RunError(str(error)) from error
    for variables in hosts.values():
        if "virtbed_state_dir" in variables:
            return Path(str(variables["virtbed_state_dir"]), "images", f"current-{DEFAULT}")
    raise RunError(
        f"{', '.join(inventories)}: no host in the group bench with virtbed_state_dir found, one "
        "needed"
    )


def command(
    arguments: Sequence[str], inputs: Path | None = None, image: Path | None = None
) -> list[str]:
    """Return the command that runs Python in the image's tree, with this checkout's applications.

    Applications are read from the checkout, so changes take effect without a build. The working
    directory is the checkout, and pytest is the one of this Python environment. The tree is
    read-only; files that the process creates are lost when it ends.

    Args:
        arguments: Arguments for Python.
        inputs: A folder of the user's own requests.
        image: The image's folder; if not given, the local inventory's current one.

    Raises:
        RunError: there is no image.
        CheckoutError: there is no checkout.
    """
    repository, image = require(), image or current_image()
    if not (image / "manifest.json").is_file():
        raise RunError(f"no {image / 'manifest.json'} found, an image is needed; {setup()}")
    binds = [(repository / source, f"{_TOOLS}/{Path(source).name}") for source in _SOURCES]
    binds += [(inputs.resolve(), _INPUTS)] if inputs else []
    binds += [(path, f"{_TOOLS}/{path.name}") for path in _pytest()]
    binds += [(repository, _CHECKOUT)]
    binds += [(_JAX, _JAX_INSIDE)] if _JAX.is_dir() else []
    return [
        *enter(
            str((image / "rootfs").resolve()),
            binds=[(str(source), inside) for source, inside in binds],
            chdir=_CHECKOUT,
        ),
        "env", "--ignore-environment", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
        "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0",
        f"PYTHONPATH={_TOOLS}", "python3", *arguments,
    ]  # fmt: skip


def _pytest() -> list[Path]:
    """Return the files and folders of pytest and its dependencies, which are all pure Python."""
    paths = set()
    for name in _PYTEST:
        package = distribution(name)
        parts = {file.parts[0] for file in package.files or () if file.parts[0] != ".."}
        paths |= {Path(str(package.locate_file(part))) for part in parts - {"__pycache__"}}
    return sorted(paths)


def run_here(
    arguments: Sequence[str], inputs: Path | None = None, image: Path | None = None
) -> dict[str, Any]:
    """Run `python3 -m virtbed_workloads` in the image; return the document that it prints.

    Args:
        arguments: Arguments for the harness.
        inputs: A folder of the user's own requests.
        image: The image's folder; if not given, the local inventory's current one.

    Raises:
        RunError: the application failed. The message is the last line of its output on stderr,
            with the traceback before it if the error was an unexpected one.
    """
    own = [f"--inputs={_INPUTS}"] if inputs else []
    done = subprocess.run(
        command(["-m", "virtbed_workloads", *arguments, *own], inputs, image),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RunError(_why(done.stderr, done.returncode), done.returncode)
    try:
        return json_file.parse(done.stdout, "the output of the application")
    except DocumentError as error:
        raise RunError(str(error)) from error


def _why(output: str, code: int) -> str:
    """Return the end of the output on stderr: from the first traceback, else the last line."""
    lines = output.strip().splitlines() or [f"exit status {code}"]
    tracebacks = (n for n, line in enumerate(lines) if line.startswith("Traceback "))
    return "\n".join(lines[next(tracebacks, -1) :])
