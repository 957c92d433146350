"""State of a GPU at one moment, and what makes a trial on it suspect.

`virtbed_contract.nvml` reads states. A reading that NVML refuses is null, and `unknown` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Optional

from .codec import described

SLOWING = {
    "sw_power_cap": "its limit of power",
    "hw_slowdown": "its hardware",
    "sw_thermal": "heat",
    "hw_thermal": "heat, by its hardware",
    "power_brake": "the power supply",
}
"""Reasons for a lower clock that are no choice of anybody's, as a state has and a person says them.
Idling, clocks that were asked for, and following another GPU are other reasons."""
STEP_MHZ = 15
"""Clocks go in steps of this size: a clock that is off by one is the same."""
POWER_ABOVE_LIMIT = 2.0
"""A card may draw more than its limit for milliseconds; over a trial it never draws so much."""
_WIDTHS = (32, 64)  # bits of counters, where nobody tells
_NS_WIDTHS = (64,)  # of 32 bits they would wrap every four seconds
_LATE = 2  # a counter that is brought up to date now and then may rise by more than a window
Use = Literal["compute", "graphics", "mps"]
"""What a process uses a GPU for."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that uses a GPU."""

    pid: int = described("Its number, by the host's count.")
    kind: Use = described("What it uses the GPU for.")
    memory_mib: Optional[int] = described("Memory that it has there; null where nobody tells.")


@dataclass(frozen=True)
class GpuState:
    """What NVML tells of one GPU at one moment."""

    at_ns: int = described("When, by a clock that never goes back, in nanoseconds.")
    uuid: str = described("Its UUID.")
    address: str = described("Its PCI address on this machine; a guest has another.")
    name: str = described("What its maker calls it.")
    driver: str = described("Version of the driver.")
    cuda: Optional[str] = described("The latest CUDA that the driver runs.")
    link_width: Optional[int] = described("Lanes of its link now.")
    link_width_most: Optional[int] = described("Lanes that card and slot have.")
    link_generation: Optional[int] = described("PCI Express generation of its link now: its speed.")
    link_generation_most: Optional[int] = described("The latest that card and slot have.")
    performance: Optional[int] = described("Performance state: 0 is the fastest, 8 idles.")
    sm_mhz: Optional[int] = described("Clock of its processors now.")
    sm_mhz_most: Optional[int] = described("The highest clock that they may have.")
    memory_mhz: Optional[int] = described("Clock of its memory now.")
    memory_mhz_most: Optional[int] = described("The highest clock that it may have.")
    throttle: Optional[tuple[str, ...]] = described("Why its clock is not higher.")
    throttled_ns: Optional[dict[str, int]] = described(
        "For how long it was slowed since its driver was loaded, by reason."
    )
    temperature_c: Optional[int] = described("Temperature.")
    power_mw: Optional[int] = described("Power that it draws.")
    power_limit_mw: Optional[int] = described("Power that it may draw.")
    energy_mj: Optional[int] = described("Energy since its driver was loaded, in millijoules.")
    ecc: Optional[bool] = described("Whether its memory is corrected (ECC).")
    ecc_uncorrected: Optional[int] = described("Errors that were not, since its driver was loaded.")
    ecc_corrected: Optional[int] = described("Errors that were, since its driver was loaded.")
    mig: Optional[bool] = described("Whether it is divided (MIG).")
    compute_mode: Optional[str] = described("Who may use it: default, exclusive or prohibited.")
    persistence: Optional[bool] = described("Whether the driver keeps it ready between two uses.")
    processes: Optional[tuple[GpuProcess, ...]] = described("Those that use it.")
    bar1_mib: Optional[int] = described("Memory that the CPU can see at once.")
    bar1_used_mib: Optional[int] = described("How much of that is in use.")
    unknown: dict[str, str] = described("Why a reading is null, by its name.")


@dataclass(frozen=True)
class Doubt:
    """A reason not to trust a trial's times, or a reason why that cannot be said."""

    kind: str = described("The rule in one word, for programs.")
    words: str = described("What was found.")
    unjudged: bool = described("Whether the rule could not be applied.", default=False)


def doubts(
    before: GpuState,
    after: GpuState,
    working: Sequence[GpuState] = (),
    ours: Iterable[int] = (),
    locked_mhz: Optional[int] = None,
) -> tuple[Doubt, ...]:
    """Return what makes a trial on a GPU suspect, and what cannot be judged.

    Args:
        before: The state before the trial.
        after: The state after it.
        working: States while it ran, without its warm-up.
        ours: Processes of the trial, by the host's count.
        locked_mhz: The clock that its processors were locked to; None where they were not.
    """
    every = (before, *working, after)
    return (
        *_changed(before, after),
        *_throttled(every),
        *_others(every, set(ours)),
        *_link(every, working),
        *_clocks(working, locked_mhz),
        *_errors(before, after),
    )


def energy_mj(before: GpuState, after: GpuState) -> Optional[int]:
    """Return the energy between two states in millijoules, whether or not its counter wrapped.

    Returns:
        None where it cannot be known: no counter, or one that started again with the driver.
    """
    if before.energy_mj is None or after.energy_mj is None or before.uuid != after.uuid:
        return None
    limit_mw = after.power_limit_mw or before.power_limit_mw
    window_s = (after.at_ns - before.at_ns) / 1e9
    most = None if limit_mw is None else POWER_ABOVE_LIMIT * limit_mw * window_s
    return risen(before.energy_mj, after.energy_mj, most)


def risen(
    before: int, after: int, most: Optional[float] = None, widths: Sequence[int] = _WIDTHS
) -> Optional[int]:
    """Return by how much a counter rose, whether or not it wrapped.

    Args:
        before: Its earlier value.
        after: Its later value.
        most: The most that it can have risen by; without it a counter that fell is not known.
        widths: Numbers of bits that it may have.

    Returns:
        None where it must have started again: no rise that is possible explains the two.
    """
    if after >= before:
        return after - before if most is None or after - before <= most else None
    wrapped = (after - before + 2**bits for bits in widths if before < 2**bits)
    return next((rise for rise in wrapped if most is not None and rise <= most), None)


def _changed(before: GpuState, after: GpuState) -> Iterator[Doubt]:
    for what in ("uuid", "driver", "ecc", "mig", "persistence", "power_limit_mw"):
        was, now = getattr(before, what), getattr(after, what)
        if was is not None and now is not None and was != now:
            yield Doubt("changed", f"{what} was {was} before the trial and {now} after it")


def _throttled(states: Sequence[GpuState]) -> Iterator[Doubt]:
    seen = [why for state in states for why in state.throttle or () if why in SLOWING]
    first, last = states[0], states[-1]
    most_ns = _LATE * (last.at_ns - first.at_ns)
    rises = {}
    for why, was in (first.throttled_ns or {}).items():
        now = (last.throttled_ns or {}).get(why)
        rises[why] = None if now is None else risen(was, now, most_ns, _NS_WIDTHS)
    for why, rise in rises.items():
        if rise:
            yield Doubt("throttled", f"slowed by {why} for {rise / 1e9:.2f} s")
        elif rise is None:
            words = "its counter started again, or cannot be read any more"
            yield Doubt("throttled", f"slowed by {why}: not known, {words}", unjudged=True)
    if seen and not any(rises.values()):
        named = ", ".join(SLOWING[why] for why in dict.fromkeys(seen))
        yield Doubt("throttled", f"slowed by {named} in {len(seen)} of {len(states)} readings")
    if all(state.throttle is None for state in states) and not rises:
        yield _unjudged("throttled", states, "throttle", "throttled_ns")


def _others(states: Sequence[GpuState], ours: set[int]) -> Iterator[Doubt]:
    known = [state.processes for state in states if state.processes is not None]
    if not known:
        yield _unjudged("processes", states, "processes")
    others = {each.pid: each for found in known for each in found if each.pid not in ours}
    if others:
        named = ", ".join(
            f"{each.pid} ({each.kind}"
            + (f", {each.memory_mib} MiB)" if each.memory_mib is not None else ")")
            for _, each in sorted(others.items())
        )
        yield Doubt("processes", f"other processes used it: {named}")


def _link(every: Sequence[GpuState], working: Sequence[GpuState]) -> Iterator[Doubt]:
    lanes = [
        (state.link_width, state.link_width_most)
        for state in every
        if state.link_width is not None and state.link_width_most is not None
    ]
    if not lanes:
        yield _unjudged("link", every, "link_width", "link_width_most")
    for now, most in dict.fromkeys(pair for pair in lanes if pair[0] < pair[1]):
        yield Doubt("link", f"its link has {now} lanes of {most}")
    # An idle one is slowed down to save power.
    slow = {
        (state.link_generation, state.link_generation_most)
        for state in working
        if state.link_generation is not None and state.link_generation_most is not None
        and state.link_generation < state.link_generation_most
    }  # fmt: skip
    for now, most in sorted(slow):
        yield Doubt("link", f"its link was of generation {now}, of {most}, while it worked")


def _clocks(working: Sequence[GpuState], locked_mhz: Optional[int]) -> Iterator[Doubt]:
    clocks = [state.sm_mhz for state in working if state.sm_mhz is not None]
    if not clocks:
        words = "its clock was not read while it worked"
        yield Doubt("clocks", words, unjudged=True)
        return
    low, high = min(clocks), max(clocks)
    if locked_mhz is not None:
        if max(abs(low - locked_mhz), abs(high - locked_mhz)) > STEP_MHZ:
            yield Doubt(
                "clocks", f"its clock was {low} to {high} MHz, though locked to {locked_mhz}"
            )
    elif high - low > STEP_MHZ:
        yield Doubt("clocks", f"its clock moved from {low} to {high} MHz")
    memory = [state.memory_mhz for state in working if state.memory_mhz is not None]
    if memory and max(memory) - min(memory) > STEP_MHZ:
        yield Doubt("clocks", f"the clock of its memory moved from {min(memory)} to {max(memory)}")
    levels = [state.performance for state in working if state.performance is not None]
    if levels and max(levels) > min(levels):
        yield Doubt(
            "clocks",
            f"it went from performance state {max(levels)} to {min(levels)} while it worked: it "
            "was not warmed up",
        )


def _errors(before: GpuState, after: GpuState) -> Iterator[Doubt]:
    was, now = before.ecc_uncorrected, after.ecc_uncorrected
    if was is not None and now is not None and now > was:
        yield Doubt("errors", f"{now - was} errors of its memory were not corrected")


def _unjudged(kind: str, states: Sequence[GpuState], *names: str) -> Doubt:
    why = {state.unknown[name] for state in states for name in names if name in state.unknown}
    words = f"cannot be said: {', '.join(sorted(why)) or 'not read'}"
    return Doubt(kind, words, unjudged=True)
