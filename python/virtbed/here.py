"""Knows alone how to run one application on this machine, on no platform: `virtbed run`."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from virtbed.image import REPOSITORY

IMAGE = Path("/var/lib/virtbed/images/current")  # virtbed_state_dir of inventory/local
_SITE = "/usr/local/lib/python3.11/dist-packages"
_INPUTS = "/tmp/inputs"
_CHECKOUT = "/tmp/virtbed"
_TOOLS = "/tmp/tools"
_JAX = REPOSITORY / ".venv" / "jax"
_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


class RunError(RuntimeError):
    """The application could not be run, or failed; `code` is the harness's exit code, or 2."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def command(arguments: Sequence[str], inputs: Path | None = None, image: Path = IMAGE) -> list[str]:
    """Return the command that runs Python in the image's tree, with this checkout's applications.

    The frameworks are the image's, the applications are the sources beside this file, so that a
    change shows at once. The working directory is this checkout, and pytest is that of the tools.
    Nothing is written; what the process makes is gone with it.

    Raises RunError if there is no image.
    """
    if not (image / "manifest.json").is_file():
        raise RunError(f"no {image / 'manifest.json'} found, an image is needed; run make setup")
    own = ["--ro-bind", str(inputs.resolve()), _INPUTS] if inputs else []
    tools = [
        word for path in _pytest() for word in ("--ro-bind", str(path), f"{_TOOLS}/{path.name}")
    ]
    sources = REPOSITORY / "workloads" / "virtbed_workloads"
    jax = ["--ro-bind", str(_JAX), "/tmp/jax"] if _JAX.is_dir() else []
    return [
        "bwrap", "--die-with-parent", "--ro-bind", str((image / "rootfs").resolve()), "/",
        "--ro-bind", "/sys", "/sys", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
        "--ro-bind", str(sources), f"{_SITE}/virtbed_workloads", *own, *tools,
        "--ro-bind", str(REPOSITORY), _CHECKOUT, *jax, "--chdir", _CHECKOUT,
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


def run_here(arguments: Sequence[str], inputs: Path | None = None) -> dict[str, Any]:
    """Run `python3 -m virtbed_workloads` with these arguments; return the document it prints.

    Raises RunError with what it said if it fails.
    """
    own = [f"--inputs={_INPUTS}"] if inputs else []
    done = subprocess.run(
        command(["-m", "virtbed_workloads", *arguments, *own], inputs),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RunError(said[-1], done.returncode)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def phase_table(document: dict[str, Any]) -> RenderableType:
    """Return what a person wants to see of a result: phases, answers, memory, LoadGen's verdict."""
    application, settings = document["application"], document["settings"]
    measured = [sample for sample in document["samples"] if not sample["warmup"]]
    table = Table(
        title=f"{settings['samples']} samples, {settings['scenario']}, "
        f"{settings['thread_policy']} threads, {settings['processor']}"
    )
    for heading in ("phase", "median ms", "mean ms", "p90 ms", "share of e2e"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    whole = statistics.fmean(sample["e2e_ns"] for sample in measured)
    for phase in ("pre", "infer", "post", "e2e"):
        times = sorted(sample[f"{phase}_ns"] / 1e6 for sample in measured)
        mean = statistics.fmean(times)
        p90 = times[min(len(times) - 1, int(0.9 * len(times)))]
        share = f"{mean * 1e6 / whole:.1%}"
        table.add_row(phase, *(f"{v:.3f}" for v in (statistics.median(times), mean, p90)), share)
    answers = Table("input", "answer", "expected", "score", title="answers")
    for row in document["answers"]["by_input"]:
        expected = row["expected"] if row["expected"] is not None else "not known: not checked"
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        answers.add_row(*map(Text, (row["input"], row["answer"], expected, score)))
    memory, loadgen = document["memory_kib"], document["loadgen"]
    startup = ", ".join(
        f"{name.removesuffix('_ns').replace('_', ' ')} {ns / 1e9:.2f} s"
        for name, ns in document["startup"].items()
        if ns is not None
    )
    lines = [
        f"{application['name']} {application['scale']}: {application['model']}, "
        f"{application['weights']} weights",
        f"start-up: {startup}",
        f"memory: {memory['peak'] / 1024:.0f} MiB at most, {memory['after_warmup'] / 1024:.0f} MiB "
        f"after the warm-up, {memory['after_samples'] / 1024:.0f} MiB at the end",
        f"LoadGen {loadgen['version']}: {loadgen['validity']} by {settings['rules']} rules"
        + "".join(f"\n  {reason.strip()}" for reason in loadgen["reasons"]),
        f"two clocks: {loadgen['clocks']['apart']:.2%} apart in the median",
        *(f"warning: {warning}" for warning in document["warnings"]),
    ]
    return Group(Text(lines[0]), table, answers, Text("\n".join(lines[1:])))
