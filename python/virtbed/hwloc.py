"""Parse hwloc's XML: the CPUs, kinds of core, caches, nodes and GPUs of a machine.

Pure: the output of ``lstopo-no-graphics --of xml`` on the bench host in, a `Machine` out. The
placement of instances (`virtbed.placement`) is based on it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET  # nosec B405 # entities are refused
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from virtbed.core_kinds import Kind as Kind
from virtbed.core_kinds import Seen, order, split
from virtbed_contract.kernel.topology import MOST_HWLOC_BYTES

MOST_DEPTH = 200
SPECIAL = ("hbm", "mcdram", "gpu", "spm", "nvm", "cxl", "dax")
"""Parts of hwloc's names for memory that is not DRAM."""
ACCELERATORS = ("0302", "12")
"""First digits of PCI classes: 3D controller (a GPU without a screen), processing accelerator."""
NVIDIA = "[10de:"


class TopologyError(ValueError):
    """hwloc's description of a machine is unreadable or contradictory."""


@dataclass(frozen=True)
class Domain:
    """CPUs of several cores that share something: a cache, a cluster, a die, a node, a package.

    Attributes:
        cpus: The CPUs.
        name: What they share: "L3", "cluster", "die", "node", "package", …
        cache: Whether it is a cache.
        size_kib: The cache's size in KiB; 0 if unknown or no cache.
    """

    cpus: frozenset[int]
    name: str
    cache: bool = False
    size_kib: int = 0


@dataclass(frozen=True)
class Node:
    """One NUMA node.

    Attributes:
        node: Its number.
        cpus: The CPUs near it; may be empty.
        memory_mib: Its memory in MiB without reserved huge pages, which no instance can use; may be
            0; None if no node of the machine reports any.
        own: Whether the kernel lists CPUs as the node's own.
        dram: Whether its memory is DRAM, and not HBM, CXL, a GPU's or persistent memory.
    """

    node: int
    cpus: frozenset[int]
    memory_mib: int | None
    own: bool = True
    dram: bool = True


@dataclass(frozen=True)
class Machine:
    """The parts of a machine that matter for placement.

    Attributes:
        cores: The online threads (CPUs) of each core, in order of the lowest.
        kinds: The kinds of core, the fastest first.
        domains: CPUs that share something, the largest first; each has at least two cores.
        nodes: NUMA nodes in order of their numbers.
        distances: Distance of each pair of nodes, in the firmware's unit; empty if not reported.
        cards: CPUs near each GPU or accelerator, by its PCI address. The display of a server's
            management controller is not included.
        packages: Number of packages (sockets).
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
    """Parse hwloc's XML.

    Args:
        xml: The output of lstopo, of hwloc 2 or 3.
        with_cpus: The nodes that the kernel lists as having CPUs; empty if it has no such list.
        parts: The kind of core of each CPU, as `kernel.topology.parts` returns it.

    Raises:
        TopologyError: the text is not hwloc's XML, or names no CPU.
    """
    root = _root(xml)
    objects = list(_objects(root))
    cores = _cores(objects)
    cpus = frozenset(cpu for core in cores for cpu in core)
    if not cpus:
        raise TopologyError("hwloc's XML names no CPU; run `lstopo-no-graphics` on the host")
    return Machine(
        cores=cores,
        kinds=_kinds(root, objects, cpus, parts or {}),
        domains=_domains(objects, cores),
        nodes=_nodes(objects, set(with_cpus), cpus),
        distances=_distances(root),
        cards=_cards(objects, cpus),
        packages=max(1, sum(each.get("type") == "Package" for each, _ in objects)),
    )


def _root(xml: str) -> ET.Element:
    if len(xml) > MOST_HWLOC_BYTES:
        raise TopologyError(
            f"hwloc's XML has {len(xml)} characters, at most {MOST_HWLOC_BYTES} are read"
        )
    if "<!ENTITY" in xml:
        raise TopologyError("hwloc's XML defines entities, which hwloc itself never does")
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
    """Yield every object, each with its CPUs or those of the nearest object around it."""
    pending: list[tuple[ET.Element, frozenset[int], int]] = [
        (each, frozenset(), 0) for each in reversed(root.findall("object"))
    ]
    while pending:
        each, around, depth = pending.pop()
        if depth > MOST_DEPTH:
            raise TopologyError(f"hwloc's objects are nested more than {MOST_DEPTH} deep")
        cpus = parse_set(each.get("cpuset")) if each.get("cpuset") else around
        yield each, cpus
        pending += [(child, cpus, depth + 1) for child in reversed(each.findall("object"))]


def parse_set(text: str | None) -> frozenset[int]:
    """Parse hwloc's bitmap: 32-bit words in hexadecimal, the highest first; an empty word is zero.

    >>> sorted(parse_set("0x00000001,,0x3"))
    [0, 1, 64]
    """
    words = (text or "").split(",")
    if words[0].startswith("0xf..."):  # an infinite set: all higher bits are set
        words = words[1:]
    number = 0
    try:
        for word in words:
            number = number << 32 | (int(word, 16) if word else 0)
    except ValueError as error:
        raise TopologyError(f"{str(text)[:80]!r} found, hwloc's set of CPUs needed") from error
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
    """Return the threads of each core; a thread outside of all cores counts as a core."""
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
    """Return the domains, the largest first."""
    core_of = {cpu: core for core in cores for cpu in core}
    found: dict[tuple[frozenset[int], bool], Domain] = {}
    for each, whole in objects:
        kind = each.get("type") or ""
        cache = kind.startswith("L") and kind.endswith("Cache") and not kind.startswith("L1")
        cpus = frozenset(cpu for cpu in whole if cpu in core_of)
        # Nodes are domains because memory is bound per node. A node of memory alone is listed with
        # the CPUs of another node, and so adds no domain.
        if not (cache or kind in _SHARED) or len({core_of[cpu] for cpu in cpus}) < 2:
            continue
        name = kind.removesuffix("Cache") if cache else _SHARED[kind]
        if kind == "Group":
            name = (each.get("subtype") or "group").lower()
        domain = Domain(cpus, name, cache, _number(each, "cache_size") // 1024 if cache else 0)
        # Of two domains with the same CPUs keep the first, which is the outer one; but a group,
        # whose meaning is unknown, is replaced.
        if found.setdefault((cpus, cache), domain).name == "group":
            found[cpus, cache] = domain
    return tuple(sorted(found.values(), key=lambda d: (-len(d.cpus), min(d.cpus), d.cache)))


def _nodes(
    objects: Iterable[tuple[ET.Element, frozenset[int]]], with_cpus: set[int], cpus: frozenset[int]
) -> tuple[Node, ...]:
    """Return the NUMA nodes in order of their numbers."""
    found: list[Node] = []
    for each, near in objects:
        if each.get("type") != "NUMANode":
            continue
        infos = _infos(each)
        kind = " ".join((each.get("subtype") or "", infos.get("MemoryTier", ""))).lower()
        special = any(word in kind for word in SPECIAL) or any("DAX" in name for name in infos)
        number, mib = _number(each, "os_index"), _memory_mib(each)
        near &= cpus
        own = number in with_cpus if with_cpus else bool(near)
        found.append(Node(number, near, mib, own and bool(near), not special))
    found.sort(key=lambda node: (not node.dram, node.node))
    if not with_cpus:
        # A CPU belongs to one node only. hwloc lists memory without CPUs with the CPUs of the
        # nearest node, so a node whose CPUs another node has already has none of its own.
        taken: set[int] = set()
        for place, node in enumerate(found):
            found[place] = replace(node, own=node.own and not node.cpus & taken)
            taken |= node.cpus
    if not any(node.memory_mib for node in found):
        found = [replace(node, memory_mib=None) for node in found]
    return tuple(sorted(found, key=lambda node: node.node))


def _memory_mib(node: ET.Element) -> int:
    """Return a node's memory without its reserved huge pages, in MiB."""
    pages = [(_number(each, "size"), _number(each, "count")) for each in node.findall("page_type")]
    normal = min(pages, default=(0, 0))
    reserved = sum(size * number for size, number in pages if size > normal[0])
    return max(0, _number(node, "local_memory") - reserved) // 2**20


def _distances(root: ET.Element) -> dict[tuple[int, int], int]:
    """Return the distance of each pair of nodes; empty if hwloc lists none."""
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
    """Return the CPUs near each GPU or accelerator, by its PCI address."""
    cards = {}
    for each, near in objects:
        kind = each.get("pci_type") or ""
        if kind.startswith(ACCELERATORS) or (kind.startswith("03") and NVIDIA in kind):
            cards[each.get("pci_busid") or ""] = near & cpus
    return cards


def _kinds(
    root: ET.Element,
    objects: Iterable[tuple[ET.Element, frozenset[int]]],
    cpus: frozenset[int],
    parts: Mapping[int, str],
) -> tuple[Kind, ...]:
    """Return the kinds of core, the fastest first."""
    levels = _last_caches(objects)
    reported = {cpu: (parts.get(cpu, ""), levels.get(cpu, "")) for cpu in cpus}
    seen: list[Seen] = []
    for each in root.findall("cpukind"):
        of, infos = parse_set(each.get("cpuset")) & cpus, _infos(each)
        names = ("LinuxCapacity", "FrequencyMaxMHz", "FrequencyBaseMHz")
        rates = (int(infos[n]) if infos.get(n, "").isdigit() else 0 for n in names)
        seen += split(of, reported, infos.get("CoreType", ""), *rates)
    rest = cpus.difference(*(each.cpus for each in seen))
    seen += split(rest, reported, "", 0, 0, 0)
    return order(seen)


def _last_caches(objects: Iterable[tuple[ET.Element, frozenset[int]]]) -> dict[int, str]:
    """Return the highest level of cache of each CPU, such as "L3"."""
    levels: dict[int, str] = {}
    for each, cpus in objects:
        kind = each.get("type") or ""
        if kind.startswith("L") and kind.endswith("Cache"):
            level = kind[:2]
            levels.update((cpu, max(level, levels.get(cpu, ""))) for cpu in cpus)
    return levels
