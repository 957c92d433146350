"""The commands that take a platform's cost apart, and that say what neighbours do to it."""

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
"""What analyses a results folder: all of it, or one host's if it is named."""


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
    content = _or_refuse(_content, folder, host)
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
    _say_if_any(folder, "explain", "explained", _content, say)


def say_isolation(folder: Path) -> None:
    """Print how much neighbours slow each platform of a sweep; nothing where it had none."""
    _say_if_any(folder, "isolation", "isolation", _isolation, _say_isolation)


def _say_if_any(
    folder: Path, command: str, part: str, content_of: ContentOf,
    say: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    from virtbed_analysis import UnlikeHostsError

    try:
        content = content_of(folder, "")
    except UnlikeHostsError as error:  # whose reports say each host's
        console.print(f"{error.hosts[0]} and others: `virtbed {command} --host` is of one host")
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
    """Say how much instances on the same machine slow each platform, of a sweep with `neighbours`.

    The time with neighbours over that of the same platform, mode and size without, paired within
    each replicate; and where the neighbours ran, and how busy the least busy one was.

    Exit status: 0 measured, 1 nothing was measured with neighbours and without, 2 refused.
    """
    folder = results(name)
    content = _or_refuse(_isolation, folder, host)
    if as_json:
        typer.echo(json.dumps(content["isolation"], indent=1))
    elif content["isolation"]:
        _say_isolation(content)
    else:
        console.print(
            f"{folder}: nothing was measured with neighbours and without; set neighbours: [0, 1] "
            "in the plan, as plans/neighbours.yml does",
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
