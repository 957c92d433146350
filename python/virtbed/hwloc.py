"""What hwloc says of a machine: CPUs, kinds of core, caches, nodes and cards, out of its XML.

Pure: the text that ``lstopo-no-graphics --of xml`` printed on the bench host in, a `Machine` out.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET  # nosec B405 # entities are refused
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from virtbed_contract.kernel.topology import MOST_HWLOC_BYTES

MOST_DEPTH = 200
ALIKE = 0.9
"""Cores are of one kind whose clock rates and capacities differ by no more than a tenth: cores that
may boost a little higher than others are of the same kind."""
SPECIAL = ("hbm", "mcdram", "gpu", "spm", "nvm", "cxl", "dax")
"""Parts of hwloc's names of memory that is not DRAM."""
ACCELERATORS = ("0302", "12")
"""First digits of PCI classes: a display controller without a screen, an accelerator."""
NVIDIA = "[10de:"


class TopologyError(ValueError):
    """hwloc's account of a machine is missing or makes no sense; the message says what to do."""


@dataclass(frozen=True)
class Kind:
    """One kind of core, and every CPU of that kind."""

    cpus: frozenset[int]
    words: str


@dataclass(frozen=True)
class Domain:
    """CPUs that share something beyond a core: a cache, a cluster, a die, a node, a package."""

    cpus: frozenset[int]
    name: str
    cache: bool = False
    size_kib: int = 0


@dataclass(frozen=True)
class Node:
    """One NUMA node: the CPUs near it, perhaps none, and its memory, perhaps none.

    `own` says that the kernel has CPUs of the node's own; `memory_mib` is None where no node of the
    machine tells its memory.
    """

    node: int
    cpus: frozenset[int]
    memory_mib: int | None
    own: bool = True
    dram: bool = True


@dataclass(frozen=True)
class Machine:
    """A machine as placement sees it.

    Attributes:
        cores: The online threads of each core, in order of the lowest.
        kinds: The kinds of core, the fastest first.
        domains: What cores share, the largest first; each has more than one core.
        nodes: NUMA nodes by number.
        distances: Of pairs of nodes, in the firmware's unit; empty where it does not tell.
        cards: CPUs near each GPU or accelerator, by its PCI address; not the screen of a server's
            management controller.
    """

    cores: tuple[tuple[int, ...], ...]
    kinds: tuple[Kind, ...]
    domains: tuple[Domain, ...]
    nodes: tuple[Node, ...]
    distances: Mapping[tuple[int, int], int]
    cards: Mapping[str, frozenset[int]]
    packages: int = 1

    @property
    def cpus(self) -> frozenset[int]:
        """Every online CPU."""
        return frozenset(cpu for core in self.cores for cpu in core)

    @property
    def smt(self) -> bool:
        """Whether any core has two online threads."""
        return any(len(core) > 1 for core in self.cores)


def read(
    xml: str, with_cpus: Collection[int] = (), parts: Mapping[int, str] | None = None
) -> Machine:
    """Read hwloc's XML.

    Args:
        xml: What lstopo printed, of hwloc 2.
        with_cpus: The nodes that have CPUs of their own, as the kernel lists them; empty if it does
            not.
        parts: What each CPU is, where the processor tells (Arm's part number).

    Raises:
        TopologyError: it is no such text.
    """
    root = _root(xml)
    objects = list(_objects(root))
    cores = _cores(objects)
    cpus = frozenset(cpu for core in cores for cpu in core)
    if not cpus:
        raise TopologyError("hwloc's XML names no CPU; run `lstopo-no-graphics` on the host")
    return Machine(
        cores=cores,
        kinds=_kinds(root, cpus, parts or {}),
        domains=_domains(objects, cores),
        nodes=_nodes(objects, set(with_cpus), cpus),
        distances=_distances(root),
        cards=_cards(objects, cpus),
        packages=max(1, sum(each.get("type") == "Package" for each, _ in objects)),
    )


def _root(xml: str) -> ET.Element:
    if len(xml) > MOST_HWLOC_BYTES:
        raise TopologyError(
            f"hwloc's XML has {len(xml)} characters, {MOST_HWLOC_BYTES} at most needed"
        )
    if "<!ENTITY" in xml:
        raise TopologyError("hwloc's XML defines entities, which hwloc does not")
    try:
        root = ET.fromstring(xml)  # nosec B314 # entities are refused above
    except ET.ParseError as error:
        raise TopologyError(f"hwloc's output is no XML: {error}") from error
    if root.tag != "topology" or not (root.get("version") or "").startswith(("2", "3")):
        raise TopologyError(
            f"<{root.tag}> of version {root.get('version')} found, hwloc's <topology> of version 2 "
            "needed; install Debian's hwloc-nox on the host"
        )
    return root


def _objects(root: ET.Element) -> Iterator[tuple[ET.Element, frozenset[int]]]:
    """Give every object with the CPUs of the nearest object around it that has any."""
    pending: list[tuple[ET.Element, frozenset[int], int]] = [
        (each, frozenset(), 0) for each in reversed(root.findall("object"))
    ]
    while pending:
        each, around, depth = pending.pop()
        if depth > MOST_DEPTH:
            raise TopologyError(f"hwloc's objects are nested more than {MOST_DEPTH} deep")
        here = parse_set(each.get("cpuset")) if each.get("cpuset") else around
        yield each, here
        pending += [(child, here, depth + 1) for child in reversed(each.findall("object"))]


def parse_set(text: str | None) -> frozenset[int]:
    """Read hwloc's bitmap: words of 32 bits in hex, the highest first; an empty one is zero.

    >>> sorted(parse_set("0x00000001,,0x3"))
    [0, 1, 64]
    """
    words = (text or "").split(",")
    if words[0].startswith("0xf..."):  # everything from here up, of a set without end
        words = words[1:]
    number = 0
    try:
        for word in words:
            number = number << 32 | (int(word, 16) if word else 0)
    except ValueError as error:
        raise TopologyError(f"{str(text)[:80]!r} is no set of CPUs of hwloc's") from error
    digits = bin(number)[:1:-1]
    return frozenset(place for place, digit in enumerate(digits) if digit == "1")


def _number(element: ET.Element, name: str) -> int:
    text = element.get(name) or "0"
    if not text.isdigit():
        raise TopologyError(f"{name}={text[:40]!r} found in hwloc's XML, a number needed")
    return int(text)


def _infos(element: ET.Element) -> dict[str, str]:
    return {each.get("name") or "": each.get("value") or "" for each in element.findall("info")}


def _cores(objects: Iterable[tuple[ET.Element, frozenset[int]]]) -> tuple[tuple[int, ...], ...]:
    """Return the threads of each core; a thread outside any core is one of its own."""
    cores, threads = set(), set()
    for each, cpus in objects:
        if each.get("type") == "Core" and cpus:
            cores.add(tuple(sorted(cpus)))
        elif each.get("type") == "PU":
            threads.add(_number(each, "os_index"))
    found = {tuple(cpu for cpu in core if cpu in threads) for core in cores} - {()}
    inside = {cpu for core in found for cpu in core}
    return tuple(sorted(found | {(cpu,) for cpu in threads - inside}))


_SHARED = {"Package": "package", "Die": "die", "Group": "group", "NUMANode": "node"}


def _domains(
    objects: Iterable[tuple[ET.Element, frozenset[int]]], cores: Iterable[tuple[int, ...]]
) -> tuple[Domain, ...]:
    core_of = {cpu: core for core in cores for cpu in core}
    found: dict[tuple[frozenset[int], bool], Domain] = {}
    for each, whole in objects:
        kind = each.get("type") or ""
        cache = kind.startswith("L") and kind.endswith("Cache") and not kind.startswith("L1")
        cpus = frozenset(cpu for cpu in whole if cpu in core_of)
        # Memory is bound by node, and a node of memory only is near CPUs that are another's.
        if not (cache or kind in _SHARED) or len({core_of[cpu] for cpu in cpus}) < 2:
            continue
        name = kind.removesuffix("Cache") if cache else _SHARED[kind]
        if kind == "Group":
            name = (each.get("subtype") or "group").lower()
        domain = Domain(cpus, name, cache, _number(each, "cache_size") // 1024 if cache else 0)
        # Of two with the same CPUs, the first is the outer one; a node says more than a group.
        if found.setdefault((cpus, cache), domain).name == "group":
            found[cpus, cache] = domain
    return tuple(sorted(found.values(), key=lambda d: (-len(d.cpus), min(d.cpus), d.cache)))


def _nodes(
    objects: Iterable[tuple[ET.Element, frozenset[int]]], with_cpus: set[int], cpus: frozenset[int]
) -> tuple[Node, ...]:
    found: list[Node] = []
    for each, near in objects:
        if each.get("type") != "NUMANode":
            continue
        infos = _infos(each)
        said = " ".join((each.get("subtype") or "", infos.get("MemoryTier", ""))).lower()
        special = any(word in said for word in SPECIAL) or any("DAX" in name for name in infos)
        number, mib = _number(each, "os_index"), _number(each, "local_memory") // 2**20
        near &= cpus
        own = number in with_cpus if with_cpus else bool(near)
        found.append(Node(number, near, mib, own and bool(near), not special))
    found.sort(key=lambda node: (not node.dram, node.node))
    if not with_cpus:
        # A CPU is of one node; hwloc puts memory without CPUs next to the node nearest to it.
        taken: set[int] = set()
        for place, node in enumerate(found):
            found[place] = replace(node, own=node.own and not node.cpus & taken)
            taken |= node.cpus
    if not any(node.memory_mib for node in found):
        found = [replace(node, memory_mib=None) for node in found]
    return tuple(sorted(found, key=lambda node: node.node))


def _distances(root: ET.Element) -> dict[tuple[int, int], int]:
    for each in root.findall("distances2"):
        if each.get("type") != "NUMANode" or each.get("indexing") != "os":
            continue
        try:
            nodes = [int(n) for part in each.findall("indexes") for n in (part.text or "").split()]
            values = [int(n) for p in each.findall("u64values") for n in (p.text or "").split()]
        except ValueError as error:
            raise TopologyError(f"distances of nodes in hwloc's XML: {error}") from error
        if len(values) == len(nodes) ** 2:
            pairs = [(a, b) for a in nodes for b in nodes]
            return dict(zip(pairs, values, strict=True))
    return {}


def _cards(
    objects: Iterable[tuple[ET.Element, frozenset[int]]], cpus: frozenset[int]
) -> dict[str, frozenset[int]]:
    found = {}
    for each, near in objects:
        what = each.get("pci_type") or ""
        if what.startswith(ACCELERATORS) or (what.startswith("03") and NVIDIA in what):
            found[each.get("pci_busid") or ""] = near & cpus
    return found


@dataclass(frozen=True)
class _Seen:
    """What hwloc and the processor tell of some like CPUs."""

    cpus: frozenset[int]
    type: str
    part: str
    capacity: int
    max_mhz: int
    base_mhz: int

    def like(self, other: _Seen) -> bool:
        """Return whether these are one kind of core."""
        rates = (
            (self.capacity, other.capacity),
            (self.max_mhz, other.max_mhz),
            (self.base_mhz, other.base_mhz),
        )
        return (self.type, self.part) == (other.type, other.part) and all(
            min(pair) >= ALIKE * max(pair) for pair in rates if all(pair)
        )


def _kinds(root: ET.Element, cpus: frozenset[int], parts: Mapping[int, str]) -> tuple[Kind, ...]:
    """Return the kinds of core, the fastest first."""
    seen: list[_Seen] = []
    for each in root.findall("cpukind"):
        of, infos = parse_set(each.get("cpuset")) & cpus, _infos(each)
        names = ("LinuxCapacity", "FrequencyMaxMHz", "FrequencyBaseMHz")
        rates = (int(infos[n]) if infos.get(n, "").isdigit() else 0 for n in names)
        seen += _by_part(of, parts, infos.get("CoreType", ""), *rates)
    rest = cpus.difference(*(each.cpus for each in seen))
    seen += _by_part(rest, parts, "", 0, 0, 0)
    groups: list[list[_Seen]] = []
    for one in seen:
        alike = [group for group in groups if any(one.like(other) for other in group)]
        groups = [group for group in groups if group not in alike]
        groups.append([one, *(other for group in alike for other in group)])
    # A name counts before a rate: an efficient core may be allowed a high one.
    groups.sort(key=lambda group: min(min(each.cpus) for each in group))
    groups.sort(key=_speed, reverse=True)
    return tuple(
        Kind(frozenset().union(*(each.cpus for each in group)), _words(group)) for group in groups
    )


def _by_part(
    cpus: Iterable[int], parts: Mapping[int, str], kind: str, capacity: int, top: int, base: int
) -> Iterator[_Seen]:
    of: dict[str, set[int]] = {}
    for cpu in sorted(cpus):
        of.setdefault(parts.get(cpu, ""), set()).add(cpu)
    for part, same in of.items():
        yield _Seen(frozenset(same), kind, part, capacity, top, base)


def _speed(group: list[_Seen]) -> tuple[float, ...]:
    return (
        math.inf if group[0].type == "IntelCore" else 0,
        max(each.capacity for each in group),
        max(each.max_mhz for each in group),
        max(each.base_mhz for each in group),
    )


def _words(group: list[_Seen]) -> str:
    first = group[0]
    parts = [first.type] if first.type else []
    parts += [f"part {first.part}"] if first.part else []
    for value, words in (
        (max(each.capacity for each in group), "capacity {}"),
        (max(each.max_mhz for each in group), "up to {} MHz"),
    ):
        parts += [words.format(value)] if value else []
    return ", ".join(parts)
