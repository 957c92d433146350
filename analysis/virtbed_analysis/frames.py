"""Results folders as tidy frames."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from virtbed_analysis import columns, latency, passes
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_whole
from virtbed_analysis.platforms import Parts, Platforms, platforms_of
from virtbed_analysis.suspicion import suspicions
from virtbed_analysis.trust import Json, Rejected, Unfit, checked, optional, trial_folders
from virtbed_contract import identifiers
from virtbed_contract.codec import encode
from virtbed_contract.measures import MEASURES
from virtbed_contract.sweep import MARGIN, Design, Failure, HostReport

log = logging.getLogger(__name__)

TRIAL_COLUMNS = columns.types(columns.TRIAL)
SAMPLE_COLUMNS = columns.types(columns.SAMPLE)


@dataclass(frozen=True)
class Sweep:
    """A results folder as read.

    `trials` has one row per trial (`TRIAL_COLUMNS`), `samples` one row per sample
    (`SAMPLE_COLUMNS` and every trial column); their column `platform` sorts as reports list
    platforms. `failures` maps a trial's id to its failure.json.
    """

    name: str
    trials: pl.DataFrame
    samples: pl.DataFrame
    design: Design | None
    doctor: HostReport | None
    failures: dict[str, Failure]
    rejected: list[Rejected]
    platforms: Platforms

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
        AnalysisError: a folder does not exist, a trial is there twice, or results are of unlike
            images or versions of an application.
    """
    sweeps = [(one, read_sweep(Path(one))) for one in (path, *more)]
    for folder, sweep in sweeps:
        for rejected in sweep.rejected:
            log.warning("%s/%s left out: %s", folder, rejected.file, rejected.reason)
    platforms = sweeps[0][1].platforms
    for _, sweep in sweeps[1:]:
        platforms |= sweep.platforms
    one_order = pl.col("platform").cast(pl.String).cast(pl.Enum(platforms.names))
    trials = pl.concat([sweep.trials.with_columns(one_order) for _, sweep in sweeps])
    _refuse_unlike(", ".join(str(folder) for folder, _ in sweeps), trials)
    twice = trials.group_by("host", "plan_digest", "trial").len().filter(pl.col("len") > 1)
    if twice.height:
        host, _, trial, times = twice.sort("host", "trial").row(0)
        raise AnalysisError(
            f"trial {trial} of host {host} is in {times} of the folders: it would count {times} "
            "times; give each folder once, or leave one of the copies out"
        )
    return pl.concat([sweep.samples.with_columns(one_order) for _, sweep in sweeps])


def write_parquet(samples: pl.DataFrame, file: Path) -> None:
    """Write what `load` gives as Parquet; its metadata says what each column holds."""
    about = {"schema": identifiers.SAMPLES, "columns": json.dumps(columns.described())}
    plain = samples.with_columns(pl.col(pl.Enum).cast(pl.String))
    write_whole(file, lambda path: plain.write_parquet(path, metadata=about))


def export(folders: Iterable[Path], file: Path) -> tuple[int, int]:
    """Write the samples of results folders as one Parquet file; see `load`.

    Returns:
        How many samples, and of how many trials.
    """
    samples = load(*folders)
    write_parquet(samples, file)
    return samples.height, samples.select("host", "plan_digest", "trial").n_unique()


def read_sweep(folder: Path) -> Sweep:
    """Read a whole results folder, complete or partial.

    Raises:
        AnalysisError: the folder does not exist, or its results come from different images.
    """
    if not folder.is_dir():
        raise AnalysisError(
            f"{folder}: no such results folder; `virtbed sweep` makes one for each plan"
        )
    rejected: list[Rejected] = []
    design = optional(folder, "design.json", Design, identifiers.DESIGN, rejected)
    doctor = optional(folder, "doctor.json", HostReport, identifiers.HOST_REPORT, rejected)
    planned = {trial.id: encode(trial) for trial in design.trials} if design else {}
    results: dict[str, Json] = {}
    failures: dict[str, Failure] = {}
    for trial_folder in trial_folders(folder):
        name = f"trials/{trial_folder.name}"
        if (trial_folder / "result.json").exists():
            try:
                results[trial_folder.name] = checked(trial_folder, design, planned)
            except Unfit as reason:
                rejected.append(Rejected(f"{name}/result.json", str(reason)))
        elif (trial_folder / "failure.json").exists():
            failure = optional(
                folder, f"{name}/failure.json", Failure, identifiers.FAILURE, rejected
            )
            if failure is not None:
                failures[trial_folder.name] = failure
    results |= passes.earlier(folder, design, planned, results, rejected)
    platforms = platforms_of(design.platforms if design else (), _parts(results.values()))
    trials = pl.DataFrame(
        [_trial_row(result) for result in results.values()], schema=TRIAL_COLUMNS
    ).with_columns(pl.col("platform").cast(pl.Enum(platforms.names)))
    trials = passes.divided(trials)
    _refuse_unlike(str(folder), trials)
    rows = [row for result in results.values() for row in _sample_rows(result)]
    samples = pl.DataFrame(rows, schema=SAMPLE_COLUMNS).join(
        trials, on="trial", how="left", maintain_order="left"
    )
    name = design.sweep if design else folder.resolve().name
    samples = latency.with_latency(samples)
    return Sweep(name, trials, samples, design, doctor, failures, rejected, platforms)


def _parts(results: Iterable[Json]) -> dict[str, Parts]:
    """Return machine and enclosure of each platform, in the order of the trials."""
    trials = sorted((r["trial"] for r in results), key=lambda trial: trial["position"])
    return {trial["platform"]: (trial["machine"], trial["enclosure"]) for trial in trials}


def _refuse_unlike(where: str, trials: pl.DataFrame) -> None:
    """Raise `AnalysisError` where a difference of the software would be read as a platform's."""
    kinds = {
        "images": (["image_digest"], pl.lit("")),
        "versions of one application": (
            ["application", "application_version"],
            pl.col("application"),
        ),
    }
    for what, (which, within) in kinds.items():
        found = trials.group_by(which).agg(pl.len().alias("n"), pl.col("trial").min().alias("one"))
        several = found.filter(pl.len().over(within) > 1).sort(which)
        if several.height:
            told = ", ".join(
                f"{' '.join(row[name] for name in which)} ({row['n']} trials, first {row['one']})"
                for row in several.to_dicts()
            )
            raise AnalysisError(
                f"{where}: results of {several.height} {what} are not pooled, since a difference "
                f"between them would be read as one between platforms: {told}. Move the trials "
                "of all but one out of the folder, or sweep again under another name"
            )


_SETTINGS = ("scenario", "rules", "slowdown")
_OF_TRIALS = tuple(measure for measure in MEASURES if measure.grain == "trial")


def _trial_row(result: Json) -> Json:
    trial, environment, frameworks = (
        result["trial"],
        result["environment"],
        result["application"]["frameworks"],
    )
    return {
        **{column: trial.get(column) for column in TRIAL_COLUMNS},
        "trial": trial["id"],
        # Either mark is enough: an emulated figure taken for a real one does the greater harm.
        "emulated": trial["emulated"] or trial["accelerator"] == "tcg",
        "application_version": str(result["application"]["version"]),
        "model": result["application"]["model"],
        "weights": result["application"]["weights"],
        "tensorflow": frameworks.get("tensorflow"),
        "keras": frameworks.get("keras"),
        "python": environment["python"],
        "kernel": environment["kernel"],
        "onednn_isa": environment["onednn_isa"],
        "usable_cores": environment["threads"]["usable_cores"],
        "pool_threads": _pool_threads(environment["threads"]),
        "busy_cpus": _busy_cpus(result),
        **{key: result["settings"][key] for key in _SETTINGS},
        **latency.said(result),
        "answers_digest": result["answers"]["digest"],
        "input_seed": result["settings"]["seed"],
        **{measure.column: measure.read(result) for measure in _OF_TRIALS},
        "warnings": result["warnings"],
        "suspicions": suspicions(result),
    }


def _pool_threads(threads: Json) -> int:
    pools = threads["intra_op"], threads["inter_op"]
    return 0 if 0 in pools else max(pools)


def _busy_cpus(result: Json) -> float | None:
    """Return the CPUs that a process kept busy: its CPU time over the time that it worked."""
    confounders = result["confounders"]
    work_ns = confounders["window_ns"]
    if result["settings"]["scenario"] == "server":  # which waits for requests in between
        asked = sum(sample["e2e_ns"] for sample in result["samples"] if not sample["warmup"])
        work_ns = min(work_ns, asked)
    return float(confounders["own_cpu_ns"] / work_ns) if work_ns else None


def _sample_rows(result: Json) -> Iterator[Json]:
    for index, sample in enumerate(result["samples"]):
        yield {"trial": result["trial"]["id"], "sample": index, **sample}
