"""The command `virtbed slurm`, which submits a plan to Slurm as a job array."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from virtbed.bench import LOCAL, Bench
from virtbed.checkout import CheckoutError
from virtbed.cli.console import (
    ExtraVars,
    Inventories,
    Limit,
    PlanArgument,
    Replicates,
    Results,
    bench_of,
    console,
    errors,
    refuse,
    results_at,
)  # fmt: skip
from virtbed.cli.sweeps import planned
from virtbed.plan import Plan, PlanError
from virtbed.platforms import PlatformError
from virtbed.shards import ShardError, check_number
from virtbed.slurm.asking import SlurmError, program_at
from virtbed.slurm.inputs import OWN, left_out
from virtbed.slurm.job import Job, words_of
from virtbed.slurm.submission import check_bench, check_partition, submit
from virtbed_contract.json_file import plain

app = typer.Typer()


@app.command()
def slurm(
    name: PlanArgument,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            "-p",
            envvar=OWN["partition"],
            help="Slurm's partition. Default: Slurm's default partition.",
        ),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(
            help="Number of tasks, one per shard. Default: the plan's number of replicates."
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="Use at most this many nodes at once. Default: all that are free."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            "-t",
            envvar=OWN["time"],
            help="Time limit per task, as for sbatch: 4:00:00. A task that reaches its limit is "
            "requeued, and continues later.",
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option("--account", "-A", envvar=OWN["account"], help="Slurm account to charge."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="A further option for sbatch, such as --option=--constraint=epyc; may be repeated."
        ),
    ] = None,
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    replicates: Replicates = None,
    results: Results = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job script, and submit nothing.")
    ] = False,
) -> None:
    """Submit a plan to Slurm as a job array: each task runs one shard on one whole node.

    A task that is preempted, requeued or near its time limit releases its instance, and continues
    when Slurm starts it again, on the same node or another. If you submit the plan again, each task
    runs what is missing of its shard. At the end, `virtbed merge` joins the shards.

    Of the variables from which sbatch takes options, SBATCH_PARTITION, SBATCH_TIMELIMIT and
    SBATCH_ACCOUNT are defaults here. Those that would change what a task gets of its node are named
    and not passed on.

    The nodes must have been set up (make setup), and must see the checkout and the results folder.
    Example: `virtbed slurm quick --partition main`.

    Exit status: 0 submitted, 2 refused.
    """
    bench = bench_of(inventory, limit, extra_vars)
    try:
        plan = planned(name, replicates)
        job = Job(
            plan, (), results_at(results), plan.replicates if tasks is None else tasks, nodes,
            partition, time, account, tuple(option or ()),
        )  # fmt: skip
        words = words_of(
            name, replicates, inventory or (LOCAL,), limit, extra_vars or (), job.results
        )
        job = replace(job, words=words)
        check_number(job.tasks, plan)
        job.check()
        if dry_run:
            _print(job, bench)
            return
        program_at("sbatch")
        check_bench(bench)
        check_partition(plan, partition)
        number = submit(job)
    except (SlurmError, ShardError, PlanError, PlatformError, CheckoutError) as error:
        refuse(error)
    except OSError as error:
        refuse(SlurmError(f"{results_at(results)} cannot be written: {error}"))
    for line in (*_notes(plan), *_next(job, number)):
        console.print(line, highlight=False, markup=False)


def _print(job: Job, bench: Bench) -> None:
    """Print the job script; on standard error, what must be done before it can be submitted."""
    typer.echo(job.script())
    if not job.folder.is_dir():  # if it is missing, Slurm ends each task without a message
        line = f"virtbed: {plain(str(job.folder))} must exist before the script is submitted"
        errors.print(line, highlight=False, markup=False)
    try:
        check_bench(bench)
    except SlurmError as error:
        errors.print(f"virtbed: {plain(str(error))}", highlight=False, markup=False)
    for line in _notes(job.plan):
        errors.print(f"virtbed: {line}", highlight=False, markup=False)


def _notes(plan: Plan) -> list[str]:
    """Return warnings about keys of the plan and variables that act differently here."""
    notes = []
    if names := left_out(os.environ):
        notes.append(
            f"{', '.join(names)} found in the environment, not passed to sbatch, since a task "
            "needs a whole node and its requeue; pass --option=… if one of your options is needed, "
            "and unset them before you call sbatch yourself"
        )
    if plan.precision is not None:
        notes.append(
            f"precision {plan.precision:.3g} is not applied to shards: each of the "
            f"{plan.replicates} replicates is carried out (--replicates N runs fewer)"
        )
    if plan.scale_up == "hotplug":
        notes.append(
            "scale_up: hotplug takes CPUs offline while a task runs, and Slurm may drain a node "
            "that has fewer CPUs than it expects"
        )
    return notes


def _next(job: Job, number: str) -> list[str]:
    """Return the next steps after submission, with the commands to type."""
    folder = job.results / job.plan.name
    at_once = f", at most {job.nodes} at once" if job.nodes is not None else ""
    return [
        f"job {number}: {job.tasks} tasks, one node each{at_once}; their output is in {job.folder}",
        f"squeue --job {number} shows them, scancel {number} ends them; when they have ended, run",
        f"virtbed merge {folder} {folder}.shard-*-of-{job.tasks}.*",
    ]
