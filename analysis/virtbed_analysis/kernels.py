"""What kernels counted and logged while a trial ran: numbers for `suspicion`.

A result has one reading by the process itself, over the measured requests, and one of the bench
host's kernel, from before the trial to after it. Of a guest they are of two kernels; of metal an
engine may hide from the process what the other tells. The larger number counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from virtbed_analysis.platforms import METAL
from virtbed_contract.kernel.cpus import parse_cpu_list

Json = dict[str, Any]
_NAMED = 3
# A kernel tells its uptime in hundredths of a second: the rate over a shorter time is off by more
# than a tenth.
_LEAST_S = 0.1
# One process that is started is no rate, however short the requests were between which it started.
_LEAST_OF_STARTS_S = 1.0


def readings(result: Json) -> Iterator[Json]:
    """Give what is reported of a trial: by the process, then by the bench host's kernel."""
    bench = result.get("bench") or {}
    yield from filter(None, (result["confounders"].get("moved"), bench.get("moved")))


def most(name: str) -> Callable[[Json], float | None]:
    """Return a reader of the largest count of a name; it gives None if no kernel tells."""

    def read(result: Json) -> float | None:
        counts = (moved[name] for moved in readings(result))
        return max((float(count) for count in counts if count is not None), default=None)

    return read


def number_of(name: str) -> Callable[[Json], float | None]:
    """Return a reader of how many different things are listed under a name."""
    return lambda result: float(len(_listed(result, name)))


def all_of(name: str) -> Callable[[Json], str]:
    """Return a reader of what is listed under a name, in words."""

    def in_words(result: Json) -> str:
        listed = _listed(result, name)
        more = f"; and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        return "; ".join(listed[:_NAMED]) + more

    return in_words


def device_rate(result: Json) -> float | None:
    """Return the devices' interrupts per second and CPU."""
    return _rate(result, "device_interrupts")


def timer_rate(result: Json) -> float | None:
    """Return the interrupts of the CPUs' own timers per second and CPU.

    By the kernel of the process: on the host's, the timers of a hypervisor or of gVisor (which
    sets thousands a second) fire on the same CPUs, and are what the platform costs.
    """
    own = result["confounders"].get("moved")
    bench = (result.get("bench") or {}).get("moved") if _on_bench(result) else None
    return _largest(filter(None, (own, bench)), "timer_interrupts")


def _on_bench(result: Json) -> bool:
    """Return whether the bench host's kernel is that of the process, which tells the same build."""
    inside = result["environment"].get("kernel_settings") or {}
    outside = (result.get("bench") or {}).get("settings") or {}
    same = inside.get("build") is not None and inside["build"] == outside.get("build")
    return same and result["trial"]["machine"] == METAL  # a guest may boot its host's kernel


def start_rate(result: Json) -> float | None:
    """Return the processes that were started per second, by the process's own kernel.

    The testbed itself starts some between the readings of the bench host.
    """
    moved = result["confounders"].get("moved")
    return _per_second(moved, "processes", 1, _LEAST_OF_STARTS_S) if moved else None


def busiest(result: Json) -> str:
    """Return the device with the most interrupts."""
    rates = [(_per_second(moved, "device_interrupts", _cpus(moved)) or 0.0, moved["busiest"])
             for moved in readings(result)]  # fmt: skip
    return max(rates, key=lambda rate: rate[0])[1] or ""


def last_message(result: Json) -> str:
    """Return the last of the new messages."""
    said = (moved["last_message"] for moved in readings(result))
    return next((f"last: {text}" for text in said if text), "")


def clock_ns(result: Json) -> float | None:
    """Return what one reading of the clock takes."""
    settings = result["environment"].get("process_settings") or {}
    found = settings.get("clock_ns")
    return None if found is None else float(found)


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
    except ValueError:  # of a file that nobody vouches for
        return 1
