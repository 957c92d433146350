"""Made-up machines, as hwloc's XML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def mask(cpus: Iterable[int]) -> str:
    """Return a set of CPUs as hwloc writes it."""
    number, words = sum(1 << cpu for cpu in cpus), []
    while number or not words:
        words.append(f"0x{number & 0xFFFFFFFF:08x}")
        number >>= 32
    return ",".join(reversed(words))


def thing(kind: str, cpus: Sequence[int], *inside: str, **more: object) -> str:
    """Return one object of hwloc's, around others."""
    said = "".join(f' {name}="{value}"' for name, value in more.items())
    return f'<object type="{kind}" cpuset="{mask(cpus)}"{said}>{"".join(inside)}</object>'


def node(number: int, cpus: Sequence[int], memory_mib: int, **more: object) -> str:
    return thing("NUMANode", cpus, os_index=number, local_memory=memory_mib * 2**20, **more)


def core(*threads: int) -> str:
    return thing("Core", threads, *(thing("PU", [cpu], os_index=cpu) for cpu in threads))


def cores(cpus: Iterable[int], threads: int = 1, apart: int = 0) -> str:
    """Return the cores whose first threads these are; second threads are numbered `apart` on."""
    return "".join(core(*(cpu + n * apart for n in range(threads))) for cpu in cpus)


def kind(cpus: Iterable[int], **infos: object) -> str:
    said = "".join(f'<info name="{name}" value="{value}"/>' for name, value in infos.items())
    return f'<cpukind cpuset="{mask(cpus)}">{said}</cpukind>'


def distances(rows: Mapping[int, Sequence[int]]) -> str:
    values = " ".join(str(value) for row in rows.values() for value in row)
    return (
        f'<distances2 type="NUMANode" nbobjs="{len(rows)}" indexing="os"><indexes>'
        f"{' '.join(map(str, rows))}</indexes><u64values>{values}</u64values></distances2>"
    )


def machine(cpus: Sequence[int], *inside: str, outside: str = "") -> str:
    """Return a whole machine; what is not an object (kinds, distances) goes next to the objects."""
    return f'<topology version="2.0">{thing("Machine", cpus, *inside)}{outside}</topology>'


def flat(cpus: int, memory_mib: int = 9000) -> str:
    """Return a machine of one node and one last-level cache, such as the one that tests run on."""
    every = range(cpus)
    shared = thing("L3Cache", every, cores(every), cache_size=2**25)
    return machine(every, thing("Package", every, node(0, every, memory_mib), shared))


def facts(xml: str, cpus: int | Sequence[int], **more: Any) -> dict[str, Any]:
    """Return what of a host report says which CPUs there are."""
    online = [*range(cpus)] if isinstance(cpus, int) else [*cpus]
    said = {"online": online, "allowed": [*online], "isolated": [], "tickless": [], "parts": {}}
    return {
        "cpu": {**said, **more},
        "hwloc": {"xml": xml, "problem": None},
        "nodes_with_cpus": [],
        "nodes_allowed": [],
    }
