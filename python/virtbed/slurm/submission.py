"""Submission of a job array, after the checks for errors that would occur on every node."""

from __future__ import annotations

import os
from collections.abc import Mapping

from virtbed.ansible import AnsibleError, bench_variables
from virtbed.bench import Bench, BenchError
from virtbed.plan import Plan
from virtbed.slurm.asking import SlurmError, fields, output_of
from virtbed.slurm.inputs import passed
from virtbed.slurm.job import Job
from virtbed_contract.kernel.files import write_text


def check_bench(bench: Bench) -> None:
    """Check that a task would measure the node that it runs on, as root.

    Raises:
        SlurmError: It would measure another machine, or lacks the rights to measure its own.
    """
    try:
        hosts = bench_variables(bench.inventories, bench.limit)
        bench.require_root("on every node, to place instances")
    except (AnsibleError, BenchError) as error:
        raise SlurmError(str(error)) from error
    away = sorted(n for n, host in hosts.items() if host.get("ansible_connection") != "local")
    if away or len(hosts) != 1:
        names = ", ".join(away or sorted(hosts)) or "no host"
        raise SlurmError(
            f"{names} found in the group bench, one host with ansible_connection: local needed: a "
            "task measures the node that it was granted (use inventory/local or, within salloc, "
            "inventory/slurm)"
        )


def check_partition(plan: Plan, name: str | None) -> None:
    """Check that a partition has large enough nodes for a plan, and does not share them.

    Args:
        plan: The plan.
        name: The partition, or several with commas; None for Slurm's default.

    Raises:
        SlurmError: There is no such partition, its nodes are too small, or it shares them.
    """
    lines = output_of("scontrol", "--oneliner", "show", "partition").splitlines()
    rows = [row for line in lines if "PartitionName" in (row := fields(line))]
    known = {row["PartitionName"]: row for row in rows}
    default = [row["PartitionName"] for row in rows if row.get("Default") == "YES"]
    for each in default if name is None else name.split(","):
        if each not in known:
            names = ", ".join(known) or "none"
            raise SlurmError(f"no partition {each} found; there are: {names}")
        _check(plan, known[each])


def _check(plan: Plan, partition: Mapping[str, str]) -> None:
    """Raise SlurmError if a partition, as its fields, shares its nodes or has too small ones."""
    name, shared = partition["PartitionName"], partition.get("OverSubscribe", "")
    if shared.startswith("FORCE"):
        raise SlurmError(
            f"partition {name} has OverSubscribe={shared}: it shares its nodes whatever a job "
            "requests, and other jobs would disturb the measurement; a partition with whole nodes "
            "is needed"
        )
    if "SUSPEND" in (mode := partition.get("PreemptMode", "")):
        raise SlurmError(
            f"partition {name} has PreemptMode={mode}: the instance of a suspended task would keep "
            "running next to the other job; a partition that requeues or cancels (REQUEUE, CANCEL) "
            "or does not preempt (OFF) is needed"
        )
    counts = output_of(
        "sinfo", "--noheader", "--Node", f"--partition={name}", "--format=%c"
    ).split()
    most = max((int(count) for count in counts if count.isdigit()), default=0)
    if most < max(plan.cores):
        raise SlurmError(
            f"partition {name} has nodes of at most {most} CPUs, {max(plan.cores)} needed by the "
            f"largest size of the plan {plan.name}: choose another partition, or lower `cores`"
        )


def submit(job: Job) -> str:
    """Write the script and submit it; return the number of the job.

    Raises:
        SlurmError: Slurm rejects the job, or an earlier one with the same script is still queued
            or running.
        OSError: The script cannot be written.
    """
    script = job.folder / "job.sh"
    # Two tasks with the same shard would measure it twice, and a replicate that is complete on two
    # nodes cannot be merged.
    queued = output_of("squeue", "--noheader", f"--name=virtbed-{job.plan.name}", "--format=%F %o")
    for line in queued.splitlines():
        number, _, command = line.strip().partition(" ")
        if command == str(script):
            raise SlurmError(
                f"job {number} carries {job.plan.name} out into {job.results} already; wait for "
                f"its end (squeue --job {number}), or end it (scancel {number})"
            )
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(script, job.script(), 0o755)
    environment = passed(os.environ, job.options)
    printed = output_of("sbatch", "--parsable", str(script), environment=environment)
    number = printed.strip().partition(";")[0]
    if not number.isdigit():
        raise SlurmError(f"sbatch printed {number[:80]!r}, the number of a job needed")
    return number
