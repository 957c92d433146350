"""Results folders as tidy Polars frames: reading, pooling and export.

`read_sweep` reads one folder, complete or partial, for a report; `load` reads one or several for a
notebook or an export. Files are checked by `trust`, trials are compared by `unlike` (what must be
alike) and `hosts` (whether hosts may be pooled). A bad file is left out with a reason; only a
folder that cannot be analysed raises `AnalysisError`.
"""

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
from virtbed_contract.counts import count
from virtbed_contract.documents import Instance
from virtbed_contract.factors import FACTORS
from virtbed_contract.likeness import RECORDED, held
from virtbed_contract.measures import JUDGED_BY, MEASURES
from virtbed_contract.sweep import MARGIN, Design, Failure, HostReport

log = logging.getLogger(__name__)

TRIAL_COLUMNS = columns.types(columns.TRIAL)
SAMPLE_COLUMNS = columns.types(columns.SAMPLE)
_PARTS = ("design.json", "trials")  # a results folder has one of them, or both
# Columns of trials that are not repeated for each sample, since no estimate groups samples by them.
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

    Attributes:
        name: The name of the plan, or of the folder without a design.
        trials: One row per trial, columns `TRIAL_COLUMNS`; `platform` sorts in report order.
        samples: One row per sample, columns `SAMPLE_COLUMNS` and those of its trial, except the
            descriptive ones that no estimate groups by.
        design: The content of design.json; None without one.
        doctor: The report of the host; of the first one if several hosts are pooled.
        failures: The content of failure.json, by the trial's id.
        rejected: The files that were left out, with reasons.
        platforms: The platforms of the design and the results.
        functional: Trials of the application that computes nothing; `trials` has none of them.
        hosts: The host reports, by host.

    Example:
        >>> sweep = read_sweep(Path("results/quick"))
        >>> sweep.name, sweep.trials.height, sweep.samples.height
        ('quick', 15, 60)
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
        """The plan's margin: the smallest cost worth knowing, as a share."""
        return self.design.margin if self.design else MARGIN


def load(path: Path | str, *more: Path | str) -> pl.DataFrame:
    """Return the samples of one or several results folders.

    Times are integer nanoseconds. Warm-up samples are included, flagged by `warmup`. Each file that
    is left out is logged with its reason.

    Args:
        path: A results folder.
        *more: Others to pool with it, such as shards of one sweep, or of other hosts.

    Returns:
        One row per sample, with the columns of its trial; see `described` for their meanings.

    Raises:
        AnalysisError: a folder does not exist or is not a results folder, there is no sample, a
            trial occurs twice, or results are not alike (see `unlike.TABLE`).

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
            "times; give each folder once, or remove one of the copies"
        )
    copies = trials.filter(pl.col("times_digest").is_duplicated()).sort("times_digest", "trial")
    if copies.height:
        first, second = (f"{row['trial']} of host {row['host']}" for row in copies[:2].to_dicts())
        raise AnalysisError(
            f"{where}: {first} and {second} have the same measured samples, to the nanosecond: one "
            "is a copy under another name; remove it"
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
    """Return the end of a message: why there are no samples, and what to do."""
    failed = sum(len(sweep.failures) for _, sweep in sweeps)
    aside = sum(sweep.functional.height for _, sweep in sweeps)
    counts = {
        f"{aside} of an application that computes nothing": aside,
        f"{failed} failed": failed,
        f"{count(out, 'file')} left out": out,
    }
    listed = ", ".join(what for what, number in counts.items() if number)
    return f" ({listed}); `virtbed report` gives reasons" if listed else "; run the sweep first"


def _refuse_copies(where: str, sweeps: Iterable[Sweep]) -> None:
    """Raise `AnalysisError` if a trial is a copy of another sweep's trial; see `copies`."""
    marked = {}
    for number, sweep in enumerate(sweeps, start=1):
        measured = sweep.samples.filter(~pl.col("warmup")).select("trial", "host", *copies.READ)
        for (trial, host), own in measured.partition_by("trial", "host", as_dict=True).items():
            marked[f"{trial} of host {host}, folder {number}"] = copies.marks(own.to_dicts())
    for group, what in copies.same_times(marked):
        raise AnalysisError(f"{where}: {group[0]}, {what.format(group[1])}; remove it")


def _whole(sweep: Sweep) -> pl.DataFrame:
    """Return the samples of a sweep with all columns of their trials."""
    aside = sweep.trials.select("trial", *_ASIDE)
    whole = sweep.samples.join(aside, on="trial", how="left", maintain_order="left")
    return whole.select([*SAMPLE_COLUMNS, *(name for name in TRIAL_COLUMNS if name != "trial")])


def write_parquet(samples: pl.DataFrame, file: Path) -> None:
    """Write samples as Parquet, with type and meaning of each column as metadata.

    Args:
        samples: As `load` returns them.
        file: The path to write.

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

    Args:
        folders: The results folders.
        file: The path to write.

    Returns:
        The number of samples and of trials.

    Example:
        >>> export([Path("results/quick")], Path("samples.parquet"))
        (60, 15)
    """
    samples = load(*folders)
    write_parquet(samples, file)
    return samples.height, samples.select("host", "plan_digest", "trial").n_unique()


def read_sweep(folder: Path, host: str = "") -> Sweep:
    """Read a results folder, complete or partial.

    Args:
        folder: The folder.
        host: Read the results of this host only; if empty, those of all hosts, which must be alike.

    Raises:
        AnalysisError: the folder does not exist or is not a results folder, it has no result of the
            host, or its results cannot be analysed together, such as those of different images (see
            `unlike.TABLE`).
        UnlikeHostsError: it has results of several hosts that are not alike; see `hosts`.

    Example:
        >>> sweep = read_sweep(Path("results/quick"))
        >>> sweep.margin
        0.03
    """
    return _chosen(folder, _read(folder), host)


def _chosen(folder: Path, sweep: Sweep, host: str = "") -> Sweep:
    """Return a sweep, or the part of one host, after the check of hosts; see `read_sweep`."""
    names = hosts.names(pl.concat([sweep.trials.select("host"), sweep.functional.select("host")]))
    if host:
        if host not in names:
            found = f"results of {', '.join(names)}" if names else "no result"
            raise AnalysisError(f"{folder}: {found} found, one of the host {host} needed")
        sweep, names = _of_one(sweep, host), [host]
    pooled = _with_hosts(sweep, pl.lit(unlike.SPLIT.join(names)))
    hosts.check(plain(str(folder)), pooled.trials, pooled.samples, sweep.hosts, sweep.margin)
    return pooled


def _each_host(folder: Path) -> Sweep:
    """Read a folder; if its hosts are not alike, mark each as not pooled instead of raising."""
    try:
        return read_sweep(folder)
    except hosts.UnlikeHostsError:
        return _with_hosts(_read(folder), pl.col("host"))


def _with_hosts(sweep: Sweep, named: pl.Expr) -> Sweep:
    """Return a sweep with the column `hosts`, the hosts that a trial is pooled with."""
    trials, samples = (
        frame.with_columns(named.alias("hosts")) for frame in (sweep.trials, sweep.samples)
    )
    return replace(sweep, trials=trials, samples=samples)


def named(folder: Path) -> tuple[str, str | None]:
    """Return the name of a folder's sweep and the start of its last trial (None without one)."""
    sweep = _read(folder)
    started = sweep.trials["started_at"].sort()
    return sweep.name, None if started.is_empty() else str(started[-1])


def _of_one(sweep: Sweep, host: str) -> Sweep:
    """Return the part of a sweep from one host: its replicates, their plan and their failures."""
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
    """Split a sweep by host.

    Trials of a replicate without any result cannot be assigned to a host.

    Args:
        folder: The results folder.
        names: The hosts.

    Returns:
        The part of each host; the number of planned trials without a host; and the reason, by
        trial, for those of them that failed or were left out.
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
    """Read a results folder without the check of hosts."""
    if not folder.is_dir():
        raise AnalysisError(
            f"{folder}: no such results folder; `virtbed sweep` makes one for each plan"
        )
    _refuse_empty(folder)
    files = trusted(folder)
    emulated = {name for name, report in files.doctors.items() if report.emulated}
    design, rejected = files.design, files.rejected
    platforms = platforms_of(design.platforms if design else (), _parts(files.results.values()))
    trials = pl.DataFrame(
        [
            _trial_row(result, files.evidence[trial].asked, files.times[trial], emulated)
            | {"busy_cpus": _busy_cpus(result, files.asked_ns[trial])}
            | {"inputs": unlike.SPLIT.join(files.inputs[trial])}
            for trial, result in files.results.items()
        ],
        schema=TRIAL_COLUMNS,
    ).with_columns(pl.col("platform").cast(pl.Enum(platforms.names)))
    trials = passes.divided(trials)
    unlike.refuse(plain(str(folder)), trials)
    nothing, trials = trials.filter(NOTHING), trials.filter(~NOTHING)
    strays = strays_of(trials)
    rejected += [left_out(file_of(trial), why) for trial, why in strays.items()]
    trials = trials.filter(~pl.col("trial").is_in(list(strays)))
    doctor = _of_host(files.doctors, trials, rejected)
    aside = {*strays, *nothing["trial"]}
    own = files.samples()
    if aside:
        own = own.filter(~pl.col("trial").is_in(sorted(aside)))
    samples = own.join(trials.drop(_ASIDE), on="trial", how="left", maintain_order="left")
    del own
    name = design.sweep if design else plain(folder.resolve().name)
    samples = latency.with_latency(samples)
    return Sweep(
        name, trials, samples, design, doctor, files.failures, rejected, platforms, nothing,
        files.doctors,
    )  # fmt: skip


def _of_host(
    reports: Mapping[str, HostReport], trials: pl.DataFrame, rejected: list[Rejected]
) -> HostReport | None:
    """Return the report of the first host that has trials.

    If the reports are of other hosts only, return None and add a line to `rejected`.
    """
    names = hosts.names(trials)
    known = [reports[name] for name in names if name in reports]
    if known or not reports:
        return known[0] if known else None
    first = next(iter(reports.values()))
    if not names:
        return first
    rejected.append(
        left_out("doctor.json", f"is of the host {first.host}, the trials ran on {names[0]}")
    )
    return None


def _parts(results: Iterable[Json]) -> dict[str, Parts]:
    """Return machine and enclosure of each platform with a result, in the order of trials."""
    trials = sorted((r["trial"] for r in results), key=lambda trial: trial["position"])
    return {trial["platform"]: (trial["machine"], trial["enclosure"]) for trial in trials}


def _refuse_empty(folder: Path) -> None:
    """Raise `AnalysisError` if a folder has neither a design nor trials."""
    if any((folder / part).exists() for part in _PARTS):
        return
    inside = [at.parent for part in _PARTS for at in sorted(folder.glob(f"*/{part}"))]
    hint = f"; an unpacked archive has them in {inside[0]}" if inside else ""
    raise AnalysisError(f"{folder} has neither {' nor '.join(_PARTS)}; give a results folder{hint}")


_SETTINGS = ("scenario", "rules", "slowdown", "target_qps", "target_latency_ms")
_OF_TRIALS = tuple(measure for measure in MEASURES if measure.grain == "trial")


def _trial_row(result: Json, instance: Instance, times: str, emulated: Set[str]) -> Json:
    """Return the row of a trial in `Sweep.trials`.

    Args:
        result: The checked result.
        instance: The requested instance, from the evidence.
        times: The digest of its measured samples.
        emulated: The hosts whose reports call them emulated.
    """
    trial, frameworks = result["trial"], result["application"]["frameworks"]
    return {
        **{column: trial.get(column) for column in TRIAL_COLUMNS},
        "trial": trial["id"],
        # One sign is enough, since an emulated time taken for a real one does the greater harm.
        "emulated": trial["emulated"]
        or trial["accelerator"] == "tcg"
        or instance.host_emulated
        or trial["host"] in emulated,
        "application_version": str(result["application"]["version"]),
        "model": result["application"]["model"],
        "weights": result["application"]["weights"],
        "tensorflow": frameworks.get("tensorflow"),
        "keras": frameworks.get("keras"),
        "frameworks": unlike.SPLIT.join(f"{k} {v}" for k, v in sorted(frameworks.items())),
        **_surroundings(result, instance),
        "usable_cores": result["environment"]["threads"]["usable_cores"],
        "pool_threads": _pool_threads(result["environment"]["threads"]),
        **{key: result["settings"][key] for key in _SETTINGS},
        "judged_by": JUDGED_BY[result["settings"]["scenario"]].name,
        "throttled_share": _throttled(result),
        **neighbours.columns_of(result),
        **latency.loadgen_columns(result),
        "answers_digest": result["answers"]["digest"],
        "times_digest": times,
        "input_seed": result["settings"]["seed"],
        **{measure.column: measure.read(result) for measure in _OF_TRIALS},
        "warnings": result["warnings"],
        "suspicions": suspicions(result),
    }


def _throttled(result: Json) -> float | None:
    """Return the share of the quota's periods that were throttled; None without a quota."""
    periods = result["confounders"]["throttling"]
    if periods is None or result["trial"]["quota_cpus"] is None or not periods["periods"]:
        return None
    return float(periods["throttled"] / periods["periods"])


def _pool_threads(threads: Json) -> int:
    """Return the threads of the larger pool; 0 if the framework chose the number of either."""
    pools = threads["intra_op"], threads["inter_op"]
    return 0 if 0 in pools else max(pools)


def _busy_cpus(result: Json, requests_ns: int) -> float | None:
    """Return the mean number of busy CPUs: CPU time of the process over the time that it worked.

    Args:
        result: The result.
        requests_ns: The sum of its requests' times, in ns.
    """
    confounders = result["confounders"]
    work_ns = confounders["window_ns"]
    if result["settings"]["scenario"] == "server":  # which idles between requests
        work_ns = min(work_ns, requests_ns)
    return float(confounders["own_cpu_ns"] / work_ns) if work_ns else None


def _surroundings(result: Json, instance: Instance) -> Json:
    """Return the columns on software and kernel that must be alike on both sides of a ratio."""
    saw, moved = result["environment"], result["confounders"]
    rates = [mhz for mhz in moved["mhz"].values() if mhz]
    return {
        **{name: saw[name] for name in ("python", "kernel", "clocksource", "cpu_model", "turbo")},
        "kernel_kind": _kernel_kind(result["trial"], instance),
        "isa": unlike.SPLIT.join(saw["isa"]),
        "mitigations": _mitigations(saw["mitigations"]),
        "onednn_isa": saw["onednn_isa"],
        "governor": moved["governor"],
        "transparent_hugepage": moved["transparent_hugepage"],
        "mhz": sum(rates) / len(rates) if rates else None,
        "intra_op": saw["threads"]["intra_op"],
        "inter_op": saw["threads"]["inter_op"],
        **_recorded(result, instance),
    }


def _recorded(result: Json, instance: Instance) -> Json:
    """Return the settings that a trial's kernels and its process reported.

    On metal an engine may hide a setting from the process; the reading outside, of the same kernel,
    then stands in.
    """
    saw, bench = result["environment"], (result.get("bench") or {}).get("settings") or {}
    inside = {**(saw.get("kernel_settings") or {}), **(saw.get("process_settings") or {})}
    one_kernel = instance.machine == METAL and not instance.private_kernel
    kernel = [one.name for one in held("kernel")]
    outside = {name: bench.get(name) for name in kernel} if one_kernel else {}
    settings = {
        one.name: outside.get(one.name) if inside.get(one.name) is None else inside[one.name]
        for one in RECORDED
        if one.held != "own"
    }
    return settings | {unlike.BENCH + name: bench.get(name) for name in kernel}


def _kernel_kind(trial: Json, instance: Instance) -> str:
    """Return the kind of the kernel that a trial ran on; settings must be alike within a kind.

    A guest of several NUMA nodes is a kind of its own, since its kernel balances memory.
    """
    varied = (f.words(trial[f.name]) for f in FACTORS if f.own_kernel)
    nodes = len(instance.shape.nodes) if instance.shape else 0
    private = instance.enclosure if instance.private_kernel else ""
    kinds = [instance.machine, *varied, f"{nodes} nodes" if nodes else "", private]
    return " and ".join(filter(None, kinds))


# These parts depend on the CPUs that are online and on running guests, so they are not settings.
_OF_THE_MOMENT = re.compile(r"[;,] (?:SMT |STIBP: |VMX: )[^;,]*")
_OF_GUESTS = "itlb_multihit"


def _mitigations(states: dict[str, str] | None) -> str | None:
    """Return the kernel's mitigations as one text, without the parts that vary from run to run."""
    if states is None:
        return None
    texts = ((name, _OF_THE_MOMENT.sub("", text)) for name, text in sorted(states.items()))
    return unlike.SPLIT.join(f"{name}: {text}" for name, text in texts if name != _OF_GUESTS)
