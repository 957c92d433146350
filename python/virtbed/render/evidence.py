"""A trial's evidence in plain words, for `virtbed attest`: requested, read back, and disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.counts import count
from virtbed_contract.likeness import held
from virtbed_contract.neighbours import placed_in_words

Json = Mapping[str, Any]

MOMENTS = {
    "before": "before the trial",
    "inside": "by the application itself",
    "after": "after the trial",
}


_LONG = ("config", "cmdline")
"""Settings that are too long to print; the evidence has them."""
_COUNTS = {
    "device_interrupts": "interrupts of devices", "busiest": "most by", "aimed": "moved there",
    "timer_interrupts": "of timers", "throttled": "throttled by heat", "processes": "processes",
    "swapped_pages": "pages swapped", "messages": "kernel messages", "timers": "timers fired",
    "changed": "settings changed",
}  # fmt: skip


class AttestError(ValueError):
    """A path has no evidence of a trial; the message names the path."""


def explain(path: Path) -> tuple[bool, list[str]]:
    """Return whether a trial's placement was attested, and its evidence as sentences.

    Args:
        path: The trial's folder, or a file in it.

    Raises:
        AttestError: there is no evidence, or it is not as virtbed writes it.
    """
    try:
        return _explained(path)
    except AttestError:
        raise
    except (
        KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError, OSError,
        RecursionError,
    ) as error:  # fmt: skip
        raise AttestError(
            f"{path}: {repr(error)[:200]} in its files, evidence and result as virtbed writes them "
            "needed"
        ) from error


def _explained(path: Path) -> tuple[bool, list[str]]:
    folder = path if path.is_dir() else path.parent
    evidence = _read(folder / "evidence.json")
    if evidence is None:
        raise AttestError(
            f"{folder}: no evidence.json found; give a trial's folder, results/SWEEP/trials/ID, or "
            "a file in it"
        )
    result, failure = _read(folder / "result.json"), _read(folder / "failure.json")
    lines = [_requested(evidence)]
    if chosen := evidence["asked"].get("placement"):
        lines.append(f"These CPUs were chosen: {'; '.join(chosen)}.")
    lines += [
        f"Next to it, neighbour {number} of the same size on CPUs "
        f"{placed_in_words(own['cpus'], own['shares'], own['housekeeping'])}."
        for number, own in enumerate(evidence["asked"].get("neighbours", ()), start=1)
    ]
    for moment, words in MOMENTS.items():
        lines += [f"Read back {words}: {part}" for part in _reading(evidence.get(moment))]
    if evidence["attested"]:
        lines.append("Attested: every reading was as requested.")
    else:
        lines += [f"NOT attested: {mismatch}" for mismatch in evidence["mismatches"]]
    if result is not None:
        lines += _moved(result)
    if failure is not None:
        lines.append(f"The trial failed at stage {failure['stage']}: {failure['message']}")
    return bool(evidence["attested"]), lines


def _read(path: Path) -> Json | None:
    if not path.exists():
        return None
    try:
        return json_file.read(path)
    except DocumentError as error:
        raise AttestError(f"{path.parent}: {error}") from error


def _requested(evidence: Json) -> str:
    """Return the sentence about the instance that the trial requested."""
    instance = evidence["asked"]
    where = (
        f"on CPUs {instance['cpus']} with memory of nodes {instance['mems']}"
        if instance["mode"] == "pinned"
        else f"by count, free to run on CPUs {instance['allowed']}"
    )
    accelerated = f", accelerated by {instance['accelerator']}" if instance["own_kernel"] else ""
    return (
        f"{evidence['trial']} requested {instance['platform']} {instance['mode']}: "
        f"{instance['cores']} core(s) {where}, {instance['memory_mib']} MiB{accelerated}, "
        f"image {instance['image_digest'][:23]}."
    )


def _reading(reading: Json | None) -> Iterator[str]:
    """Yield the sentences about one reading: process, machine, enclosure, neighbours."""
    if reading is None:
        yield "nothing; the trial did not get that far."
        return
    machine, enclosure = reading.get("machine"), reading.get("enclosure")
    if "cpus_allowed_list" in reading:
        yield _process(reading)
    if machine and "cpus_online" in machine:
        yield f"CPUs {machine['cpus_online']} of the host online."
    if machine and "vcpu_threads" in machine:
        vcpus = "; ".join(f"vCPU {t['vcpu']} {_placed(t)}" for t in machine["vcpu_threads"])
        quotas = machine["quotas"] if "quotas" in machine else machine.get("quota_cpus")
        yield (
            f"the guest has {machine['vcpus']} vCPU(s) and {machine['memory_mib']} MiB under "
            f"{machine['accelerator']}; {vcpus}; emulator {_placed(machine['emulator'])}; "
            f"CPU quotas {quotas or 'none'}."
        )
    if enclosure and "container" in enclosure:
        quota = enclosure["quota_cpus"]
        yield (
            f"the container's cpuset is {enclosure['cpuset']}, its quota "
            f"{'none' if quota is None else count(quota, 'CPU')}, its memory "
            f"{enclosure['memory_mib']} MiB; throttled in {enclosure['throttled_periods']} periods "
            "so far."
        )
    elif enclosure:
        yield _process(enclosure)
    yield from map(_neighbour, reading.get("neighbours") or ())


def _neighbour(read: Json) -> str:
    """Return the sentence about the reading of one neighbour."""
    if read["ended"] is not None:
        return f"the neighbour {read['instance']} ended, with {read['ended']}."
    where = [
        f"on CPUs {process['cpus_allowed_list']}, found on {process['ran_on']}, "
        f"{process['cpu_s']:.1f} s of CPU time"
        for process in read["processes"]
    ]
    return (
        f"the neighbour {read['instance']} runs {'; '.join(where) or 'in no process'}, and has "
        f"answered {_known(read['requests'])} requests."
    )


def _placed(threads: Json) -> str:
    """Return where threads may run; if libvirt reports their pins, with these."""
    pinned = f"pinned to {threads['pin']}, " if "pin" in threads else ""
    return f"{pinned}allowed on {threads['cpus_allowed_list']}"


def _process(reading: Json) -> str:
    """Return the sentence about a process: CPUs, quota, memory policy, clock, thread pools."""
    quota = reading["cgroup"]["quota_cpus"]
    pools = ""
    if "threads" in reading:  # only the application has thread pools
        size = reading["threads"]["intra_op"] or "a size that the framework chooses"
        pools = f", thread pools of {size}"
    return (
        f"a process may run on CPUs {reading['cpus_allowed_list']} of {reading['cpus_visible']}, "
        f"quota {'none' if quota is None else count(quota, 'CPU')}, memory policy "
        f"{reading['memory_policy']}, clock {reading['clocksource']}{pools}."
    )


def _moved(result: Json) -> list[str]:
    """Return the sentences about what could have disturbed the trial, suspicions last."""
    from virtbed_analysis import suspicions

    moved, usage, seen = result["confounders"], result["rusage"], result["environment"]
    window_s = moved["window_ns"] / 1e9
    apart, siblings = moved["clock_apart_share"], moved["siblings_share"]
    lines = [
        f"While it measured ({window_s:.1f} s): steal {_share(moved['steal_share'])}, other "
        f"processes {_share(moved['others_share'])} of CPUs {moved['cpus']}"
        + ("" if siblings is None else f" and {siblings:.1%} of the same cores' other threads")
        + "; its threads were seen on CPUs "
        f"{moved['ran_on']} in {count(moved['looks'], 'sample')}, moved to another CPU "
        f"{_known(moved['migrations'])} times, left their CPU "
        f"{_known(usage['voluntary_switches'])} times voluntarily and "
        f"{_known(usage['involuntary_switches'])} times for other threads.",
        f"It saw {', '.join(seen['isa'])}, oneDNN chose {seen['onednn_isa'] or 'nothing'}; clock "
        f"{seen['clocksource']}"
        + ("" if apart is None else f", the guest's clock apart by {apart:.2%}")
        + f"; governor {_known(moved['governor'])}, "
        f"{_known(moved['mhz']['before'])} MHz before and {_known(moved['mhz']['after'])} after, "
        f"{_known(moved['temperature_c'])} °C; hugepages {moved['transparent_hugepage']}; load "
        f"{_known(moved['load_1min']['before'])} before and "
        f"{_known(moved['load_1min']['after'])} after.",
    ]
    lines += [*_set(seen), *_counted(result)]
    suspicious = suspicions(dict(result))
    lines += [f"SUSPECT: {suspicion}" for suspicion in suspicious]
    return lines if suspicious else [*lines, "Nothing suspect moved."]


def _set(seen: Json) -> Iterator[str]:
    """Yield the settings of the process and of its kernel, as far as they were reported."""
    for part, words in (("process_settings", "the process"), ("kernel_settings", "its kernel")):
        settings = seen.get(part) or {}
        parts = [
            f"{one.words} {settings[one.name]}"
            for one in held(part.partition("_")[0])
            if settings.get(one.name) is not None and one.name not in _LONG
        ]
        if parts:
            yield f"Set for {words}: {', '.join(parts)}."


def _counted(result: Json) -> Iterator[str]:
    """Yield the counts of the process's kernel, and of the bench host's, between two readings."""
    bench = (result.get("bench") or {}).get("moved")
    for moved, words in (
        (result["confounders"].get("moved"), "Its kernel counted during the trial"),
        (bench, "The bench host's kernel counted from before to after"),
    ):
        if moved:
            counts = ", ".join(
                f"{label} {_known(moved[name])}"
                for name, label in _COUNTS.items()
                if not isinstance(moved[name], list) or moved[name]
            )
            yield f"{words}, on CPUs {moved['cpus']}: {counts}."


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _known(value: object) -> str:
    """Format a value that a kernel may not report: None as "unknown"."""
    return (
        "unknown"
        if value is None
        else f"{value:.0f}"
        if isinstance(value, float) and value >= 10
        else str(value)
    )
