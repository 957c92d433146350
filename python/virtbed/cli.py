"""Knows what a user can ask of a host, and gathers all commands; `decide` has those on results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from virtbed import decide, host
from virtbed import doctor as doctors
from virtbed.attest import AttestError, explain
from virtbed.console import (
    INTERRUPTED,
    TRIALS_FAILED,
    AsJson,
    Inventory,
    PlanArgument,
    console,
    errors,
    refuse,
)  # fmt: skip
from virtbed.decide import say_report
from virtbed.design import design
from virtbed.here import RunError, command, phase_table, run_here
from virtbed.image import REPOSITORY, image_key
from virtbed.ledger import Ledger, LedgerError
from virtbed.placement import PlacementError
from virtbed.plan import Plan, PlanError, load_plan, plan_path
from virtbed.progress import Progress, estimate_s, minutes
from virtbed.sweep import Interrupted, Sweep, SweepError, check_applications
from virtbed_analysis import AnalysisError, described
from virtbed_analysis import calibrate as write_calibration
from virtbed_workloads.registry import APPLICATIONS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure what an execution platform costs a deep-learning application, end to end.\n\n"
    "Begin with `make testbed`; then `virtbed plan quick`, `virtbed sweep quick` and "
    "results/quick/report.html.",
)
app.add_typer(decide.app)
VISIBLE = [name for name, entry in APPLICATIONS.items() if not entry.hidden]
PLAN_COLUMNS = (
    "platform", "mode", "cores", "variant", "application", "scale", "scenario", "threads",
    "accelerator", "trials",
)  # fmt: skip


def _plan(name: str) -> Plan:
    plan = load_plan(plan_path(name))
    check_applications(plan, {n: tuple(e.scales) for n, e in APPLICATIONS.items()})
    return plan


@app.command()
def plan(name: PlanArgument, inventory: Inventory = host.LOCAL, as_json: AsJson = False) -> None:
    """Show the cells of a plan on this host, the number of trials and the time; run nothing."""
    try:
        chosen = _plan(name)
        with host.alone():
            report = host.examine(inventory)
        laid = design(chosen, report)
    except (PlanError, PlacementError, host.HostError) as error:
        refuse(error)
    seen: dict[str, float] = {}
    journal = REPOSITORY / "results" / chosen.name / "ledger.sqlite"
    if journal.exists():
        with Ledger(journal) as ledger:
            seen = ledger.seconds()
    seconds = estimate_s(laid.trials, seen)
    cells = Counter(
        (t.instance.platform, t.instance.mode, t.instance.cores, t.variant, t.application, t.scale,
         t.scenario, t.threads, t.instance.accelerator) for t in laid.trials
    )  # fmt: skip
    if as_json:
        rows = [
            dict(zip(PLAN_COLUMNS, (*cell, n), strict=True)) for cell, n in sorted(cells.items())
        ]
        typer.echo(
            json.dumps(
                {
                    "plan": chosen.name,
                    "plan_digest": chosen.digest(),
                    "trials": len(laid.trials),
                    "estimated_s": seconds,
                    "cells": rows,
                    "not_run": [vars(n) for n in laid.not_run],
                },
                indent=1,
            )
        )
        return
    table = Table(title=f"{chosen.name}: {len(laid.trials)} trials, about {minutes(seconds)}")
    for heading in PLAN_COLUMNS:
        table.add_column(heading, justify="right" if heading in {"cores", "trials"} else "left")
    for cell, count in sorted(cells.items()):
        table.add_row(*map(str, (*cell, count)))
    console.print(table)
    for left in laid.not_run:
        size = f" c{left.cores:02d}" if left.cores else ""
        console.print(f"not run: {left.platform} {left.mode}{size}: {left.reason}; {left.remedy}")


@app.command()
def sweep(name: PlanArgument, inventory: Inventory = host.LOCAL) -> None:
    """Carry a plan out, or finish what is missing of it, and write its report.

    Exit status: 0 every trial done, 1 some failed, 2 refused before anything was made,
    130 interrupted (nothing is left standing; call again to go on).
    """
    _carry_out(name, inventory)


def _carry_out(name: str, inventory: Path) -> Path:
    """Carry a plan out and write its report; return its folder, or exit with a clear message."""
    try:
        with Progress(console) as progress:
            run = Sweep(_plan(name), progress, inventory)
            run.run()
    except Interrupted as error:
        refuse(error, INTERRUPTED)
    except (PlanError, PlacementError, LedgerError, SweepError, host.HostError) as error:
        refuse(error)
    say_report(run.folder)
    if run.failed:
        refuse(
            SweepError(
                f"{len(run.failed)} trials failed, among them {run.failed[0]} (the report and "
                f"{run.folder / 'trials' / run.failed[0] / 'failure.json'} say why); call again to "
                "repeat them"
            ),
            TRIALS_FAILED,
        )
    return run.folder


@app.command()
def calibrate(
    name: Annotated[str, typer.Argument(metavar="PLAN", help="A plan with variants.")] = (
        "calibrate"
    ),
    inventory: Inventory = host.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Find out what this host can resolve: measure twins, and a slowdown that is known.

    Carries the plan out, or what is missing of it, and writes results/PLAN/calibration.json. One
    calibration in twenty fails by chance alone: repeat it before making anything of it.

    Exit status: 0 every check passed, 1 one failed, 2 refused, 130 interrupted.
    """
    folder = _carry_out(name, inventory)
    try:
        content = write_calibration(folder)
    except AnalysisError as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(content, indent=1))
    else:
        for check in content["checks"]:
            console.print(check["sentence"], highlight=False)
        for row in content["resolution"]:
            console.print(row["sentence"], highlight=False)
        if content["suspect"]:
            console.print(
                f"{content['suspect']} trials suspect; the report names them and says why"
            )
    raise typer.Exit(0 if content["passed"] else TRIALS_FAILED)


@app.command()
def doctor(inventory: Inventory = host.LOCAL, as_json: AsJson = False) -> None:
    """Say which platforms this host can run, and why not the others; change nothing.

    Exit status: 0 if all four run (emulated or not), 1 if some cannot, 2 if it cannot be told.
    """
    try:
        with host.alone():
            examined = host.examine(inventory)
    except host.HostError as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(examined, indent=1))
    else:
        console.print(doctors.facts_table(examined))
        console.print(doctors.doctor_table(examined))
        console.print(doctors.tuning_table(examined))
    raise typer.Exit(doctors.exit_status(examined))


@app.command()
def attest(
    trial: Annotated[
        Path, typer.Argument(exists=True, help="results/SWEEP/trials/ID, or a file in it.")
    ],
) -> None:
    """Explain a trial's evidence: where it was put, where it ran, and what else moved.

    Exit status: 0 attested, 1 not attested, 2 no evidence there.
    """
    try:
        attested, lines = explain(trial)
    except AttestError as error:
        refuse(error)
    for line in lines:
        console.print(line, highlight=False, markup=False)
    raise typer.Exit(0 if attested else TRIALS_FAILED)


@app.command()
def restore(inventory: Inventory = host.LOCAL) -> None:
    """Put back what a sweep changed of the host (settings, CPUs, daemons), also after a crash.

    A sweep does so itself at its end, and the next one at its begin.

    Exit status: 0 all is as it was, 2 something could not be put back.
    """
    try:
        with host.alone():
            changed = host.restore(inventory)
    except host.HostError as error:
        refuse(error)
    console.print("restored" if changed else "nothing to restore")


@app.command()
def run(
    application: Annotated[str, typer.Argument(help=f"One of: {', '.join(VISIBLE)}.")],
    scale: Annotated[str, typer.Option(help="trained, mlperf or tiny.")] = "trained",
    scenario: Annotated[
        str, typer.Option(help="single_stream, multi_stream, offline or server.")
    ] = "single_stream",
    rules: Annotated[
        str, typer.Option(help="quick: --samples requests; study: MLPerf's minimums, 10 minutes.")
    ] = "quick",
    samples: Annotated[int, typer.Option(help="Measured requests, by the quick rules.")] = 20,
    warmup: Annotated[int, typer.Option(help="Requests before them; at least one an input.")] = 3,
    threads: Annotated[str, typer.Option(help="default, or matched to the cores there are.")] = (
        "default"
    ),
    processor: Annotated[str, typer.Option(help="cpu or gpu; falling back fails.")] = "cpu",
    target_qps: Annotated[float | None, typer.Option(help="Requests a second of server.")] = None,
    target_latency_ms: Annotated[
        float | None, typer.Option(help="Server's bound on the 99th percentile.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Your own requests: the files of this folder."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one application on this machine, on no platform, and show where its time goes.

    The frameworks are the image's (`make setup`), the applications this checkout's.

    Exit status: 0 good, 1 the application failed, 2 usage, 3 a wrong answer.
    """
    rates = {"qps": target_qps, "latency-ms": target_latency_ms}
    arguments = [
        application, f"--scale={scale}", f"--scenario={scenario}", f"--rules={rules}",
        f"--samples={samples}", f"--warmup={warmup}", f"--threads={threads}",
        f"--processor={processor}",
        *(f"--target-{name}={rate}" for name, rate in rates.items() if rate is not None),
    ]  # fmt: skip
    try:
        with host.alone(), errors.status(f"running {application}"):
            document = run_here(arguments, inputs)
    except RunError as error:
        refuse(error, error.code)
    except host.HostError as error:
        refuse(error)
    if as_json:
        document.pop("files")
        typer.echo(json.dumps(document, indent=1))
    else:
        console.print(phase_table(document), highlight=False)


@app.command()
def schema(which: Annotated[str, typer.Argument(help="plan, result or samples")]) -> None:
    """Print the JSON Schema of a plan or of a result, or the columns that `export` writes."""
    from virtbed_workloads.schema import result_schema

    schemas = {"plan": Plan.model_json_schema, "result": result_schema, "samples": described}
    if which not in schemas:
        refuse(PlanError(f"no schema {which!r}; one of: {', '.join(schemas)}"))
    typer.echo(json.dumps(schemas[which](), indent=1))


@app.command(
    "in-image", hidden=True, context_settings={"ignore_unknown_options": True},
    add_help_option=False,
)  # fmt: skip
def in_image(arguments: Annotated[list[str], typer.Argument()]) -> None:
    """Run the image's Python in this checkout: its tests of the applications, its benchmarks."""
    try:
        argv = command(arguments)
        with host.alone():
            raise typer.Exit(subprocess.run(argv, check=False).returncode)
    except (RunError, host.HostError) as error:
        refuse(error)


@app.command("image-key", hidden=True)
def key() -> None:
    """Print the key of the image that these sources make; the roles ask for it."""
    typer.echo(image_key())


def main() -> None:
    """Run the command line."""
    sys.exit(app())
