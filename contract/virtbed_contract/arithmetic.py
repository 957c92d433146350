"""Consistency checks within one result: times, counts, CPU time, memory and labels.

Each rule holds for every result that the harness can write, since it reads one clock, serves one
request at a time and counts the requests. A result that breaks a rule was changed after it was
written. `objections` calls `faults` for each trial; `contradictions` compares a result with its
evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from .codec import Json
from .documents import BARE
from .measures import MEASURES, of_group

_PARTS = tuple(phase.column for phase in of_group("phase") if phase.column != "e2e_ns")
_TICK_S = 0.1
"""Tolerated difference of two readings of CPU time, in seconds: kernels count in ticks."""
_SLACK = 1.1
_IDLE_NS = 10_000_000_000
"""Tolerated idle time of a window besides twice the requests' time: the harness reads counters
between requests, thousands of times in a long trial."""
_RESIDENT_KIB = 65_536
"""Tolerated lag of the resident-set counters: on large machines each CPU batches its pages."""
_EARLIEST = datetime(2020, 1, 1, tzinfo=timezone.utc)  # a clock that was never set starts at 1970
_AHEAD = timedelta(days=1)  # tolerated lead of another machine's clock
_LARGEST = 1e18
"""The largest accepted measure: its square, summed over all trials, is still a finite float."""


def faults(result: Json) -> Iterator[str]:
    """Yield each inconsistency of a result that satisfies its schema, with found and needed."""
    yield from _samples(result)
    yield from _counts(result)
    yield from _clocks(result)
    yield from _window(result)
    yield from _memory(result)
    yield from _labels(result)
    for measure in MEASURES:
        value = measure.read(result) if measure.grain == "trial" else None
        if value is not None and not abs(value) <= _LARGEST:
            yield f"measures {measure.words} {value!r}, at most {_LARGEST:g} is accepted"


def _samples(result: Json) -> Iterator[str]:
    """Yield the first sample whose times or order no single clock can produce."""
    samples = result["samples"]
    warm = 0
    for index, sample in enumerate(samples):
        e2e, queue = sample["e2e_ns"], sample["queue_ns"]
        total = sum(map(sample.__getitem__, _PARTS))
        # JSON Schema accepts 1e6 as an integer; an integer column does not.
        if type(e2e) is not int or type(total) is not int or type(queue) is not int:
            yield f"sample {index} has times that are not whole numbers of ns"
            return
        if e2e <= 0:
            yield f"sample {index} took {e2e} ns, more than 0 needed"
            return
        if total != e2e:
            yield f"sample {index} took {e2e} ns end to end, but its phases took {total} ns"
            return
        if sample["warmup"]:
            if warm != index:
                yield f"sample {index} is a warm-up after a measured sample"
                return
            warm += 1
    if warm == len(samples):
        yield "has no measured sample, only warm-ups"


def _counts(result: Json) -> Iterator[str]:
    """Yield stated numbers of samples, queries, answers and periods that the counts contradict."""
    samples, settings, answers = result["samples"], result["settings"], result["answers"]
    warm = sum(sample["warmup"] for sample in samples)
    measured = len(samples) - warm
    for what, stated, counted in (
        ("measured samples", settings["samples"], measured),
        ("warm-ups", settings["warmup"], warm),
        ("checked answers", answers["checked"], len(samples)),
    ):
        if stated != counted:
            yield f"states {stated} {what}, but its samples give {counted}"
    queries = result["loadgen"]["queries"]
    alone = settings["scenario"] in ("single_stream", "server")  # one sample per query
    if queries > measured or (alone and queries != measured):
        yield f"states {queries} queries, but its samples give {measured}"
    named = [answer["input"] for answer in answers["by_input"]]
    if len(set(named)) < len(named):
        yield "has two answers to one input"
    unknown = {sample["input"] for sample in samples} - {
        answer["input"] for answer in answers["by_input"]
    }
    if unknown:
        yield f"has a sample of the input {min(unknown)}, but no answer to it"
    throttling = result["confounders"]["throttling"]
    # The two counters of a control group are not read at the same instant.
    if throttling is not None and throttling["throttled"] > throttling["periods"] + 2:
        yield (
            f"was throttled in {throttling['throttled']} of {throttling['periods']} periods, at "
            "most all of them are possible"
        )


def _clocks(result: Json) -> Iterator[str]:
    """Yield figures of LoadGen that the samples contradict.

    The harness states the median latency of the samples to the nanosecond. An edit that scales
    times, drops samples or changes the unit does not change that statement.
    """
    loadgen = result["loadgen"]
    if loadgen["validity"] == "VALID" and loadgen["reasons"]:
        yield f"LoadGen calls it VALID, and gives reasons against: {'; '.join(loadgen['reasons'])}"
    took = sorted(s["queue_ns"] + s["e2e_ns"] for s in result["samples"] if not s["warmup"])
    stated = loadgen["clocks"]["harness_median_ns"]
    if took and took[len(took) // 2] != stated:
        yield f"states a median latency of {stated} ns, its samples give {took[len(took) // 2]} ns"
    ranks = loadgen["percentiles_ns"]
    for rank in ranks:
        if not re.fullmatch(r"\d{1,2}(\.\d{1,6})?|100(\.0+)?", rank, re.ASCII):
            yield f"states a percentile {rank!r}, but a number from 0 to 100 is needed"
            return
    rising = sorted(ranks, key=float)
    for rank, higher in zip(rising, rising[1:]):
        if ranks[rank] > ranks[higher]:
            yield (
                f"states {ranks[rank]} ns for percentile {rank}, more than {ranks[higher]} ns for "
                f"percentile {higher}"
            )
            return


def _window(result: Json) -> Iterator[str]:
    """Yield times of requests and CPU times that exceed the window of the measured requests."""
    window_ns = result["confounders"]["window_ns"]
    measured = [sample for sample in result["samples"] if not sample["warmup"]]
    busy_ns = sum(sample["e2e_ns"] for sample in measured)
    longest_ns = max((s["queue_ns"] + s["e2e_ns"] for s in measured), default=0)
    if max(busy_ns, longest_ns) > window_ns or window_ns == 0:
        yield (
            f"measured for {window_ns} ns, but its samples took {busy_ns} ns in sequence, and the "
            f"longest {longest_ns} ns including its queue"
        )
        return
    # Shares of a mostly idle window do not describe the requests. Only a server waits for them.
    idle_ns = window_ns - max(busy_ns, longest_ns)
    if result["settings"]["scenario"] != "server" and idle_ns > _IDLE_NS + 2 * busy_ns:
        yield (
            f"measured for {window_ns / 1e9:.3f} s, but its samples took {busy_ns / 1e9:.3f} s in "
            "sequence, and this scenario does not wait between them"
        )
    if result["confounders"]["steal_share"] is None:
        return  # such a kernel (gVisor's) counts runnable threads as running
    used, own_s = result["rusage"], result["confounders"]["own_cpu_ns"] / 1e9
    used_s = used["user_s"] + used["system_s"]
    # Threads run on no more CPUs than the process may use.
    most_s = window_ns / 1e9 * len(result["environment"]["affinity"])
    for stated_s, what in ((used_s, "rusage"), (own_s, "confounders")):
        if stated_s > most_s * _SLACK + _TICK_S:
            yield f"used {stated_s:g} s of CPU time by its {what}, but its CPUs had {most_s:g} s"
    if used_s > own_s * _SLACK + _TICK_S:
        yield f"used {used_s:g} s of CPU time by its rusage, but {own_s:g} s by its confounders"


def _memory(result: Json) -> Iterator[str]:
    """Yield a peak resident set below a later reading, or beyond the instance's memory."""
    memory, trial = result["memory_kib"], result["trial"]
    peak, resident = memory["peak"], max(memory["after_warmup"], memory["after_samples"])
    if peak * _SLACK + _RESIDENT_KIB < resident:
        yield f"had {resident} KiB resident, but a peak of {peak} KiB"
    # A process on metal may use all memory of the host. The kernel charges a page of a file to the
    # group that read it first, so a container may show more than its limit, but not twice as much.
    bounded = (trial["machine"], trial["enclosure"]) != BARE
    if bounded and peak > trial["memory_mib"] * 1024 * 2:
        yield (
            f"had a peak of {peak} KiB resident, but its instance has "
            f"{trial['memory_mib'] * 1024} KiB"
        )


def _labels(result: Json) -> Iterator[str]:
    """Yield labels of the trial that other parts of the result contradict."""
    trial, application, settings = result["trial"], result["application"], result["settings"]
    for name, key in (("application", "name"), ("scale", "scale")):
        if application[key] != trial[name]:
            yield f"ran {name} {application[key]!r}, but {trial[name]!r} is needed"
    slowed, slowdown = trial["variant"] == "slowed", settings["slowdown"]
    if slowed != (slowdown > 0):
        yield (
            f"has slowdown {slowdown:g} (share of its time), but its variant is {trial['variant']}"
        )
    # The converse is no fault here: the host may be emulated, which only the evidence shows.
    if trial["accelerator"] == "tcg" and not trial["emulated"]:
        yield f"has emulated {trial['emulated']}, but its accelerator is {trial['accelerator']}"
    written = "%Y-%m-%dT%H:%M:%S.%f%z" if "." in trial["started_at"] else "%Y-%m-%dT%H:%M:%S%z"
    try:
        started = datetime.strptime(trial["started_at"], written)
    except ValueError:
        yield f"started at {trial['started_at']}, but a time in ISO 8601 is needed"
        return
    if not _EARLIEST <= started <= datetime.now(timezone.utc) + _AHEAD:
        yield (
            f"started at {trial['started_at']}, but a time between {_EARLIEST:%Y-%m-%d} and now is "
            "needed: the clock was wrong, or the label was changed"
        )
