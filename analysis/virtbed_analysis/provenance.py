"""Provenance of a report: host, software, plan, seeds and commits."""

from __future__ import annotations

from importlib.metadata import version

import polars as pl

from virtbed_analysis import unlike
from virtbed_analysis.frames import Sweep
from virtbed_analysis.trust import Json
from virtbed_contract.factors import FACTORS


def provenance(sweep: Sweep) -> list[Json]:
    """Return rows with `item` and `values`; items without a value are left out."""
    trials, design, facts = sweep.trials, sweep.design, _facts(sweep)
    cpu = facts.get("cpu", {})
    engines = facts.get("engines", {})

    def found(column: str) -> list[str | None]:
        values = trials[column].unique().sort().drop_nulls()
        return [_WORDS.get(str(v), str(v)) for v in values]

    started = found("started_at")
    real = trials.filter(~pl.col("emulated"))
    items: dict[str, list[str | None]] = {
        "Host": found("host") or [sweep.doctor.host if sweep.doctor else None],
        "CPU": [cpu.get("model")],
        "Online CPUs": [str(online_cpus(sweep) or "")],
        "Distribution": [facts.get("distribution")],
        "Kernel of the host": [facts.get("kernel")],
        "Kernels seen by trials": found("kernel"),
        "oneDNN's kernels": found("onednn_isa"),
        "Clock source": [facts.get("clocksource")],
        "Frequency governor": [facts.get("governor")],
        "Engines": [
            f"{engine.get('name', key)} {engine['version']}"
            for key, engine in engines.items()
            if engine.get("version")
        ],
        "Memory of an instance, MiB": found("memory_mib"),
        "Image digest": found("image_digest") or [design.image_digest if design else None],
        "Plan digest": found("plan_digest") or [design.plan_digest if design else None],
        "Seed of the order": [str(design.seed)] if design else [],
        "Seed of the trials": found("input_seed"),
        **{_heading(factor.name): found(factor.name) for factor in FACTORS},
        "Model": [
            f"{row['application']} {row['application_version']}, {row['scale']}: "
            f"{row['model']}, {row['weights']} weights"
            for row in trials.select(
                "application", "application_version", "scale", "model", "weights"
            )
            .unique()
            .sort(pl.all())
            .to_dicts()
        ],
        **{_heading(name): found(column) for name, column in _SURROUNDINGS.items()},
        "Python": found("python"),
        "Trials started": [f"{started[0]} to {started[-1]}"] if started else [],
        "Real trials": [str(real.height)] if trials.height else [],
        "Commit of virtbed": list(design.commits) if design else [],
        "Analysis": [f"virtbed-analysis {version('virtbed-analysis')}"],
    }
    return [
        {"item": item, "values": kept}
        for item, values in items.items()
        if (kept := [value for value in values if value])
    ]


_WORDS = {"True": "on", "False": "off"}

# Further items: facts that must be alike, as read by the trials.
_SURROUNDINGS = {
    f"{fact.words} seen by trials": fact.column
    for fact in unlike.TABLE
    if fact.column in {"cpu_model", "isa", "clocksource", "governor", "turbo", "mitigations"}
} | {
    "rules": "rules",
    "frameworks": "frameworks",
    "huge pages": "transparent_hugepage",
    "threads within an operation": "intra_op",
    "threads between operations": "inter_op",
}


def _heading(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def online_cpus(sweep: Sweep) -> int | None:
    """Return the number of online CPUs of the host; None if the host report lacks it."""
    cpu = _facts(sweep).get("cpu", {})
    return len(cpu["online"]) if cpu.get("online") else None


def _facts(sweep: Sweep) -> Json:
    return sweep.doctor.facts if sweep.doctor else {}
