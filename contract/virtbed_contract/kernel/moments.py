"""What a kernel counts and logs while a trial runs: read before and after, and subtracted.

`machine` reads what `SCRIPT` printed on a machine, or the live files: from the machine itself
nothing is hidden, while engines hide some of these files from their containers.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Optional

from ..likeness import changed
from . import readings, settings, topology
from .cpus import format_cpu_list, parse_cpu_list
from .files import read
from .printed import Place

KMSG = Path("dev/kmsg")
TIMERS = Path("run/systemd/timers")
"""Where `SCRIPT` puts what systemd says of its timers: there is no such file."""
IRQS = Path("proc/irq")
TICK = "LOC"
"""The row of /proc/interrupts for a CPU's own timer; devices' rows have numbers."""
_KEPT = 20  # messages of the kernel
_OF_DAEMONS = 24  # from this level on: 3 << 3
_LONGEST = 200  # characters of a message
_THROTTLES = ("core_throttle_count", "package_throttle_count")
_SWAPPED = ("pswpin", "pswpout")
_FILES = (
    "proc/interrupts", "proc/stat", "proc/vmstat", "proc/uptime", "proc/cmdline", "proc/swaps",
    "proc/sys/kernel/osrelease", "proc/sys/kernel/version",
    *(f"proc/sys/kernel/{name}" for name in settings.SYSCTLS),
    f"{IRQS}/*/effective_affinity_list", f"{IRQS}/*/smp_affinity_list",
    str(settings.HALT_POLL), str(settings.GUEST_HALT_POLL), str(settings.KSM),
    str(settings.PREEMPTION), f"{settings.SCHED_EXT}/state", f"{settings.SCHED_EXT}/root/ops",
    f"{settings.IDLE}/current_*", f"{topology.CPUS}/online",
    f"{topology.CPUS}/cpu[0-9]*/cpuidle/state*/name",
    f"{topology.CPUS}/cpu[0-9]*/cpuidle/state*/disable",
    f"{topology.CPUS}/cpu[0-9]*/thermal_throttle/*_throttle_count",
)  # fmt: skip

# POSIX sh with coreutils, grep and gzip; $1 is the root of the file system, nothing on a live host.
# GNU head prints many files by one process, each after "==> its path <==".
SCRIPT = f"""\
cd "$1/" || exit
head --verbose --bytes={readings.MOST_BYTES} {" ".join(_FILES)} 2>/dev/null
echo; echo '{readings.MARK}proc/cpuinfo'
while read -r line; do
  case "$line" in microcode*) echo "$line"; break ;; esac
done < proc/cpuinfo
read -r release < proc/sys/kernel/osrelease
echo "{readings.MARK}boot/config-$release"
if [ -r proc/config.gz ]; then gzip -cd proc/config.gz
else cat {" ".join(path.format('"$release"') for path in settings.CONFIGS)} 2>/dev/null
fi | grep -E '^{settings.CONFIG_OPTION}'
echo '{readings.MARK}{KMSG}'
dd if={KMSG} iflag=nonblock bs=16k 2>/dev/null | grep -E '^(1?[0-9]|2[0-3]),' | tail -n {_KEPT}
if [ -d run/systemd/system ] && [ -z "$1" ]; then
  echo '{readings.MARK}{TIMERS}'
  systemctl show --all --property=Id --property=LastTriggerUSec '*.timer' 2>/dev/null
fi
exit 0
"""


def taken(cpus: Iterable[int]) -> dict[str, Any]:
    """Return what `machine` does of the machine on which this runs."""
    done = subprocess.run(
        ["sh", "-c", SCRIPT, "sh", ""], capture_output=True, text=True, errors="replace", check=True
    )
    return machine(done.stdout, cpus)


def machine(printed: str, cpus: Iterable[int]) -> dict[str, Any]:
    """Return a reading of a machine's kernel: its ``settings``, and what it counts so far.

    Args:
        printed: What `SCRIPT` printed.
        cpus: The CPUs whose interrupts count.
    """
    root = readings.unpack(printed)
    return {"settings": settings.kernel(root), **counters(root, cpus)}


def counters(root: Place, cpus: Iterable[int]) -> dict[str, Any]:
    """Return what a kernel counts and logs: None, or less of it, for what it does not tell.

    Returns:
        ``online`` and ``cpus`` (kernel lists), ``uptime_s``; ``interrupts`` (on those CPUs so
        far: `TICK` and the devices', by number and name); ``aimed`` (a kernel list of the
        interrupts that may fire there); ``throttled`` (events of heat, over all CPUs),
        ``processes`` (started since boot, threads included), ``swapped_pages``; ``messages``
        (number and text of the last ones), ``timers`` (of systemd, each with the time at which it
        fired last).
    """
    wanted = tuple(cpus)
    return {
        "online": read(root / topology.CPUS / "online"),
        "uptime_s": _uptime_s(root),
        "cpus": format_cpu_list(wanted),
        "interrupts": interrupts(root, wanted),
        "aimed": aimed(root, wanted),
        "throttled": throttled(root),
        "processes": _counts(root / "proc/stat", ("processes",)) or None,  # gVisor's is 0
        "swapped_pages": _counts(root / "proc/vmstat", _SWAPPED),
        "messages": messages(root),
        "timers": timers(root),
    }


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what happened between two readings of one kernel: a `result.Moved` as JSON values."""
    busiest, devices, ticks = _more_interrupts(before["interrupts"], after["interrupts"])
    said = _more_messages(before["messages"], after["messages"])
    window_s = _difference(before["uptime_s"], after["uptime_s"])
    return {
        "window_s": None if window_s is None else round(window_s, 2),
        "cpus": before["cpus"],
        "device_interrupts": devices,
        "busiest": busiest,
        "timer_interrupts": ticks,
        "aimed": _more_aimed(before["aimed"], after["aimed"], after["interrupts"]),
        "throttled": _difference(before["throttled"], after["throttled"]),
        "processes": _difference(before["processes"], after["processes"]),
        "swapped_pages": _difference(before["swapped_pages"], after["swapped_pages"]),
        "messages": None if said is None else said[0],
        "last_message": None if said is None else said[1],
        "timers": _fired(before["timers"], after["timers"]),
        "changed": changed(before.get("settings") or {}, after.get("settings") or {}),
    }


def bench(
    before: Optional[Mapping[str, Any]], after: Optional[Mapping[str, Any]]
) -> Optional[dict[str, Any]]:
    """Return a `result.Bench` as JSON values; None where the bench host's kernel was not read.

    Args:
        before: The reading of the machine before the trial.
        after: That after it.
    """
    was, now = ((side or {}).get("bench") for side in (before, after))
    if not was:
        return None
    return {"settings": was["settings"], "moved": moved(was, now) if now else None}


def interrupts(root: Place, cpus: Iterable[int]) -> Optional[dict[str, int]]:
    """Return how often each device, and the CPUs' own timers, interrupted some CPUs so far.

    Devices are named by number and name, such as "36 virtio1-req.0".
    """
    lines = (read(root / "proc/interrupts") or "").splitlines()
    if not lines:
        return None
    heads = [head[3:] for head in lines[0].split()]
    columns = [n for n, cpu in enumerate(heads) if cpu.isdigit() and int(cpu) in set(cpus)]
    found = {}
    for line in lines[1:]:
        name, _, rest = line.strip().partition(":")
        words = rest.split()
        if (name != TICK and not name.isdigit()) or len(words) < len(heads):
            continue
        times = sum(int(words[column]) for column in columns)
        what = words[-1] if name.isdigit() and len(words) > len(heads) else ""
        if times:
            found[f"{name} {what}".strip()] = times
    return found


def aimed(root: Place, cpus: Iterable[int]) -> Optional[str]:
    """Return the kernel list of the interrupts that may fire on some CPUs."""
    wanted, found, readable = set(cpus), [], False
    for folder in (root / IRQS).glob("[0-9]*"):
        text = read(folder / "effective_affinity_list") or read(folder / "smp_affinity_list")
        if text:
            readable = True
            if wanted & set(parse_cpu_list(text)):
                found.append(int(folder.name))
    return format_cpu_list(found) if readable else None


def throttled(root: Place) -> Optional[int]:
    """Return how often heat slowed cores and packages since boot; a package counts per CPU."""
    counts = [
        int(text)
        for name in _THROTTLES
        for path in (root / topology.CPUS).glob(f"cpu[0-9]*/thermal_throttle/{name}")
        if (text := read(path))
    ]
    return sum(counts) if counts else None


def messages(root: Place) -> Optional[list[tuple[int, str]]]:
    """Return number and text of the kernel's last messages, in order; None where none may be read.

    A record is "6,376,19410648598,-;text": level, number, microseconds, flags, text. From 24 on the
    level tells of a daemon (systemd) that wrote to the kernel's log: no such message.
    """
    path = root / KMSG
    live = isinstance(path, Path) and path.is_char_device()
    text = _drained(path) if live else read(path)
    if text is None:
        return None
    found = []
    for line in text.splitlines():
        head, semicolon, said = line.partition(";")
        level, _, rest = head.partition(",")
        number = rest.partition(",")[0]
        complete = semicolon and level.isdigit() and number.isdigit()
        if complete and int(level) < _OF_DAEMONS:
            found.append((int(number), said[:_LONGEST]))
    return found[-_KEPT:] or None


def _drained(path: Place) -> Optional[str]:
    """Read what a kernel's log holds now: one record per call, and never wait for the next."""
    try:
        opened = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    parts = []
    try:
        while True:
            try:
                part = os.read(opened, 16384)
            except BrokenPipeError:
                continue  # overwritten before it was read; the next one is there
            if not part:
                break
            parts.append(part)
    except OSError:  # EAGAIN: no more
        pass
    finally:
        os.close(opened)
    return b"".join(parts).decode(errors="replace")


def timers(root: Place) -> Optional[dict[str, str]]:
    """Return when each of systemd's timers fired last, in systemd's words; empty for never."""
    text = read(root / TIMERS)
    if text is None:
        return None
    found = {}
    for block in text.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if properties.get("Id"):
            # What never fired is empty, or "n/a" by older versions.
            found[properties["Id"]] = properties.get("LastTriggerUSec", "").replace("n/a", "")
    return found


def _counts(path: Place, names: tuple[str, ...]) -> Optional[int]:
    """Return the sum of the counters of some names in a file of "name count" lines."""
    rows = (line.split() for line in (read(path) or "").splitlines())
    counts = [int(row[1]) for row in rows if len(row) == 2 and row[0] in names]
    return sum(counts) if counts else None


def _uptime_s(root: Place) -> Optional[float]:
    words = (read(root / "proc/uptime") or "").split()
    return float(words[0]) if words else None


def _difference(before: Any, after: Any) -> Any:
    # A CPU that went offline takes its counts with it.
    return None if before is None or after is None else max(0, after - before)


def _more_interrupts(
    before: Optional[Mapping[str, int]], after: Optional[Mapping[str, int]]
) -> tuple[Optional[str], Optional[int], Optional[int]]:
    """Return the device with the most interrupts between, theirs in all, and the timers'."""
    if before is None or after is None:
        return None, None, None
    more = {name: max(0, times - before.get(name, 0)) for name, times in after.items()}
    ticks = more.pop(TICK, 0)
    most = max(more, key=lambda name: more[name], default=None)
    return (most if most and more[most] else None), sum(more.values()), ticks


def _more_aimed(
    before: Optional[str], after: Optional[str], names: Optional[Mapping[str, int]]
) -> list[str]:
    """Return the interrupts that may fire there since then, by number and, where known, name."""
    if before is None or after is None:
        return []
    known = {name.split()[0]: name for name in names or ()}
    new = sorted(set(parse_cpu_list(after)) - set(parse_cpu_list(before)))
    return [known.get(str(number), str(number)) for number in new]


def _more_messages(before: Any, after: Any) -> Optional[tuple[int, Optional[str]]]:
    """Return how many messages were written between, and the text of the last one.

    Where all that are kept were written between, it is the number of records of all kinds: there
    were more.
    """
    if not before or not after:
        return None
    seen = int(before[-1][0])
    more = sum(1 for number, _ in after if int(number) > seen)
    if more == len(after):
        more = int(after[-1][0]) - seen
    return (more, str(after[-1][1])) if more else (0, None)


def _fired(before: Optional[Mapping[str, str]], after: Optional[Mapping[str, str]]) -> list[str]:
    """Return the timers that fired between; one that is gone has fired: it was to do so once."""
    if before is None or after is None:
        return []
    return sorted(
        name
        for name in before.keys() | after.keys()
        if (name not in after) or (after[name] and after[name] != before.get(name))
    )
