import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed_analysis import AnalysisError, figures, report, words
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import citation, render
from virtbed_contract import identifiers

from .conftest import failure, with_gpu

REPOSITORY = Path(__file__).parents[3]
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects links, the text of each table's `td` elements, and unbalanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tables: dict[str, list[str]] = {}
        self.captions = 0
        self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.links += [v for k, v in attrs if v and k in ("href", "src", "srcset", "action")]
        if tag == "table":
            self._table = found.get("id") or ""
            self.tables[self._table] = []
        elif tag == "td":
            self.tables[self._table].append("")
        elif tag == "caption":
            self.captions += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if "td" in self.open and (words := " ".join(data.split())):
            cells = self.tables[self._table]
            cells[-1] = f"{cells[-1]} {words}".strip()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(folder: Any) -> tuple[str, Page, dict[str, Any]]:
    paths = report(folder.path)
    text = paths.html.read_text()
    return text, Page(text), json.loads(paths.json.read_text())


def test_page_needs_no_network_and_is_well_formed(quick: Any) -> None:
    text, parsed, _ = page(quick)
    assert not re.search(r"https?:", text)
    assert all(link.startswith("#") for link in parsed.links)
    assert not re.search(r"url\((?!#)|@import", text)
    assert parsed.open == []
    assert parsed.captions == len(parsed.tables)
    assert '<html lang="en">' in text and 'role="img"' in text


def test_html_and_json_have_the_same_numbers(quick: Any) -> None:
    _, parsed, content = page(quick)
    expected: list[str] = []
    for cell in content["cells"]:
        typical = {
            phase: words.ms(cell[f"{phase}_typical_ms"])
            for phase in ("e2e", "pre", "infer", "post")
        }
        ratio = [words.ratio(cell[f"ratio{end}"]) for end in ("", "_low", "_high")]
        expected += [
            str(cell["cores"]),
            "baseline" if cell["baseline"] else "{} ({} to {})".format(*ratio),
            " ".join(filter(None, (cell["answer"] or words.NONE, cell["answer_note"]))),
            typical["e2e"],
            *(words.ms(cell[f"e2e_{kind}_ms"]) for kind in ("median", "mean")),
            *(words.ms(cell[f"latency_{kind}_ms"]) for kind in ("p90", "p99")),
        ]
        for phase in ("pre", "infer", "post"):
            expected += [typical[phase], words.ms(cell[f"{phase}_mean_ms"])]
        expected += [str(cell["replicates"]), str(cell["samples"])]
    assert parsed.tables["cells"] == expected


def test_summary_is_computed(quick: Any) -> None:
    text, _, content = page(quick)
    # Its replicates are all alike, which is no precision.
    assert "not recommended yet: container, pinned (cn pinned), 1.020" in content["summary"]
    assert "Avoid where time matters: container, CPU quota (cn vanilla), 1.35" in content["summary"]
    assert content["summary"] in text


def test_emulated_cells_have_a_table_of_their_own(quick: Any) -> None:
    text, parsed, content = page(quick)
    assert {cell["platform"] for cell in content["cells"]} == {"bm", "cn"}
    assert [cell["platform"] for cell in content["emulated"]] == ["vm", "vm"]
    assert "5,000" in parsed.tables["emulated"]
    assert "5,000" not in parsed.tables["cells"]
    assert "seeded weights" in text[text.index('id="emulated"') :]


def test_a_partial_sweep_lists_what_is_missing(quick: Any) -> None:
    failed = quick.plan("vmcn", "pinned", 1)["id"]
    quick.plan("cn", "vanilla", 6)
    quick.plan("cn", "vanilla", 7)
    quick.design["not_run"] = [
        {
            "platform": "bm",
            "mode": "vanilla",
            "cores": 1,
            "reason": "needs CPU hotplug",
            "remedy": "allow offlining",
        }
    ]
    quick.write("design.json", quick.design)
    quick.write(
        f"trials/{failed}/failure.json",
        failure(failed, "port <22> taken"),
    )
    quick.write(
        "doctor.json",
        {
            "schema": identifiers.HOST_REPORT,
            "host": "bench01",
            "ok": True,
            "accelerator": "tcg",
            "facts": {"cpu": {"model": "Xeon Test", "online": [0, 1]}},
            "platforms": [
                {"platform": "vm", "status": "emulated", "reason": "KVM hung", "remedy": "KVM"}
            ],
        },
    )
    text, _, content = page(quick)
    assert content["counts"] | {"planned": 20, "analysed": 17} == content["counts"]
    assert content["failed"][0]["message"] == "port <22> taken"
    assert "port &lt;22&gt; taken" in text
    assert content["waiting"][0]["replicates"] == [6, 7]
    assert [row["reason"] for row in content["not_run"]] == [
        "needs CPU hotplug",
        "emulated only: KVM hung",
    ]
    assert "Xeon Test" in text


def test_rejected_files_and_warnings_are_listed(quick: Any) -> None:
    name = quick.trial("cn", "vanilla", 6, {"a.png": [1.0]}, warnings=("clock is hpet",))
    (quick.path / f"trials/{quick.design['trials'][0]['id']}/evidence.json").unlink()
    text, _, content = page(quick)
    assert content["rejected"][0]["reason"] == "no evidence.json in its folder"
    assert content["warnings"] == [{"warning": "clock is hpet", "trials": 1}]
    assert "clock is hpet" in text and name not in text
    assert content["cells"][-1]["note"] or content["cells"][0]["note"]


def test_provenance_lists_each_item_once(quick: Any) -> None:
    *_, content = page(quick)
    items = {row["item"]: row["values"] for row in content["provenance"]}
    assert items["CPU model seen by trials"] == ["Xeon Test"]
    assert items["Turbo seen by trials"] == ["on"]
    assert len({item.lower() for item in items}) == len(content["provenance"])
    assert not [item for item in items if item in ("TensorFlow", "Keras")]  # see Frameworks


def test_the_page_states_how_to_cite_it(quick: Any) -> None:
    text, _, content = page(quick)
    items = {row["item"]: row["values"] for row in content["provenance"]}
    first_screen = text[: text.index("<nav")]
    version = items["Analysis"][0].split()[-1]
    assert f"virtbed, version {version}, commit 0123abc; plan sha256:bbbbbbbbbbbb; image" in (
        first_screen
    )
    assert '<a href="#section-how-to-cite">' in first_screen
    section = text[text.index('id="section-how-to-cite"') :]
    for digest in (*items["Plan digest"], *items["Image digest"]):
        assert f"<code>{digest}</code>" in section
    assert "arXiv 2112.09780" in section
    assert f"<code>virtbed archive {content['sweep']}</code>" in section


def test_the_citation_agrees_with_citation_cff(quick: Any) -> None:
    known = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    (reference,) = known["references"]
    cite = citation(document(read_sweep(quick.path)))
    assert cite["software"].startswith(f"{known['authors'][0]['name']}: {known['title']}, version")
    for part in (reference["title"], str(reference["year"]), reference["url"].split("/")[-1]):
        assert part in cite["paper"]
    assert all(author["family-names"] in cite["paper"] for author in reference["authors"])


def test_empty_sweep(folder: Any) -> None:
    folder.plan("bm", "pinned", 1)
    text, parsed, content = page(folder)
    assert content["summary"] == "Nothing has been measured yet."
    assert content["counts"]["waiting"] == 1
    assert "<figure" not in text and parsed.open == []


def test_a_single_replicate_has_no_interval(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [10.0]})
    folder.trial("cn", "pinned", 1, {"a.png": [11.0]})
    text, _, content = page(folder)
    assert content["cells"][-1]["ratio_low"] is None
    assert "no interval from 1 replicate" in content["summary"]
    assert "no interval from 1 replicate" in text


def test_without_a_baseline_the_figure_shows_times(folder: Any) -> None:
    folder.trial("cn", "pinned", 1, {"a.png": [11.0]})
    text, _, content = page(folder)
    assert "none compared with bare metal" in content["summary"]
    assert "e2e time, ms" in text


def test_same_files_same_report_and_nothing_else_written(quick: Any) -> None:
    before = {p.name for p in quick.path.iterdir()}
    first = [path.read_bytes() for path in vars(report(quick.path)).values()]
    again = [path.read_bytes() for path in vars(report(quick.path)).values()]
    assert first == again
    assert {p.name for p in quick.path.iterdir()} - before == {"report.html", "report.json"}


def test_a_refused_report_leaves_the_old_one(quick: Any) -> None:
    old = report(quick.path).html.read_bytes()
    quick.trial("cn", "pinned", 6, {"a.png": [1.0]}, image="sha256:" + "e" * 64)
    with pytest.raises(AnalysisError):
        report(quick.path)
    assert (quick.path / "report.html").read_bytes() == old


ALL_FIGURES = {"ratios", "phases", "overhead", "run_order", "scale_up", "startup", "gpu"}
FIGURES_OF_QUICK = {"ratios", "phases", "run_order", "startup"}


def test_every_figure_is_drawn(study: Any) -> None:
    assert set(figures.draw(document(with_gpu(read_sweep(study.path))))) == ALL_FIGURES


def test_a_figure_without_anything_to_show_is_left_out(quick: Any) -> None:
    assert set(figures.draw(document(read_sweep(quick.path)))) == FIGURES_OF_QUICK


def test_a_page_of_all_figures_is_well_formed_and_links_to_its_tables(study: Any) -> None:
    text = render(document(with_gpu(read_sweep(study.path))))
    parsed = Page(text)
    assert parsed.open == []
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    targets = {link.removeprefix("#") for link in parsed.links} | set(
        re.findall(r"url\(#([^)]+)\)", text)
    )
    assert targets <= set(ids)
    for name in ("cells", "scale-up", "efficient-range", "by-size", "container-to-host", "startup"):
        assert parsed.tables[name], name


def test_the_text_alternative_describes_the_panel(quick: Any) -> None:
    ratios = figures.draw(document(read_sweep(quick.path)))["ratios"].panels[0]
    label = re.search(r'aria-label="([^"]*)"', ratios)
    assert label and "2 cells, from 1.020 (container, pinned at 1 core) to 1.35" in label[1]


def test_figures_are_deterministic_and_escape(quick: Any) -> None:
    content = document(read_sweep(quick.path))
    assert figures.draw(content) == figures.draw(content)
    odd = [cell | {"application": 'a"<b>'} for cell in content["cells"]]
    for panel in figures.draw(content | {"cells": odd})["ratios"].panels:
        Page(panel)
    nothing: dict[str, Any] = {"cells": [], "startup": []}
    nothing["diagnostics"] = {"run_order": []}
    assert figures.draw(content | nothing) == {}


def test_the_subjects_that_differ_most_are_drawn(quick: Any) -> None:
    content = document(read_sweep(quick.path))
    many = figures.SUBJECTS + 3
    cells = [
        cell | {"application": f"application_{n:03d}", "ratio": cell["ratio"] and 1 + n / 100}
        for n in range(many)
        for cell in content["cells"]
    ]
    drawing = figures.draw(content | {"cells": cells})["ratios"]
    assert (len(drawing.panels), drawing.subjects) == (figures.SUBJECTS, many)
    shown = [n for n in range(many) if any(f"application_{n:03d}" in p for p in drawing.panels)]
    assert shown == list(range(3, many))
    page = render(content | {"cells": cells})
    assert (
        f"Drawn are {figures.SUBJECTS} of {many}: those whose ratios, if any, are furthest" in page
    )


def test_a_published_value_beyond_the_axis_is_an_arrowhead(folder: Any) -> None:
    for replicate in (1, 2, 3):
        for platform, mode, ms in (("bm", "pinned", 10.0), ("cn", "vanilla", 11.0)):
            folder.trial(platform, mode, replicate, {"a.png": [ms + replicate / 10]}, cores=2)
    content = document(read_sweep(folder.path))
    (row,) = content["published"]["rows"]
    assert max(row["published"].values()) > 100  # and yet the axis is that of what was measured
    labels = re.findall(r"<text[^>]*>([\d.]+)</text>", figures.draw(content)["ratios"].panels[0])
    assert max(map(float, labels)) < 1.2


def test_a_table_of_very_many_rows_is_folded_by_subject(quick: Any) -> None:
    content = document(read_sweep(quick.path))
    many = words.FOLD // len(content["cells"]) + 1
    cells = [
        cell | {"application": f"application_{n:03d}"}
        for n in range(many)
        for cell in content["cells"]
    ]
    text = render(content | {"cells": cells})
    parsed = Page(text)
    assert parsed.open == []
    folded = [name for name in parsed.tables if name.startswith("cells-")]
    assert len(folded) == many and "cells" not in parsed.tables
    assert 'id="cells"' in text  # what figures link to


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([1, 2, 3, 8], "1-3, 8"), ([5, 4], "4-5")]
)
def test_numbers_in_brief(numbers: list[int], text: str) -> None:
    assert words.numbers_in_brief(numbers) == text
