"""Reads a results folder and separates files that can be trusted from the others, with reasons.

`frames` builds its tables from `trusted`. Whether one result agrees with its evidence and the
design is decided by the contract's `objections`; here results are compared with one another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import polars as pl

from virtbed_analysis import columns, copies, same_answers
from virtbed_analysis.checking import checked
from virtbed_analysis.differences import is_baseline
from virtbed_analysis.overlaps import overlapping
from virtbed_analysis.reading import EARLIER, MARK, Unfit, left_out, read
from virtbed_analysis.reading import Json as Json
from virtbed_analysis.reading import Rejected as Rejected
from virtbed_contract import identifiers
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.contradictions import lasted_ns
from virtbed_contract.factors import FACTORS
from virtbed_contract.measures import of_group
from virtbed_contract.objections import MOST_CORES, Planned
from virtbed_contract.sweep import Design, Evidence, Failure, HostReport

_Document = TypeVar("_Document")
_SAMPLE = columns.types(columns.SAMPLE)
_ROWS = 10_000  # packed into columns after this many, because rows take more memory
TRIALS = "trials"
DOCTOR, DOCTORS = "doctor.json", "doctor"
"""The host report of a sweep on one host, and the folder of those of several hosts."""
_TIMES = itemgetter("input", "queue_ns", *(phase.column for phase in of_group("phase")))


@dataclass(frozen=True)
class Trusted:
    """The files of a results folder that can be trusted, by trial id, and the rejected ones.

    Attributes:
        design: The design; None if it is missing or unfit.
        doctors: Reports of the hosts, by host.
        results: Results without their samples, which `samples()` has as columns, because those of a
            large sweep take a gigabyte as rows.
        evidence: Their evidence.
        times: Digests of the measured samples; no two trials have the same.
        failures: Failures of trials without a result.
        rejected: The files that cannot be trusted, with reasons.
        asked_ns: Total e2e time of the measured samples, as if one after another.
        lasted_ns: Minimum duration of the process.
        inputs: Names of the measured inputs.
        marks: Marks that reveal trials made of another trial's samples: `copies`.
    """

    design: Design | None
    doctors: dict[str, HostReport]
    results: dict[str, Json]
    evidence: dict[str, Evidence]
    times: dict[str, str]
    failures: dict[str, Failure]
    rejected: list[Rejected]
    asked_ns: dict[str, int] = field(default_factory=dict)
    lasted_ns: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    marks: dict[str, copies.Marks] = field(default_factory=dict)
    _rows: list[Json] = field(default_factory=list)
    _frames: list[pl.DataFrame] = field(default_factory=list)

    @cached_property
    def planned(self) -> Planned | None:
        """What the design plans; None without a design."""
        return Planned.of(self.design) if self.design else None

    def read(self, trial_folder: Path, file: str) -> tuple[Json, Evidence] | None:
        """Return a trial's result and evidence; if they are unfit, reject them and return None."""
        try:
            return checked(trial_folder, self.planned)
        except Unfit as reason:
            self.rejected.append(left_out(file, reason))
            return None

    def add(self, trial: str, result: Json, proof: Evidence) -> None:
        """Add a result under the id by which it is analysed."""
        samples = result["samples"]
        self.results[trial], self.evidence[trial] = {**result, "samples": []}, proof
        self.times[trial] = _digest_of_times(result)
        self.lasted_ns[trial] = lasted_ns(result)
        served = {one["input"] for one in samples if not one["warmup"]}
        self.inputs[trial] = tuple(sorted(served))
        self.asked_ns[trial] = sum(one["e2e_ns"] for one in samples if not one["warmup"])
        self.marks[trial] = copies.marks(samples)
        self._rows.extend({"trial": trial, "sample": n, **one} for n, one in enumerate(samples))
        if len(self._rows) >= _ROWS:
            self._pack()

    def samples(self) -> pl.DataFrame:
        """Return the samples, one row per sample, in the order of the results."""
        self._pack()
        frame = pl.concat([pl.DataFrame(schema=_SAMPLE), *self._frames])
        gone = set(self.times) - self.results.keys()
        return frame.filter(~pl.col("trial").is_in(sorted(gone))) if gone else frame

    def _pack(self) -> None:
        self._frames.append(pl.DataFrame(self._rows, schema=_SAMPLE))
        self._rows.clear()


def file_of(trial: str) -> str:
    """Return the path of a trial's result in its folder, by the id under which it is analysed."""
    own, mark, attempt = trial.partition(MARK)
    return f"{EARLIER}/{attempt}/{own}/result.json" if mark else f"{TRIALS}/{own}/result.json"


def trusted(folder: Path) -> Trusted:
    """Read all files of a results folder that the analysis needs, and reject the unfit ones."""
    rejected: list[Rejected] = []
    files = Trusted(
        optional(folder, "design.json", Design, identifiers.DESIGN, rejected),
        _reports(folder, rejected),
        {}, {}, {}, {}, rejected,
    )  # fmt: skip
    for trial_folder in _trial_folders(folder, rejected):
        name = f"{TRIALS}/{trial_folder.name}"
        if os.path.lexists(trial_folder / "result.json"):
            if both := files.read(trial_folder, f"{name}/result.json"):
                files.add(trial_folder.name, *both)
        else:
            failure = optional(
                folder, f"{name}/failure.json", Failure, identifiers.FAILURE, rejected
            )
            if failure is not None:
                files.failures[trial_folder.name] = failure
    _read_earlier(folder, files)
    unfit = chain(
        _twice(files),
        overlapping(files.results, files.lasted_ns),
        same_answers.changed(files.results),
    )
    for trial, why in list(unfit):
        if trial not in files.results:
            continue
        del files.results[trial], files.evidence[trial]
        rejected.append(left_out(file_of(trial), why))
    files.marks.clear()  # they take as much memory as the samples
    return files


def _reports(folder: Path, rejected: list[Rejected]) -> dict[str, HostReport]:
    """Return the reports of a sweep's hosts, by the host's name."""
    places = [DOCTOR, *(f"{DOCTORS}/{path.name}" for path in sorted(folder.glob(f"{DOCTORS}/*")))]
    reports: dict[str, HostReport] = {}
    for name in places:
        report = optional(folder, name, HostReport, identifiers.HOST_REPORT, rejected)
        if report is not None:
            reports.setdefault(report.host, report)
    return reports


def _read_earlier(folder: Path, found: Trusted) -> None:
    """Add the results of earlier attempts, which a sweep keeps when it measures a trial again."""
    for place in sorted(folder.glob(f"{EARLIER}/*/*")):
        file = str(place.relative_to(folder) / "result.json")
        if any(path.is_symlink() for path in (place, place.parent, place.parent.parent)):
            found.rejected.append(left_out(file, "is behind a symbolic link"))
            continue
        if not os.path.lexists(place / "result.json"):
            continue
        both = found.read(place, file)
        if both is None:
            continue
        result, proof = both
        latest = found.results.get(place.name)
        # A sweep that was killed while it moved a result aside has it in both places.
        if (
            latest is not None
            and latest["trial"] == result["trial"]
            and found.times[place.name] == _digest_of_times(result)
        ):
            continue
        if why := _no_earlier(result["trial"], place.parent.name, latest):
            found.rejected.append(left_out(file, why))
            continue
        own = f"{place.name}{MARK}{place.parent.name}"
        found.add(own, {**result, "trial": {**result["trial"], "id": own}}, proof)


def _no_earlier(trial: Json, attempt: str, latest: Json | None) -> str | None:
    """Return why a result cannot be that of an earlier attempt; None if it can."""
    if str(trial["attempt"]) != attempt:
        return (
            f"belongs to attempt {trial['attempt']}, not to attempt {attempt}, after which its "
            "folder is named"
        )
    if not is_baseline(trial):
        return (
            "is no baseline: the trial was measured again because bare metal of its replicate was "
            "measured after a pause, and only the later result has a pair"
        )
    if latest is not None and latest["trial"]["attempt"] <= trial["attempt"]:
        return f"belongs to attempt {attempt}, which is not earlier than the trial's result"
    return None


def _trial_folders(folder: Path, rejected: list[Rejected]) -> Iterator[Path]:
    """Yield the folder of each trial, by name, and reject everything else next to them."""
    trials = folder / TRIALS
    if not trials.is_dir():
        if os.path.lexists(trials):
            rejected.append(left_out(TRIALS, "is not a folder"))
        return
    for path in sorted(trials.iterdir()):
        if path.is_symlink() or not path.is_dir():
            if not path.name.startswith("."):
                why = "is a symbolic link" if path.is_symlink() else "is not the folder of a trial"
                rejected.append(left_out(f"{TRIALS}/{path.name}", why))
            continue
        yield path


def optional(
    folder: Path, name: str, kind: type[_Document], schema: str, rejected: list[Rejected]
) -> _Document | None:
    """Return a document of a results folder; None if it is missing, or unfit and thus rejected."""
    path = folder / name
    if not os.path.lexists(path):
        return None
    try:
        document = decode(kind, read(path, schema))
        if fault := next(_oddities(path, document), None):
            raise Unfit(fault)
    except (Unfit, DocumentError) as reason:
        rejected.append(left_out(name, reason))
        return None
    return document


def _oddities(path: Path, document: object) -> Iterator[str]:
    """Yield faults of a document that its schema allows."""
    if isinstance(document, Failure) and document.id != path.parent.name:
        yield f"belongs to trial {document.id}, not to the one after which its folder is named"
    if isinstance(document, HostReport):
        yield from _odd_facts(document.facts)
    if isinstance(document, Design):
        for what in ("id", "position"):
            values = [getattr(trial, what) for trial in document.trials]
            if len(set(values)) < len(values):
                yield f"has two trials with the same {what}"
        names = [entry.name for entry in document.platforms]
        if len(set(names)) < len(names):
            yield "has two platforms with the same name"
        sizes = [trial.cores for trial in document.trials]
        sizes += [row.cores for row in document.not_run if row.cores]
        if max(sizes, default=1) > MOST_CORES:
            yield f"has an instance of {max(sizes)} cores; at most {MOST_CORES} are accepted"


def _odd_facts(facts: Json) -> Iterator[str]:
    """Yield facts that reports show and whose types are not those that host_doctor writes."""
    cpu, engines = facts.get("cpu", {}), facts.get("engines", {})
    if not isinstance(cpu, dict) or not isinstance(engines, dict):
        yield "facts.cpu and facts.engines: mappings needed"
        return
    online = cpu.get("online", [])
    if not isinstance(online, list) or not all(type(number) is int for number in online):
        yield "facts.cpu.online: a list of numbers needed"
    texts = {"cpu.model": cpu.get("model")}
    texts |= {name: facts.get(name) for name in ("distribution", "kernel", "clocksource")}
    texts["governor"] = facts.get("governor")
    for name, engine in engines.items():
        if not isinstance(engine, dict):
            yield f"facts.engines.{name}: a mapping needed"
            return
        texts |= {f"engines.{name}.{key}": engine.get(key) for key in ("name", "version")}
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            yield f"facts.{name}: a text needed"


def _digest_of_times(result: Json) -> str:
    measured = [_TIMES(sample) for sample in result["samples"] if not sample["warmup"]]
    return hashlib.sha256(repr(measured).encode()).hexdigest()


def _twice(found: Trusted) -> Iterator[tuple[str, str]]:
    """Yield results that represent the same trial twice; which one is the copy is unknown."""
    same_times: dict[str, list[str]] = {}
    same_place: dict[tuple[object, ...], list[str]] = {}
    for trial, result in found.results.items():
        labels = result["trial"]
        same_times.setdefault(found.times[trial], []).append(trial)
        place = (*(labels[f.name] for f in FACTORS), result["settings"]["scenario"])
        place += trial.partition(MARK)[1:]  # an earlier attempt is no copy
        place += tuple(
            labels[name]
            for name in ("platform", "mode", "cores", "application", "scale", "replicate")
        )
        same_place.setdefault(place, []).append(trial)
    named: set[str] = set()
    whole = "has the measured samples of {}, to the nanosecond: one is a copy"
    groups = [(group, whole) for group in same_times.values()]
    groups += [(group, "is the same cell and replicate as {}") for group in same_place.values()]
    for group, what in chain(groups, copies.same_times(found.marks)):
        for trial in group if len(group) > 1 else ():
            if trial not in named:
                named.add(trial)
                others = ", ".join(other for other in group if other != trial)
                yield trial, what.format(others)
