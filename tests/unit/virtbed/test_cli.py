"""What the command line prints and how it refuses, where no host is needed."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator
from typer.testing import CliRunner

from virtbed.bench import LOCAL, Bench
from virtbed.checkout import REPOSITORY
from virtbed.cli import app, hosts, main, sweeps
from virtbed.cli.console import bench_of
from virtbed.here import RunError
from virtbed_contract.schemas import SCHEMAS

from ..analysis.conftest import Folder

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
    printed = json.loads(CliRunner().invoke(app, ["published", str(table), "--json"]).output)
    assert f"{printed['ratios'][0]['ratio']:.3f}" == "10.990"
    assert {verdict["answer"] for verdict in printed["verdicts"]} == {"not tested"}


@pytest.mark.parametrize("command", ["sweep", "calibrate", "doctor", "advise", "compare"])
def test_help_is_filled_to_the_terminal(command: str) -> None:
    """A line break of the docstring is none of the paragraph."""
    said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).output
    lines = [line.strip() for line in said.partition("\u256d")[0].splitlines()]
    for line, after in itertools.pairwise(lines):
        if line and after:  # its first word would have fitted otherwise
            assert len(line) + 1 + len(after.split()[0]) > 76, line


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
    assert "or a results folder, which has design.json or trials/" in refused.output


def test_the_version_is_printed() -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.output.strip()) == (0, version("virtbed"))


@pytest.mark.parametrize("document", ["plan", *SCHEMAS])
def test_every_document_has_its_schema(document: str) -> None:
    said = CliRunner().invoke(app, ["schema", document])
    assert said.exit_code == 0
    Draft202012Validator(json.loads(said.output))


def test_an_unknown_schema_names_those_there_are() -> None:
    said = CliRunner().invoke(app, ["schema", "nonesuch"])
    assert said.exit_code == 2
    assert "one of: plan, result, design, evidence, failure, doctor" in said.output


@pytest.mark.parametrize(
    "command", [["doctor"], ["restore"], ["sweep", "quick"], ["plan", "quick"]]
)
def test_an_inventory_that_does_not_exist_is_refused(command: list[str]) -> None:
    said = CliRunner().invoke(app, [*command, "-i", "/nosuch"])
    assert said.exit_code == 2
    assert "no inventory /nosuch found" in said.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("virtbed_instance={}", "virtbed_instance: a sweep sets that itself"),
        ('{"virtbed_trials": []}', "virtbed_trials: a sweep sets that itself"),
        ("nothing", "NAME=VALUE or a JSON object needed"),
        ("{nothing", "not JSON"),
    ],
)
def test_extra_variables_that_cannot_be_taken_are_refused(text: str, message: str) -> None:
    said = CliRunner().invoke(app, ["sweep", "quick", "--extra-vars", text])
    assert said.exit_code == 2
    assert message in said.output


def test_options_name_the_bench_host() -> None:
    bench = bench_of(["a,", str(REPOSITORY / "inventory/local")], "a", ["x=1", '{"y": [2]}'], 7)
    assert bench.inventories == ("a,", str(REPOSITORY / "inventory/local"))
    assert (bench.limit, bench.variables, bench.hung_after_s) == ("a", {"x": "1", "y": [2]}, 7)
    assert bench_of(None).inventories == (LOCAL,)


def test_a_command_that_needs_the_analysis_says_so_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "virtbed_analysis", None)
    monkeypatch.setattr(sys, "argv", ["virtbed", "published", str(tmp_path / "x.csv")])
    (tmp_path / "x.csv").touch()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "install virtbed[report]" in capsys.readouterr().err


def test_ansible_playbooks_options_are_handed_on() -> None:
    """The action plugin of sweep.yml, which is no package."""
    path = REPOSITORY / "playbooks" / "action_plugins" / "virtbed_sweep.py"
    spec = importlib.util.spec_from_file_location("virtbed_sweep", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.options({"inventory": (), "subset": None}, {"plan": "quick"}) == []
    arguments = {"inventory": ["a,", "/b"], "subset": "host"}
    assert module.options(arguments, {"plan": "quick", "virtbed_state_dir": "/x"}) == [
        "--inventory=a,", "--inventory=/b", "--limit=host",
        '--extra-vars={"virtbed_state_dir": "/x"}',
    ]  # fmt: skip


def sweep_at(path: Path, factor: float) -> str:
    """Lay a sweep whose container takes so many times as long as bare metal; return its folder."""
    folder = Folder(path)
    for replicate, noise in enumerate((1.0, 1.004, 0.996, 1.002, 0.998), start=1):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 + factor / 1000]})
        folder.trial("cn", "pinned", replicate, {"a": [20.0 * noise * factor]})
    return str(path)


def test_compare_says_by_its_exit_status_whether_something_rose(tmp_path: Path) -> None:
    one, same, more = (sweep_at(tmp_path / n, f) for n, f in (("a", 1.0), ("b", 1.001), ("c", 1.2)))

    def compared(*arguments: str) -> tuple[int, str]:
        said = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "80"})
        return said.exit_code, " ".join(said.output.split())

    assert compared(one, more)[0] == 0
    assert compared(one, same, "--fail-above", "3%")[0] == 0
    status, said = compared(one, more, "--fail-above", "3")
    assert status == 3 and "Clearly more than 3% above the first: cost of cn pinned" in said
    assert compared(one, same, "--fail-above", "0.1%")[0] == 4
    assert compared(one, same, "--with", more, "--fail-above", "3%")[0] == 3
    assert compared(one, one) == (2, f"virtbed: {one} is compared with itself; give another "
                                     "results folder")  # fmt: skip
    assert compared(one)[0] == compared(one, same, more)[0] == 2
    assert compared(one, more, "--fail-above", "much")[0] == 2


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["plan", "quick"], "to examine the host on which the plan would run"),
        (["doctor"], "to examine the host"),
        (["restore"], "to restore the host's settings"),
        (["sweep", "quick"], "to place instances"),
    ],
)
def test_without_root_a_command_says_that_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, command: list[str], why: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 2
    assert f"user id 1000 found, root (0) needed {why}; use sudo" in said.output


@pytest.mark.parametrize(
    "command",
    [["plan"], ["report"], ["sweep"], ["archive"], ["doctor", "--inventory"]],
)
@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yml", "a\0b", "\udc80", "[/red]"])
def test_a_name_that_no_file_can_have_is_refused_in_words(command: list[str], name: str) -> None:
    said = CliRunner().invoke(app, [*command, name])
    assert said.exit_code == 2 and isinstance(said.exception, SystemExit)
    assert "no plan" in said.output or "no inventory" in said.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
        ('{"a": ' + "9" * 6000 + "}", "is the largest that is read"),
        ('{"a": NaN}', "holds NaN"),
    ],
)
def test_variables_that_are_no_json_of_ours_are_refused(text: str, message: str) -> None:
    said = CliRunner().invoke(app, ["doctor", "--extra-vars", text])
    assert said.exit_code == 2 and message in said.output


def test_what_is_typed_is_no_markup_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RunError("no such application")

    monkeypatch.setattr(hosts, "run_here", refused)
    monkeypatch.setattr(hosts.bench, "alone", nullcontext)
    said = CliRunner().invoke(app, ["run", "[/red]"])
    assert (said.exit_code, said.output) == (2, "virtbed: no such application\n")


@pytest.mark.parametrize("command", ["sweep", "plan", "calibrate"])
def test_a_plan_whose_image_lacks_an_application_is_refused_before_the_host_is_seen(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "play", lambda *_, **__: pytest.fail("a playbook ran"))
    path = tmp_path / "p.yml"
    path.write_text(
        "name: p\nimage: null\napplications: [{name: face_detection}]\n"
        "platforms: {bm: [pinned]}\ncores: [1]\n"
    )
    said = CliRunner().invoke(app, [command, str(path)])
    assert said.exit_code == 2
    assert "image null found in the plan, which has null and lacks face_detection" in said.output
    path.write_text(path.read_text().replace("null", "cuda"))
    said = CliRunner().invoke(app, [command, str(path)])
    assert said.exit_code == 2 and "no image 'cuda'; images.yml has: cpu, null" in said.output


def test_the_doctor_refuses_an_image_that_there_is_not() -> None:
    said = CliRunner().invoke(app, ["doctor", "--image", "cuda"])
    assert said.exit_code == 2 and "no image 'cuda'; images.yml has: cpu, null" in said.output


def test_a_plan_is_shown_whatever_its_ledger_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger.sqlite"
    assert sweeps._seconds(ledger) == {} and not capsys.readouterr().err
    ledger.mkdir()  # it cannot be opened, as where another user's results lie
    assert sweeps._seconds(ledger) == {}
    assert "no times of earlier trials: " in capsys.readouterr().err
    ledger.rmdir()
    ledger.write_bytes(b"no journal" * 100)
    assert sweeps._seconds(ledger) == {}
    assert "virtbed sweep rebuilds it" in capsys.readouterr().err
