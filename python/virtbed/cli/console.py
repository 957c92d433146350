"""What the commands share: output, refusals, exit codes, options."""

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
errors = Screen(stderr=True, wrap=False)  # a refusal is one line, which scripts may look for

PlanArgument = Annotated[
    str,
    typer.Argument(
        metavar="PLAN", help="A plan that ships or was swept, by name, or the path of a .yml file."
    ),
]
SweepArgument = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="The plan of a sweep, by name or path, or a results folder: an unpacked archive, say.",
    ),
]
Inventories = Annotated[
    list[str] | None,
    typer.Option(
        "--inventory",
        "-i",
        help="Inventory whose group `bench` is measured, or hosts with a comma; may be repeated.",
    ),
]
Limit = Annotated[
    str | None,
    typer.Option("--limit", "-l", help="Only these hosts, as ansible-playbook takes them."),
]
ExtraVars = Annotated[
    list[str] | None,
    typer.Option(
        "--extra-vars",
        "-e",
        help="Variables for every playbook: NAME=VALUE, or a JSON object; may be repeated.",
    ),
]
Replicates = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_REPLICATES,
        help="In place of the plan's. A sweep goes on with more than it has, never with fewer.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of all results, in place of the checkout's."),
]
HungAfter = Annotated[
    float,
    typer.Option(
        min=1,
        help="Seconds after which a playbook that examines, clears or restores the host counts as "
        "hung, and whatever a block does apart from its trials (6 times if emulated).",
    ),
]
OfHost = Annotated[
    str,
    typer.Option(
        "--host", help="The host that is asked about, where a sweep has several that are unlike."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON document.")]
# Exit codes other than 0: the sweep ended with failed trials; a refusal; it began and could not go
# on; Ctrl-C or SIGTERM.
TRIALS_FAILED, REFUSED, CUT_SHORT, INTERRUPTED = 1, 2, 4, 130


def refuse(error: Exception, code: int = REFUSED) -> NoReturn:
    """Print one clear message and exit."""
    errors.print(f"virtbed: {plain(str(error))}", style="red", highlight=False, markup=False)
    raise typer.Exit(code)


def bench_of(
    inventories: list[str] | None,
    limit: str | None = None,
    extra_vars: list[str] | None = None,
    hung_after_s: float = HUNG_AFTER_S,
) -> Bench:
    """Return the bench host that the options name; exit with a clear message if they do not."""
    for inventory in inventories or ():
        if "," not in inventory and not _exists(inventory):
            refuse(BenchError(f"no inventory {inventory[:200]} found, a path or hosts needed"))
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
    if text.lstrip().startswith("{"):
        try:
            found = json_file.parse(text, "it")
        except DocumentError as error:
            refuse(BenchError(f"--extra-vars {text[:200]}: {error}"))
    else:
        name, equals, value = text.partition("=")
        if not equals:
            refuse(BenchError(f"--extra-vars {text}: NAME=VALUE or a JSON object needed"))
        found = {name: value}
    if own := found.keys() & SET_BY_A_SWEEP:
        refuse(BenchError(f"--extra-vars {', '.join(sorted(own))}: a sweep sets that itself"))
    return found


def results_at(folder: Path | None) -> Path:
    """Return the folder of all results: the checkout's if none is given."""
    return folder.resolve() if folder else REPOSITORY / "results"
