"""Events that a kernel counts and logs during a trial: read before and after, and subtracted.

`machine` reads the output of `SCRIPT` from a machine, where all files are visible; `counters` also
reads live files inside an enclosure, where engines hide some of them.
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
"""Path under which `SCRIPT` prints systemd's report of its timers; there is no such file."""
IRQS = Path("proc/irq")
TICK = "LOC"
"""Row of /proc/interrupts for the local timers of CPUs; rows of devices have numbers."""
_KEPT = 20  # number of kernel messages that are kept
_OF_DAEMONS = 24  # messages with this level or a higher one come from daemons: 3 << 3
_LONGEST = 200  # characters of a message that are kept
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

# POSIX sh with coreutils, grep and gzip. $1 is the root of the file system, empty on a live host.
# GNU head prints many files in one process, each after a line "==> its path <==".
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
    """Return the reading of `machine` for the machine on which this runs."""
    process = subprocess.run(
        ["sh", "-c", SCRIPT, "sh", ""], capture_output=True, text=True, errors="replace", check=True
    )
    return machine(process.stdout, cpus)


def machine(printed: str, cpus: Iterable[int]) -> dict[str, Any]:
    """Return a reading of a machine's kernel: its ``settings``, and the values of `counters`.

    Args:
        printed: Output of `SCRIPT`.
        cpus: CPUs whose interrupts are counted.
    """
    root = readings.unpack(printed)
    return {"settings": settings.kernel(root), **counters(root, cpus)}


def counters(root: Place, cpus: Iterable[int]) -> dict[str, Any]:
    """Return a kernel's counters and log, for `moved`; None for what it does not report.

    Args:
        root: Root of the tree with /proc, /sys and /dev.
        cpus: CPUs whose interrupts are counted.

    Returns:
        ``online`` and ``cpus`` (kernel lists), ``uptime_s``, ``interrupts`` (number of interrupts
        on `cpus` since boot, by device or `TICK`), ``aimed`` (kernel list of the interrupts that
        may fire on `cpus`), ``throttled`` (number of throttling events because of heat, over all
        CPUs), ``processes`` (number of processes and threads started since boot),
        ``swapped_pages``, ``messages`` (number and text of the kernel's last messages) and
        ``timers`` (by systemd's timer, when it last fired).
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
    """Return the events between two readings of one kernel: `surroundings.Moved` as JSON values."""
    busiest, devices, ticks = _more_interrupts(before["interrupts"], after["interrupts"])
    logged = _more_messages(before["messages"], after["messages"])
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
        "messages": None if logged is None else logged[0],
        "last_message": None if logged is None else logged[1],
        "timers": _fired(before["timers"], after["timers"]),
        "changed": changed(before.get("settings") or {}, after.get("settings") or {}),
    }


def bench(
    before: Optional[Mapping[str, Any]], after: Optional[Mapping[str, Any]]
) -> Optional[dict[str, Any]]:
    """Return `surroundings.Bench` as JSON values; None if the bench host's kernel was not read.

    Args:
        before: Reading of the machine before the trial.
        after: Reading of the machine after the trial.
    """
    was, now = ((side or {}).get("bench") for side in (before, after))
    if not was:
        return None
    return {"settings": was["settings"], "moved": moved(was, now) if now else None}


def interrupts(root: Place, cpus: Iterable[int]) -> Optional[dict[str, int]]:
    """Return the number of interrupts on some CPUs since boot, by device or `TICK`.

    A device has the interrupt's number and its name, such as "36 virtio1-req.0".
    """
    lines = (read(root / "proc/interrupts") or "").splitlines()
    if not lines:
        return None
    heads = [head[3:] for head in lines[0].split()]
    columns = [n for n, cpu in enumerate(heads) if cpu.isdigit() and int(cpu) in set(cpus)]
    counts = {}
    for line in lines[1:]:
        name, _, rest = line.strip().partition(":")
        words = rest.split()
        if (name != TICK and not name.isdigit()) or len(words) < len(heads):
            continue
        times = sum(int(words[column]) for column in columns)
        what = words[-1] if name.isdigit() and len(words) > len(heads) else ""
        if times:
            counts[f"{name} {what}".strip()] = times
    return counts


def aimed(root: Place, cpus: Iterable[int]) -> Optional[str]:
    """Return the kernel list of the interrupts that may fire on some CPUs.

    The CPU that the kernel has chosen counts, and also a setting that leaves only these CPUs: the
    kernel carries some changes out at the next interrupt.
    """
    wanted, numbers, readable = set(cpus), [], False
    for folder in (root / IRQS).glob("[0-9]*"):
        names = ("effective_affinity_list", "smp_affinity_list")
        chosen, permitted = (set(parse_cpu_list(read(folder / name) or "")) for name in names)
        readable = readable or bool(chosen or permitted)
        if wanted & (chosen or permitted) or (permitted and permitted <= wanted):
            numbers.append(int(folder.name))
    return format_cpu_list(numbers) if readable else None


def throttled(root: Place) -> Optional[int]:
    """Return how often heat throttled cores and packages since boot; packages count per CPU."""
    counts = [
        int(text)
        for name in _THROTTLES
        for path in (root / topology.CPUS).glob(f"cpu[0-9]*/thermal_throttle/{name}")
        if (text := read(path))
    ]
    return sum(counts) if counts else None


def messages(root: Place) -> Optional[list[tuple[int, str]]]:
    """Return number and text of the kernel's last messages, in order; None if none can be read.

    A record is "6,376,19410648598,-;text": level, number, microseconds, flags, text. Records with a
    level of 24 or more are from daemons such as systemd, not from the kernel, and are left out.
    """
    path = root / KMSG
    live = isinstance(path, Path) and path.is_char_device()
    text = _drained(path) if live else read(path)
    if text is None:
        return None
    kept = []
    for line in text.splitlines():
        head, semicolon, message = line.partition(";")
        level, _, rest = head.partition(",")
        number = rest.partition(",")[0]
        complete = semicolon and level.isdigit() and number.isdigit()
        if complete and int(level) < _OF_DAEMONS:
            kept.append((int(number), message[:_LONGEST]))
    return kept[-_KEPT:] or None


def _drained(path: Place) -> Optional[str]:
    """Return the current content of a kernel's log, one record per read, without waiting."""
    try:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    parts = []
    try:
        while True:
            try:
                part = os.read(descriptor, 16384)
            except BrokenPipeError:
                continue  # the record was overwritten before it was read; read the next one
            if not part:
                break
            parts.append(part)
    except OSError:  # EAGAIN: no more
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def timers(root: Place) -> Optional[dict[str, str]]:
    """Return when each timer of systemd last fired, in systemd's words; empty for never."""
    text = read(root / TIMERS)
    if text is None:
        return None
    fired = {}
    for block in text.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if properties.get("Id"):
            # For a timer that never fired, older versions of systemd print "n/a".
            fired[properties["Id"]] = properties.get("LastTriggerUSec", "").replace("n/a", "")
    return fired


def _counts(path: Place, names: tuple[str, ...]) -> Optional[int]:
    """Return the sum of the counters of some names in a file of "name count" lines."""
    rows = (line.split() for line in (read(path) or "").splitlines())
    counts = [int(row[1]) for row in rows if len(row) == 2 and row[0] in names]
    return sum(counts) if counts else None


def _uptime_s(root: Place) -> Optional[float]:
    words = (read(root / "proc/uptime") or "").split()
    return float(words[0]) if words else None


def _difference(before: Any, after: Any) -> Any:
    # Counts of a CPU that went offline are missing, which would make the difference negative.
    return None if before is None or after is None else max(0, after - before)


def _more_interrupts(
    before: Optional[Mapping[str, int]], after: Optional[Mapping[str, int]]
) -> tuple[Optional[str], Optional[int], Optional[int]]:
    """Return the device with the most new interrupts, the sum over devices, and the timers' sum."""
    if before is None or after is None:
        return None, None, None
    more = {name: max(0, times - before.get(name, 0)) for name, times in after.items()}
    ticks = more.pop(TICK, 0)
    most = max(more, key=lambda name: more[name], default=None)
    return (most if most and more[most] else None), sum(more.values()), ticks


def _more_aimed(
    before: Optional[str], after: Optional[str], names: Optional[Mapping[str, int]]
) -> list[str]:
    """Return the interrupts that may fire there only since `before`, by number and known name."""
    if before is None or after is None:
        return []
    names_by_number = {name.split()[0]: name for name in names or ()}
    new = sorted(set(parse_cpu_list(after)) - set(parse_cpu_list(before)))
    return [names_by_number.get(str(number), str(number)) for number in new]


def _more_messages(before: Any, after: Any) -> Optional[tuple[int, Optional[str]]]:
    """Return the number of new messages and the text of the last one.

    If all kept messages are new, there may have been more, so the number is that of all new records
    of the log.
    """
    if not before or not after:
        return None
    last = int(before[-1][0])
    more = sum(1 for number, _ in after if int(number) > last)
    if more == len(after):
        more = int(after[-1][0]) - last
    return (more, str(after[-1][1])) if more else (0, None)


def _fired(before: Optional[Mapping[str, str]], after: Optional[Mapping[str, str]]) -> list[str]:
    """Return the timers that fired; one that no longer exists was to fire once, and has fired."""
    if before is None or after is None:
        return []
    return sorted(
        name
        for name in before.keys() | after.keys()
        if (name not in after) or (after[name] and after[name] != before.get(name))
    )
