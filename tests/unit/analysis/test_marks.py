"""What is marked in one place is marked in every place: all rendered tables, row by row."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from virtbed_analysis import calibrate, compare, render_comparison
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.marks import Marks
from virtbed_analysis.page import render
from virtbed_contract import identifiers

from .conftest import Folder, with_gpu

SUBJECT = "image_classification, trained"
SIZES = (1, 2, 4, 8, 16)
OTHER, SUSPECT, DRIFT, KERNELS = "other answers", "suspect", "may be drift", "two kernels"
METAL, LOST, UNLIKE = "bare metal suspect", "trials lost", "unlike"
PAIR = {DRIFT, KERNELS, METAL, UNLIKE}
# Tables that are about marks, or hold no number of a cell to act on.
ASIDE = re.compile(
    r"doubts|suspicion|answers|failed|waiting|emulated|not-run|order|platforms|components|costs-[23]"
)
# Within one platform: what is of bare metal, or of both sides, says nothing there.
WITHIN = re.compile(r"modes|threads|gpu-\w+|scale-up|efficient-range|startup|stalls")


class Tables(HTMLParser):
    """The rows of a page's tables: the table's id, its header cell's text, all of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, str, str]] = []
        self._table, self._head, self._in, self._text = "", "", "", [""]
        self._subject, self._group = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._table, self._subject = dict(attrs)["id"] or "", ""
        self._group = tag == "th" and dict(attrs).get("scope") == "rowgroup"
        if tag == "tr":
            self._text, self._head = [], ""
        self._in = tag if tag in ("th", "td") else self._in
        self._text += [f"<{tag}>"] if tag in ("th", "td") else []

    def handle_data(self, data: str) -> None:
        self._text.append(data)
        self._head += data if self._in == "th" else ""
        if self._group and data.strip():
            self._subject = data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._subject in ("", SUBJECT):
            self.rows.append((self._table, " ".join(self._head.split()), "".join(self._text)))


def rows(page: str) -> list[tuple[str, str, str]]:
    tables = Tables()
    tables.feed(page)
    return tables.rows


def other_kernel(result: Any) -> None:
    result["environment"].update(kernel="6.1.0-x")


def marked(folder: Folder, *, varied: bool = False) -> Folder:
    """Lay every mark, on a platform or size of its own; `varied`: with matched threads, too."""
    chance = random.Random(1)
    for replicate in range(1, 7):
        for cores in SIZES:
            base = 40 / cores * chance.lognormvariate(0, 0.002)

            def add(platform: str, mode: str, cost: float, **other: Any) -> str:
                ms = base * cost * chance.lognormvariate(0, 0.002)  # noqa: B023
                times = {"a": [ms * chance.lognormvariate(0, 0.01) for _ in range(100)]}
                return folder.trial(platform, mode, replicate, times, cores=cores, **other)  # noqa: B023

            metal = {"confounders": {"steal_share": 0.2}} if (replicate, cores) == (1, 16) else {}
            add("bm", "pinned", 1.0, **metal)
            add("cn", "vanilla", 1.05 + 0.1 / cores, answers="d")
            add("cn", "pinned", 1.04)
            steal = {"steal_share": 0.2 if replicate == 2 else 0.0}
            for name in (
                add("vm", "vanilla", 1.06, confounders=steal),
                add("vm", "pinned", 1.03 + 0.1 / cores),
            ):
                folder.edit(f"trials/{name}/result.json", other_kernel)
            if varied:
                add("bm", "pinned", 0.9, thread_policy="matched")
                add("cn", "vanilla", 0.95, thread_policy="matched", answers="d")
    folder.write(
        "doctor.json",
        {
            "schema": identifiers.HOST_REPORT, "host": "bench01", "ok": True, "accelerator": "kvm",
            "facts": {"cpu": {"model": "Xeon Test", "online": list(range(16))}}, "platforms": [],
        },
    )  # fmt: skip
    return folder


def expected(content: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Return the marks of each platform and size, as the table of every cell has them."""
    return {
        (f"({cell['platform']} {cell['mode']})", str(cell["cores"])): {
            mark["text"] for mark in cell["marks"]
        }
        for cell in content["cells"]
        if cell["thread_policy"] == "default" and cell["processor"] == "cpu"
    }


CURVES = {"by-size", "enough", "unmeasured", "costs-1", "efficient-range"}
OF_ALL = {
    "costs-1", "cells", "p90", "p99", "next-instance", "by-size", "container-to-host", "enough",
    "published", "without-suspects", "scale-up", "efficient-range", "startup", "resolution",
    "modes",
}  # fmt: skip


def test_every_table_has_the_marks_of_its_cells(folder: Folder) -> None:
    content = document(read_sweep(marked(folder).path))
    assert content["rejected"] == []
    known = expected(content)
    assert known["(cn vanilla)", "1"] == {OTHER}
    assert known["(vm vanilla)", "2"] == {SUSPECT, KERNELS, UNLIKE}
    assert known["(vm pinned)", "4"] == {KERNELS, UNLIKE}
    assert known["(cn pinned)", "16"] == {METAL}
    assert known["(bm pinned)", "16"] == {SUSPECT}
    assert known["(cn pinned)", "1"] == set()
    assert content["model"]["reason"] is None
    assert checked(content) >= OF_ALL | {"model", "unmeasured"}


def test_tables_of_factors_have_marks_too(folder: Folder) -> None:
    content = document(with_gpu(read_sweep(marked(folder, varied=True).path)))
    assert checked(content) >= OF_ALL | {"threads", "gpu-e2e", "gpu-infer"}


def checked(content: dict[str, Any]) -> set[str]:
    """Return the tables of a page that have cells, having seen that each row has its marks."""
    seen, wrong, known = set(), [], expected(content)
    for table, head, text in rows(render(content)):
        place = re.search(r"\((\w+(?: vanilla| pinned)?)\)", head)
        if not place or ASIDE.fullmatch(table):
            continue
        cores = re.search(r"<td>\s*(\d+)\s*<", f"{text}<")
        sizes = [cores[1]] if cores and table not in CURVES else [str(size) for size in SIZES]
        name = place[1] if " " in place[1] else f"{place[1]} vanilla"
        wanted = {mark for size in sizes for mark in known.get((f"({name})", size), set())}
        wanted -= PAIR if WITHIN.fullmatch(table) else set()
        seen.add(table)
        if missing := {mark for mark in wanted if mark not in text}:
            wrong.append((table, head, sizes, missing))
    assert not wrong, "\n".join(map(str, wrong))
    return seen


def test_a_comparison_names_the_side_of_a_mark(folder: Folder) -> None:
    marked(folder)
    other = Folder(folder.path.parent / "after")
    chance = random.Random(1)
    for replicate in range(1, 5):
        base = 40 * chance.lognormvariate(0, 0.01)
        for platform, cost in (("bm", 1.0), ("cn", 1.04), ("vm", 1.1)):
            times = {"a": [base * cost * chance.lognormvariate(0, 0.003) for _ in range(9)]}
            busy = {"confounders": {"steal_share": 0.2}} if platform == "cn" else {}
            other.trial(platform, "pinned", replicate, times, **busy)
    content = compare(folder.path, other.path)
    marks = {row["platform"]: {m["text"] for m in row["marks"]} for row in content["cells"]}
    assert marks["bm"] == set()
    assert "second: suspect" in marks["cn"]
    assert "first: two kernels" in marks["vm"]
    page = render_comparison(content)
    cells = {head.rpartition("(")[2][:2]: text for _, head, text in rows(page) if "[" in head}
    assert {name: "second: suspect" in text for name, text in cells.items()} == {
        "cn": True, "vm": False,
    }  # fmt: skip
    assert {name: "first: two kernels" in text for name, text in cells.items()} == {
        "cn": False, "vm": True,
    }  # fmt: skip
    assert "4 of 4 trials suspect" in page


def test_a_sweep_without_problems_has_no_marks() -> None:
    assert Marks().of_own() == []


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.4])
def test_a_platform_whose_answers_are_wrong_neither_passes_nor_rises(
    folder: Folder, ratio: float
) -> None:
    """It may be fast for doing other work: a comparison for CI called that "not above"."""
    after = Folder(folder.path.parent / "after")
    chance = random.Random(3)
    for side, cost, answers in ((folder, 1.0, "c"), (after, ratio, "d")):
        for replicate in range(1, 7):
            for platform, own in (("bm", 1.0), ("cn", 1.05 * cost), ("vm", 1.1)):
                ms = 30 * own * chance.lognormvariate(0, 0.002)
                wrong_ones = {"answers": answers} if platform == "cn" else {}
                side.trial(platform, "pinned", replicate, {"a": [ms] * 3}, **wrong_ones)
    content = compare(folder.path, after.path, fail_above=0.05)
    assert content["fail"]["verdict"] == "cannot tell"
    (row,) = (one for one in content["fail"]["unclear"] if one["what"] == "cost")
    assert row["platform"] == "cn"
    assert row["why"] == "answers differ from bare metal's in the second: other work"
    assert (
        "1 cell gave other answers than bare metal; the times are of different work"
        in (content["summary"])
    )


@pytest.mark.parametrize("variant", ["twin", "slowed"])
def test_a_check_of_other_work_tells_nothing_of_a_testbed(folder: Folder, variant: str) -> None:
    chance = random.Random(4)
    for replicate in range(1, 9):
        for name, ratio in (("plain", 1.0), ("twin", 1.0), ("slowed", 1.1)):
            ms = 30 * ratio * chance.lognormvariate(0, 0.002)
            labels = {"variant": name, "slowdown": 0.1 if name == "slowed" else 0.0}
            answers = {"answers": "d"} if name == variant else {}
            folder.trial("cn", "pinned", replicate, {"a": [ms] * 3}, **labels, **answers)
        folder.trial("bm", "pinned", replicate, {"a": [29.0 + replicate / 100]})
    content = calibrate(folder.path)
    verdicts = {check["check"]: check["verdict"] for check in content["checks"]}
    wrong = "slowdown" if variant == "slowed" else "twin"
    assert verdicts.pop(wrong) == "cannot tell"
    assert set(verdicts.values()) == {"passed"}
    assert content["passed"] is False
    (why,) = (check["reason"] for check in content["checks"] if check["check"] == wrong)
    assert why == f"the answers of {variant} are not bare metal's: unlike work"
