"""The report of a real sweep of plans/quick.yml: opened in a browser, archived, and made again."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from virtbed.checkout import commit
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render

from ..unit.analysis.conftest import Folder, lay_study, with_gpu
from .browser import CHROMIUM, FLAGS
from .conftest import NOTHING, read, run, traces

SCREENS = [(1280, "light"), (1280, "dark"), (360, "light")]
INK = "e => getComputedStyle(e).fill"
LOOKED_AT = [pytest.param(*screen, id="-".join(map(str, screen))) for screen in SCREENS]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Browser, file: Path, width: int, scheme: Any) -> Page:
    """Open a page; fail on any console message, error or further request of the page."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    events: list[str] = []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("request", lambda request: events.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    assert events == [file.as_uri()]
    return page


def assert_readable(page: Page) -> None:
    """Check the figures' sizes and texts, that nothing exceeds the screen, and axe's rules."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    figures = page.locator("figure svg")
    assert figures.count() > 0
    for figure in figures.all():
        box = figure.bounding_box()
        assert box and box["width"] > width / 4 and box["height"] > 50
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert len(figure.get_attribute("aria-label") or "") > 20
        text = figure.locator("text").first
        assert text.is_visible()
        assert text.evaluate(INK) == page.locator("body").evaluate("e => getComputedStyle(e).color")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response
    assert found["passes"]
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == []


def test_a_sweep_has_a_report_before_it_is_done(quick: Any) -> None:
    folder, partial = quick
    assert 0 < partial["counts"]["analysed"] < partial["counts"]["planned"]
    assert partial["counts"]["waiting"] > 0
    whole = read(folder / "report.json")
    assert whole["counts"]["analysed"] == whole["counts"]["planned"]
    assert whole["counts"]["waiting"] == whole["counts"]["failed"] == 0
    assert {"item": "Commit of virtbed", "values": [commit()]} in whole["provenance"]
    assert traces() == NOTHING


@pytest.mark.parametrize(("width", "scheme"), LOOKED_AT)
def test_the_report_of_quick_can_be_read(
    quick: Any, browser: Browser, width: int, scheme: str
) -> None:
    folder, _ = quick
    page = opened(browser, folder / "report.html", width, scheme)
    assert_readable(page)
    content = read(folder / "report.json")
    assert page.locator("h1").inner_text().endswith(folder.name)
    assert page.locator(".lead").inner_text() == content["summary"]
    assert page.locator(".findings li").count() == len(content["findings"])
    compared = [cell for cell in content["cells"] if cell["ratio"] is not None]
    drawn = page.locator("figure").first.locator("svg text").all_text_contents()
    shown = page.locator("#cells td").all_inner_texts()
    for cell in compared:  # the numbers in the figure are those in the table
        ratio = f"{cell['ratio']:.3f}"
        assert ratio in drawn
        assert any(text.startswith(ratio) for text in shown)


@pytest.mark.parametrize(("width", "scheme"), LOOKED_AT)
def test_a_report_with_every_part_can_be_read(
    browser: Browser, width: int, scheme: str, tmp_path: Path
) -> None:
    """With parts that no sweep of this machine has: many sizes, guests under KVM, a GPU."""
    study = Folder(tmp_path / "study")
    lay_study(study)
    file = tmp_path / "report.html"
    file.write_text(render(document(with_gpu(read_sweep(study.path)))))
    assert_readable(opened(browser, file, width, scheme))


def test_a_comparison_of_two_sweeps_can_be_read(browser: Browser, tmp_path: Path) -> None:
    sides = [tmp_path / name for name in ("before", "after")]
    for side in sides:
        lay_study(Folder(side))
    for result in sides[1].glob("trials/*/result.json"):  # otherwise it is the same sweep
        result.write_text(result.read_text().replace("2026-01-02", "2026-01-03"))
    file = tmp_path / "comparison.html"
    printed = run("virtbed", "compare", *map(str, sides), "--page", str(file)).stdout
    assert "one per side" in printed and "differs:" not in printed
    for width in (1280, 360):
        assert_readable(opened(browser, file, width, "light"))


def test_the_keyboard_reaches_every_control(quick: Any, browser: Browser) -> None:
    folder, _ = quick
    page = opened(browser, folder / "report.html", 360, "light")
    wanted = page.evaluate("""() => {
        const all = [...document.querySelectorAll("a[href], summary, [tabindex='0']")];
        const kept = all.filter(e => e.matches("summary") || !e.closest("details:not([open])"));
        kept.forEach((element, number) => element.dataset.number = number);
        return kept.length;
    }""")
    reached = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("() => [Number(document.activeElement.dataset.number), "
                          "document.activeElement.matches(':focus-visible')]")
        )  # fmt: skip
    assert reached == [[number, True] for number in range(wanted)]
    # The keyboard scrolls a table that is wider than the screen, and opens a fold.
    box = page.locator(".scroll:has(#cells)")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.scroll:has(#cells)').scrollLeft > 0")
    page.locator("details:has(#effects) > summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#effects").is_visible()
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")


def test_a_printed_report_shows_the_folded_parts(quick: Any, browser: Browser) -> None:
    folder, _ = quick
    page = opened(browser, folder / "report.html", 1280, "light")
    assert not page.locator("#effects").is_visible()
    page.emulate_media(media="print")
    assert page.locator("#effects").is_visible()
    assert not page.locator("nav").is_visible()


def test_an_archive_gives_the_identical_report(quick: Any, tmp_path: Path) -> None:
    folder, _ = quick
    file, unpacked = tmp_path / "quick.zip", tmp_path / "unpacked"
    run("virtbed", "archive", str(folder), "--output", str(file))
    assert "is whole" in " ".join(run("virtbed", "verify", str(file)).stdout.split())
    with zipfile.ZipFile(file) as packed:
        packed.extractall(unpacked)
    again = unpacked / folder.name
    before = {name: (folder / name).read_bytes() for name in ("report.html", "report.json")}
    for name in before:
        (again / name).unlink()
    run("virtbed", "report", str(again))
    assert {name: (again / name).read_bytes() for name in before} == before


def test_advise_and_export_work_on_a_real_sweep(quick: Any, tmp_path: Path) -> None:
    folder, _ = quick
    printed = run("virtbed", "advise", str(folder), "--app", "image_classification").stdout
    assert printed.startswith(("Choose ", "Cannot tell: "))
    file = tmp_path / "samples.parquet"
    run("virtbed", "export", str(folder), "--output", str(file))
    samples = polars.read_parquet(file)
    results = [read(path) for path in folder.glob("trials/*/result.json")]
    assert samples.height == sum(len(result["samples"]) for result in results)
