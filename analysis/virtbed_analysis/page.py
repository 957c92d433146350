"""The report's two files, report.html and report.json: rendered and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jinja2

from virtbed_analysis import figures, host_by_host, hosts, words
from virtbed_analysis.claims import STUDY
from virtbed_analysis.comparison import changed
from virtbed_analysis.document import document
from virtbed_analysis.estimate import TAILS, samples_to_show
from virtbed_analysis.files import write_text
from virtbed_analysis.frames import Sweep, by_host, read_sweep
from virtbed_analysis.hosts import UnlikeHostsError
from virtbed_analysis.robust import FAR, RESAMPLES
from virtbed_analysis.scaling import NEGLIGIBLE, PAYS, TOLERATED
from virtbed_analysis.trust import Json
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform
from virtbed_contract.measures import of_group
from virtbed_contract.sweep import MOST_REPLICATES

_NAMING = ("instance", "platform", "plainly")


@dataclass(frozen=True)
class ReportPaths:
    """Where a report was written: the page, and the same numbers for machines."""

    html: Path
    json: Path


def report(sweep_dir: Path) -> ReportPaths:
    """Write report.html and report.json into a results folder, complete or partial.

    Of several hosts that are not alike each gets a report of its own, report-HOST.html and .json;
    report.html then leads to them, and shows them side by side.

    Raises:
        AnalysisError: the folder does not exist, or its results come from different images; the
            report of an earlier call then stays as it was.

    Example:
        >>> paths = report(Path("results/quick"))
        >>> paths.html.name, paths.json.name
        ('report.html', 'report.json')
    """
    try:
        sweep = read_sweep(sweep_dir)
    except UnlikeHostsError as error:
        return _of_hosts(sweep_dir, error)
    several = hosts.names(sweep.trials)
    for host in several if len(several) > 1 else ():  # of an earlier call that did not pool them
        for kind in ("html", "json"):
            (sweep_dir / f"{host_by_host.page_of(host)}.{kind}").unlink(missing_ok=True)
    return report_of(sweep, sweep_dir)


def _of_hosts(sweep_dir: Path, error: UnlikeHostsError) -> ReportPaths:
    """Write a report of each host, and the page of all of them, since none can be of all."""
    parts, left, failed = by_host(sweep_dir, error.hosts)
    contents = {host: document(part) for host, part in parts.items()}
    content = host_by_host.document(error, contents, left, failed)
    page = _page("host_by_host.html.j2", content, all=content)
    for host, own in contents.items():
        _write(own, render(own), sweep_dir / host_by_host.page_of(host))
    return _write(content, page, sweep_dir / "report")


def report_of(sweep: Sweep, sweep_dir: Path) -> ReportPaths:
    """Write the report of a sweep that is read already; see `report`."""
    content = document(sweep)
    return _write(content, render(content), sweep_dir / "report")


def _write(content: Json, page: str, place: Path) -> ReportPaths:
    """Write a page, and its content next to it; `place` is their name without an ending."""
    html, numbers_file = (place.with_name(f"{place.name}.{kind}") for kind in ("html", "json"))
    paths = ReportPaths(html=html, json=numbers_file)
    numbers = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(paths.json, f"{numbers}\n")
    write_text(paths.html, page)
    return paths


def render(content: Json) -> str:
    """Return the page of a report's content: one HTML file that needs no other."""
    return _page("report.html.j2", content, report=content, drawn=figures.draw(content))


def render_comparison(content: Json) -> str:
    """Return the page of a comparison.

    Example:
        >>> from virtbed_analysis import compare
        >>> page = render_comparison(compare(Path("results/quick"), Path("results/after")))
        >>> page.lstrip()[:15].lower()
        '<!doctype html>'
    """
    drawn = figures.draw_comparison(content)
    return _page("comparison.html.j2", content, comparison=content, changed=changed, drawn=drawn)


def _page(template: str, document: Json, **content: object) -> str:
    entries = {row["name"]: decode(Platform, row) for row in document["platforms"]}
    # Words that know this document's platforms: a template's words.platform(row) needs no more.
    naming = {name: partial(vars(words)[name], entries=entries) for name in _NAMING}
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
        "words": SimpleNamespace(**(vars(words) | naming)),
        "STUDY": STUDY,
        "TAILS": TAILS,
        "PAYS": PAYS,
        "FAR": FAR,
        "NEGLIGIBLE": NEGLIGIBLE,
        "RESAMPLES": RESAMPLES,
        "TOLERATED": TOLERATED,
        "samples_to_show": samples_to_show,
        "most_replicates": MOST_REPLICATES,
        "phases": of_group("phase"),
        "parts_of_a_start": of_group("startup"),
    }
    # Sections add themselves to the contents as they are rendered.
    return environment.get_template(template).render(contents=[], **content) + "\n"
