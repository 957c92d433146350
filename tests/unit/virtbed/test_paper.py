"""plans/paper.yml has every published cell that can be measured, and prints its host-hours."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from virtbed import bench
from virtbed.bench import Bench
from virtbed.cli import app
from virtbed.design import design
from virtbed.plan import Plan, load_plan, plan_path
from virtbed.render.plan import hours_line
from virtbed_analysis.published import PLATFORMS as THEIRS
from virtbed_analysis.published import figures

from .conftest import PLATFORMS, report


@pytest.fixture
def paper() -> Plan:
    return load_plan(plan_path("paper"))


def test_the_plan_has_each_published_cell_without_a_gpu(paper: Plan) -> None:
    placed = design(paper, report(cpus=128, guests="available"), PLATFORMS)
    assert placed.not_run == ()
    cells = {(t.instance.platform, t.instance.mode, t.instance.cores) for t in placed.trials}
    names = {parts: name for name, parts in THEIRS.items()}
    ours = {
        (names[entry.machine, entry.enclosure], mode, cores)
        for platform, mode, cores in cells
        for entry in [PLATFORMS.entries[platform]]
    }
    published = {(r["platform"], r["mode"], r["cores"]) for r in figures().to_dicts()}
    gpu = {cell for cell in published if cell[1] == "GPU"}
    assert published - gpu <= ours and len(gpu) == 18
    assert {cores for _, _, cores in ours} == {2, 4, 8, 16, 32, 64}
    assert {(mode, c) for p, mode, c in ours if p == "BM"} == {
        (mode, cores) for mode in ("vanilla", "pinned") for cores in paper.cores
    }
    assert {platform for platform, *_ in ours} == set(THEIRS)


def test_the_plan_is_refused_without_hardware_virtualization_or_enough_cpus(paper: Plan) -> None:
    with pytest.raises(Exception, match=r"64 cores requested, this host offers 32 allowed CPUs"):
        design(paper, report(cpus=32), PLATFORMS)
    emulated = design(paper, report(cpus=128), PLATFORMS)
    assert {t.instance.platform for t in emulated.trials} == {"bm", "cn"}


def test_virtbed_plan_prints_its_host_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report(cpus=128, guests="available")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bench, "alone", nullcontext)
    monkeypatch.setattr(Bench, "examine", lambda *_, **__: (found, []))
    output = CliRunner().invoke(app, ["plan", "paper", "--json"]).output
    document = json.loads(output)
    assert document["host_hours"] == pytest.approx(document["estimated_s"] / 3600)
    printed = CliRunner().invoke(app, ["plan", "paper"], env={"COLUMNS": "300"}).output
    assert f"host-hours: {document['host_hours']:.0f} h, for 10 replicates; 10 hosts" in printed


@pytest.mark.parametrize(
    ("replicates", "precision", "line"),
    [
        (1, None, "host-hours: 3 h, for one replicate"),
        (4, None, "host-hours: 3 h, for 4 replicates; 4 hosts that are alike would take 0.75 h"),
        (30, 0.01, "host-hours: at most 3 h, for 30 replicates; 30 hosts"),
    ],
)
def test_host_hours_are_the_sum_over_all_hosts(
    plan: Plan, replicates: int, precision: float | None, line: str
) -> None:
    changed = plan.model_copy(update={"replicates": replicates, "precision": precision})
    assert hours_line(changed, 3 * 3600).startswith(line)
