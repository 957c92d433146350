"""The commands `virtbed status` (how far sweeps are) and `virtbed clear` (remove leftovers)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from virtbed import bench
from virtbed.bench import HUNG_AFTER_S, BenchError
from virtbed.checkout import REPOSITORY, CheckoutError
from virtbed.cli.console import (
    REFUSED,
    TRIALS_FAILED,
    AsJson,
    ExtraVars,
    HungAfter,
    Inventories,
    Limit,
    bench_of,
    console,
    errors,
    refuse,
)  # fmt: skip
from virtbed.cli.results import results
from virtbed.host_status import HostStatus, host_status
from virtbed.ledger import NAME, LedgerDamagedError, LedgerError
from virtbed.platforms import PlatformError, load_platforms
from virtbed.render.status import failures_table, host_lines, status_lines, sweeps_table
from virtbed.status import Status, status_of
from virtbed_contract.json_file import plain

app = typer.Typer()


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLAN]", help="A plan, by name or path. Default: every sweep in results/."
        ),
    ] = None,
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    hung_after: HungAfter = HUNG_AFTER_S,
    as_json: AsJson = False,
) -> None:
    """Show how far sweeps are, why trials failed, and which instances exist on the host.

    It changes nothing, and can be used while a sweep runs. Without root it sees less, and says what
    it could not see.

    Exit status: 0 nothing is wrong, 1 trials failed or there are leftovers that no sweep uses, 2
    something could not be determined.
    """
    host = bench_of(inventory, limit, extra_vars, hung_after)
    problems: list[str] = []
    try:
        platforms = load_platforms()
        folders = [results(name)] if name else list(_started(REPOSITORY / "results"))
        sweeps = []
        for folder in folders:
            try:
                sweeps.append(status_of(folder, platforms.trial_s))
            except LedgerDamagedError as error:
                problems.append(f"{error}; virtbed sweep rebuilds it from the results")
            except LedgerError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{folder} cannot be read: {error}; call as a user who may read it")
    except (CheckoutError, PlatformError) as error:
        refuse(error)
    hosts: list[HostStatus] = []
    try:
        hosts = host_status(host, platforms, problems)
    except BenchError as error:
        problems.append(str(error))
    if as_json:
        typer.echo(json.dumps(_document(sweeps, hosts, problems), indent=1))
    else:
        _print(sweeps, hosts, problems)
    failed = any(sweep.counts["failed"] for sweep in sweeps)
    if problems:
        raise typer.Exit(REFUSED)
    raise typer.Exit(TRIALS_FAILED if failed or any(h.left_over for h in hosts) else 0)


def _started(folder: Path) -> Iterator[Path]:
    """Yield the results folders in which a sweep was started: those with a ledger."""
    yield from (path.parent for path in sorted(folder.glob(f"*/{NAME}")))


def _document(sweeps: list[Status], hosts: list[HostStatus], problems: list[str]) -> object:
    return {
        "sweeps": [asdict(sweep) for sweep in sweeps],
        "hosts": [{**asdict(host), "left_over": host.left_over} for host in hosts],
        "problems": problems,
    }


def _print(sweeps: list[Status], hosts: list[HostStatus], problems: list[str]) -> None:
    if sweeps:
        console.print(sweeps_table(sweeps))
    else:
        console.print("no sweep has been started")
    for sweep in sweeps:
        for line in status_lines(sweep):
            console.print(line)
        if sweep.failures:
            console.print(failures_table(sweep))
    for host in hosts:
        for line in host_lines(host):
            console.print(line)
    for problem in problems:
        errors.print(f"virtbed: {plain(problem)}", style="red", highlight=False, markup=False)


@app.command()
def clear(
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    hung_after: HungAfter = HUNG_AFTER_S,
) -> None:
    """Remove virtbed's leftover instances from the host, after `sweep --keep` or a killed sweep.

    A sweep removes leftovers itself when it starts, and after a block that was cut off.

    Exit status: 0 no instance is left, 2 something could not be removed.
    """
    try:
        host = bench_of(inventory, limit, extra_vars, hung_after)
        host.require_root("to remove instances")
        with bench.alone():
            changed = host.clear()
            bench.forget_keys()
    except (BenchError, CheckoutError) as error:
        refuse(error)
    console.print("cleared" if changed else "nothing to clear")
