"""The nodes that a job was granted, and whether a sweep may measure them.

A sweep needs whole nodes: another job on the same node would be measured along with it, and tuning
or taking CPUs offline would reach that job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from virtbed.ansible import AnsibleError, bench_variables
from virtbed.bench import Bench
from virtbed.plan import Plan
from virtbed.slurm.asking import SlurmError, ask, fields
from virtbed_contract.kernel.cpus import format_cpu_list

_COUNT = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?", re.ASCII)
_HOW = "submit with --exclusive"


@dataclass(frozen=True)
class Node:
    """A node of a job.

    Attributes:
        name: Slurm's name for it.
        address: How it is reached.
        granted: How many of its CPUs the job was granted.
        cpus: How many it has for jobs.
    """

    name: str
    address: str
    granted: int
    cpus: int


def job_of(environment: Mapping[str, str]) -> str:
    """Return the job of an environment, in words; empty outside of one."""
    job = environment.get("SLURM_JOB_ID", "")
    array, task = (environment.get(f"SLURM_ARRAY_{name}", "") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else job


def allocated(environment: Mapping[str, str]) -> list[Node]:
    """Return the nodes of the job of an environment.

    Raises:
        SlurmError: it is of no job, or of one that has ended, or Slurm does not say what its nodes
            are.
    """
    job, listed = job_of(environment), environment.get("SLURM_JOB_NODELIST", "")
    if "SLURM_JOB_ID" not in environment or not listed:
        raise SlurmError(
            "no SLURM_JOB_ID and SLURM_JOB_NODELIST found, those of an allocation needed: call it "
            "within salloc or sbatch"
        )
    # By the task's own name: of an array's last task the number is the array's, which shows all.
    said = ask("scontrol", "--oneliner", "show", "job", job, environment=environment)
    if (state := fields(said).get("JobState")) != "RUNNING":
        raise SlurmError(
            f"job {job} is {state}, RUNNING needed: its nodes may be another job's by now; leave "
            "this shell, and allocate nodes again"
        )
    names = ask("scontrol", "show", "hostnames", listed, environment=environment).split()
    counts = per_node(environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    if len(counts) != len(names):
        raise SlurmError(
            f"SLURM_JOB_CPUS_PER_NODE {environment.get('SLURM_JOB_CPUS_PER_NODE')!r} found, the "
            f"CPUs of {len(names)} nodes ({listed}) needed"
        )
    return [_node(name, count, environment) for name, count in zip(names, counts, strict=True)]


def per_node(text: str) -> list[int]:
    """Return the numbers that Slurm shortens.

    Example:
        >>> per_node("8(x2),4")
        [8, 8, 4]
    """
    numbers = []
    for part in text.split(","):
        match = _COUNT.fullmatch(part.strip())
        if match is None:
            return []
        numbers += [int(match[1])] * int(match[2] or 1)
    return numbers


def _node(name: str, granted: int, environment: Mapping[str, str]) -> Node:
    said = ask("scontrol", "--oneliner", "show", "node", name, environment=environment)
    found = fields(said)
    cpus = found.get("CPUEfctv", found.get("CPUTot", ""))  # without those kept for Slurm itself
    if not cpus.isdigit():
        raise SlurmError(f"scontrol show node {name}: no CPUTot found, its number of CPUs needed")
    return Node(name, found.get("NodeAddr", name), granted, int(cpus))


def check_whole(job: str, nodes: Sequence[Node]) -> None:
    """Raise SlurmError unless a job has all CPUs of each of its nodes."""
    for node in nodes:
        if node.granted < node.cpus:
            raise SlurmError(
                f"{node.granted} of {node.cpus} CPUs of {node.name} granted to job {job}, the "
                f"whole node needed: others may run next to what is measured; {_HOW}"
            )


def check_granted(plan: Plan, bench: Bench, environment: Mapping[str, str] = os.environ) -> None:
    """Check, within a job, that a plan measures what the job was granted, and fits it.

    Outside of a job, and of hosts that are not this machine, nothing is checked: those of the
    inventory plugin `virtbed_slurm` were checked by it.

    Args:
        plan: The plan.
        bench: The bench host as the user names it.
        environment: Of this process.

    Raises:
        SlurmError: this machine is no node of the job, or is so in part, or has too few CPUs.
    """
    job = job_of(environment)
    if not job or not _is_here(bench):
        return
    nodes = allocated(environment)
    here = next((n for n in nodes if n.name == environment.get("SLURMD_NODENAME")), None)
    if here is None:
        raise SlurmError(
            f"this machine is no node of Slurm's job {job} ({', '.join(n.name for n in nodes)}), "
            "and would be measured: name the inventory inventory/slurm, or leave the allocation"
        )
    check_whole(job, [here])
    check_size(plan, job, here.name, frozenset(os.sched_getaffinity(0)))


def check_size(plan: Plan, job: str, node: str, cpus: frozenset[int]) -> None:
    """Raise SlurmError if a job's CPUs on its node are fewer than the largest size of a plan."""
    if len(cpus) < max(plan.cores):
        raise SlurmError(
            f"CPUs {format_cpu_list(cpus)} of {node} granted to job {job}, {len(cpus)} in all; "
            f"{max(plan.cores)} needed by the largest size of the plan {plan.name}: ask for larger "
            f"nodes (--mincpus={max(plan.cores)}, --constraint), or lower `cores`"
        )


def _is_here(bench: Bench) -> bool:
    try:
        hosts = bench_variables(bench.inventories, bench.limit).values()
    except AnsibleError as error:
        raise SlurmError(str(error)) from error
    return any(host.get("ansible_connection") == "local" for host in hosts)
