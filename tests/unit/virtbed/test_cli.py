"""What the command line prints and how it refuses, where no host is needed."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from virtbed.cli import app

TIMINGS = """app,cores,mode,platform,row,input,exec_time_s
F,2,vanilla,BM,1,a,1.0
F,2,vanilla,BM,2,b,1.0
F,2,vanilla,CN,1,a,10.99
F,2,vanilla,CN,2,b,10.99
"""


def test_published_prints_ratios_weaknesses_and_answers(tmp_path: Path) -> None:
    table = tmp_path / "timings.csv"
    table.write_text(TIMINGS)
    said = CliRunner().invoke(app, ["published", str(table)], env={"COLUMNS": "160"})
    assert said.exit_code == 0
    assert "vanilla CN" in said.output and "10.990" in said.output
    assert "warning: Each input ran once in each cell (2 to 2 inputs)" in said.output
    assert "not tested" in said.output and "inconclusive" not in said.output
    told = json.loads(CliRunner().invoke(app, ["published", str(table), "--json"]).output)
    assert f"{told['ratios'][0]['ratio']:.3f}" == "10.990"
    assert {verdict["answer"] for verdict in told["verdicts"]} == {"not tested"}


def test_published_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    table = tmp_path / "timings.csv"
    table.write_text(TIMINGS.replace("10.99", "soon"))
    said = CliRunner().invoke(app, ["published", str(table)])
    assert said.exit_code == 2
    assert "line 4 has exec_time_s 'soon', a positive number needed" in said.output


def test_a_results_folder_can_be_named_in_place_of_its_plan(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    (folder / "trials").mkdir(parents=True)
    said = CliRunner().invoke(app, ["report", str(folder)])
    assert said.exit_code == 0
    assert (folder / "report.html").is_file() and (folder / "report.json").is_file()
    refused = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert refused.exit_code == 2
    assert "no plan" in refused.output and "quick" in refused.output
