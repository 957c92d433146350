"""The command that joins results folders."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from virtbed.checkout import REPOSITORY, CheckoutError
from virtbed.cli.console import TRIALS_FAILED, console, errors, refuse
from virtbed.lease import LeaseError
from virtbed.ledger import LedgerError
from virtbed.merging import Merged, MergeError
from virtbed.merging import merge as joined
from virtbed.plan import PlanError, load_plan, plan_path
from virtbed.platforms import PlatformError, load_platforms
from virtbed_contract.json_file import plain

app = typer.Typer()


@app.command()
def merge(
    into: Annotated[
        str,
        typer.Argument(
            metavar="INTO",
            help="The results folder that gets what it lacks, made if it is not there; or a plan's "
            "name, for results/PLAN.",
        ),
    ],
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FROM...", help="Results folders of the same sweep, such as shards."
        ),
    ],
) -> None:
    """Join the results folders of one sweep, such as its shards, into one.

    Files are copied, and FROM is left as it is. What is there already is not copied again, so
    that a second call changes nothing. Refused, with nothing written, where folders are of another
    plan or image, of hosts that are not alike, or have two results of one trial.

    Exit status: 0 joined, 1 joined without files that are no good results, 2 refused.
    """
    try:
        done = joined(_into(into), folders, load_platforms())
    except (MergeError, LeaseError, LedgerError, PlatformError, CheckoutError) as error:
        refuse(error)
    except OSError as error:
        refuse(MergeError(f"{into} cannot be written: {error}; call again to go on"))
    for line in _lines(done):
        console.print(plain(line), highlight=False, markup=False)
    for place, why in done.bad.items():
        errors.print(
            f"virtbed: {plain(place)} left out: {plain(why)}", style="red", highlight=False,
            markup=False,
        )  # fmt: skip
    raise typer.Exit(TRIALS_FAILED if done.bad else 0)


def _into(name: str) -> Path:
    """Return a folder by its path, or that of a plan's results by the plan's name."""
    if "/" not in name and not Path(name).exists():
        with suppress(PlanError):
            return REPOSITORY / "results" / load_plan(plan_path(name)).name
    return Path(name)


def _lines(done: Merged) -> list[str]:
    """Return what a merge did, in words."""
    hosts = ", ".join(done.hosts) or "no host"
    said = [f"{done.folder}: {done.results} of {done.trials} trials have results, of {hosts}"]
    said += [f"{number} taken of {folder}" for folder, number in sorted(done.taken.items())]
    if not done.taken:
        said.append("nothing new")
    by_reason: dict[str, list[str]] = {}
    for place, why in done.left_out.items():
        by_reason.setdefault(f"of {Path(place).parents[1]}: {why}", []).append(place)
    said += [f"{len(places)} left out {why}" for why, places in sorted(by_reason.items())]
    said += [f"{folder} is being carried out by {who}: as far as it is" for folder, who in
             sorted(done.running.items())]  # fmt: skip
    if done.replicates:
        numbers = ", ".join(map(str, done.replicates))
        said.append(f"replicates {numbers} of the plan are in none of the folders")
    return said
