"""What the kernel lets this process use, as it sees it from inside: CPUs, quota, memory, clock."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Any

from virtbed_contract.kernel import cgroups, processes, readings, settings, topology
from virtbed_contract.kernel.cpus import allowed
from virtbed_contract.kernel.isa import ISA as ISA
from virtbed_contract.kernel.isa import read_isa


def read_environment(intra_op: int, inter_op: int, root: Path = Path("/")) -> dict[str, Any]:
    """Describe the environment of this process, as the result's ``environment``.

    Args:
        intra_op: The application's threads within one operation; 0 is the framework's choice.
        inter_op: The application's operations at a time; 0 is the framework's choice.
        root: Where ``proc`` and ``sys`` are found.
    """
    return {
        **readings.process(root),
        # What the system calls say, which also answer where the files are missing (gVisor).
        "cpus_visible": os.cpu_count(),
        "cpus_allowed_list": allowed(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "threads": {
            "intra_op": intra_op,
            "inter_op": inter_op,
            "process_threads": len(processes.threads(proc=root / "proc")),
            "usable_cores": usable_cores(root),
        },
        "isa": read_isa(root),
        "cpu_model": topology.cpu_model(root),
        "turbo": topology.turbo(root),
        "mitigations": topology.mitigations(root),
        "kernel_settings": settings.kernel(root),
        "process_settings": settings.process(root, os.environ),
    }


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process can really use: its affinity, cpuset and CPU quota.

    A quota of 1.5 CPUs makes 1: a second thread would spend half its time throttled. A cpuset
    shows in the affinity. A sandbox's kernel without a CPU controller cannot show the quota that
    its host enforces: whoever starts this process then says it, in VIRTBED_QUOTA_CPUS.
    """
    given = os.environ.get("VIRTBED_QUOTA_CPUS")
    hidden = cgroups.version(root) is None
    quota = float(given) if given and hidden else cgroups.quota_cpus(root)
    affinity = len(os.sched_getaffinity(0))
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def read_memory_kib(root: Path = Path("/")) -> dict[str, int]:
    """Read the resident set of this process in KiB, VmRSS, and its peak, VmHWM.

    The peak is since the process was executed. That of `getrusage` would be that of whoever
    executed it, if larger: it stands in only where a kernel (gVisor's) has no VmHWM, and counts
    for the process alone.
    """
    status = processes.status(proc=root / "proc")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "VmRSS": int(status["VmRSS"].split()[0]),
        "VmHWM": int(status["VmHWM"].split()[0]) if "VmHWM" in status else peak_kib,
    }
