"""Shared parts of the commands: output, refusals, exit codes, and options with their help."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from virtbed import yaml_file
from virtbed.bench import HUNG_AFTER_S, LOCAL, SET_BY_A_SWEEP, Bench, BenchError
from virtbed.checkout import REPOSITORY
from virtbed.render.screen import Screen
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.json_file import plain
from virtbed_contract.sweep import MOST_REPLICATES

console = Screen(force_terminal=False if os.environ.get("VIRTBED_PLAIN") else None)
errors = Screen(stderr=True, wrap=False)  # a refusal is one line, so that scripts can match it

PlanArgument = Annotated[
    str,
    typer.Argument(
        metavar="PLAN",
        help="Name of a plan in plans/ or of a sweep in results/, or the path of a .yml file.",
    ),
]
SweepArgument = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="The sweep's plan, by name or path; or a results folder, such as an unpacked archive.",
    ),
]
Inventories = Annotated[
    list[str] | None,
    typer.Option(
        "--inventory",
        "-i",
        help="Ansible inventory (its group `bench` is measured), or host names with a comma; may "
        "be repeated. Default: inventory/local, this machine.",
    ),
]
Limit = Annotated[
    str | None,
    typer.Option(
        "--limit", "-l", help="Use only these hosts: a pattern, as for ansible-playbook --limit."
    ),
]
ExtraVars = Annotated[
    list[str] | None,
    typer.Option(
        "--extra-vars",
        "-e",
        help="Extra variables for every playbook: NAME=VALUE or a JSON object; may be repeated.",
    ),
]
Replicates = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_REPLICATES,
        help="Number of replicates, instead of the plan's. A sweep can be continued with more "
        "replicates than it has, never with fewer.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="Folder for the results of all sweeps, instead of the checkout's results/.",
    ),
]
HungAfter = Annotated[
    float,
    typer.Option(
        min=1,
        help="Seconds after which a playbook that examines, clears or restores the host counts as "
        "hung and is ended; also the limit for all that a block does besides its trials. 6 times "
        "as long on an emulated host.",
    ),
]
OfHost = Annotated[
    str,
    typer.Option(
        "--host", help="Report this host only; required if a sweep has several unlike hosts."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
# Exit codes other than 0: the sweep ended with failed trials; the command was refused before it
# changed anything; the sweep started and could not continue; Ctrl-C or SIGTERM.
TRIALS_FAILED, REFUSED, CUT_SHORT, INTERRUPTED = 1, 2, 4, 130


def refuse(error: Exception, code: int = REFUSED) -> NoReturn:
    """Print an error on standard error as one line, and exit.

    Args:
        error: Its text is the message.
        code: The exit code.
    """
    errors.print(f"virtbed: {plain(str(error))}", style="red", highlight=False, markup=False)
    raise typer.Exit(code)


def say_left_out(host: Bench) -> None:
    """Print on standard error why hosts are not measured that the inventory's source has."""
    for line in host.left_out():
        errors.print(f"virtbed: left out: {plain(line)}", highlight=False, markup=False)


def bench_of(
    inventories: list[str] | None,
    limit: str | None = None,
    extra_vars: list[str] | None = None,
    hung_after_s: float = HUNG_AFTER_S,
) -> Bench:
    """Return the bench host that the options name; refuse options that cannot be used.

    Args:
        inventories: Values of --inventory; the local inventory if there are none.
        limit: Value of --limit.
        extra_vars: Values of --extra-vars.
        hung_after_s: Value of --hung-after.
    """
    for inventory in inventories or ():
        if "," not in inventory and not _exists(inventory):
            refuse(
                BenchError(
                    f"no inventory {inventory[:200]} found; --inventory needs the path of an "
                    "inventory, or host names with a comma"
                )
            )
        if "," not in inventory:
            try:
                yaml_file.check_inventory(Path(inventory))
            except (yaml_file.YamlError, OSError) as error:
                refuse(error)
    variables: dict[str, Any] = {}
    for text in extra_vars or ():
        variables |= _variables(text)
    return Bench(tuple(inventories or (LOCAL,)), limit, variables, hung_after_s)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _variables(text: str) -> dict[str, Any]:
    """Return the variables of one --extra-vars; refuse those that a sweep sets itself."""
    if text.lstrip().startswith("{"):
        try:
            variables = json_file.parse(text, "it")
        except DocumentError as error:
            refuse(BenchError(f"--extra-vars {text[:200]}: {error}"))
    else:
        name, equals, value = text.partition("=")
        if not equals:
            refuse(BenchError(f"--extra-vars {text}: NAME=VALUE or a JSON object needed"))
        variables = {name: value}
    if own := variables.keys() & SET_BY_A_SWEEP:
        refuse(
            BenchError(
                f"--extra-vars {', '.join(sorted(own))}: a sweep sets that itself; leave it out"
            )
        )
    return variables


def results_at(folder: Path | None) -> Path:
    """Return the folder of all results: --results if it was given, else the checkout's."""
    return folder.resolve() if folder else REPOSITORY / "results"
