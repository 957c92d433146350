"""The nodes that Slurm granted to a job, and the check that a sweep may measure them.

A sweep needs whole nodes: another job on the same node would disturb the measurement, and tuning or
taking CPUs offline would affect that job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virtbed.ansible import AnsibleError, bench_variables
from virtbed.bench import Bench
from virtbed.plan import Plan
from virtbed.slurm.asking import SlurmError, fields, output_of
from virtbed_contract.kernel.cpus import format_cpu_list

_COUNT = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?", re.ASCII)
_REMEDY = "submit with --exclusive"


@dataclass(frozen=True)
class Node:
    """A node of a job.

    Attributes:
        name: Its name in Slurm.
        address: Its address for SSH.
        granted: The number of its CPUs that were granted to the job.
        cpus: The number of its CPUs that jobs can use.
    """

    name: str
    address: str
    granted: int
    cpus: int


def job_of(environment: Mapping[str, str]) -> str:
    """Return the id of the job that an environment belongs to; empty outside of a job.

    A task of an array is ``JOB_TASK``.
    """
    job = environment.get("SLURM_JOB_ID", "")
    array, task = (environment.get(f"SLURM_ARRAY_{name}", "") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else job


def allocated(environment: Mapping[str, str]) -> list[Node]:
    """Return the nodes of the job that an environment belongs to.

    Raises:
        SlurmError: It belongs to no job, or to one that does not run, or Slurm does not state the
            job's nodes.
    """
    job, listed = job_of(environment), environment.get("SLURM_JOB_NODELIST", "")
    if "SLURM_JOB_ID" not in environment or not listed:
        raise SlurmError(
            "no SLURM_JOB_ID and SLURM_JOB_NODELIST found, those of an allocation needed: call it "
            "within salloc or sbatch"
        )
    # Query the task by JOB_TASK: SLURM_JOB_ID of an array's last task is the number of the array,
    # which would show all tasks.
    line = output_of("scontrol", "--oneliner", "show", "job", job, environment=environment)
    if (state := fields(line).get("JobState")) != "RUNNING":
        raise SlurmError(
            f"job {job} is {state}, RUNNING needed: its nodes may belong to another job by now; "
            "leave this shell, and allocate nodes again"
        )
    names = output_of("scontrol", "show", "hostnames", listed, environment=environment).split()
    counts = per_node(environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    if len(counts) != len(names):
        raise SlurmError(
            f"SLURM_JOB_CPUS_PER_NODE {environment.get('SLURM_JOB_CPUS_PER_NODE')!r} found, the "
            f"CPUs of {len(names)} nodes ({listed}) needed"
        )
    return [_node(name, count, environment) for name, count in zip(names, counts, strict=True)]


def per_node(text: str) -> list[int]:
    """Return one number per node from Slurm's abbreviated list; empty if it cannot be parsed.

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
    """Return a node with its address and number of CPUs, as Slurm knows them."""
    line = output_of("scontrol", "--oneliner", "show", "node", name, environment=environment)
    known = fields(line)
    # CPUEfctv, of newer versions, leaves out the CPUs that are reserved for Slurm itself.
    cpus = known.get("CPUEfctv", known.get("CPUTot", ""))
    if not cpus.isdigit():
        raise SlurmError(f"scontrol show node {name}: no CPUTot found, its number of CPUs needed")
    return Node(name, known.get("NodeAddr", name), granted, int(cpus))


def whole(job: str, nodes: Sequence[Node]) -> tuple[list[Node], list[str]]:
    """Return the nodes of which a job has all CPUs, and the reason why each other one is unusable.

    Raises:
        SlurmError: There is no such node.
    """
    parts = [node for node in nodes if node.granted < node.cpus]
    reasons = [
        f"{node.granted} of {node.cpus} CPUs of {node.name} granted to job {job}, the whole node "
        f"needed: other jobs may run next to the measured instance; {_REMEDY}"
        for node in parts
    ]
    if len(parts) == len(nodes):
        raise SlurmError(". ".join(reasons))
    return [node for node in nodes if node not in parts], reasons


def check_granted(plan: Plan, bench: Bench, environment: Mapping[str, str] = os.environ) -> None:
    """Check, within a job, that a plan measures nodes that were granted, and fits them.

    Outside of a job it checks nothing. Bench hosts other than this machine are checked elsewhere:
    by the inventory plugin `virtbed_slurm`, and for their size when they are admitted, so that one
    that is too small is set aside and the others go on.

    Args:
        plan: The plan.
        bench: The bench host as the user names it.
        environment: The environment of this process.

    Raises:
        SlurmError: This machine is no node of the job, was granted in part only, or has too few
            CPUs.
    """
    job = job_of(environment)
    if not job:
        return
    hosts = _hosts(bench)
    if not any(host.get("ansible_connection") == "local" for host in hosts):
        return
    nodes = allocated(environment)
    own = next((n for n in nodes if n.name == environment.get("SLURMD_NODENAME")), None)
    if own is None:
        raise SlurmError(
            f"this machine is no node of Slurm's job {job} ({', '.join(n.name for n in nodes)}), "
            "but it is the one that would be measured: pass --inventory inventory/slurm, or leave "
            "the allocation"
        )
    whole(job, [own])
    if len(hosts) == 1:
        check_size(plan, job, own.name, frozenset(os.sched_getaffinity(0)))


def check_size(plan: Plan, job: str, node: str, cpus: frozenset[int]) -> None:
    """Raise SlurmError if a job has fewer CPUs on its node than the largest size of a plan."""
    if len(cpus) < max(plan.cores):
        raise SlurmError(
            f"CPUs {format_cpu_list(cpus)} of {node} granted to job {job}, {len(cpus)} in all; "
            f"{max(plan.cores)} needed by the largest size of the plan {plan.name}: request larger "
            f"nodes (--mincpus={max(plan.cores)}, --constraint), or lower `cores`"
        )


def _hosts(bench: Bench) -> list[Mapping[str, Any]]:
    """Return the inventory variables of each bench host."""
    try:
        return list(bench_variables(bench.inventories, bench.limit).values())
    except AnsibleError as error:
        raise SlurmError(str(error)) from error
