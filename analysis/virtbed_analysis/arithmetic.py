"""Whether the numbers of one result agree with each other.

Each rule holds for every document that the harness can write: it reads one clock, serves one
request at a time, and counts what it serves. A file that breaks one was changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from virtbed_analysis.platforms import METAL, PROCESS
from virtbed_analysis.reading import Json
from virtbed_contract.measures import MEASURES, of_group

_PARTS = tuple(phase.column for phase in of_group("phase") if phase.column != "e2e_ns")
_TICK_S = 0.1
"""By how much two accounts of CPU time may differ: kernels count in ticks."""
_SLACK = 1.1
_IDLE_NS = 10_000_000_000
"""What a driver may take besides its requests, and twice their time: thousands of looks between."""
_RESIDENT_KIB = 65_536
"""By how much counters of pages that each CPU keeps for itself may be behind, on large machines."""
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)  # a clock that was never set begins at 1970
_AHEAD = timedelta(days=1)  # by so much may another machine's clock be ahead of ours
_LARGEST = 1e18
"""The largest measure: a sum of as many squares as there are trials is still a number."""


def faults(result: Json) -> Iterator[str]:
    """Give what does not agree in a result that satisfies its schema: found and needed."""
    yield from _samples(result)
    yield from _counts(result)
    yield from _clocks(result)
    yield from _window(result)
    yield from _memory(result)
    yield from _labels(result)
    for measure in MEASURES:
        value = measure.read(result) if measure.grain == "trial" else None
        if value is not None and not abs(value) <= _LARGEST:
            yield f"measures {measure.words} {value!r}, at most {_LARGEST:g} are read"


def _samples(result: Json) -> Iterator[str]:
    """Give the first sample whose times are not those of one clock, and what is out of order."""
    samples = result["samples"]
    warm = 0
    for index, sample in enumerate(samples):
        e2e, queue = sample["e2e_ns"], sample["queue_ns"]
        total = sum(map(sample.__getitem__, _PARTS))
        # A schema takes 1e6 for a whole number, a column of whole numbers does not.
        if type(e2e) is not int or type(total) is not int or type(queue) is not int:
            yield f"sample {index} has times that are no whole numbers of ns"
            return
        if e2e <= 0:
            yield f"sample {index} took {e2e} ns, which no clock can show"
            return
        if total != e2e:
            yield f"sample {index} took {e2e} ns end to end, its phases took {total} ns"
            return
        if sample["warmup"]:
            if warm != index:
                yield f"sample {index} is a warm-up that follows a measured one"
                return
            warm += 1
    if warm == len(samples):
        yield "has no measured sample, only warm-ups"


def _counts(result: Json) -> Iterator[str]:
    samples, settings, answers = result["samples"], result["settings"], result["answers"]
    warm = sum(sample["warmup"] for sample in samples)
    measured = len(samples) - warm
    for what, stated, counted in (
        ("measured samples", settings["samples"], measured),
        ("warm-ups", settings["warmup"], warm),
        ("checked answers", answers["checked"], len(samples)),
    ):
        if stated != counted:
            yield f"states {stated} {what}, its samples make it {counted}"
    queries = result["loadgen"]["queries"]
    alone = settings["scenario"] in ("single_stream", "server")  # one sample per query
    if queries > measured or (alone and queries != measured):
        yield f"states {queries} queries, its samples make it {measured}"
    named = [answer["input"] for answer in answers["by_input"]]
    if len(set(named)) < len(named):
        yield "has two answers to one input"
    unknown = {sample["input"] for sample in samples} - {
        answer["input"] for answer in answers["by_input"]
    }
    if unknown:
        yield f"has no answer to the input {min(unknown)}, of which it has a sample"
    throttling = result["confounders"]["throttling"]
    # The two counters of a control group are not read at one instant.
    if throttling is not None and throttling["throttled"] > throttling["periods"] + 2:
        yield (
            f"was throttled in {throttling['throttled']} of {throttling['periods']} periods, "
            "which is more than all"
        )


def _clocks(result: Json) -> Iterator[str]:
    """Give what LoadGen is said to have seen that the samples do not show.

    The harness's median is that of the samples, to the nanosecond: who scales times, drops some or
    writes them in another unit leaves it as it was.
    """
    loadgen = result["loadgen"]
    if loadgen["validity"] == "VALID" and loadgen["reasons"]:
        yield f"is VALID by LoadGen, with reasons why it is not: {'; '.join(loadgen['reasons'])}"
    took = sorted(s["queue_ns"] + s["e2e_ns"] for s in result["samples"] if not s["warmup"])
    stated = loadgen["clocks"]["harness_median_ns"]
    if took and took[len(took) // 2] != stated:
        yield f"states a median latency of {stated} ns, its samples have {took[len(took) // 2]} ns"
    ranks = loadgen["percentiles_ns"]
    for rank in ranks:
        if not re.fullmatch(r"\d{1,2}(\.\d{1,6})?|100(\.0+)?", rank, re.ASCII):
            yield f"states a percentile {rank!r}, a number from 0 to 100 needed"
            return
    rising = sorted(ranks, key=float)
    for rank, higher in pairwise(rising):
        if ranks[rank] > ranks[higher]:
            yield (
                f"states a percentile {rank} of {ranks[rank]} ns, beyond that of {higher}, "
                f"{ranks[higher]} ns"
            )
            return


def _window(result: Json) -> Iterator[str]:
    """Give what does not fit into the window of the measured requests."""
    window_ns = result["confounders"]["window_ns"]
    measured = [sample for sample in result["samples"] if not sample["warmup"]]
    busy_ns = sum(sample["e2e_ns"] for sample in measured)
    longest_ns = max((s["queue_ns"] + s["e2e_ns"] for s in measured), default=0)
    if max(busy_ns, longest_ns) > window_ns or window_ns == 0:
        yield (
            f"measured for {window_ns} ns, its samples took {busy_ns} ns one after another, the "
            f"longest {longest_ns} ns with its wait"
        )
        return
    # Shares of a window that is mostly idle say nothing of the requests. A server waits for them.
    idle_ns = window_ns - max(busy_ns, longest_ns)
    if result["settings"]["scenario"] != "server" and idle_ns > _IDLE_NS + 2 * busy_ns:
        yield (
            f"measured for {window_ns / 1e9:.3f} s, its samples took {busy_ns / 1e9:.3f} s one "
            "after another, and nothing waits between them"
        )
    if result["confounders"]["steal_share"] is None:
        return  # such a kernel (gVisor's) takes every thread that could run for one that did
    used, own_s = result["rusage"], result["confounders"]["own_cpu_ns"] / 1e9
    used_s = used["user_s"] + used["system_s"]
    # Threads run on no more CPUs than the process may use.
    most_s = window_ns / 1e9 * len(result["environment"]["affinity"])
    for stated_s, what in ((used_s, "rusage"), (own_s, "confounders")):
        if stated_s > most_s * _SLACK + _TICK_S:
            yield f"used {stated_s:g} s of CPU time by its {what}, its CPUs had {most_s:g} s"
    if used_s > own_s * _SLACK + _TICK_S:
        yield f"used {used_s:g} s of CPU time by its rusage, {own_s:g} s by its confounders"


def _memory(result: Json) -> Iterator[str]:
    """Give a peak of the resident set below what was resident, or beyond the instance's memory."""
    memory, trial = result["memory_kib"], result["trial"]
    peak, resident = memory["peak"], max(memory["after_warmup"], memory["after_samples"])
    if peak * _SLACK + _RESIDENT_KIB < resident:
        yield f"had {resident} KiB resident, at its peak {peak} KiB"
    # A process on metal may take what the host has. A container's pages of files are charged to
    # whoever read them first, so it may show more than its limit, but not twice as much.
    bounded = (trial["machine"], trial["enclosure"]) != (METAL, PROCESS)
    if bounded and peak > trial["memory_mib"] * 1024 * 2:
        yield (
            f"had {peak} KiB resident at its peak, its instance has "
            f"{trial['memory_mib'] * 1024} KiB"
        )


def _labels(result: Json) -> Iterator[str]:
    """Give the labels that are not what else the result says."""
    trial, application, settings = result["trial"], result["application"], result["settings"]
    for name, key in (("application", "name"), ("scale", "scale")):
        if application[key] != trial[name]:
            yield f"ran {name} {application[key]!r}, {trial[name]!r} was asked"
    slowed, slowdown = trial["variant"] == "slowed", settings["slowdown"]
    if slowed != (slowdown > 0):
        yield (
            f"was held back by {slowdown:g} of its time on purpose, its variant is "
            f"{trial['variant']}"
        )
    # The other way round it may be the host that is emulated, of which the evidence tells.
    if trial["accelerator"] == "tcg" and not trial["emulated"]:
        yield f"has emulated {trial['emulated']}, its accelerator is {trial['accelerator']}"
    try:
        started = datetime.fromisoformat(trial["started_at"].replace("Z", "+00:00"))
    except ValueError:
        yield f"started at {trial['started_at']}, which is no time"
        return
    if not _EARLIEST <= started <= datetime.now(UTC) + _AHEAD:
        yield (
            f"started at {trial['started_at']}, between {_EARLIEST:%Y-%m-%d} and now needed: the "
            "clock was wrong, or the label was changed"
        )
