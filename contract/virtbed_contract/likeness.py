"""What is recorded of both sides of a ratio: what is alike on all platforms, and what need not.

A ratio is what a platform costs only if nothing else differs between its sides. Each entry of
`RECORDED` is one fact of the surroundings of a process, how far it must be alike, and why. From it
come fields of the documents, columns of the analysis, its table of differences and a table of the
report. What happened during a trial is no entry: the analysis has a threshold for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional

from .codec import described

SPLIT = "; "
"""Between the parts of a text that is a list."""
HUGE_MALLOC = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
"""The variable by which the C library's allocator asks for huge pages."""
DEFAULT_ALLOCATOR = "the C library's own"
"""What `allocator` is where nothing changes it."""


@dataclass(frozen=True)
class Recorded:
    """One fact of the surroundings of a process.

    Attributes:
        name: Its name: the column of an export, and the field of the document in which it lies.
        words: What a reader calls it.
        held: Where it lies: ``kernel`` and ``process`` are those parts of a result's
            `environment`; ``own`` is a field of its own, older than these.
        alike: ``everywhere``: on all platforms; a trial that differs is no pair of the others.
            ``kernel``: among trials that ran on one kernel; a guest's own may differ.
            ``platform``: it may differ, and is said next to the ratio.
        matters: What a difference would do to the times.
        why: Why it must be equal on all platforms, or why a difference is part of the platform.
        number: Whether it is a number; else it is a text.
        apart: By how much numbers must differ to count as unlike.
    """

    name: str
    words: str
    held: Literal["own", "kernel", "process"]
    alike: Literal["everywhere", "kernel", "platform"]
    matters: str
    why: str
    number: bool = False
    apart: Optional[float] = None


_GUEST = "a guest's own is part of its platform; a ratio to bare metal has it in it"
_HIDDEN = "what a guest or a sandbox hides of the CPU is part of its cost; a ratio has it in it"
_NO_GOVERNOR = "a guest has none; one that tells it has its own"
_ENGINE = "an engine confines what it runs, by its defaults; that is part of what it costs"
_ASKED = "the testbed asks for it: a trial that finds another value fails"
_IMAGE = "there is one image, and one way to start a process in it"


def _own(name: str, words: str, matters: str, why: str) -> Recorded:
    return Recorded(name, words, "own", "kernel", matters, why)


def _kernel(name: str, words: str, matters: str, why: str = _GUEST) -> Recorded:
    return Recorded(name, words, "kernel", "kernel", matters, why)


def _process(name: str, words: str, matters: str, why: str = _ENGINE) -> Recorded:
    return Recorded(name, words, "process", "platform", matters, why)


RECORDED: tuple[Recorded, ...] = (
    _own("kernel", "kernel", "an upgrade between two trials would be read as their difference",
         _GUEST),
    _own("cpu_model", "CPU model", "two processors are two hosts", _HIDDEN),
    _own("isa", "instruction sets", "they decide which kernels the frameworks choose", _HIDDEN),
    _own("clocksource", "clock source", "it decides what reading the time costs, and times",
         _GUEST),
    _own("governor", "frequency governor", "it decides the clock rate", _NO_GOVERNOR),
    _own("turbo", "turbo", "it decides the clock rate", _NO_GOVERNOR),
    _own("transparent_hugepage", "huge pages", "they decide what memory costs", _GUEST),
    _own("mitigations", "CPU mitigations", "they decide what entering the kernel costs", _GUEST),
    _kernel("build", "kernel's build", "another build of one release is another kernel"),
    _kernel("config", "kernel's configuration",
            "tick, preemption and scheduler decide how often work is interrupted"),
    _kernel("preemption", "preemption", "it decides when the kernel stops a process for another"),
    _kernel("cmdline", "kernel's command line",
            "it turns mitigations, isolation and ticks on and off"),
    _kernel("scheduler", "scheduler's settings", "they decide who runs when, and for how long"),
    _kernel("microcode", "microcode", "updates make instructions slower",
            "a hypervisor may hide it; the CPU's own is its host's"),
    _kernel("idle", "idle states", "to wake from a deep one takes up to a millisecond",
            "a guest idles as its own kernel does; what its host does meanwhile is its host's"),
    _kernel("halt_poll", "halt polling of KVM",
            "a host that polls wakes a guest at once, and uses its CPU for that"),
    _kernel("guest_halt_poll", "halt polling of a guest",
            "a guest that polls wakes at once, and uses its CPU for that"),
    _kernel("ksm", "merging of equal pages (KSM)",
            "it reads all memory, and a write to a merged page is a fault"),
    _kernel("swap", "swap", "memory that was moved to a disk comes back slowly"),
    _process("seccomp", "seccomp", "a filter is run at each system call"),
    _process("store_bypass", "store bypass",
             "without it loads wait for earlier stores; seccomp may turn it off"),
    _process("indirect_branch", "indirect branches",
             "without speculation each indirect call waits"),
    _process("apparmor", "AppArmor", "a profile is asked at each file that is opened"),
    _process("quota_times", "period and burst of the quota",
             "a stall lasts what is left of the period", _ASKED),
    _process("swap_limit", "swap left to the process",
             "of two processes short of memory one swaps and the other is killed",
             "containers get none, as the testbed asks for; bare metal and guests have their "
             "kernel's, which a quiet host has not"),
    _process("page_policy", "huge pages of the process",
             "with them fewer pages miss the TLB", _ASKED),
    Recorded("huge_share", "share of memory in huge pages", "process", "platform",
             "fewer pages miss the TLB less often",
             "the same setting yields more or fewer, by how memory is torn; a part of the ratio",
             number=True, apart=0.1),
    Recorded("clock_ns", "time to read the clock, ns", "process", "platform",
             "each request is timed by four readings, and frameworks read it, too",
             "a clock that cannot be read without the kernel is part of the platform",
             number=True, apart=200.0),
    Recorded("libc", "C library", "process", "everywhere",
             "its mathematics and its allocator are half of an application", _IMAGE),
    Recorded("allocator", "allocator's settings", "process", "everywhere",
             "arenas and thresholds decide how often memory is asked of the kernel", _IMAGE),
)  # fmt: skip
_BY_NAME = {one.name: one for one in RECORDED}


def held(part: str) -> tuple[Recorded, ...]:
    """Return the facts that lie in one part of a result's environment, in order."""
    return tuple(one for one in RECORDED if one.held == part)


def recorded(name: str) -> Recorded:
    """Return the fact of a name."""
    return _BY_NAME[name]


def fields(part: str) -> list[tuple[str, object, object]]:
    """Return one field per fact of a part, for the document that is this part."""
    return [
        (
            one.name,
            Optional[float] if one.number else Optional[str],
            described(f"{one.words[:1].upper()}{one.words[1:]}; null if unknown.", default=None),
        )
        for one in held(part)
    ]


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the kernel's settings that two readings tell differently, in words, with both."""
    found = []
    for one in held("kernel"):
        was, now = before.get(one.name), after.get(one.name)
        if was is not None and now is not None and was != now:
            old, new = (str(text).split(SPLIT) for text in (was, now))
            gone = SPLIT.join(part for part in old if part not in new) or "no more"
            come = SPLIT.join(part for part in new if part not in old) or "no more"
            found.append(f"{one.words} {gone} before, {come} after")
    return found
