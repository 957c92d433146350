"""The page of a sweep whose hosts are not alike: links to each host's report, and a comparison.

`page` writes it as report.html; `hosts` decides whether hosts are alike.
"""

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
    """Return the file name of a host's own page, without its suffix."""
    return f"report-{quote(host, safe='', errors='replace')[:_LONGEST]}"


def document(
    error: UnlikeHostsError, contents: Mapping[str, Json], left: int, failed: Mapping[str, str]
) -> Json:
    """Return the content of the page of all hosts.

    Args:
        error: Why the hosts are not pooled.
        contents: The content of each host's own report, by host.
        left: Number of trials that are in none of these reports; see `frames.by_host`.
        failed: Of these trials, why the started ones have no result, by trial.

    Returns:
        `hosts` (each with its `page`, and the `summary` and number of `analysed` trials of its
        report), `why` (sentences), `differences` and `speeds` (see `hosts`), and `cells`: one row
        per cell that has a ratio on any host, with the ratio and its interval by host, and `range`
        (the largest ratio divided by the smallest, minus 1; null with one host). `of_no_host` has
        `trials`, the number of trials in none of these reports, and `failed`, one row per started
        one.
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
