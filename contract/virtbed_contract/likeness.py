"""Registry of the surroundings of a process that are compared between the sides of a ratio.

A ratio is the cost of a platform only if nothing else differs between its two sides. Each entry of
`RECORDED` is one fact about the surroundings of a process, with how far it must be alike, and why.
Fields of the documents, columns of the analysis, its table of differences and a table of the report
derive from the entries. Events during a trial, such as interrupts, are not entries: the analysis
has a threshold for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional

from .codec import described

SPLIT = "; "
"""Separator between the parts of a text that is a list."""
HUGE_MALLOC = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
"""Name and value of the variable that makes the C library's allocator request huge pages."""
DEFAULT_ALLOCATOR = "the C library's own"
"""Value of the fact `allocator` if nothing changes the C library's allocator."""


@dataclass(frozen=True)
class Recorded:
    """One fact about the surroundings of a process.

    Attributes:
        name: Name of the column of an export, and of the field in the document.
        words: Name in texts for people.
        held: Part of a result's `environment` that has the field: ``kernel`` for its
            `kernel_settings`, ``process`` for its `process_settings`. ``own``: the fact has a
            field of its own elsewhere in the result, older than these parts.
        alike: ``everywhere``: must be equal on all platforms; a trial that differs is not paired
            with the others. ``kernel``: must be equal among trials that ran on the same kernel; a
            guest's own kernel may differ. ``platform``: may differ, and the difference is stated
            next to the ratio.
        matters: How a difference would affect the times.
        why: Why it must be equal on all platforms, or why a difference is part of the platform.
        number: Whether the fact is a number; otherwise it is a text.
        apart: Numbers that differ by more than this count as unlike.
    """

    name: str
    words: str
    held: Literal["own", "kernel", "process"]
    alike: Literal["everywhere", "kernel", "platform"]
    matters: str
    why: str
    number: bool = False
    apart: Optional[float] = None


_GUEST = "a guest's own value is part of its platform, and of its ratio to bare metal"
HIDDEN = "CPU features that a guest or a sandbox hides are part of its cost, and of its ratio"
"""Why CPU features, and what follows from them, may differ between platforms."""
_NO_GOVERNOR = "most guests have none; a guest that reports one has its own"
_ENGINE = "engines confine processes by their defaults; this is part of what they cost"
_ASKED = "the testbed sets it: a trial that finds another value fails"
_IMAGE = "all platforms run the same image, and start the process in the same way"


def _own(name: str, words: str, matters: str, why: str) -> Recorded:
    return Recorded(name, words, "own", "kernel", matters, why)


def _kernel(name: str, words: str, matters: str, why: str = _GUEST) -> Recorded:
    return Recorded(name, words, "kernel", "kernel", matters, why)


def _process(name: str, words: str, matters: str, why: str = _ENGINE) -> Recorded:
    return Recorded(name, words, "process", "platform", matters, why)


RECORDED: tuple[Recorded, ...] = (
    _own("kernel", "kernel", "an upgrade between two trials would look like a cost of the platform",
         _GUEST),
    _own("cpu_model", "CPU model", "different processors are different hosts", HIDDEN),
    _own("isa", "instruction sets", "they decide which kernels the frameworks choose", HIDDEN),
    _own("clocksource", "clock source",
         "it decides how long a reading of the time takes, and how exact it is", _GUEST),
    _own("governor", "frequency governor", "it decides the clock rate", _NO_GOVERNOR),
    _own("turbo", "turbo", "it decides the clock rate", _NO_GOVERNOR),
    _own("transparent_hugepage", "huge pages", "they decide how fast memory is accessed", _GUEST),
    _own("mitigations", "CPU mitigations", "they decide how long a system call takes", _GUEST),
    _kernel("build", "kernel's build", "another build of the same release is another kernel"),
    _kernel("config", "kernel's configuration",
            "tick, preemption and scheduler decide how often work is interrupted"),
    _kernel("preemption", "preemption", "it decides when the kernel stops a process for another"),
    _kernel("cmdline", "kernel's command line",
            "it turns mitigations, isolation and ticks on and off"),
    _kernel("scheduler", "scheduler's settings",
            "they decide which task runs when, and for how long"),
    _kernel("microcode", "microcode", "updates can make instructions slower",
            "a hypervisor may hide the real version, which is the host's"),
    _kernel("idle", "idle states", "waking from a deep one takes up to a millisecond",
            "a guest's kernel chooses its own; the host's are recorded for the host"),
    _kernel("halt_poll", "halt polling of KVM",
            "a host that polls wakes a guest at once, but uses CPU time for it"),
    _kernel("guest_halt_poll", "halt polling of a guest",
            "a guest that polls wakes at once, but uses CPU time for it"),
    _kernel("ksm", "merging of equal pages (KSM)",
            "it reads all memory, and a write to a merged page causes a page fault"),
    _kernel("swap", "swap", "memory that was swapped out is slow to read back"),
    _process("seccomp", "seccomp", "a filter runs at each system call"),
    _process("store_bypass", "store bypass",
             "without it loads wait for earlier stores; seccomp may turn it off"),
    _process("indirect_branch", "indirect branches",
             "without speculation each indirect call waits"),
    _process("apparmor", "AppArmor", "a profile is checked whenever a file is opened"),
    _process("scheduling", "scheduling policy",
             "it decides which task gets a CPU that several want",
             "an engine's daemon starts processes with its own; bare metal inherits that of the "
             "shell in which virtbed was started"),
    _process("quota_times", "period and burst of the quota",
             "a stall lasts until the end of the period", _ASKED),
    _process("swap_limit", "swap left to the process",
             "of two processes short of memory, the one with swap slows and the other is killed",
             "the testbed gives containers none; bare metal and guests may use their kernel's, "
             "which a quiet host does not have"),
    _process("page_policy", "huge pages of the process",
             "they reduce TLB misses", _ASKED),
    Recorded("huge_share", "share of memory in huge pages", "process", "platform",
             "memory in huge pages causes fewer TLB misses",
             "the same setting yields more or fewer, depending on how fragmented memory is; this "
             "is part of the ratio",
             number=True, apart=0.1),
    Recorded("clock_ns", "time to read the clock, ns", "process", "platform",
             "each request is timed by four readings, and frameworks read the clock, too",
             "a clock that can only be read by a system call is part of the platform",
             number=True, apart=200.0),
    Recorded("libc", "C library", "process", "everywhere",
             "applications spend much of their time in its mathematics and its allocator", _IMAGE),
    Recorded("allocator", "allocator's settings", "process", "everywhere",
             "arenas and thresholds decide how often memory is requested from the kernel", _IMAGE),
)  # fmt: skip
_BY_NAME = {one.name: one for one in RECORDED}


def held(part: str) -> tuple[Recorded, ...]:
    """Return the facts in one part of a result (see `Recorded.held`), in order."""
    return tuple(one for one in RECORDED if one.held == part)


def recorded(name: str) -> Recorded:
    """Return the fact with a name.

    Raises:
        KeyError: There is no such fact.
    """
    return _BY_NAME[name]


def fields(part: str) -> list[tuple[str, object, object]]:
    """Return one document field per fact in one part of a result (see `Recorded.held`)."""
    return [
        (
            one.name,
            Optional[float] if one.number else Optional[str],
            described(f"{one.words[:1].upper()}{one.words[1:]}; null if unknown.", default=None),
        )
        for one in held(part)
    ]


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the kernel's settings that differ between two readings, one sentence per setting.

    Args:
        before: Settings by name; None, or a missing name, is unknown and not compared.
        after: Settings by name, read later.
    """
    sentences = []
    for one in held("kernel"):
        was, now = before.get(one.name), after.get(one.name)
        if was is not None and now is not None and was != now:
            old, new = (str(text).split(SPLIT) for text in (was, now))
            removed = SPLIT.join(part for part in old if part not in new) or "no more"
            added = SPLIT.join(part for part in new if part not in old) or "no more"
            sentences.append(f"{one.words} {removed} before, {added} after")
    return sentences
