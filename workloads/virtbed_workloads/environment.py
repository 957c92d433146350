"""The environment of this process as it reads it from inside: CPUs, quota, memory, clock, ISA.

The result document carries it, so that it can be compared with the placement read from outside.
"""

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
    """Return the environment of this process, as the result's ``environment``.

    Args:
        intra_op: The application's threads within one operation; 0 is the framework's choice.
        inter_op: The application's concurrent operations; 0 is the framework's choice.
        root: The folder that contains ``proc`` and ``sys``.
    """
    return {
        **readings.process(root),
        # From system calls, because gVisor lacks the files.
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
    """Return the number of cores that affinity, cpuset and CPU quota leave to this process.

    A quota is rounded down: with 1.5 CPUs, a second thread would be throttled half of the time. A
    cpuset is part of the affinity. A sandbox's kernel without a CPU controller does not show the
    quota that its host enforces; there the launcher passes it in VIRTBED_QUOTA_CPUS.
    """
    from_launcher = os.environ.get("VIRTBED_QUOTA_CPUS")
    hidden = cgroups.version(root) is None
    quota = float(from_launcher) if from_launcher and hidden else cgroups.quota_cpus(root)
    affinity = len(os.sched_getaffinity(0))
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def read_memory_kib(root: Path = Path("/")) -> dict[str, int]:
    """Read the resident set of this process in KiB (``VmRSS``) and its peak (``VmHWM``).

    VmHWM counts from the start of the program. The peak of `getrusage` also includes the parent's
    memory before the exec, so it is used only on a kernel without VmHWM (gVisor's), where it
    counts this process alone.
    """
    status = processes.status(proc=root / "proc")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "VmRSS": int(status["VmRSS"].split()[0]),
        "VmHWM": int(status["VmHWM"].split()[0]) if "VmHWM" in status else peak_kib,
    }
