"""The commands on sweeps: show a plan, carry it out, calibrate."""

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
        help="Blocks (instances with their trials) that one call of ansible-playbook carries. "
        "Results do not depend on it; a call's start costs about a second.",
    ),
]


def planned(name: str, replicates: int | None = None) -> Plan:
    """Return a plan that can be carried out; see `plan_path` and `load_plan`."""
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
    """Show the cells of a plan on its hosts, the number of trials and the time; run nothing.

    Of several hosts the first is examined: all run the same cells.
    """
    try:
        chosen, platforms = planned(name, replicates), load_platforms()
        host = bench_of(inventory, limit, extra_vars, hung_after)
        host.require_root("to examine the host on which the plan would run")
        with bench.alone():
            hosts = host.hosts()
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
        title = f"{chosen.name}: {len(designed.trials)} trials, about {takes}{several}"
        console.print(plan_table(title, designed.trials, platforms.entries))
        if any(trial.instance.mode == "pinned" for trial in designed.trials):
            console.print(placement_table(designed.placements))
        console.print(hours_line(chosen, seconds))
        console.print(image_line(report.facts["image"], name))
        for line in not_run_lines(designed.not_run, platforms.entries):
            console.print(line)
        for row in seen_before:
            console.print(row["sentence"])


def _seconds(journal: Path) -> dict[str, float]:
    """Return the mean seconds of a trial by platform, as an earlier call of a sweep has them."""
    if not journal.exists():
        return {}
    try:
        with Ledger(journal) as ledger:
            return ledger.seconds()
    except LedgerError as error:
        remedy = "; virtbed sweep rebuilds it" if isinstance(error, LedgerDamagedError) else ""
        said = f"no times of earlier trials: {error}{remedy}"
        errors.print(plain(said), highlight=False, markup=False)
        return {}


def _best_samples(plan: Plan, results: Path = REPOSITORY / "results") -> list[dict[str, Any]]:
    """Return what an earlier sweep of a plan tells of its applications' samples per trial.

    Each row has `application`, `scale`, `scenario`, `best` and `sentence`; none without results,
    or without virtbed-analysis.
    """
    if not find_spec("virtbed_analysis"):
        return []
    from virtbed_analysis import best_samples

    asked = {(entry.name, entry.scale, entry.scenario) for entry in plan.applications}
    return [
        row
        for row in best_samples(results / plan.name)
        if (row["application"], row["scale"], row["scenario"]) in asked
    ]


def _cell(trial: Trial) -> dict[str, str | int]:
    """Return what tells the cells of a plan apart, by column."""
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
            help="Leave the first failed trial's instance for inspection, and end; `virtbed clear` "
            "removes it.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help=f"Repeat also trials that failed and began {MOST_ATTEMPTS} times or more.",
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/OF",
            help="Only this share of the replicates, such as 2/3, into a results folder of its "
            "own; `virtbed merge` joins them.",
        ),
    ] = None,
    results: Results = None,
) -> None:
    """Carry a plan out, or finish what is missing of it, and write its report.

    Exit status: 0 every trial done, 1 some failed, 2 refused before anything was made, 4 started
    and cut short (a disk is full, the host cannot be cleared: it says what), 130 interrupted. After
    1, 4 and 130 call again to go on.
    """
    host = bench_of(inventory, limit, extra_vars, hung_after)
    _carry_out(name, host, blocks_per_playbook, replicates, keep, retry_failed, shard, results)


def _carry_out(
    name: str, host: Bench, per_playbook: int = PER_PLAYBOOK, replicates: int | None = None,
    keep: bool = False, retry_failed: bool = False, shard: str | None = None,
    results: Path | None = None,
) -> Path:  # fmt: skip
    """Carry a plan out and write its report; return its folder, or exit with a clear message."""
    run: Sweep | None = None
    try:
        chosen, platforms = planned(name, replicates), load_platforms()
        share = None if shard is None else Shard.parse(shard)
        if share:
            check_number(share.of, chosen)
        check_granted(chosen, host)
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
    if not run.folder.is_dir():  # of a shard without a trial
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
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    as_json: AsJson = False,
) -> None:
    """Find out what this host can resolve: measure twins, and a slowdown that is known.

    Carries the plan out, or what is missing of it, and writes results/PLAN/calibration.json. One
    calibration in twenty fails by chance alone: repeat it before making anything of it.

    Exit status: 0 every check passed, 1 one failed or cannot tell, 2 refused, 4 the sweep was cut
    short, 130 interrupted.
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
                f"hosts {', '.join(several)} found, one needed: a calibration says what one host "
                "can resolve; choose one with --limit, and give the plan of each another name"
            )
        )
    folder = _carry_out(name, bench_host)
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
                f"{content['suspect']} trials suspect; the report names them and says why"
            )
    raise typer.Exit(0 if content["passed"] else TRIALS_FAILED)
