"""CPU topology as a kernel reports it: which CPUs share packages, cores, nodes and caches.

It is read in a guest and for the host CPUs that the guest is pinned to; both are equal if the guest
has the host's topology. `SCRIPT` prints the kernel's files, and `parse` converts the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cpus import format_cpu_list, parse_cpu_list
from .topology import CORES, NODE_CPUS, THREADS

# POSIX sh. It prints the kernel's release and build, then one line per file: "cpu/cpu0/...:value".
SCRIPT = f"""\
uname -r && uname -v && cd /sys/devices/system &&
grep -s . cpu/cpu[0-9]*/{THREADS} cpu/cpu[0-9]*/{CORES} node/node[0-9]*/{NODE_CPUS} \
  cpu/cpu[0-9]*/cache/index[0-9]*/level cpu/cpu[0-9]*/cache/index[0-9]*/type \
  cpu/cpu[0-9]*/cache/index[0-9]*/size cpu/cpu[0-9]*/cache/index[0-9]*/shared_cpu_list
true
"""


def parse(printed: str, cpus: Sequence[int]) -> dict[str, Any]:
    """Return the kernel's release and build, and the topology of some CPUs.

    Args:
        printed: Output of `SCRIPT`.
        cpus: The CPUs, in the order in which a guest numbers them.

    Returns:
        ``kernel`` (with ``release`` and ``version``) and ``shape`` (see `shape`).
    """
    release, version, *lines = printed.replace("\r\n", "\n").splitlines() or ["", ""]
    files = dict(line.partition(":")[::2] for line in lines if ":" in line)
    return {"kernel": {"release": release, "version": version}, "shape": shape(files, cpus)}


def shape(files: Mapping[str, str], cpus: Sequence[int]) -> dict[str, Any]:
    """Return the topology of some CPUs.

    Args:
        files: Content of the kernel's files by their path below /sys/devices/system.
        cpus: The CPUs; the result numbers them from 0 in this order.

    Returns:
        ``packages``, ``cores`` and ``nodes``, each a list with one kernel list of CPUs per package,
        core or node; and ``caches``, such lists by level, type and size ("L1 Data 48K"). CPUs
        outside `cpus` are left out.
    """
    places = {cpu: place for place, cpu in enumerate(cpus)}

    def ours(listed: str) -> str:
        return format_cpu_list(places[cpu] for cpu in parse_cpu_list(listed) if cpu in places)

    def sets(name: str) -> list[str]:
        lists = (files.get(f"cpu/cpu{cpu}/{name}") for cpu in cpus)
        return _sorted(ours(each) for each in lists if each)

    caches: dict[str, set[str]] = {}
    for cpu in cpus:
        start, end = f"cpu/cpu{cpu}/cache/", "/level"
        for folder in (p[: -len(end)] for p in files if p.startswith(start) and p.endswith(end)):
            kind = [files.get(f"{folder}/{name}", "") for name in ("level", "type", "size")]
            shared = ours(files.get(f"{folder}/shared_cpu_list", ""))
            caches.setdefault("L" + " ".join(kind), set()).add(shared)
    nodes = (text for path, text in files.items() if path.startswith("node/"))
    return {
        "packages": sets(CORES),
        "cores": sets(THREADS),
        "nodes": _sorted(filter(None, map(ours, nodes))),
        "caches": {name: _sorted(cpu_lists) for name, cpu_lists in sorted(caches.items())},
    }


def _sorted(sets: Any) -> list[str]:
    return sorted(set(sets), key=lambda each: parse_cpu_list(each) or (-1,))
