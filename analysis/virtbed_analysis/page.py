"""The report's two files, report.html and report.json: rendered and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import jinja2

from virtbed_analysis import figures, words
from virtbed_analysis.comparison import changed
from virtbed_analysis.document import document
from virtbed_analysis.equivalence import MARGIN
from virtbed_analysis.estimate import TAILS, samples_to_show
from virtbed_analysis.files import write_text
from virtbed_analysis.frames import Sweep, read_sweep
from virtbed_analysis.robust import FAR, RESAMPLES
from virtbed_analysis.scaling import PAYS
from virtbed_analysis.trust import Json
from virtbed_contract.measures import of_group


@dataclass(frozen=True)
class ReportPaths:
    """Where a report was written: the page, and the same numbers for machines."""

    html: Path
    json: Path


def report(sweep_dir: Path) -> ReportPaths:
    """Write report.html and report.json into a results folder, complete or partial.

    Raises:
        AnalysisError: the folder does not exist, or its results come from different images; the
            report of an earlier call then stays as it was.
    """
    return report_of(read_sweep(sweep_dir), sweep_dir)


def report_of(sweep: Sweep, sweep_dir: Path) -> ReportPaths:
    """Write the report of a sweep that is read already; see `report`."""
    content = document(sweep)
    page = render(content)
    paths = ReportPaths(html=sweep_dir / "report.html", json=sweep_dir / "report.json")
    numbers = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(paths.json, f"{numbers}\n")
    write_text(paths.html, page)
    return paths


def render(content: Json) -> str:
    """Return the page of a report's content: one HTML file that needs no other."""
    named = {entry["name"]: entry["words"] for entry in content["platforms"]}
    return _page("report.html.j2", report=content, drawn=figures.draw(content), named=named)


def render_comparison(content: Json) -> str:
    """Return the page of a comparison."""
    drawn = figures.draw_comparison(content)
    return _page("comparison.html.j2", comparison=content, changed=changed, drawn=drawn)


def _page(template: str, **content: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("virtbed_analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
        finalize=lambda value: words.NONE if value is None else value,
    )
    environment.globals |= {
        "words": words,
        "TAILS": TAILS,
        "PAYS": PAYS,
        "FAR": FAR,
        "MARGIN": MARGIN,
        "RESAMPLES": RESAMPLES,
        "samples_to_show": samples_to_show,
        "phases": of_group("phase"),
        "parts_of_a_start": of_group("startup"),
    }
    # Sections add themselves to the contents as they are rendered.
    return environment.get_template(template).render(contents=[], **content) + "\n"
