"""One application run on this machine, on no platform: `virtbed run`."""

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
# The members that the image has, too: those of this checkout come first on Python's path.
_SOURCES = ("contract/virtbed_contract", "workloads/virtbed_workloads")


class RunError(RuntimeError):
    """The application could not be run, or failed; `code` is the harness's exit code, or 2."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def current_image(inventories: Sequence[str] = (LOCAL,)) -> Path:
    """Return the folder of the image of an inventory's bench host.

    Raises:
        RunError: the inventory cannot be read, or does not say where virtbed keeps it.
    """
    try:
        found = bench_variables(inventories)
    except AnsibleError as error:
        raise RunError(str(error)) from error
    for variables in found.values():
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

    The frameworks are the image's, the applications are the sources of this checkout, so that a
    change shows at once. The working directory is this checkout, and pytest is that of the tools.
    Nothing is written; what the process makes is gone with it.

    Args:
        arguments: Python's.
        inputs: A folder of the user's own requests.
        image: The image's folder; if not given, the local inventory's.

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
    """Return the packages that make up pytest, with their metadata: all pure Python."""
    found = set()
    for name in _PYTEST:
        package = distribution(name)
        parts = {file.parts[0] for file in package.files or () if file.parts[0] != ".."}
        found |= {Path(str(package.locate_file(part))) for part in parts - {"__pycache__"}}
    return sorted(found)


def run_here(
    arguments: Sequence[str], inputs: Path | None = None, image: Path | None = None
) -> dict[str, Any]:
    """Run `python3 -m virtbed_workloads` with these arguments; return the document it prints.

    Args:
        arguments: The harness's.
        inputs: A folder of the user's own requests.
        image: The image's folder; if not given, the local inventory's.

    Raises:
        RunError: it failed; the message is the last line that it said, after the traceback of an
            error that the harness does not foresee: an application's own.
    """
    own = [f"--inputs={_INPUTS}"] if inputs else []
    done = subprocess.run(
        command(["-m", "virtbed_workloads", *arguments, *own], inputs, image),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RunError(_why(done.stderr, done.returncode), done.returncode)
    try:
        return json_file.parse(done.stdout, "what the application printed")
    except DocumentError as error:
        raise RunError(str(error)) from error


def _why(said: str, code: int) -> str:
    lines = said.strip().splitlines() or [f"exit status {code}"]
    begins = (n for n, line in enumerate(lines) if line.startswith("Traceback "))
    return "\n".join(lines[next(begins, -1) :])
