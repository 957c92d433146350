"""Tables and texts fit the terminal, numbers are not broken, control characters are visible."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from virtbed.cli.console import console as printed
from virtbed.design import design
from virtbed.plan import Plan
from virtbed.render.host import doctor_table, facts_table, tuning_table
from virtbed.render.plan import not_run_lines, placement_table, plan_table
from virtbed.render.results import check_table, comparison_tables, ratio_tables, verdict_table
from virtbed.render.screen import Screen
from virtbed.render.table import Table, bound, wrapped
from virtbed_analysis import analyse_published
from virtbed_contract.codec import encode
from virtbed_contract.factors import FACTORS, SCENARIOS
from virtbed_contract.json_file import plain
from virtbed_contract.remedies import setup
from virtbed_contract.sweep import NotRun, PlatformVerdict, TuningRow

from .conftest import PLATFORMS, report
from .test_render_host import REPORT

ENTRIES = PLATFORMS.entries
FIGURE = re.compile(r"\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)")
ESCAPE = "\x1b"


def shown(thing: Any, width: int = 80, **options: Any) -> str:
    """Return what a screen of some width prints; by default not to a terminal."""
    out = io.StringIO()
    Screen(file=out, width=width, **options).print(thing)
    return out.getvalue()


def assert_fits(text: str, width: int = 80) -> None:
    wide = [line for line in text.splitlines() if cell_len(line) > width]
    assert wide == []


def many_factors() -> Plan:
    """Return a plan that varies every factor."""
    return Plan.model_validate(
        {
            "name": "many",
            "replicates": 2,
            "applications": [
                {"name": "image_classification", "scale": "trained", "samples": 6},
                {"name": "medical_segmentation", "scale": "tiny", "samples": 6},
                {"name": "audio_transcription", "samples": 6, "scenario": "server",
                 "target_qps": 8, "target_latency_ms": 500},
            ],
            "platforms": {name: ["vanilla", "pinned"] for name in ENTRIES},
            "cores": [1, 2],
            "threads": ["default", "matched"],
            "variants": ["plain", "twin"],
        }
    )  # fmt: skip


def comparison() -> dict[str, Any]:
    """Return a comparison of every platform, size, factor and scenario."""
    effect = {"value": 1.23456, "low": 1.2, "high": 12.71, "n": 5, "answer": "more"}
    factors = {factor.name: factor.values[-1] for factor in FACTORS if factor.baseline == "same"}
    cells = [
        {"application": work, "scale": "trained", "scenario": scenario, "weights": "seeded",
         "platform": platform, "mode": mode, "cores": cores, **factors, "time": effect,
         "cost": None if platform == "bm" else effect}
        for work in ("image_classification", "question_answering")
        for scenario in SCENARIOS
        for platform in ENTRIES
        for mode in ("vanilla", "pinned")
        for cores in (1, 128)
    ]  # fmt: skip
    rows = [encode(entry) for entry in ENTRIES.values()]
    return {"confidence": 0.95, "unit": "replicate", "platforms": rows, "cells": cells}


def calibration() -> dict[str, Any]:
    rows = [
        {**cell, "check": check, "expected": 1.1, "estimate": 1.0912, "low": 1.081, "high": 1.1019,
         "verdict": "passed" if check == "twin" else "cannot tell",
         "reason": "" if check == "twin" else "misses " * 9, "warnings": []}
        for cell in comparison()["cells"][:20]
        for check in ("twin", "slowdown")
    ]  # fmt: skip
    return {"host": "bench01", "confidence": 0.95, "checks": rows}


def tables() -> Iterator[tuple[str, Table, int]]:
    """Yield each command's table, with the numbers and intervals that must not be broken."""
    designed = design(many_factors(), report(8, "available"), PLATFORMS)
    yield "plan", plan_table("many: 9 trials", designed.trials, ENTRIES), 0
    yield "placement", placement_table(designed.placements), 0
    found = comparison()
    for what, table in zip(("time", "cost"), comparison_tables(found), strict=True):
        known = sum(cell[what] is not None for cell in found["cells"])
        yield f"compare, {what}", table, known
    yield "calibrate", check_table(calibration(), ENTRIES), 40
    reason = "QEMU 7.2 answers, and /sys/fs/cgroup/cpuset.cpus.effective of it is empty"
    verdicts = tuple(PlatformVerdict(name, "emulated", reason, "use a host") for name in ENTRIES)
    tuned = (TuningRow("/sys/kernel/mm/transparent_hugepage/enabled", True, "a", "b", reason),) * 2
    host = replace(REPORT, platforms=verdicts, tuning=tuned)
    yield "doctor", doctor_table(host, ENTRIES), 0
    yield "facts", facts_table(host), 0
    yield "tuning", tuning_table(host), 0


TABLES = {name: (table, figures) for name, table, figures in tables()}


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("name", TABLES)
def test_no_line_is_wider_than_the_terminal_and_no_number_is_broken(name: str, width: int) -> None:
    table, figures = TABLES[name]
    text = shown(table, width)
    assert_fits(text, width)
    assert len(FIGURE.findall(text)) == figures
    assert "\u2026" not in text  # nothing is left out, either


def test_tables_of_the_published_data_fit_the_terminal(tmp_path: Path) -> None:
    rows = [
        f"F,{cores},{mode},{platform},{n},{n},{time}"
        for cores in (2, 4, 8, 16, 32, 64)
        for mode in ("vanilla", "pinned")
        for platform, time in (("BM", 1.0), ("CN", 10.99), ("VM", 1.5), ("VMCN", 1.25))
        for n in range(3)
    ]
    file = tmp_path / "timings.csv"
    file.write_text("\n".join(["app,cores,mode,platform,row,input,exec_time_s", *rows]))
    content = analyse_published(file)
    for table in ratio_tables(content):
        text = shown(table)
        assert_fits(text)
        assert text.count("10.990") == 12
    text = shown(verdict_table(content["verdicts"], content["confidence"]))
    assert_fits(text)
    for verdict in content["verdicts"]:
        assert verdict["claim"].split()[0] in text


def test_values_that_all_rows_share_are_printed_once_above_the_table() -> None:
    table = Table("Cells")
    for heading in ("platform", "scale", "settings"):
        table.add_column(heading)
    table.add_column("cores", number=True)
    table.add_column("e2e ms", number=True, measured=True)
    table.add_row("container", "trained", "", "1", "20.1")
    table.add_row("KVM guest", "trained", "", "1", "20.1")
    assert shown(table).splitlines() == [
        "Cells",
        "For all: scale trained; cores 1.",
        "platform   e2e ms",
        "─────────  ──────",
        "container    20.1",
        "KVM guest    20.1",
    ]


def test_a_single_row_keeps_its_columns() -> None:
    table = Table()
    table.add_column("platform")
    table.add_row("container")
    assert shown(table).split() == ["platform", "─────────", "container"]


def test_columns_that_do_not_fit_are_printed_in_a_second_part_with_the_names() -> None:
    table = Table()
    table.add_column("platform")
    for n in range(6):
        table.add_column(f"measure {n}", number=True, measured=True)
    for name in ("container", "KVM guest"):
        table.add_row(name, *["1.35 (1.31 to 1.39)"] * 6)
    text = shown(table)
    assert_fits(text)
    assert len(FIGURE.findall(text)) == 12
    assert text.count("container") == text.count("KVM guest") == 2
    wide = shown(table, 200)
    assert wide.count("container") == 1 and len(wide.splitlines()) == 4


def test_rows_are_grouped_in_sections_unless_there_is_only_one() -> None:
    table = Table()
    table.add_column("application", section=True)
    table.add_column("platform")
    table.add_row("faces", "container")
    table.add_row("faces", "KVM guest")
    once = shown(table).splitlines()
    assert once == ["For all: application faces.", *["platform", "─────────"], *once[3:]]
    table.add_row("words", "container")
    assert shown(table).splitlines()[2:] == [
        "faces", "container", "KVM guest", "", "words", "container",
    ]  # fmt: skip


def test_on_a_very_narrow_terminal_rows_are_printed_as_lists() -> None:
    text = shown(TABLES["compare, time"][0], 24)
    assert_fits(text, 24)
    assert "cores: 128" in text and "time:" in text


def test_a_plans_table_has_platforms_in_words_and_cells_that_cannot_run() -> None:
    text = shown(TABLES["plan"][0], 200)
    assert re.search(r"container, CPU quota +cn vanilla", text)
    left = [NotRun("vm", None, None, "no KVM", "use a host"), NotRun("cn", "vanilla", 2, "r", "m")]
    assert list(not_run_lines(left, ENTRIES, "quick")) == [
        "not run: KVM guest (vm): no KVM; use a host",
        "not run: container, CPU quota (cn vanilla, c02): r; m",
    ]


def test_a_reason_that_several_cells_share_is_printed_once_with_the_plan_in_its_remedy() -> None:
    left = [
        NotRun("cn", mode, None, "no image", f"{setup()}, which builds it")
        for mode in ("vanilla", "pinned")
    ]
    assert list(not_run_lines(left, ENTRIES, "plans/x.yml")) == [
        "not run: container, CPU quota (cn vanilla); container, pinned (cn pinned): no image; "
        "run make setup PLAN=plans/x.yml, which builds it"
    ]


def test_lines_end_at_spaces_or_within_names_or_anywhere_if_they_must() -> None:
    assert wrapped("image_classification, trained", 16) == ["image_", "classification,", "trained"]
    assert wrapped("a 1.35 (1.31 to 1.39)", 12) == ["a 1.35 (1.31", "to 1.39)"]
    assert wrapped("2026-01-02 cpu0_1", 6) == ["2026-0", "1-02", "cpu0_1"]
    assert wrapped("", 9) == [""]
    assert wrapped(bound("1.35 (1.31 to 1.39)") + " more", 20)[1:] == ["more"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plain ü 漢 😀", "plain ü 漢 😀"),
        (f"{ESCAPE}[31mred{ESCAPE}]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202ecba", r"abc\u202ecba"),
        ("line\nline\ttab", "line\nline\ttab"),
        ("over\rwritten", r"over\rwritten"),
        ("no utf-8: \udcff", r"no utf-8: \udcff"),
    ],
)
def test_control_characters_are_made_visible(text: str, message: str) -> None:
    assert plain(text) == message


EVIL = f"x{ESCAPE}[2J{ESCAPE}]0;gone\x07\x9b31m\udcff[red][/nope]"


@pytest.mark.parametrize("terminal", [True, False])
def test_control_characters_in_names_of_a_results_folder_are_made_visible(terminal: bool) -> None:
    table = Table(EVIL)
    table.add_column("platform")
    table.add_column(EVIL, measured=True)
    table.add_row(EVIL, f"a\n{EVIL}")
    table.add_row("b", Text(EVIL, "red"))
    for thing in (EVIL, f"report: {EVIL}", Text(EVIL), table):
        text = shown(thing, 80, force_terminal=terminal, color_system="auto" if terminal else None)
        text.encode()  # which half a character cannot be
        own = re.sub(r"\x1b\[[0-9;]*m", "", text) if terminal else text  # the screen's own styles
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", own)
        joined = "".join(own.split())
        assert (
            r"x\x1b[2J\x1b]0;gone" in joined
            and r"\x9b31m\udcff" in joined
            and "[red][/nope]" in joined
        )
        assert "\x1b[31m" not in text or isinstance(thing, Table)


def test_output_to_a_pipe_has_80_columns_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    out = io.StringIO()
    screen = Screen(file=out)
    # As where the terminal behind another descriptor is wide.
    monkeypatch.setattr("os.get_terminal_size", lambda *_: (300, 50))
    assert screen.width == 80
    screen.print(verdict_table([_verdict("refuted")], 0.95))
    screen.print("word " * 40)
    assert_fits(out.getvalue())
    assert ESCAPE not in out.getvalue()
    monkeypatch.setenv("COLUMNS", "120")
    assert screen.width == Screen(file=out).width == 120
    monkeypatch.setenv("COLUMNS", "100")
    assert screen.width == 100


def _verdict(answer: str) -> dict[str, Any]:
    return {
        "claim": "A [claim].",
        "source": "s",
        "answer": answer,
        "with_suspects": answer,
        "because": "b.",
        "effect": "e",
    }


def test_output_to_a_terminal_has_its_width_and_colours() -> None:
    table = verdict_table([_verdict("refuted")], 0.95)
    text = shown(table, 200, force_terminal=True, color_system="standard")
    assert f"{ESCAPE}[31mrefuted" in text and "A [claim]. (s)" in text


def test_a_path_is_not_broken_and_stays_on_the_line_of_its_label() -> None:
    path = "/very/" + "long" * 30 + "/report.html"
    assert shown(f"report: {path}") == f"report: {path}\n"
    text = shown(f"some words before a path, enough of them for more than one line: {path} " * 2)
    assert text.count(path) == 2 and all(len(x) <= 80 or x == path for x in text.splitlines())


def test_the_commands_print_with_this_console() -> None:
    assert isinstance(printed, Screen)


def test_a_plans_table_has_the_cpus_of_pinned_instances_and_the_reasons() -> None:
    designed = design(many_factors(), report(8, "available"), PLATFORMS)
    text = shown(placement_table(designed.placements), 132)
    assert "the same on every platform" in text
    for part in ("L3 of CPUs 0-7 (32768 KiB)", "one thread per core", "housekeeping shares L3"):
        assert part in " ".join(text.split())
    assert re.search(r"\b2 +1-2 ", text)
