"""Kernel counters and messages of a trial, as the numbers that `suspicion` compares with limits.

A result has a reading by the process itself, over the measured requests, and one of the bench
host's kernel, from before to after the trial. For a guest these are two kernels; on metal an engine
may hide values from the process. The larger number counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from virtbed_analysis.platforms import METAL
from virtbed_contract.kernel.cpus import parse_cpu_list

Json = dict[str, Any]
_NAMED = 3
# The shortest window of a rate: kernels report their uptime in hundredths of a second, so a rate
# over less is off by more than a tenth.
_LEAST_S = 0.1
# The shortest window of a rate of started processes: a single start within a short one is no rate.
_LEAST_OF_STARTS_S = 1.0


def readings(result: Json) -> Iterator[Json]:
    """Yield the counters of a trial: those by the process, then those of the bench host."""
    bench = result.get("bench") or {}
    yield from filter(None, (result["confounders"].get("moved"), bench.get("moved")))


def most(name: str) -> Callable[[Json], float | None]:
    """Return a function from a result to the largest count of a name; None if not reported."""

    def read(result: Json) -> float | None:
        counts = (moved[name] for moved in readings(result))
        return max((float(count) for count in counts if count is not None), default=None)

    return read


def number_of(name: str) -> Callable[[Json], float | None]:
    """Return a function from a result to the number of distinct entries of a list."""
    return lambda result: float(len(_listed(result, name)))


def all_of(name: str) -> Callable[[Json], str]:
    """Return a function from a result to the entries of a list, in words."""

    def in_words(result: Json) -> str:
        listed = _listed(result, name)
        more = f"; and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        return "; ".join(listed[:_NAMED]) + more

    return in_words


def device_rate(result: Json) -> float | None:
    """Return the device interrupts per second and CPU."""
    return _rate(result, "device_interrupts")


def timer_rate(result: Json) -> float | None:
    """Return the timer interrupts per second and CPU, by the kernel of the process.

    The host's kernel also counts the timers of a hypervisor or of gVisor (thousands per second),
    which are part of the platform's cost and not suspicious.
    """
    own = result["confounders"].get("moved")
    bench = (result.get("bench") or {}).get("moved") if _on_bench(result) else None
    return _largest(filter(None, (own, bench)), "timer_interrupts")


def _on_bench(result: Json) -> bool:
    """Return whether the process ran on the bench host's kernel: on metal, with the same build."""
    inside = result["environment"].get("kernel_settings") or {}
    outside = (result.get("bench") or {}).get("settings") or {}
    same = inside.get("build") is not None and inside["build"] == outside.get("build")
    return same and result["trial"]["machine"] == METAL  # a guest may boot its host's kernel


def start_rate(result: Json) -> float | None:
    """Return the processes started per second, by the reading of the process.

    The bench host's reading is not used, since the testbed starts processes between its ends.
    """
    moved = result["confounders"].get("moved")
    return _per_second(moved, "processes", 1, _LEAST_OF_STARTS_S) if moved else None


def busiest(result: Json) -> str:
    """Return the name of the device with the most interrupts."""
    rates = [(_per_second(moved, "device_interrupts", _cpus(moved)) or 0.0, moved["busiest"])
             for moved in readings(result)]  # fmt: skip
    return max(rates, key=lambda rate: rate[0])[1] or ""


def last_message(result: Json) -> str:
    """Return the last kernel message that was logged during the trial; "" without any."""
    messages = (moved["last_message"] for moved in readings(result))
    return next((f"last: {text}" for text in messages if text), "")


def clock_ns(result: Json) -> float | None:
    """Return the duration of one reading of the clock, in ns; None if not reported."""
    settings = result["environment"].get("process_settings") or {}
    duration = settings.get("clock_ns")
    return None if duration is None else float(duration)


def _listed(result: Json, name: str) -> list[str]:
    return list(dict.fromkeys(text for moved in readings(result) for text in moved[name]))


def _rate(result: Json, name: str) -> float | None:
    return _largest(readings(result), name)


def _largest(readings: Iterable[Json], name: str) -> float | None:
    rates = (_per_second(moved, name, _cpus(moved)) for moved in readings)
    return max((rate for rate in rates if rate is not None), default=None)


def _per_second(moved: Json, name: str, by: int, least_s: float = _LEAST_S) -> float | None:
    count, window_s = moved[name], moved["window_s"]
    if count is None or window_s is None:
        return None
    return float(count / max(least_s, window_s) / max(1, by))


def _cpus(moved: Json) -> int:
    try:
        return len(parse_cpu_list(moved["cpus"]))
    except ValueError:  # in a result that was edited
        return 1
