"""The commands `virtbed explain` (the parts of a platform's cost) and `virtbed isolation`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from virtbed.cli.console import AsJson, OfHost, SweepArgument, console, refuse
from virtbed.cli.results import results
from virtbed.render.explained import explained_table
from virtbed.render.isolation import isolation_table

app = typer.Typer()
NOTHING = 1
ContentOf = Callable[[Path, str], dict[str, Any]]
"""Analyses a results folder: (folder, host) to the analysis' document. An empty host means all."""


@app.command()
def explain(name: SweepArgument, host: OfHost = "", as_json: AsJson = False) -> None:
    """Show the parts of each platform's cost, for a sweep whose plan has `explain: true`.

    Each step is the cost of one thing that was varied alone (seccomp, the CPU quota, ...), in
    percent of bare metal's time; the rest is the cost of everything that was not varied. A step is
    called a change if bare metal has no counterpart, such as another container runtime. "Stalled"
    is the share of quota periods in which the CPU quota stopped the process; "huge pages" is the
    share of the process's memory in huge pages. Example: `virtbed explain explain`, after `virtbed
    sweep explain`.

    Exit status: 0 explained, 1 nothing was varied alone, 2 refused.
    """
    folder = results(name)
    content = _or_refuse(_content, folder, host)
    if as_json:
        typer.echo(json.dumps(content["explained"], indent=1))
    elif content["explained"]:
        say(content)
    else:
        console.print(
            f"{folder}: nothing was varied alone, so there is nothing to explain; set explain: "
            "true in the plan and list several values of a factor, as plans/explain.yml does",
            highlight=False, markup=False,
        )  # fmt: skip
    raise typer.Exit(0 if content["explained"] else NOTHING)


def say_explained(folder: Path) -> None:
    """Print the parts of each platform's cost; nothing if the sweep varied nothing alone."""
    _say_if_any(folder, "explain", "explained", _content, say)


def say_isolation(folder: Path) -> None:
    """Print how much neighbours slow each platform of a sweep; nothing if it had none."""
    _say_if_any(folder, "isolation", "isolation", _isolation, _say_isolation)


def _say_if_any(
    folder: Path, command: str, part: str, content_of: ContentOf,
    say: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    """Print one part of a sweep's analysis, unless it is empty.

    Args:
        folder: The results folder.
        command: The command that shows it, for the hint to use its --host.
        part: The key of the part in the analysis' document.
        content_of: Analyses the folder.
        say: Prints the document.
    """
    from virtbed_analysis import UnlikeHostsError

    try:
        content = content_of(folder, "")
    except UnlikeHostsError as error:  # there is one report per host, which has this part
        console.print(
            f"the hosts {error.hosts[0]} and others are unlike; `virtbed {command} --host` shows "
            "one of them"
        )
        return
    if content[part]:
        say(content)


def say(content: dict[str, Any]) -> None:
    """Print the sentence of each platform, and the table of all steps."""
    for waterfall in content["explained"]:
        if waterfall["sentence"]:
            console.print(waterfall["sentence"], highlight=False, markup=False)
    console.print(explained_table(content))


@app.command()
def isolation(name: SweepArgument, host: OfHost = "", as_json: AsJson = False) -> None:
    """Show how much neighbours (other instances on the host) slow each platform.

    For a sweep whose plan lists `neighbours`. Each ratio is the time with neighbours divided by the
    time of the same platform, mode and size without, paired within each replicate. The table also
    shows where the neighbours ran and how busy the least busy one was. Example: `virtbed isolation
    neighbours`, after `virtbed sweep neighbours`.

    Exit status: 0 shown, 1 nothing was measured both with and without neighbours, 2 refused.
    """
    folder = results(name)
    content = _or_refuse(_isolation, folder, host)
    if as_json:
        typer.echo(json.dumps(content["isolation"], indent=1))
    elif content["isolation"]:
        _say_isolation(content)
    else:
        console.print(
            f"{folder}: nothing was measured both with and without neighbours; set neighbours: "
            "[0, 1] in the plan, as plans/neighbours.yml does",
            highlight=False, markup=False,
        )  # fmt: skip
    raise typer.Exit(0 if content["isolation"] else NOTHING)


def _say_isolation(content: dict[str, Any]) -> None:
    for row in content["isolation"]:
        console.print(row["sentence"], highlight=False, markup=False)
    console.print(isolation_table(content))


def _content(folder: Path, host: str) -> dict[str, Any]:
    from virtbed_analysis import explain as take_apart
    from virtbed_analysis import read_sweep

    return take_apart(read_sweep(folder, host))


def _isolation(folder: Path, host: str) -> dict[str, Any]:
    from virtbed_analysis import isolation_of, read_sweep

    return isolation_of(read_sweep(folder, host))


def _or_refuse(content_of: ContentOf, folder: Path, host: str) -> dict[str, Any]:
    from virtbed_analysis import AnalysisError

    try:
        return content_of(folder, host)
    except (AnalysisError, OSError) as error:
        refuse(error)
