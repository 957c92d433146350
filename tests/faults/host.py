"""Facts about this host, as lines of text, to compare it before and after the faults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..commands import run

# Temporary files that are not virtbed's: pytest's own, and sockets of X and of a browser.
_OTHERS = re.compile(r"pytest-of-|\.X|\.org\.chromium|playwright|uv-|hsperfdata")
# Files that stay until the next boot: the locks, and the empty folder of temporary files.
_STAYS = {"lock", "guard", "plays"}
# Facts that may disappear: leftovers of killed playbooks, which the next sweep removes, and
# processes and files of other programs that end in between.
_MAY_GO = re.compile(r"orphan: |file: (/tmp|/var/tmp|/run/virtbed/plays|.*/\.ansible/virtbed)/")
_KERNEL = 2  # kthreadd, the parent of the kernel's threads

_COMMANDS = {
    "container": "docker ps --all --format '{{.Names}} {{.Image}}'",
    "docker image": "docker image ls --all --no-trunc --format '{{.ID}}'",
    "docker network": "docker network ls --format '{{.Name}} {{.Driver}}'",
    "docker volume": "docker volume ls --quiet",
    "pod": "podman ps --all --format '{{.Names}}'",
    "domain": "virsh -c qemu:///system list --all --name",
    "network": "virsh -c qemu:///system net-list --all --name",
    "loop device": "losetup --noheadings --list --output NAME,BACK-FILE",
    "port": "ss -Hltnu | awk '{print $1, $5}'",
    "firewall": "iptables-save | grep -v -e '^#' -e '^:' | sed 's/\\[[0-9:]*\\]//'",
    "link": "ip -br link | awk '{print $1}' | sed 's/@.*//'",
    "mount": "awk '{print $2, $3}' /proc/mounts",
    "device": "stat -c '%n %U %G %a' /dev/null /dev/kvm /dev/net/tun 2>/dev/null",
    "CPUs online": "cat /sys/devices/system/cpu/online",
    "setting": "sysctl --all --pattern '^vm\\.|^kernel\\.(numa_balancing|randomize|perf)' "
    "2>/dev/null | grep -v lowmem_reserve",
    "group": "find /sys/fs/cgroup -type d -name '*virtbed*'",
}


def facts() -> set[str]:
    """Return all facts."""
    found = set()
    for kind, command in _COMMANDS.items():
        lines = run("bash", "-c", command, ok=False).stdout.splitlines()
        found |= {f"{kind}: {' '.join(line.split())}" for line in lines if line.strip()}
    return found | set(_files()) | set(_daemons()) | set(_processes())


def changes(before: set[str]) -> list[str]:
    """Return the facts that disappeared (-), unless they may, and the new ones (+)."""
    after = facts()
    gone = [fact for fact in before - after if not _MAY_GO.match(fact)]
    return sorted([f"- {fact}" for fact in gone] + [f"+ {fact}" for fact in after - before])


def _files() -> Iterator[str]:
    """Yield the files in the folders for temporary files."""
    for folder in ("/tmp", "/var/tmp", Path("~/.ansible/tmp").expanduser()):
        if (place := Path(folder)).is_dir():
            yield from (f"file: {p}" for p in place.iterdir() if not _OTHERS.match(p.name))
    own = Path("/run/virtbed")
    yield from (f"file: {p}" for p in own.glob("*") if p.name not in _STAYS)
    yield from (f"file: {p}" for p in (own / "plays").glob("*"))
    yield from (f"file: {p}" for p in Path("~/.ansible/virtbed").expanduser().glob("*"))
    state = Path("/var/lib/virtbed")
    yield from (f"file: {p}" for p in state.glob("*"))
    yield from (f"file: {p}" for p in (state / "instances").glob("*"))


def _daemons() -> Iterator[str]:
    """Yield the affinity of the engines' daemons, which a sweep restricts and then restores."""
    for name in ("dockerd", "containerd", "libvirtd", "virtlogd"):
        for pid in run("pgrep", "--exact", name, ok=False).stdout.split():
            for task in Path(f"/proc/{pid}/task").iterdir():
                yield f"affinity: {name} {sorted(os.sched_getaffinity(int(task.name)))}"


def _processes() -> Iterator[str]:
    """Yield the programs whose parent is init; orphans of killed programs are among them."""
    for place in Path("/proc").iterdir():
        try:
            rest = (place / "stat").read_text().rpartition(")")[2].split()
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, NotADirectoryError):
            continue
        if int(rest[1]) == 1 and command and int(place.name) != _KERNEL:
            yield f"orphan: {command.strip()[:80]}"
