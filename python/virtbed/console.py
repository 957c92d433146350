"""Knows how the commands speak: output, refusals, exit codes, and the options they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

console = Console(force_terminal=False if os.environ.get("VIRTBED_PLAIN") else None, soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)

PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN", help="A plan that ships, or the path of a .yml file.")
]
SweepArgument = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="The plan of a sweep, by name or path, or a results folder: an unpacked archive, say.",
    ),
]
Inventory = Annotated[
    Path, typer.Option(exists=True, help="Inventory whose group `bench` is measured.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON document.")]
# Exit codes beside 0: the sweep ended with failed trials; a refusal; Ctrl-C or SIGTERM.
TRIALS_FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def refuse(error: Exception, code: int = REFUSED) -> NoReturn:
    """Print one clear message and exit."""
    errors.print(f"virtbed: {error}", style="red", highlight=False, markup=False)
    raise typer.Exit(code)
