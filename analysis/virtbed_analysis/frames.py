"""Results folders as tidy frames."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from virtbed_analysis import columns, copies, hosts, latency, neighbours, passes, unlike
from virtbed_analysis.differences import strays as strays_of
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_whole
from virtbed_analysis.functional import NOTHING
from virtbed_analysis.platforms import METAL, Parts, Platforms, platforms_of
from virtbed_analysis.reading import Json, Rejected, left_out, plain
from virtbed_analysis.suspicion import suspicions
from virtbed_analysis.trust import file_of, trusted
from virtbed_contract import identifiers
from virtbed_contract.documents import Instance
from virtbed_contract.factors import FACTORS
from virtbed_contract.likeness import RECORDED, held
from virtbed_contract.measures import JUDGED_BY, MEASURES
from virtbed_contract.sweep import MARGIN, Design, Failure, HostReport

log = logging.getLogger(__name__)

TRIAL_COLUMNS = columns.types(columns.TRIAL)
SAMPLE_COLUMNS = columns.types(columns.SAMPLE)
_PARTS = ("design.json", "trials")  # a results folder has one of them, or both
# No estimate groups samples by these: a million samples would hold each text a million times.
_ASIDE = (
    "clocksource", "cpu_model", "frameworks", "governor", "image_digest",
    "input_seed", "inputs", "inter_op", "intra_op", "isa", "judged_by", "keras", "kernel",
    "kernel_kind",
    "mhz", "mitigations", "model", "onednn_isa", "python", "tensorflow", "times_digest",
    "transparent_hugepage", "turbo", "warnings", *columns.RECORDED_ASIDE,
)  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """A results folder as read.

    `trials` has one row per trial (`TRIAL_COLUMNS`), `samples` one row per sample
    (`SAMPLE_COLUMNS` and every trial column); their column `platform` sorts as reports list
    platforms. `failures` maps a trial's id to its failure.json. `hosts` are the reports by host;
    `doctor` is the host's, or where several are pooled, which are alike, the first one's.
    `functional` has the trials of an application that computes nothing, which are in neither of the
    two.
    """

    name: str
    trials: pl.DataFrame
    samples: pl.DataFrame
    design: Design | None
    doctor: HostReport | None
    failures: dict[str, Failure]
    rejected: list[Rejected]
    platforms: Platforms
    functional: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRIAL_COLUMNS))
    hosts: Mapping[str, HostReport] = field(default_factory=dict)

    @property
    def margin(self) -> float:
        """The smallest cost worth knowing, as a share, as the plan has it."""
        return self.design.margin if self.design else MARGIN


def load(path: Path | str, *more: Path | str) -> pl.DataFrame:
    """Return the samples of one results folder or several, a row each with its trial's columns.

    Times are integer nanoseconds. Warm-up samples are there, flagged by `warmup`. Each file left
    out is logged. Folders may be of other hosts, or shards of one sweep; see `columns` for what
    each column holds.

    Raises:
        AnalysisError: a folder does not exist or is no results folder, no sample is found, a trial
            is there twice, or results are unlike (see `unlike.TABLE`).

    Example:
        >>> samples = load("results/quick")
        >>> samples.height, samples["trial"].n_unique()
        (60, 15)
        >>> load("results/quick", "results/nowhere")
        Traceback (most recent call last):
            ...
        virtbed_analysis.errors.AnalysisError: ...
    """
    sweeps = [(one, _each_host(Path(one))) for one in (path, *more)]
    for folder, sweep in sweeps:
        for rejected in sweep.rejected:
            log.warning("%s/%s left out: %s", folder, rejected.file, rejected.reason)
    platforms = sweeps[0][1].platforms
    for _, sweep in sweeps[1:]:
        platforms |= sweep.platforms
    one_order = pl.col("platform").cast(pl.String).cast(pl.Enum(platforms.names))
    trials = pl.concat([sweep.trials.with_columns(one_order) for _, sweep in sweeps])
    where = ", ".join(str(folder) for folder, _ in sweeps)
    unlike.refuse(where, trials, pooled=len(sweeps) > 1)
    twice = trials.group_by("host", "plan_digest", "trial").len().filter(pl.col("len") > 1)
    if twice.height:
        host, _, trial, times = twice.sort("host", "trial").row(0)
        raise AnalysisError(
            f"trial {trial} of host {host} is in {times} of the folders: it would count {times} "
            "times; give each folder once, or leave one of the copies out"
        )
    copies = trials.filter(pl.col("times_digest").is_duplicated()).sort("times_digest", "trial")
    if copies.height:
        first, second = (f"{row['trial']} of host {row['host']}" for row in copies[:2].to_dicts())
        raise AnalysisError(
            f"{where}: {first} and {second} have the same measured samples, to the nanosecond: one "
            "is a copy under another name; leave it out"
        )
    if len(sweeps) > 1:
        _refuse_copies(where, [sweep for _, sweep in sweeps])
    samples = pl.concat([_whole(sweep).with_columns(one_order) for _, sweep in sweeps])
    if samples.is_empty():
        out = sum(len(sweep.rejected) for _, sweep in sweeps)
        raise AnalysisError(
            f"{where}: no trial with samples found, one needed{_nothing(sweeps, out)}"
        )
    return samples


def _nothing(sweeps: Iterable[tuple[Path | str, Sweep]], out: int) -> str:
    """Return what else there is instead of samples, and what to do."""
    failed = sum(len(sweep.failures) for _, sweep in sweeps)
    aside = sum(sweep.functional.height for _, sweep in sweeps)
    counts = {
        "of an application that computes nothing": aside, "failed": failed, "files left out": out
    }  # fmt: skip
    listed = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return f" ({listed}); `virtbed report` says why" if listed else "; carry the sweep out first"


def _refuse_copies(where: str, sweeps: Iterable[Sweep]) -> None:
    """Raise `AnalysisError` if a trial of one sweep is made of another's; see `copies`."""
    marked = {}
    for number, sweep in enumerate(sweeps, start=1):
        measured = sweep.samples.filter(~pl.col("warmup")).select("trial", "host", *copies.READ)
        for (trial, host), own in measured.partition_by("trial", "host", as_dict=True).items():
            marked[f"{trial} of host {host}, folder {number}"] = copies.marks(own.to_dicts())
    for group, what in copies.same_times(marked):
        raise AnalysisError(f"{where}: {group[0]}, {what.format(group[1])}; leave it out")


def _whole(sweep: Sweep) -> pl.DataFrame:
    """Return the samples of a sweep with every column of their trials."""
    aside = sweep.trials.select("trial", *_ASIDE)
    whole = sweep.samples.join(aside, on="trial", how="left", maintain_order="left")
    return whole.select([*SAMPLE_COLUMNS, *(name for name in TRIAL_COLUMNS if name != "trial")])


def write_parquet(samples: pl.DataFrame, file: Path) -> None:
    """Write what `load` gives as Parquet; its metadata says what each column holds.

    Example:
        >>> write_parquet(load("results/quick"), Path("samples.parquet"))
        >>> pl.read_parquet("samples.parquet")["mode"].unique().sort().to_list()
        ['pinned', 'vanilla']
    """
    about = {"schema": identifiers.SAMPLES, "columns": json.dumps(columns.described())}
    plain = samples.with_columns(pl.col(pl.Enum).cast(pl.String))
    write_whole(file, lambda path: plain.write_parquet(path, metadata=about))


def export(folders: Iterable[Path], file: Path) -> tuple[int, int]:
    """Write the samples of results folders as one Parquet file; see `load`.

    Returns:
        How many samples, and of how many trials.

    Example:
        >>> export([Path("results/quick")], Path("samples.parquet"))
        (60, 15)
    """
    samples = load(*folders)
    write_parquet(samples, file)
    return samples.height, samples.select("host", "plan_digest", "trial").n_unique()


def read_sweep(folder: Path, host: str = "") -> Sweep:
    """Read a whole results folder, complete or partial.

    Args:
        folder: The folder.
        host: The host whose results are read; all, which must be alike, if not given.

    Raises:
        AnalysisError: the folder does not exist or is no results folder, it has no result of the
            host, or its results are unlike in what cannot be analysed together, such as the image:
            see `unlike.TABLE`.
        UnlikeHostsError: it has results of several hosts that are not alike; see `hosts`.

    Example:
        >>> sweep = read_sweep(Path("results/quick"))
        >>> sweep.margin
        0.03
    """
    return _chosen(folder, _read(folder), host)


def _chosen(folder: Path, sweep: Sweep, host: str = "") -> Sweep:
    """Return a sweep that was read, or one host's part of it; see `read_sweep`."""
    there = hosts.names(pl.concat([sweep.trials.select("host"), sweep.functional.select("host")]))
    if host:
        if host not in there:
            found = f"results of {', '.join(there)}" if there else "no result"
            raise AnalysisError(f"{folder}: {found} found, one of the host {host} needed")
        sweep, there = _of_one(sweep, host), [host]
    pooled = _with_hosts(sweep, pl.lit(unlike.SPLIT.join(there)))
    hosts.check(plain(str(folder)), pooled.trials, pooled.samples, sweep.hosts, sweep.margin)
    return pooled


def _each_host(folder: Path) -> Sweep:
    """Read a folder for whoever estimates each host alone, where its hosts are not alike."""
    try:
        return read_sweep(folder)
    except hosts.UnlikeHostsError:
        return _with_hosts(_read(folder), pl.col("host"))


def _with_hosts(sweep: Sweep, named: pl.Expr) -> Sweep:
    """Return a sweep whose trials and samples name the hosts that they are pooled with."""
    trials, samples = (
        frame.with_columns(named.alias("hosts")) for frame in (sweep.trials, sweep.samples)
    )
    return replace(sweep, trials=trials, samples=samples)


def named(folder: Path) -> tuple[str, str | None]:
    """Return the name of a folder's sweep, and when its last trial started, of whichever hosts."""
    sweep = _read(folder)
    started = sweep.trials["started_at"].sort()
    return sweep.name, None if started.is_empty() else str(started[-1])


def _of_one(sweep: Sweep, host: str) -> Sweep:
    """Return the part of a sweep that is one host's, with what failed and is planned of it."""
    mine = pl.col("host") == host
    own = pl.concat([sweep.trials.filter(mine), sweep.functional.filter(mine)])
    replicates, design = set(own["replicate"]), sweep.design
    theirs = set()
    if design:
        rows = tuple(row for row in design.trials if row.replicate in replicates)
        theirs = {row.id for row in design.trials} - {row.id for row in rows}
        design = replace(design, trials=rows)
    return replace(
        sweep,
        trials=sweep.trials.filter(mine),
        samples=sweep.samples.filter(mine),
        functional=sweep.functional.filter(mine),
        design=design,
        doctor=sweep.hosts.get(host),
        hosts={name: report for name, report in sweep.hosts.items() if name == host},
        failures={name: why for name, why in sweep.failures.items() if name not in theirs},
        rejected=[row for row in sweep.rejected if row.file.split("/")[-2:][0] not in theirs],
    )


def by_host(folder: Path, names: Iterable[str]) -> tuple[dict[str, Sweep], int, dict[str, str]]:
    """Return the part of each host of a sweep, and what none of these has.

    Those are trials of replicates without any result, which are not known to be of any host.

    Returns:
        The parts by their hosts, how many such trials there are, and why those have no result that
        failed or whose result is left out, by the trial.
    """
    sweep = _read(folder)
    parts = {host: _chosen(folder, sweep, host) for host in names}
    started = {*sweep.trials["replicate"], *sweep.functional["replicate"]}
    planned = sweep.design.trials if sweep.design else ()
    left = [row.id for row in planned if row.replicate not in started]
    why = {row.file.split("/")[-2:][0]: row.reason for row in sweep.rejected}
    why |= {trial: failure.message for trial, failure in sweep.failures.items()}
    return parts, len(left), {trial: why[trial] for trial in left if trial in why}


def _read(folder: Path) -> Sweep:
    """Read a results folder, of whichever hosts."""
    if not folder.is_dir():
        raise AnalysisError(
            f"{folder}: no such results folder; `virtbed sweep` makes one for each plan"
        )
    _refuse_empty(folder)
    found = trusted(folder)
    emulated = {name for name, report in found.doctors.items() if report.emulated}
    design, rejected = found.design, found.rejected
    platforms = platforms_of(design.platforms if design else (), _parts(found.results.values()))
    trials = pl.DataFrame(
        [
            _trial_row(result, found.evidence[trial].asked, found.times[trial], emulated)
            | {"busy_cpus": _busy_cpus(result, found.asked_ns[trial])}
            | {"inputs": unlike.SPLIT.join(found.inputs[trial])}
            for trial, result in found.results.items()
        ],
        schema=TRIAL_COLUMNS,
    ).with_columns(pl.col("platform").cast(pl.Enum(platforms.names)))
    trials = passes.divided(trials)
    unlike.refuse(plain(str(folder)), trials)
    nothing, trials = trials.filter(NOTHING), trials.filter(~NOTHING)
    strays = strays_of(trials)
    rejected += [left_out(file_of(trial), why) for trial, why in strays.items()]
    trials = trials.filter(~pl.col("trial").is_in(list(strays)))
    doctor = _of_host(found.doctors, trials, rejected)
    aside = {*strays, *nothing["trial"]}
    own = found.samples()
    if aside:
        own = own.filter(~pl.col("trial").is_in(sorted(aside)))
    samples = own.join(trials.drop(_ASIDE), on="trial", how="left", maintain_order="left")
    del own
    name = design.sweep if design else plain(folder.resolve().name)
    samples = latency.with_latency(samples)
    return Sweep(
        name, trials, samples, design, doctor, found.failures, rejected, platforms, nothing,
        found.doctors,
    )  # fmt: skip


def _of_host(
    reports: Mapping[str, HostReport], trials: pl.DataFrame, rejected: list[Rejected]
) -> HostReport | None:
    """Return the report of the first host of the trials; None, and a line, if there is none."""
    there = hosts.names(trials)
    known = [reports[name] for name in there if name in reports]
    if known or not reports:
        return known[0] if known else None
    first = next(iter(reports.values()))
    if not there:
        return first
    rejected.append(
        left_out("doctor.json", f"is of the host {first.host}, the trials ran on {there[0]}")
    )
    return None


def _parts(results: Iterable[Json]) -> dict[str, Parts]:
    """Return machine and enclosure of each platform, in the order of the trials."""
    trials = sorted((r["trial"] for r in results), key=lambda trial: trial["position"])
    return {trial["platform"]: (trial["machine"], trial["enclosure"]) for trial in trials}


def _refuse_empty(folder: Path) -> None:
    """Raise `AnalysisError` where a folder is no results folder: not one trial says nothing."""
    if any((folder / part).exists() for part in _PARTS):
        return
    inside = [at.parent for part in _PARTS for at in sorted(folder.glob(f"*/{part}"))]
    hint = f"; an unpacked archive has them in {inside[0]}" if inside else ""
    raise AnalysisError(f"{folder} has neither {' nor '.join(_PARTS)}; give a results folder{hint}")


_SETTINGS = ("scenario", "rules", "slowdown", "target_qps", "target_latency_ms")
_OF_TRIALS = tuple(measure for measure in MEASURES if measure.grain == "trial")


def _trial_row(result: Json, asked: Instance, times: str, emulated: Set[str]) -> Json:
    trial, frameworks = result["trial"], result["application"]["frameworks"]
    return {
        **{column: trial.get(column) for column in TRIAL_COLUMNS},
        "trial": trial["id"],
        # Any mark is enough: an emulated figure taken for a real one does the greater harm.
        "emulated": trial["emulated"]
        or trial["accelerator"] == "tcg"
        or asked.host_emulated
        or trial["host"] in emulated,
        "application_version": str(result["application"]["version"]),
        "model": result["application"]["model"],
        "weights": result["application"]["weights"],
        "tensorflow": frameworks.get("tensorflow"),
        "keras": frameworks.get("keras"),
        "frameworks": unlike.SPLIT.join(f"{k} {v}" for k, v in sorted(frameworks.items())),
        **_surroundings(result, asked),
        "usable_cores": result["environment"]["threads"]["usable_cores"],
        "pool_threads": _pool_threads(result["environment"]["threads"]),
        **{key: result["settings"][key] for key in _SETTINGS},
        "judged_by": JUDGED_BY[result["settings"]["scenario"]].name,
        "throttled_share": _throttled(result),
        **neighbours.columns_of(result),
        **latency.said(result),
        "answers_digest": result["answers"]["digest"],
        "times_digest": times,
        "input_seed": result["settings"]["seed"],
        **{measure.column: measure.read(result) for measure in _OF_TRIALS},
        "warnings": result["warnings"],
        "suspicions": suspicions(result),
    }


def _throttled(result: Json) -> float | None:
    periods = result["confounders"]["throttling"]
    if periods is None or result["trial"]["quota_cpus"] is None or not periods["periods"]:
        return None
    return float(periods["throttled"] / periods["periods"])


def _pool_threads(threads: Json) -> int:
    pools = threads["intra_op"], threads["inter_op"]
    return 0 if 0 in pools else max(pools)


def _busy_cpus(result: Json, asked_ns: int) -> float | None:
    """Return the CPUs that a process kept busy: its CPU time over the time that it worked.

    `asked_ns` is what its requests took, one after another.
    """
    confounders = result["confounders"]
    work_ns = confounders["window_ns"]
    if result["settings"]["scenario"] == "server":  # which waits for requests in between
        work_ns = min(work_ns, asked_ns)
    return float(confounders["own_cpu_ns"] / work_ns) if work_ns else None


def _surroundings(result: Json, asked: Instance) -> Json:
    """Return what must be alike besides the platform, as far as it is the kernel's."""
    saw, moved = result["environment"], result["confounders"]
    rates = [mhz for mhz in moved["mhz"].values() if mhz]
    return {
        **{name: saw[name] for name in ("python", "kernel", "clocksource", "cpu_model", "turbo")},
        "kernel_kind": _kernel_kind(result["trial"], asked),
        "isa": unlike.SPLIT.join(saw["isa"]),
        "mitigations": _mitigations(saw["mitigations"]),
        "onednn_isa": saw["onednn_isa"],
        "governor": moved["governor"],
        "transparent_hugepage": moved["transparent_hugepage"],
        "mhz": sum(rates) / len(rates) if rates else None,
        "intra_op": saw["threads"]["intra_op"],
        "inter_op": saw["threads"]["inter_op"],
        **_recorded(result, asked),
    }


def _recorded(result: Json, asked: Instance) -> Json:
    """Return the settings that a trial's kernels and its process reported.

    Of metal, what an engine hides from the process, the same kernel tells outside.
    """
    saw, bench = result["environment"], (result.get("bench") or {}).get("settings") or {}
    inside = {**(saw.get("kernel_settings") or {}), **(saw.get("process_settings") or {})}
    one_kernel = asked.machine == METAL and not asked.private_kernel
    kernel = [one.name for one in held("kernel")]
    outside = {name: bench.get(name) for name in kernel} if one_kernel else {}
    found = {
        one.name: outside.get(one.name) if inside.get(one.name) is None else inside[one.name]
        for one in RECORDED
        if one.held != "own"
    }
    return found | {unlike.BENCH + name: bench.get(name) for name in kernel}


def _kernel_kind(trial: Json, asked: Instance) -> str:
    """Return whose kernel a trial ran on: those of one kind are to be under one state.

    A guest of several nodes is of a kind of its own: its kernel balances memory between them.
    """
    varied = (f.words(trial[f.name]) for f in FACTORS if f.own_kernel)
    nodes = len(asked.shape.nodes) if asked.shape else 0
    private = asked.enclosure if asked.private_kernel else ""
    kinds = [asked.machine, *varied, f"{nodes} nodes" if nodes else "", private]
    return " and ".join(filter(None, kinds))


# Follows from the CPUs that are online, and from the guests that run next to it: no setting.
_OF_THE_MOMENT = re.compile(r"[;,] (?:SMT |STIBP: |VMX: )[^;,]*")
_OF_GUESTS = "itlb_multihit"


def _mitigations(states: dict[str, str] | None) -> str | None:
    if states is None:
        return None
    texts = ((name, _OF_THE_MOMENT.sub("", text)) for name, text in sorted(states.items()))
    return unlike.SPLIT.join(f"{name}: {text}" for name, text in texts if name != _OF_GUESTS)
