"""Renders and writes the two files of a report, report.html and report.json.

The controller calls `report` after each block, the command line on demand. What a report contains
is `document`'s job; figures come from `figures`, the page from `templates/`.
"""

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
from virtbed_analysis.resolution import MOST_RECOMMENDED
from virtbed_analysis.robust import FAR, RESAMPLES
from virtbed_analysis.scaling import NEGLIGIBLE, PAYS, TOLERATED
from virtbed_analysis.trust import Json
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform
from virtbed_contract.measures import of_group

_NAMING = ("instance", "platform", "plainly")
AUTHORS, SOFTWARE = "The virtbed maintainers", "virtbed"
"""Authors and title as in CITATION.cff; the version is in a report's provenance."""
PAPER = (
    "Samani and Salehi: Exploring the Impact of Virtualization on the Usability of the Deep "
    "Learning Applications, 2021"
)
"""The study that CITATION.cff refers to; its identifier is `claims.STUDY`."""
_DIGEST = 12  # hexadecimal digits of a digest on the first screen


@dataclass(frozen=True)
class ReportPaths:
    """The paths of a report: the page, and the same content as JSON."""

    html: Path
    json: Path


def report(sweep_dir: Path) -> ReportPaths:
    """Write report.html and report.json into the results folder of a complete or partial sweep.

    If the sweep has several hosts that are not alike, each gets its own report-HOST.html and .json;
    report.html then links to them and shows the hosts side by side.

    Raises:
        AnalysisError: The folder does not exist, or its results come from different images. The
            report of an earlier call is left unchanged.

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
    for host in several if len(several) > 1 else ():  # left by a call that did not pool the hosts
        for kind in ("html", "json"):
            (sweep_dir / f"{host_by_host.page_of(host)}.{kind}").unlink(missing_ok=True)
    return report_of(sweep, sweep_dir)


def _of_hosts(sweep_dir: Path, error: UnlikeHostsError) -> ReportPaths:
    """Write one report per host, and a page that links to them; unlike hosts are not pooled."""
    parts, left, failed = by_host(sweep_dir, error.hosts)
    contents = {host: document(part) for host, part in parts.items()}
    content = host_by_host.document(error, contents, left, failed)
    page = _page("host_by_host.html.j2", content, all=content)
    for host, own in contents.items():
        _write(own, render(own), sweep_dir / host_by_host.page_of(host))
    return _write(content, page, sweep_dir / "report")


def report_of(sweep: Sweep, sweep_dir: Path) -> ReportPaths:
    """Write the report of a sweep that has already been read; see `report`."""
    content = document(sweep)
    return _write(content, render(content), sweep_dir / "report")


def _write(content: Json, page: str, place: Path) -> ReportPaths:
    """Write a page and its content; `place` is the path of both without a suffix."""
    html, numbers_file = (place.with_name(f"{place.name}.{kind}") for kind in ("html", "json"))
    paths = ReportPaths(html=html, json=numbers_file)
    numbers = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(paths.json, f"{numbers}\n")
    write_text(paths.html, page)
    return paths


def render(content: Json) -> str:
    """Return the page of a report's content: one HTML file that loads no other."""
    drawn, cite = figures.draw(content), citation(content)
    return _page("report.html.j2", content, report=content, drawn=drawn, cite=cite)


def citation(content: Json) -> Json:
    """Return what to cite for a report's numbers.

    Args:
        content: A report's content, with its `provenance`.

    Returns:
        `software` (authors, version, commit), `paper`, `digests` (of plan and image, by name, as
        far as they are known) and `short`, all of it in one line with shortened digests.
    """
    known = {row["item"]: row["values"] for row in content["provenance"]}
    version = known["Analysis"][0].split()[-1]
    commits = (
        f", commit {', '.join(known['Commit of virtbed'])}" if "Commit of virtbed" in known else ""
    )
    software = f"{AUTHORS}: {SOFTWARE}, version {version}{commits}"
    digests = {
        name: ", ".join(known[item])
        for name, item in (("plan", "Plan digest"), ("image", "Image digest"))
        if item in known
    }
    start = len("sha256:") + _DIGEST
    brief = "".join(f"; {name} {value[:start]}" for name, value in digests.items())
    return {
        "software": software,
        "paper": f"{PAPER}, {STUDY}",
        "digests": digests,
        "short": f"{software}{brief}; and the study, {STUDY}",
    }


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
    # Naming functions bound to this document's platforms, so that a template passes a row alone.
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
        "TAILS": TAILS,
        "PAYS": PAYS,
        "FAR": FAR,
        "NEGLIGIBLE": NEGLIGIBLE,
        "RESAMPLES": RESAMPLES,
        "TOLERATED": TOLERATED,
        "samples_to_show": samples_to_show,
        "most_replicates": MOST_RECOMMENDED,
        "phases": of_group("phase"),
        "parts_of_a_start": of_group("startup"),
    }
    # The macro `section` appends to `contents` while the page is rendered.
    return environment.get_template(template).render(contents=[], **content) + "\n"
