"""Slurm's own programs, asked; what they print in fields, read."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

MOST_S = 60.0
"""So long Slurm's controller may take to answer; a program of its gives up after 10 s per try."""


class SlurmError(RuntimeError):
    """Slurm is not there, does not answer, or grants something else than a sweep needs."""


def program_at(program: str, environment: Mapping[str, str] | None = None) -> str:
    """Return where a program of Slurm's is.

    Raises:
        SlurmError: it is not installed, or not found.
    """
    known = os.environ if environment is None else environment
    found = shutil.which(program, path=known.get("PATH"))
    if found is None:
        raise SlurmError(
            f"no {program} found on PATH, Slurm's programs are needed: log in where jobs are "
            "submitted, or install them (Debian: slurm-client)"
        )
    return found


def ask(program: str, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a program of Slurm's prints.

    Args:
        program: Its name.
        words: Its arguments.
        environment: The environment; this process's if not given.

    Raises:
        SlurmError: it is not installed, fails, or does not answer in time.
    """
    found = program_at(program, environment)
    try:
        done = subprocess.run(
            [found, *words], env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=MOST_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"no answer of {program} within {MOST_S:.0f} s; is slurmctld up? (scontrol ping)"
        ) from error
    except OSError as error:
        raise SlurmError(f"{found} cannot be run: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
        raise SlurmError(f"{' '.join([program, *words])} failed: {said or 'without a word'}")
    return done.stdout


def fields(line: str) -> dict[str, str]:
    """Return the fields of a line that ``scontrol --oneliner`` prints.

    Example:
        >>> fields("NodeName=n1 CPUTot=8 OS=Linux 6.1.0")["CPUTot"]
        '8'
    """
    pairs = (word.partition("=") for word in line.split())
    return {name: value for name, equals, value in pairs if equals}
