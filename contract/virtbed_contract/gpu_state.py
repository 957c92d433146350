"""State of a GPU at one moment, and the rules that make a trial on a GPU suspect.

`virtbed_contract.nvml` reads states. A reading that NVML refuses is null, with the reason in
`unknown`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Optional

from .codec import described

SLOWING = {
    "sw_power_cap": "its power limit",
    "hw_slowdown": "its hardware",
    "sw_thermal": "heat",
    "hw_thermal": "heat that its hardware detected",
    "power_brake": "the power supply",
}
"""Involuntary reasons for a lower clock: from the name in a state to the words of a message. Other
reasons are idling, requested clocks, and synchronization with another GPU."""
STEP_MHZ = 15
"""Step between clock rates, in MHz; rates that differ by one step count as equal."""
POWER_ABOVE_LIMIT = 2.0
"""Upper bound of the mean power of a trial, as a multiple of the card's power limit. A card may
exceed its limit only for milliseconds."""
_WIDTHS = (32, 64)  # possible numbers of bits of a counter, whose width NVML does not document
_NS_WIDTHS = (64,)  # counters of nanoseconds: with 32 bits they would wrap every four seconds
_LATE = 2  # counters are updated now and then, so they may rise by more than the elapsed time
Use = Literal["compute", "graphics", "mps"]
"""Purpose for which a process uses a GPU."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that uses a GPU."""

    pid: int = described("Process id, as the host numbers it.")
    kind: Use = described("Purpose for which the process uses the GPU.")
    memory_mib: Optional[int] = described(
        "Memory of the GPU that the process uses, in MiB; null if it is not reported."
    )


@dataclass(frozen=True)
class GpuState:
    """State of one GPU at one moment, as NVML reports it; null for a reading that it refuses."""

    at_ns: int = described("Time of the reading by a monotonic clock, in nanoseconds.")
    uuid: str = described("UUID of the GPU.")
    address: str = described("PCI address on this machine; in a guest it is another.")
    name: str = described("Product name of the GPU.")
    driver: str = described("Version of the driver.")
    cuda: Optional[str] = described("Latest version of CUDA that the driver supports.")
    link_width: Optional[int] = described("Current number of lanes of the PCI Express link.")
    link_width_most: Optional[int] = described("Most lanes that card and slot support.")
    link_generation: Optional[int] = described(
        "Current PCI Express generation of the link, which determines its speed."
    )
    link_generation_most: Optional[int] = described(
        "Latest PCI Express generation that card and slot support."
    )
    performance: Optional[int] = described("Performance state: 0 is the fastest, 8 is idle.")
    sm_mhz: Optional[int] = described("Current clock rate of the multiprocessors, in MHz.")
    sm_mhz_most: Optional[int] = described("Highest clock rate of the multiprocessors, in MHz.")
    memory_mhz: Optional[int] = described("Current clock rate of the memory, in MHz.")
    memory_mhz_most: Optional[int] = described("Highest clock rate of the memory, in MHz.")
    throttle: Optional[tuple[str, ...]] = described("Reasons why the clock rate is not higher.")
    throttled_ns: Optional[dict[str, int]] = described(
        "Time for which the GPU was slowed since its driver was loaded, in nanoseconds, by reason."
    )
    temperature_c: Optional[int] = described("Temperature, in degrees Celsius.")
    power_mw: Optional[int] = described("Power that the GPU draws, in milliwatts.")
    power_limit_mw: Optional[int] = described("Power limit of the GPU, in milliwatts.")
    energy_mj: Optional[int] = described("Energy since the driver was loaded, in millijoules.")
    ecc: Optional[bool] = described("Whether error correction of the memory (ECC) is on.")
    ecc_uncorrected: Optional[int] = described(
        "Number of uncorrected memory errors since the driver was loaded."
    )
    ecc_corrected: Optional[int] = described(
        "Number of corrected memory errors since the driver was loaded."
    )
    mig: Optional[bool] = described("Whether the GPU is divided by MIG.")
    compute_mode: Optional[str] = described("Who may use the GPU: default, exclusive, prohibited.")
    persistence: Optional[bool] = described(
        "Whether persistence mode is on: the driver keeps the GPU initialized between uses."
    )
    processes: Optional[tuple[GpuProcess, ...]] = described("Processes that use the GPU.")
    bar1_mib: Optional[int] = described("Memory that the CPU can map at once (BAR1), in MiB.")
    bar1_used_mib: Optional[int] = described("Part of BAR1 that is in use, in MiB.")
    unknown: dict[str, str] = described("Why a reading is null, by the name of its field.")


@dataclass(frozen=True)
class Doubt:
    """A reason not to trust a trial's times, or a rule that could not be applied."""

    kind: str = described("Name of the rule, one word for programs.")
    words: str = described("What was found, or why the rule could not be applied.")
    unjudged: bool = described("Whether the rule could not be applied.", default=False)


def doubts(
    before: GpuState,
    after: GpuState,
    working: Sequence[GpuState] = (),
    ours: Iterable[int] = (),
    locked_mhz: Optional[int] = None,
) -> tuple[Doubt, ...]:
    """Return the reasons to suspect a trial on a GPU, and the rules that could not be applied.

    Args:
        before: The state before the trial.
        after: The state after it.
        working: States during the trial, without its warm-up.
        ours: Ids of the trial's processes, as the host numbers them.
        locked_mhz: Clock rate that the multiprocessors were locked to; None if not locked.
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
    """Return the energy used between two states in millijoules, even if the counter wrapped.

    Returns:
        The energy; None if it is unknown: there is no counter, or it was reset with the driver.
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
    """Return by how much a counter rose, even if it wrapped.

    Args:
        before: The earlier value.
        after: The later value.
        most: Largest possible rise; None if it is unknown, and then a lower value gives None.
        widths: Possible numbers of bits of the counter.

    Returns:
        The rise; None if no possible rise explains the two values, so the counter was reset.

    >>> risen(90, 100), risen(2**32 - 6, 4, most=20), risen(100, 4, most=20)
    (10, 10, None)
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
    reasons = [why for state in states for why in state.throttle or () if why in SLOWING]
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
            words = "its counter was reset, or cannot be read any more"
            yield Doubt("throttled", f"slowed by {why}: not known, {words}", unjudged=True)
    if reasons and not any(rises.values()):
        named = ", ".join(SLOWING[why] for why in dict.fromkeys(reasons))
        yield Doubt("throttled", f"slowed by {named} in {len(reasons)} of {len(states)} readings")
    if all(state.throttle is None for state in states) and not rises:
        yield _unjudged("throttled", states, "throttle", "throttled_ns")


def _others(states: Sequence[GpuState], ours: set[int]) -> Iterator[Doubt]:
    known = [state.processes for state in states if state.processes is not None]
    if not known:
        yield _unjudged("processes", states, "processes")
    others = {each.pid: each for processes in known for each in processes if each.pid not in ours}
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
    # The link of an idle GPU runs at a lower speed to save power, so only working states count.
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
        yield Doubt("errors", f"{now - was} errors of its memory were not corrected, 0 needed")


def _unjudged(kind: str, states: Sequence[GpuState], *names: str) -> Doubt:
    why = {state.unknown[name] for state in states for name in names if name in state.unknown}
    words = f"not known: {', '.join(sorted(why)) or 'not read'}"
    return Doubt(kind, words, unjudged=True)
