"""The report of a sweep whose hosts are not alike: each host's own, and a page of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from virtbed_analysis.cells import CELL
from virtbed_analysis.hosts import UnlikeHostsError, reasons
from virtbed_analysis.reading import Json
from virtbed_contract import identifiers

_LONGEST = 200  # characters of a file's name
_ENDS = ("ratio", "ratio_low", "ratio_high", "ratio_replicates", "answer")


def page_of(host: str) -> str:
    """Return the name of a host's own page, without its ending."""
    return f"report-{quote(host, safe='', errors='replace')[:_LONGEST]}"


def document(
    error: UnlikeHostsError, contents: Mapping[str, Json], left: int, failed: Mapping[str, str]
) -> Json:
    """Return what the page of all hosts says.

    Args:
        error: Why they are not pooled.
        contents: The content of each host's own report, by the host.
        left: How many trials none of these reports has; see `frames.by_host`.
        failed: Why those of them have no result that began, by the trial.

    Returns:
        `hosts` (each with its `page`, its report's `summary` and `analysed` trials), `why`
        (sentences), `differences` and `speeds` (see `hosts`), and `cells`: a row for each that has
        a ratio on any host, with the ratio and its interval by host, and `range`: the largest ratio
        over the smallest, less 1; null where one host alone has it. `of_no_host` has `trials`, how
        many none of these reports has, and `failed`, a row for each of them that began.
    """
    first = next(iter(contents.values()))
    platforms = {row["name"]: row for content in contents.values() for row in content["platforms"]}
    return {
        "schema": identifiers.HOSTS,
        "sweep": first["sweep"],
        "margin": first["margin"],
        "confidence": first["confidence"],
        "platforms": list(platforms.values()),
        "hosts": [
            {
                "host": host,
                "page": f"{page_of(host)}.html",
                "summary": content["summary"],
                "analysed": content["counts"]["analysed"],
            }
            for host, content in contents.items()
        ],
        "why": list(reasons(error.differences, error.speeds)),
        "differences": error.differences,
        "speeds": error.speeds,
        "cells": _cells(contents),
        "of_no_host": {
            "trials": left,
            "failed": [{"trial": trial, "message": why} for trial, why in sorted(failed.items())],
        },
    }


def _cells(contents: Mapping[str, Json]) -> list[Json]:
    rows: dict[tuple[Any, ...], Json] = {}
    for host, content in contents.items():
        for cell in content["cells"]:
            if cell["ratio"] is None:
                continue
            place = {column: cell[column] for column in (*CELL, "weights")}
            row = rows.setdefault(tuple(place.values()), {**place, "hosts": {}})
            own = {name: cell.get(name) for name in _ENDS}
            row["hosts"][host] = {**own, "marks": cell.get("marks", []), "doubt": cell.get("doubt")}
    for row in rows.values():
        ratios = [own["ratio"] for own in row["hosts"].values()]
        row["range"] = max(ratios) / min(ratios) - 1 if len(ratios) > 1 else None
    return list(rows.values())
