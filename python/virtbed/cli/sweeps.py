"""The commands `virtbed plan` (show a plan), `sweep` (carry it out) and `calibrate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from virtbed import bench
from virtbed.bench import HUNG_AFTER_S, Bench, BenchError
from virtbed.checkout import REPOSITORY, CheckoutError
from virtbed.cli.console import (
    CUT_SHORT,
    INTERRUPTED,
    REFUSED,
    TRIALS_FAILED,
    AsJson,
    ExtraVars,
    HungAfter,
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
    say_left_out,
)  # fmt: skip
from virtbed.cli.explain import say_explained, say_isolation
from virtbed.cli.results import say_report
from virtbed.design import Design, design
from virtbed.image import check_image, load_variants
from virtbed.lease import LeaseError
from virtbed.ledger import NAME, Ledger, LedgerDamagedError, LedgerError
from virtbed.neighbours import wanted
from virtbed.placement import PlacementError
from virtbed.plan import (
    Plan,
    PlanError,
    check_applications,
    load_plan,
    plan_path,
    with_replicates,
)  # fmt: skip
from virtbed.platforms import PlatformError, load_platforms
from virtbed.progress import Progress, estimate_s, minutes
from virtbed.render.image import image_line
from virtbed.render.plan import hours_line, not_run_lines, placement_table, plan_table
from virtbed.render.results import check_table
from virtbed.shards import Shard, ShardError, check_number
from virtbed.slurm import SlurmError, check_granted
from virtbed.sweep import Interrupted, Kept, Sweep, SweepError
from virtbed.sweep.blocks import PER_PLAYBOOK
from virtbed.sweep.sweep import MOST_ATTEMPTS
from virtbed.trial import Trial
from virtbed_contract.codec import encode
from virtbed_contract.counts import count
from virtbed_contract.factors import FACTORS
from virtbed_contract.json_file import plain
from virtbed_workloads.registry import APPLICATIONS

app = typer.Typer()
FRAMEWORKS = {name: entry.framework for name, entry in APPLICATIONS.items()}
REFUSALS = (
    PlanError, PlacementError, PlatformError, LedgerError, LeaseError, SweepError, BenchError,
    CheckoutError, ShardError, SlurmError,
)  # fmt: skip
BlocksPerPlaybook = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of blocks (instances with their trials) per call of ansible-playbook. Results "
        "do not depend on it; each call takes about a second to start.",
    ),
]


def planned(name: str, replicates: int | None = None) -> Plan:
    """Load a plan, and check that its applications exist and its image can run them.

    Args:
        name: The plan's name or path; see `plan_path`.
        replicates: Replaces the plan's number of replicates.

    Raises:
        PlanError: the plan cannot be used.
        PlatformError: its image does not exist, or cannot run one of its applications.
        CheckoutError: there is no checkout.
    """
    plan = with_replicates(load_plan(plan_path(name)), replicates)
    check_applications(plan, {n: tuple(e.scales) for n, e in APPLICATIONS.items()})
    check_image(plan.image, [a.name for a in plan.applications], FRAMEWORKS, load_variants())
    return plan


@app.command()
def plan(
    name: PlanArgument,
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    replicates: Replicates = None,
    hung_after: HungAfter = HUNG_AFTER_S,
    as_json: AsJson = False,
) -> None:
    """Show what a plan would run: its cells, number of trials, estimated time and CPUs.

    It runs nothing, but examines the bench host, which needs root there: which cells can run, and
    on which CPUs, depends on the host. Of several hosts only the first is examined, since all run
    the same cells. Example: `virtbed plan quick`.
    """
    try:
        chosen, platforms = planned(name, replicates), load_platforms()
        host = bench_of(inventory, limit, extra_vars, hung_after)
        host.require_root("to examine the host on which the plan would run")
        with bench.alone():
            hosts = host.hosts()
            say_left_out(host)
            if len(hosts) > 1:
                host = host.one_of(hosts[0])
            report, _ = host.examine(restore=False, image=chosen.image)
        designed = design(chosen, report, platforms)
        seen = _seconds(REPOSITORY / "results" / chosen.name / NAME)
    except REFUSALS as error:
        refuse(error)
    seconds = estimate_s(designed.trials, seen, platforms.trial_s)
    cells = Counter(tuple(_cell(trial).items()) for trial in designed.trials)
    rows = [{**dict(cell), "trials": count} for cell, count in sorted(cells.items())]
    seen_before = _best_samples(chosen)
    if as_json:
        document = {
            **_as_json(chosen, designed, seconds, rows),
            "image": report.facts["image"],
            "best_samples": seen_before,
            "hosts": list(hosts),
        }
        typer.echo(json.dumps(document, indent=1))
    else:
        several = f" on {len(hosts)} hosts, as on {hosts[0]}" if len(hosts) > 1 else ""
        takes = minutes(seconds / max(1, len(hosts)))
        title = f"{chosen.name}: {count(len(designed.trials), 'trial')}, about {takes}{several}"
        console.print(plan_table(title, designed.trials, platforms.entries))
        if any(trial.instance.mode == "pinned" for trial in designed.trials):
            console.print(placement_table(designed.placements))
        console.print(hours_line(chosen, seconds))
        console.print(image_line(report.facts["image"], name))
        for line in not_run_lines(designed.not_run, platforms.entries, name):
            console.print(line)
        for row in seen_before:
            console.print(row["sentence"])


def _seconds(journal: Path) -> dict[str, float]:
    """Return the mean seconds per trial by platform, from the ledger of an earlier call."""
    if not journal.exists():
        return {}
    try:
        with Ledger(journal) as ledger:
            return ledger.seconds()
    except LedgerError as error:
        remedy = "; virtbed sweep rebuilds it" if isinstance(error, LedgerDamagedError) else ""
        message = f"no times of earlier trials: {error}{remedy}"
        errors.print(plain(message), highlight=False, markup=False)
        return {}


def _best_samples(plan: Plan, results: Path = REPOSITORY / "results") -> list[dict[str, Any]]:
    """Return the recommended samples per trial of each application, from an earlier sweep.

    Returns:
        One row per application of the plan, with the keys `application`, `scale`, `scenario`,
        `best` and `sentence`. No rows without results, or without virtbed-analysis.
    """
    if not find_spec("virtbed_analysis"):
        return []
    from virtbed_analysis import best_samples

    keys = {(entry.name, entry.scale, entry.scenario) for entry in plan.applications}
    return [
        row
        for row in best_samples(results / plan.name)
        if (row["application"], row["scale"], row["scenario"]) in keys
    ]


def _cell(trial: Trial) -> dict[str, str | int]:
    """Return the values that identify a trial's cell, by column."""
    return {
        "platform": trial.instance.platform,
        "mode": trial.instance.mode,
        "cores": trial.instance.cores,
        "application": trial.application,
        "scale": trial.scale,
        "scenario": trial.scenario,
        **{factor.plan_key: trial.factors[factor.name] for factor in FACTORS if factor.plan_key},
        "accelerator": trial.instance.accelerator,
    }


Rows = list[dict[str, str | int]]


def _as_json(plan: Plan, designed: Design, seconds: float, rows: Rows) -> Mapping[str, object]:
    """Return the document that `virtbed plan --json` prints."""
    return {
        "plan": plan.name,
        "plan_digest": plan.digest(),
        "trials": len(designed.trials),
        "estimated_s": seconds,
        "host_hours": seconds / 3600,
        "cells": rows,
        "placements": encode(designed.placements),
        "not_run": encode(designed.not_run),
    }


@app.command()
def sweep(
    name: PlanArgument,
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    replicates: Replicates = None,
    blocks_per_playbook: BlocksPerPlaybook = PER_PLAYBOOK,
    hung_after: HungAfter = HUNG_AFTER_S,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Stop at the first failed trial, and keep its instance for inspection; `virtbed "
            "clear` removes it.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Also repeat failed trials that were already attempted "
            f"{MOST_ATTEMPTS} times or more, which are given up otherwise.",
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/OF",
            help="Run only this share of the replicates, such as 2/3, into a results folder of its "
            "own; `virtbed merge` joins the shards.",
        ),
    ] = None,
    results: Results = None,
) -> None:
    """Run a plan's trials on the bench host, and write the report.

    If the sweep was started before, it runs only the trials that are missing. The results and the
    report are in results/PLAN. It needs root on the bench host.

    Examples: `virtbed sweep quick`, and `virtbed sweep quick --replicates 20` to add replicates
    later.

    Exit status: 0 every trial is done, 1 some trials failed, 2 refused before anything was changed,
    4 started but cut short (a full disk, a host that cannot be cleared; the message names it), 130
    interrupted. After 1, 4 and 130 call it again to continue.
    """
    host = bench_of(inventory, limit, extra_vars, hung_after)
    _carry_out(name, host, blocks_per_playbook, replicates, keep, retry_failed, shard, results)


def _carry_out(
    name: str, host: Bench, per_playbook: int = PER_PLAYBOOK, replicates: int | None = None,
    keep: bool = False, retry_failed: bool = False, shard: str | None = None,
    results: Path | None = None,
) -> Path:  # fmt: skip
    """Carry out a plan and write its report; refuse, with the fitting exit code, if it cannot.

    Args:
        name: The plan's name or path.
        host: The bench host, or the group of them.
        per_playbook: Blocks per call of ansible-playbook.
        replicates: Replaces the plan's number of replicates.
        keep: Whether to stop at the first failed trial and keep its instance.
        retry_failed: Whether to repeat trials that were given up.
        shard: The share of the replicates to run, NUMBER/OF; None for all.
        results: Folder of all results; None for the checkout's.

    Returns:
        The sweep's results folder.
    """
    run: Sweep | None = None
    try:
        chosen, platforms = planned(name, replicates), load_platforms()
        share = None if shard is None else Shard.parse(shard)
        if share:
            check_number(share.of, chosen)
        check_granted(chosen, host)
        say_left_out(host)
        with Progress(console, platforms.trial_s) as progress:
            run = Sweep(
                chosen, progress, host, results_at(results), per_playbook, platforms,
                keep, retry_failed, share,
            )  # fmt: skip
            run.run()
    except Interrupted as error:
        refuse(error, INTERRUPTED)
    except Kept as error:
        refuse(error, TRIALS_FAILED)
    except REFUSALS as error:
        refuse(error, CUT_SHORT if run is not None and run.began else REFUSED)
    if not run.folder.is_dir():  # the shard had no trials
        return run.folder
    if find_spec("virtbed_analysis"):
        say_report(run.folder)
        if chosen.explain:
            say_explained(run.folder)
        if wanted(chosen):
            say_isolation(run.folder)
    else:
        console.print(f"results: {run.folder} (install virtbed[report] for a report)")
    if run.failed:
        refuse(
            SweepError(
                f"{count(len(run.failed), 'trial')} failed, first {run.failed[0]} (the report and "
                f"{run.folder / 'trials' / run.failed[0] / 'failure.json'} give the reason); call "
                "again to repeat what failed"
            ),
            TRIALS_FAILED,
        )
    return run.folder


@app.command()
def calibrate(
    name: Annotated[
        str,
        typer.Argument(
            metavar="PLAN",
            help="A plan that lists variants (twins, a slowdown), as plans/calibrate.yml does.",
        ),
    ] = "calibrate",
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Find the smallest cost that this host can resolve, with twins and a known slowdown.

    It measures each platform against its twin (the same cell under a second name), whose ratio must
    be 1, and against a slowdown of known size, which must be found. It runs the plan's missing
    trials and writes results/PLAN/calibration.json. At most one calibration in twenty fails by
    chance, so repeat a failed one before you draw conclusions. Example: `virtbed calibrate`.

    Exit status: 0 every check passed, 1 a check failed or cannot tell, 2 refused, 4 the sweep was
    cut short, 130 interrupted.
    """
    from virtbed_analysis import AnalysisError
    from virtbed_analysis import calibrate as write_calibration

    bench_host = bench_of(inventory, limit, extra_vars)
    try:
        several = bench_host.hosts()
    except BenchError as error:
        refuse(error)
    if len(several) > 1:
        refuse(
            BenchError(
                f"hosts {', '.join(several)} found, one needed: a calibration shows what one host "
                "can resolve; choose one with --limit, and use a plan of a different name for each"
            )
        )
    folder = _carry_out(name, bench_host, results=results)
    try:
        content = write_calibration(folder)
    except (AnalysisError, OSError) as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(content, indent=1))
    else:
        console.print(check_table(content, load_platforms().entries))
        if content["caution"]:
            console.print(content["caution"])
        for row in content["resolution"]:
            console.print(row["sentence"])
        if content["suspect"]:
            console.print(
                f"suspect: {count(content['suspect'], 'trial')}; the report names each, and why"
            )
    raise typer.Exit(0 if content["passed"] else TRIALS_FAILED)
