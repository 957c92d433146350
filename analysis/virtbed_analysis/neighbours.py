"""Columns of a trial on its neighbours, the instances that ran during its measurement."""

from __future__ import annotations

from virtbed_analysis import unlike
from virtbed_analysis.reading import Json
from virtbed_contract.kernel.cpus import parse_cpu_list
from virtbed_contract.neighbours import placed_in_words


def columns_of(result: Json) -> Json:
    """Return `neighbours_cpus` and `neighbours_busy` of a result; None without neighbours."""
    ran = result.get("neighbours") or ()
    named = (placed_in_words(one["cpus"], one["shares"], one["housekeeping"]) for one in ran)
    busy = [one["busy_cpus"] for one in ran]
    shares = [
        used / max(1, len(parse_cpu_list(one["cpus"])))
        for used, one in zip(busy, ran, strict=True)
        if used is not None
    ]
    return {
        "neighbours_cpus": unlike.SPLIT.join(named) if ran else None,
        "neighbours_busy": min(shares) if shares and len(shares) == len(busy) else None,
    }
