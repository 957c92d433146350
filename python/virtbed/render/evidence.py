"""A trial's evidence in plain words: what was asked, found, and moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.likeness import held
from virtbed_contract.neighbours import placed_in_words

Json = Mapping[str, Any]

MOMENTS = {
    "before": "before the trial",
    "inside": "by the application itself",
    "after": "after the trial",
}


_LONG = ("config", "cmdline")
"""Settings that are too long for a line; the evidence has them."""
_COUNTS = {
    "device_interrupts": "interrupts of devices", "busiest": "most by", "aimed": "moved there",
    "timer_interrupts": "of timers", "throttled": "throttled by heat", "processes": "processes",
    "swapped_pages": "pages swapped", "messages": "kernel messages", "timers": "timers fired",
    "changed": "settings changed",
}  # fmt: skip


class AttestError(ValueError):
    """No evidence where it was looked for; the message says where that was."""


def explain(path: Path) -> tuple[bool, list[str]]:
    """Return whether a trial's placement was attested, and its evidence as sentences.

    Args:
        path: The trial's folder, or a file in it.

    Raises:
        AttestError: there is no evidence there, or what is there is none.
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
            f"{path}: {repr(error)[:200]} in what is there, evidence and result as virtbed writes "
            "them needed"
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
    lines = [_asked(evidence)]
    if chosen := evidence["asked"].get("placement"):
        lines.append(f"These CPUs were chosen: {'; '.join(chosen)}.")
    lines += [
        f"Next to it, neighbour {number} of the same size on CPUs "
        f"{placed_in_words(own['cpus'], own['shares'], own['housekeeping'])}."
        for number, own in enumerate(evidence["asked"].get("neighbours", ()), start=1)
    ]
    for moment, words in MOMENTS.items():
        lines += [f"Read back {words}: {said}" for said in _found(evidence.get(moment))]
    if evidence["attested"]:
        lines.append("Attested: every reading was as asked.")
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


def _asked(evidence: Json) -> str:
    asked = evidence["asked"]
    where = (
        f"on CPUs {asked['cpus']} with memory of nodes {asked['mems']}"
        if asked["mode"] == "pinned"
        else f"by count, free to run on CPUs {asked['allowed']}"
    )
    accelerated = f", accelerated by {asked['accelerator']}" if asked["own_kernel"] else ""
    return (
        f"{evidence['trial']} asked for {asked['platform']} {asked['mode']}: {asked['cores']} "
        f"core(s) {where}, {asked['memory_mib']} MiB{accelerated}, "
        f"image {asked['image_digest'][:23]}."
    )


def _found(reading: Json | None) -> Iterator[str]:
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
            f"{'none' if quota is None else f'{quota:g} CPUs'}, its memory "
            f"{enclosure['memory_mib']} MiB; throttled in {enclosure['throttled_periods']} periods "
            "so far."
        )
    elif enclosure:
        yield _process(enclosure)
    yield from map(_neighbour, reading.get("neighbours") or ())


def _neighbour(read: Json) -> str:
    """Write what was read of one that runs next to the instance."""
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
    """Write where threads may run; a manager that keeps pins of its own tells those, too."""
    pinned = f"pinned to {threads['pin']}, " if "pin" in threads else ""
    return f"{pinned}allowed on {threads['cpus_allowed_list']}"


def _process(reading: Json) -> str:
    quota = reading["cgroup"]["quota_cpus"]
    pools = ""
    if "threads" in reading:  # only the application has pools
        size = reading["threads"]["intra_op"] or "as many as the framework chooses"
        pools = f", pools of {size}"
    return (
        f"a process may run on CPUs {reading['cpus_allowed_list']} of {reading['cpus_visible']}, "
        f"quota {'none' if quota is None else f'{quota:g} CPUs'}, memory policy "
        f"{reading['memory_policy']}, clock {reading['clocksource']}{pools}."
    )


def _moved(result: Json) -> list[str]:
    from virtbed_analysis import suspicions

    found, usage, seen = result["confounders"], result["rusage"], result["environment"]
    window_s = found["window_ns"] / 1e9
    apart, siblings = found["clock_apart_share"], found["siblings_share"]
    lines = [
        f"While it measured ({window_s:.1f} s): steal {_share(found['steal_share'])}, other "
        f"processes {_share(found['others_share'])} of CPUs {found['cpus']}"
        + ("" if siblings is None else f" and {siblings:.1%} of the same cores' other threads")
        + "; its threads were found on "
        f"{found['ran_on']} in {found['looks']} looks, moved to another CPU "
        f"{_known(found['migrations'])} times, off their CPU "
        f"{_known(usage['voluntary_switches'])} times by themselves and "
        f"{_known(usage['involuntary_switches'])} times for others.",
        f"It saw {', '.join(seen['isa'])}, oneDNN chose {seen['onednn_isa'] or 'nothing'}; clock "
        f"{seen['clocksource']}"
        + ("" if apart is None else f", the guest's clock apart by {apart:.2%}")
        + f"; governor {_known(found['governor'])}, "
        f"{_known(found['mhz']['before'])} MHz before and {_known(found['mhz']['after'])} after, "
        f"{_known(found['temperature_c'])} °C; hugepages {found['transparent_hugepage']}; load "
        f"{_known(found['load_1min']['before'])} before and "
        f"{_known(found['load_1min']['after'])} after.",
    ]
    lines += [*_set(seen), *_counted(result)]
    suspicious = suspicions(dict(result))
    lines += [f"SUSPECT: {suspicion}" for suspicion in suspicious]
    return lines if suspicious else [*lines, "Nothing suspect moved."]


def _set(seen: Json) -> Iterator[str]:
    """Give what was set for the process and its kernel, as far as it is reported."""
    for part, words in (("process_settings", "the process"), ("kernel_settings", "its kernel")):
        found = seen.get(part) or {}
        parts = [
            f"{one.words} {found[one.name]}"
            for one in held(part.partition("_")[0])
            if found.get(one.name) is not None and one.name not in _LONG
        ]
        if parts:
            yield f"Set for {words}: {', '.join(parts)}."


def _counted(result: Json) -> Iterator[str]:
    """Give what the process's kernel counted, and the bench host's, each between its readings."""
    bench = (result.get("bench") or {}).get("moved")
    for moved, words in (
        (result["confounders"].get("moved"), "Its kernel counted meanwhile"),
        (bench, "The bench host's kernel counted from before to after"),
    ):
        if moved:
            counts = ", ".join(
                f"{said} {_known(moved[name])}"
                for name, said in _COUNTS.items()
                if not isinstance(moved[name], list) or moved[name]
            )
            yield f"{words}, on CPUs {moved['cpus']}: {counts}."


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _known(value: object) -> str:
    """Write what a kernel may keep to itself."""
    return (
        "unknown"
        if value is None
        else f"{value:.0f}"
        if isinstance(value, float) and value >= 10
        else str(value)
    )
