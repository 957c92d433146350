"""A job array submitted: what would fail on every node is refused before."""

from __future__ import annotations

from collections.abc import Mapping

from virtbed.ansible import AnsibleError, bench_variables
from virtbed.bench import Bench, BenchError
from virtbed.plan import Plan
from virtbed.slurm.asking import SlurmError, ask, fields
from virtbed.slurm.job import Job
from virtbed_contract.kernel.files import write_text

NO_ROOT = (
    "on every node, where engines are asked for instances, CPUs are pinned and settings are read. "
    "Without root no platform is measured: rootless Podman and QEMU's sessions are not supported. "
    "What remains: --dry-run prints the script, for an administrator; merge, report, advise, "
    "compare and export need no root. Where the nodes let you become root without a password, give "
    "an inventory with ansible_become: true"
)


def check_bench(bench: Bench) -> None:
    """Check that a task would measure the node that it runs on, as root.

    Raises:
        SlurmError: it would measure another machine, or may not measure its own.
    """
    try:
        hosts = bench_variables(bench.inventories, bench.limit)
        bench.require_root(NO_ROOT)
    except (AnsibleError, BenchError) as error:
        raise SlurmError(str(error)) from error
    away = sorted(n for n, host in hosts.items() if host.get("ansible_connection") != "local")
    if away or len(hosts) != 1:
        found = f"{', '.join(away or sorted(hosts)) or 'no host'} found in the group bench"
        raise SlurmError(
            f"{found}, one host with ansible_connection: local needed: a task measures the node "
            "that it was granted (inventory/local is one; within salloc, inventory/slurm)"
        )


def check_partition(plan: Plan, name: str | None) -> None:
    """Check that a partition has nodes that a plan fits, and gives them to one job alone.

    Args:
        plan: The plan.
        name: The partition, or several with commas; None for Slurm's default.

    Raises:
        SlurmError: there is no such partition, its nodes are too small, or it shares them.
    """
    said = ask("scontrol", "--oneliner", "show", "partition")
    rows = [found for line in said.splitlines() if "PartitionName" in (found := fields(line))]
    known = {row["PartitionName"]: row for row in rows}
    default = [row["PartitionName"] for row in rows if row.get("Default") == "YES"]
    for asked in default if name is None else name.split(","):
        if asked not in known:
            names = ", ".join(known) or "none"
            raise SlurmError(f"no partition {asked} found; there are: {names}")
        _check(plan, known[asked])


def _check(plan: Plan, partition: Mapping[str, str]) -> None:
    name, shared = partition["PartitionName"], partition.get("OverSubscribe", "")
    if shared.startswith("FORCE"):
        raise SlurmError(
            f"partition {name} has OverSubscribe={shared}: its nodes are shared whatever a job "
            "asks for, and others would be measured along; a partition with whole nodes is needed"
        )
    counts = ask("sinfo", "--noheader", "--Node", f"--partition={name}", "--format=%c").split()
    most = max((int(count) for count in counts if count.isdigit()), default=0)
    if most < max(plan.cores):
        raise SlurmError(
            f"partition {name} has nodes of at most {most} CPUs, {max(plan.cores)} needed by the "
            f"largest size of the plan {plan.name}: choose another partition, or lower `cores`"
        )


def submit(job: Job) -> str:
    """Write the script and submit it; return the number of the job.

    Raises:
        SlurmError: Slurm does not take it, or has it still.
        OSError: the script cannot be written.
    """
    script = job.folder / "job.sh"
    # Two tasks with one shard would measure it twice, and what two nodes have whole is not joined.
    queued = ask("squeue", "--noheader", f"--name=virtbed-{job.plan.name}", "--format=%F %o")
    for line in queued.splitlines():
        number, _, command = line.strip().partition(" ")
        if command == str(script):
            raise SlurmError(
                f"job {number} carries {job.plan.name} out into {job.results} already; wait for "
                f"its end (squeue --job {number}), or end it (scancel {number})"
            )
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(script, job.script(), 0o755)
    number = ask("sbatch", "--parsable", str(script)).strip().partition(";")[0]
    if not number.isdigit():
        raise SlurmError(f"sbatch printed {number[:80]!r}, the number of a job needed")
    return number
