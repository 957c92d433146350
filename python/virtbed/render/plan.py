"""A plan in a terminal: its cells on a host, where they run, and what the host cannot run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from virtbed.plan import Plan
from virtbed.render.table import Table
from virtbed.trial import Trial
from virtbed_contract.documents import Platform
from virtbed_contract.factors import FACTORS, SCENARIOS
from virtbed_contract.neighbours import placed_in_words
from virtbed_contract.sweep import NotRun, PlannedPlacement


def plan_table(title: str, trials: Iterable[Trial], entries: Mapping[str, Platform]) -> Table:
    """Return one row per cell of a plan, with the number of its trials."""
    table = Table(title)
    table.add_column("application", section=True)
    for heading in ("platform", "code"):
        table.add_column(heading)
    table.add_column("cores", number=True)
    table.add_column("guests by")
    table.add_column("trials", number=True)
    order = [*entries]
    cells = Counter(_cell(trial) for trial in trials)
    for cell in sorted(cells, key=lambda cell: (cell[0], order.index(cell[1]), *cell[2:])):
        application, platform, mode, cores, guests = cell
        said, code = entries[platform].in_words(mode), f"{platform} {mode}"
        table.add_row(application, said, code, str(cores), guests, str(cells[cell]))
    return table


def hours_line(plan: Plan, seconds: float) -> str:
    """Return what a plan costs in hours of hosts, and who may share it."""
    hours, number = seconds / 3600, plan.replicates
    most = "at most " if plan.precision is not None else ""
    if number == 1:
        return f"host-hours: {most}{_hours(hours)}, of one replicate"
    line = f"host-hours: {most}{_hours(hours)}, of {number} replicates"
    each = _hours(hours / number)
    return f"{line}; {number} hosts that are alike share them in {each}: --shard, or virtbed slurm"


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.2g} h"


def placement_table(placements: Iterable[PlannedPlacement]) -> Table:
    """Return one row per size: where pinned instances of every platform run, and why there."""
    table = Table("Where pinned instances run, on every platform alike", apart=True)
    table.add_column("cores", number=True)
    for heading in ("CPUs", "memory node", "housekeeping"):
        table.add_column(heading)
    placements = list(placements)
    several = any(placed.neighbours for placed in placements)
    if several:
        table.add_column("neighbours")
    for heading in ("shared caches", "why"):
        table.add_column(heading, measured=True)
    for placed in placements:
        where = [placed_in_words(n.cpus, n.shares, n.housekeeping) for n in placed.neighbours]
        each = [", ".join(where) or "no room"] * several
        table.add_row(
            str(placed.cores), placed.cpus, placed.mems, placed.housekeeping, *each, placed.caches,
            "; ".join(placed.reasons),
        )  # fmt: skip
    return table


def _cell(trial: Trial) -> tuple[str, str, str, int, str]:
    instance = trial.instance
    settings = [trial.application, trial.scale]
    settings += [trial.scenario] if trial.scenario != SCENARIOS[0] else []
    settings += [factor.words(trial.factors[factor.name]) for factor in FACTORS]
    guests = {"none": "", "kvm": "KVM", "tcg": "TCG, emulated"}[instance.accelerator]
    subject = ", ".join(filter(None, settings))
    return subject, instance.platform, instance.mode, instance.cores, guests


def not_run_lines(left_out: Iterable[NotRun], entries: Mapping[str, Platform]) -> Iterator[str]:
    """Give a line for whatever the host cannot run: what, why, and what would change that."""
    for left in left_out:
        entry = entries.get(left.platform)
        said = f"{entry.in_words(left.mode) if left.mode else entry.words} (" if entry else ""
        code = f"{left.platform}{f' {left.mode}' if left.mode else ''}"
        code += f", c{left.cores:02d}" if left.cores else ""
        yield f"not run: {said}{code}{')' if said else ''}: {left.reason}; {left.remedy}"
