"""Terminal output of `virtbed plan`: cells on a host, their CPUs, and cells that cannot run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from virtbed.plan import Plan
from virtbed.render.table import Table
from virtbed.trial import Trial
from virtbed_contract.documents import Platform
from virtbed_contract.factors import FACTORS, SCENARIOS
from virtbed_contract.neighbours import placed_in_words
from virtbed_contract.remedies import setup
from virtbed_contract.sweep import NotRun, PlannedPlacement


def plan_table(title: str, trials: Iterable[Trial], entries: Mapping[str, Platform]) -> Table:
    """Return a table with one row per cell of a plan, and the number of its trials."""
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
        words, code = entries[platform].in_words(mode), f"{platform} {mode}"
        table.add_row(application, words, code, str(cores), guests, str(cells[cell]))
    return table


def hours_line(plan: Plan, seconds: float) -> str:
    """Return the line about a plan's host-hours, and how several hosts could share them."""
    hours, number = seconds / 3600, plan.replicates
    most = "at most " if plan.precision is not None else ""
    if number == 1:
        return f"host-hours: {most}{_hours(hours)}, for one replicate"
    line = f"host-hours: {most}{_hours(hours)}, for {number} replicates"
    each = _hours(hours / number)
    return (
        f"{line}; {number} hosts that are alike would take {each} (virtbed sweep --shard, or "
        "virtbed slurm)"
    )


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.2g} h"


def placement_table(placements: Iterable[PlannedPlacement]) -> Table:
    """Return a table with one row per size: the CPUs of pinned instances, and why these."""
    table = Table("CPUs of pinned instances, the same on every platform", apart=True)
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
    """Return a trial's cell: application with settings, platform, mode, cores, how guests run."""
    instance = trial.instance
    settings = [trial.application, trial.scale]
    settings += [trial.scenario] if trial.scenario != SCENARIOS[0] else []
    settings += [factor.words(trial.factors[factor.name]) for factor in FACTORS]
    guests = {"none": "", "kvm": "KVM", "tcg": "TCG, emulated"}[instance.accelerator]
    subject = ", ".join(filter(None, settings))
    return subject, instance.platform, instance.mode, instance.cores, guests


def not_run_lines(
    left_out: Iterable[NotRun], entries: Mapping[str, Platform], plan: str
) -> Iterator[str]:
    """Yield a line per reason for which the host cannot run combinations, with the remedy.

    Args:
        left_out: The combinations.
        entries: The platforms by name.
        plan: Name or path of the plan, for the remedy `make setup`.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for row in left_out:
        entry = entries.get(row.platform)
        words = f"{entry.in_words(row.mode) if row.mode else entry.words} (" if entry else ""
        code = f"{row.platform}{f' {row.mode}' if row.mode else ''}"
        code += f", c{row.cores:02d}" if row.cores else ""
        name = f"{words}{code}{')' if words else ''}"
        alike.setdefault((row.reason, row.remedy), []).append(name)
    for (reason, remedy), names in alike.items():
        yield f"not run: {'; '.join(names)}: {reason}; {remedy.replace(setup(), setup(plan))}"
