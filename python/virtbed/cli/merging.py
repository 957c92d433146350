"""The command `virtbed merge`, which joins results folders of one sweep."""

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
            help="The results folder that receives the files; it is created if it does not exist. "
            "A plan's name stands for results/PLAN.",
        ),
    ],
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FROM...", help="Results folders of the same sweep, such as its shards."
        ),
    ],
) -> None:
    """Join the results folders of one sweep, such as its shards, into one.

    It copies files and leaves the FROM folders as they are. Files that INTO already has are not
    copied again, so a second call changes nothing. Tasks may still be running: what they have
    finished is joined, and a later call takes the rest. It is refused, and writes nothing, if the
    folders have different plans or images, if their hosts are unlike, or if two of them have
    different results of one trial. Example: `virtbed merge results/quick FOLDER`.

    Exit status: 0 joined, 1 joined, but files that are no good results were left out, 2 refused.
    """
    try:
        done = joined(_into(into), folders, load_platforms())
    except (MergeError, LeaseError, LedgerError, PlatformError, CheckoutError) as error:
        refuse(error)
    except OSError as error:
        refuse(
            MergeError(
                f"{into} cannot be written: {error}; when that is mended, run virtbed merge again: "
                "it continues where it stopped"
            )
        )
    for line in _lines(done):
        console.print(plain(line), highlight=False, markup=False)
    for place, why in done.bad.items():
        errors.print(
            f"virtbed: {plain(place)} left out: {plain(why)}", style="red", highlight=False,
            markup=False,
        )  # fmt: skip
    raise typer.Exit(TRIALS_FAILED if done.bad else 0)


def _into(name: str) -> Path:
    """Return the folder of INTO: a path, or the results folder of the plan with this name."""
    if "/" not in name and not Path(name).exists():
        with suppress(PlanError):
            return REPOSITORY / "results" / load_plan(plan_path(name)).name
    return Path(name)


def _lines(done: Merged) -> list[str]:
    """Return the report of a merge, one line per text."""
    hosts = ", ".join(done.hosts) or "no host"
    report = [f"{done.folder}: {done.results} of {done.trials} trials have results, of {hosts}"]
    report += [
        f"{number} results taken from {folder}" for folder, number in sorted(done.taken.items())
    ]
    if not done.taken:
        report.append("nothing new")
    by_reason: dict[str, list[str]] = {}
    for place, why in done.left_out.items():
        by_reason.setdefault(f"of {Path(place).parents[1]}: {why}", []).append(place)
    report += [f"{len(places)} left out {why}" for why, places in sorted(by_reason.items())]
    report += [f"{folder}: {why}" for folder, why in sorted(done.unfinished.items())]
    report += [
        f"{folder} skipped, since it has no design.json and no result: its task has just started, "
        "or ended before it could run a trial"
        for folder in done.not_started
    ]
    if done.unfinished or done.not_started:
        report.append("virtbed merge takes the rest when these have continued; call it again then")
    if done.replicates:
        numbers = ", ".join(map(str, done.replicates))
        report.append(f"replicates {numbers} of the plan are in none of the folders")
    return report
