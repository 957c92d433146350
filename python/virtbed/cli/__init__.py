"""The command line `virtbed`: one Typer application, with the commands of the modules in here."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from virtbed.cli import (
    documents,
    explain,
    hosts,
    images,
    lab,
    merging,
    results,
    slurm,
    status,
    sweeps,
)  # fmt: skip
from virtbed.cli.console import REFUSED, errors
from virtbed.host_status import stay_aside

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # otherwise a paragraph keeps the line breaks of its docstring
    help="Measure what an execution platform costs a deep-learning application, end to end.\n\n"
    "Start with `make testbed`, which sets up this machine, measures plans/quick.yml and writes "
    "results/quick/report.html. Then continue with `virtbed plan quick` (what a plan runs, and how "
    "long it takes) and `virtbed sweep quick` (run it).",
)
for part in (sweeps, slurm, merging, status, hosts, results, explain, documents):
    app.add_typer(part.app)
app.add_typer(images.app, name="image")
app.add_typer(lab.app, name="lab")

READERS = frozenset(
    {
        "advise", "archive", "attest", "compare", "explain", "export", "image", "isolation",
        "merge", "published", "report", "schema", "status", "verify",
    }
)  # fmt: skip
"""The commands that only read files or the host, and can be called while a sweep runs."""


def _version(requested: bool) -> None:
    if requested:
        typer.echo(version("virtbed"))
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print virtbed's version."
        ),
    ] = False,
) -> None:
    # Before a command imports numpy or polars, whose threads have the CPUs of this one.
    if context.invoked_subcommand in READERS:
        stay_aside()


def main() -> None:
    """Run the command line (the entry point of the package)."""
    try:
        app()
    except ModuleNotFoundError as error:
        # Commands import virtbed_analysis only when they need it; see virtbed.cli.results.
        if error.name is None or error.name.split(".")[0] != "virtbed_analysis":
            raise
        errors.print(
            "virtbed: this command needs the package virtbed-analysis, which is not installed; "
            "install virtbed[report]",
            style="red", highlight=False, markup=False,
        )  # fmt: skip
        sys.exit(REFUSED)
