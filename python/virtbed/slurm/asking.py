"""Calls of Slurm's programs (scontrol, sinfo, squeue, sbatch), and parsing of their output."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from virtbed.slurm.inputs import passed

MOST_S = 60.0
"""Time limit of a call, in seconds. A program of Slurm's gives up after 10 s per try itself."""


class SlurmError(RuntimeError):
    """Slurm is not installed, does not answer, or does not grant what a sweep needs."""


def program_at(program: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the path of one of Slurm's programs.

    Raises:
        SlurmError: It is not on PATH.
    """
    used = os.environ if environment is None else environment
    path = shutil.which(program, path=used.get("PATH"))
    if path is None:
        raise SlurmError(
            f"no {program} found on PATH, Slurm's programs are needed: log in to a host from which "
            "jobs are submitted, or install them (Debian: slurm-client)"
        )
    return path


def output_of(program: str, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Call one of Slurm's programs; return what it prints.

    Args:
        program: Its name.
        words: Its arguments.
        environment: The environment; by default that of this process. Variables that change
            what the program does are left out; see `virtbed.slurm.inputs`.

    Raises:
        SlurmError: It is not installed, fails, or does not answer in time.
    """
    used = os.environ if environment is None else environment
    path = program_at(program, used)
    try:
        done = subprocess.run(
            [path, *words], env=passed(used),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=MOST_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"no answer of {program} within {MOST_S:.0f} s; is slurmctld up? (scontrol ping)"
        ) from error
    except OSError as error:
        raise SlurmError(f"{path} cannot be run: {error}") from error
    if done.returncode != 0:
        printed = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
        reason = printed or f"it printed nothing, exit status {done.returncode}"
        raise SlurmError(f"{' '.join([program, *words])} failed: {reason}")
    return done.stdout


def fields(line: str) -> dict[str, str]:
    """Return the fields of a line that ``scontrol --oneliner`` prints.

    Example:
        >>> fields("NodeName=n1 CPUTot=8 OS=Linux 6.1.0")["CPUTot"]
        '8'
    """
    pairs = (word.partition("=") for word in line.split())
    return {name: value for name, equals, value in pairs if equals}
