"""The command line: `virtbed`."""

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

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # else a paragraph keeps the line breaks of its docstring
    help="Measure what an execution platform costs a deep-learning application, end to end.\n\n"
    "Start with `make testbed`; then `virtbed plan quick`, `virtbed sweep quick` and "
    "results/quick/report.html.",
)
for part in (sweeps, slurm, merging, status, hosts, results, explain, documents):
    app.add_typer(part.app)
app.add_typer(images.app, name="image")
app.add_typer(lab.app, name="lab")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("virtbed"))
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ModuleNotFoundError as error:
        # The command imports it when it needs it; see virtbed.cli.results.
        if error.name is None or error.name.split(".")[0] != "virtbed_analysis":
            raise
        errors.print(
            "virtbed: no virtbed-analysis found, which this command needs; install virtbed[report]",
            style="red", highlight=False, markup=False,
        )  # fmt: skip
        sys.exit(REFUSED)
