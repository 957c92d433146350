"""The command that takes a platform's cost apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from virtbed.cli.console import AsJson, OfHost, SweepArgument, console, refuse
from virtbed.cli.results import results
from virtbed.render.explained import explained_table

app = typer.Typer()
NOTHING = 1


@app.command()
def explain(name: SweepArgument, host: OfHost = "", as_json: AsJson = False) -> None:
    """Say what each platform's cost is made of, of a sweep whose plan has `explain: true`.

    Each step is what one thing costs that was varied alone, in percent of bare metal's time:
    seccomp, the CPU quota, and so on; the rest is what was not varied. A change is of something
    that bare metal has in no form, such as another runtime. Stalled is the share of periods in
    which the CPU quota stopped the process, huge pages the share of its memory in them.

    Exit status: 0 explained, 1 nothing was varied alone, 2 refused.
    """
    folder = results(name)
    content = _content(folder, host)
    if as_json:
        typer.echo(json.dumps(content["explained"], indent=1))
    elif content["explained"]:
        say(content)
    else:
        console.print(
            f"{folder}: nothing was varied alone, so there is nothing to explain; set explain: "
            "true and list values of a factor in the plan, as plans/explain.yml does",
            highlight=False, markup=False,
        )  # fmt: skip
    raise typer.Exit(0 if content["explained"] else NOTHING)


def say_explained(folder: Path) -> None:
    """Print what a sweep explains; nothing where it has nothing to."""
    from virtbed_analysis import UnlikeHostsError, read_sweep

    try:
        read_sweep(folder)
    except UnlikeHostsError as error:  # whose report says each host's cost
        console.print(f"{error.hosts[0]} and others: `virtbed explain --host` explains one host's")
        return
    if (content := _content(folder))["explained"]:
        say(content)


def say(content: dict[str, Any]) -> None:
    """Print the sentence of each platform, and the table of all steps."""
    for waterfall in content["explained"]:
        if waterfall["sentence"]:
            console.print(waterfall["sentence"], highlight=False, markup=False)
    console.print(explained_table(content))


def _content(folder: Path, host: str = "") -> dict[str, Any]:
    from virtbed_analysis import AnalysisError, read_sweep
    from virtbed_analysis import explain as take_apart

    try:
        return take_apart(read_sweep(folder, host))
    except (AnalysisError, OSError) as error:
        refuse(error)
