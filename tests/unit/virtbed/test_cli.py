"""The command line: output and refusals of commands that need no host."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from jsonschema_rs import Draft202012Validator
from typer.testing import CliRunner

from virtbed import cli, host_lock
from virtbed.bench import LOCAL, Bench, BenchError
from virtbed.checkout import REPOSITORY
from virtbed.cli import READERS, app, hosts, main, sweeps
from virtbed.cli.console import bench_of
from virtbed.here import RunError
from virtbed_contract.codec import decode
from virtbed_contract.hosts import HostReports
from virtbed_contract.schemas import SCHEMAS
from virtbed_contract.sweep import HostReport

from ..analysis.conftest import Folder
from .conftest import report

TIMINGS = """app,cores,mode,platform,row,input,exec_time_s
F,2,vanilla,BM,1,a,1.0
F,2,vanilla,BM,2,b,1.0
F,2,vanilla,CN,1,a,10.99
F,2,vanilla,CN,2,b,10.99
"""


def test_published_prints_ratios_weaknesses_and_answers(tmp_path: Path) -> None:
    table = tmp_path / "timings.csv"
    table.write_text(TIMINGS)
    done = CliRunner().invoke(app, ["published", str(table)], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    assert "vanilla CN" in done.output and "10.990" in done.output
    assert "warning: Each input ran once in each cell (2 to 2 inputs)" in done.output
    assert "not tested" in done.output and "inconclusive" not in done.output
    printed = json.loads(CliRunner().invoke(app, ["published", str(table), "--json"]).output)
    assert f"{printed['ratios'][0]['ratio']:.3f}" == "10.990"
    assert {verdict["answer"] for verdict in printed["verdicts"]} == {"not tested"}


@pytest.mark.parametrize("command", ["sweep", "calibrate", "doctor", "advise", "compare"])
def test_help_is_filled_to_the_terminal(command: str) -> None:
    """Paragraphs are wrapped to the terminal; line breaks of the docstring are not kept."""
    output = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).output
    lines = [line.strip() for line in output.partition("\u256d")[0].splitlines()]
    for line, after in itertools.pairwise(lines):
        if line and after:  # its first word would have fitted otherwise
            assert len(line) + 1 + len(after.split()[0]) > 76, line


def test_published_refuses_a_table_with_an_invalid_number(tmp_path: Path) -> None:
    table = tmp_path / "timings.csv"
    table.write_text(TIMINGS.replace("10.99", "soon"))
    done = CliRunner().invoke(app, ["published", str(table)])
    assert done.exit_code == 2
    assert "line 4 has exec_time_s 'soon', a positive number needed" in done.output


def test_a_results_folder_can_be_named_instead_of_its_plan(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    (folder / "trials").mkdir(parents=True)
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0
    assert (folder / "report.html").is_file() and (folder / "report.json").is_file()
    refused = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert refused.exit_code == 2
    assert "no plan" in refused.output and "quick" in refused.output
    assert "or a results folder, which has design.json or trials/" in refused.output


def test_the_version_is_printed() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output.strip()) == (0, version("virtbed"))


@pytest.mark.parametrize("document", ["plan", *SCHEMAS])
def test_every_document_has_its_schema(document: str) -> None:
    done = CliRunner().invoke(app, ["schema", document])
    assert done.exit_code == 0
    Draft202012Validator(json.loads(done.output))


def test_the_message_for_an_unknown_schema_lists_the_existing_ones() -> None:
    done = CliRunner().invoke(app, ["schema", "nonesuch"])
    assert done.exit_code == 2
    assert "one of: plan, result, design, evidence, failure, doctor" in done.output


@pytest.mark.parametrize(
    "command", [["doctor"], ["restore"], ["sweep", "quick"], ["plan", "quick"]]
)
def test_an_inventory_that_does_not_exist_is_refused(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "-i", "/nosuch"])
    assert done.exit_code == 2
    assert "no inventory /nosuch found" in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("virtbed_instance={}", "virtbed_instance: a sweep sets that itself"),
        ('{"virtbed_trials": []}', "virtbed_trials: a sweep sets that itself"),
        ("nothing", "NAME=VALUE or a JSON object needed"),
        ("{nothing", "not JSON"),
    ],
)
def test_unusable_extra_variables_are_refused(text: str, message: str) -> None:
    done = CliRunner().invoke(app, ["sweep", "quick", "--extra-vars", text])
    assert done.exit_code == 2
    assert message in done.output


def test_a_bench_host_has_the_values_of_the_options() -> None:
    bench = bench_of(["a,", str(REPOSITORY / "inventory/local")], "a", ["x=1", '{"y": [2]}'], 7)
    assert bench.inventories == ("a,", str(REPOSITORY / "inventory/local"))
    assert (bench.limit, bench.variables, bench.hung_after_s) == ("a", {"x": "1", "y": [2]}, 7)
    assert bench_of(None).inventories == (LOCAL,)


def test_a_command_that_needs_the_missing_analysis_names_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "virtbed_analysis", None)
    monkeypatch.setattr(sys, "argv", ["virtbed", "published", str(tmp_path / "x.csv")])
    (tmp_path / "x.csv").touch()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "install virtbed[report]" in capsys.readouterr().err


DURING_A_SWEEP = """
import os, sys
from pathlib import Path
from virtbed import cli, host_lock, host_status
notes = sys.argv[1]
host_status.RUN, host_lock.FOLDER = Path(notes), notes
read = host_lock.Seen.read
host_status.Seen.read = lambda execute: read(execute, notes)
cli.app(sys.argv[2:], standalone_mode=False)
import polars
print(polars.thread_pool_size(), *{
    cpu for task in os.listdir("/proc/self/task") for cpu in os.sched_getaffinity(int(task))
})
"""


def test_a_report_during_a_sweep_uses_the_cpus_of_its_controller(tmp_path: Path) -> None:
    """With every thread: those of polars are started while virtbed_analysis is imported."""
    folder = sweep_at(tmp_path / "sweep", 1.1)
    alone = max(os.sched_getaffinity(0))
    environment = {k: v for k, v in os.environ.items() if k != "POLARS_MAX_THREADS"}
    with subprocess.Popen(["sleep", "600"]) as holder:
        try:
            os.sched_setaffinity(holder.pid, {alone})
            stat = Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()
            claim = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01")
            claim = replace(claim, pid=holder.pid, started=stat[19])
            (tmp_path / "lock").write_text(str(claim))
            done = subprocess.run(
                [sys.executable, "-c", DURING_A_SWEEP, str(tmp_path), "report", folder],
                capture_output=True, text=True, check=False, env=environment,
            )  # fmt: skip
        finally:
            holder.kill()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"1 {alone}"


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_commands_that_only_read_stay_aside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any command is one of the two kinds; a new one must be put into `READERS` or in here."""
    changes = {
        "calibrate", "clear", "doctor", "in-image", "lab", "plan", "restore", "run", "slurm",
        "sweep",
    }  # fmt: skip
    done: list[str] = []
    monkeypatch.setattr(cli, "stay_aside", lambda: done.append(name))
    CliRunner().invoke(app, [name, "--no-such-option"])
    assert (done == [name]) == (name in READERS) == (name not in changes)


def test_options_of_ansible_playbook_are_passed_on() -> None:
    """By the action plugin of sweep.yml, which is not in a package."""
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
    """Write a sweep whose container takes `factor` times bare metal's time; return its folder."""
    folder = Folder(path)
    for replicate, noise in enumerate((1.0, 1.004, 0.996, 1.002, 0.998), start=1):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 + factor / 1000]})
        folder.trial("cn", "pinned", replicate, {"a": [20.0 * noise * factor]})
    return str(path)


def test_the_exit_status_of_compare_shows_whether_something_rose(tmp_path: Path) -> None:
    one, same, more = (sweep_at(tmp_path / n, f) for n, f in (("a", 1.0), ("b", 1.001), ("c", 1.2)))

    def compared(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "80"})
        return done.exit_code, " ".join(done.output.split())

    assert compared(one, more)[0] == 0
    assert compared(one, same, "--fail-above", "3%")[0] == 0
    status, output = compared(one, more, "--fail-above", "3")
    assert status == 3 and "Clearly more than 3% above the first: cost of cn pinned" in output
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
def test_without_root_a_command_that_needs_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, command: list[str], why: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert f"user id 1000 found, root (0) needed {why}: every platform needs it" in done.output


@pytest.mark.parametrize(
    "command",
    [["plan"], ["report"], ["sweep"], ["archive"], ["doctor", "--inventory"]],
)
@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yml", "a\0b", "\udc80", "[/red]"])
def test_a_name_that_no_file_can_have_is_refused_with_a_message(
    command: list[str], name: str
) -> None:
    done = CliRunner().invoke(app, [*command, name])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    assert "no plan" in done.output or "no inventory" in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
        ('{"a": ' + "9" * 6000 + "}", "is the largest that is read"),
        ('{"a": NaN}', "holds NaN"),
    ],
)
def test_extra_variables_with_unusual_json_are_refused(text: str, message: str) -> None:
    done = CliRunner().invoke(app, ["doctor", "--extra-vars", text])
    assert done.exit_code == 2 and message in done.output


def test_markup_in_an_argument_is_not_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RunError("no such application")

    monkeypatch.setattr(hosts, "run_here", refused)
    monkeypatch.setattr(hosts.bench, "alone", nullcontext)
    done = CliRunner().invoke(app, ["run", "[/red]"])
    assert (done.exit_code, done.output) == (2, "virtbed: no such application\n")


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
    done = CliRunner().invoke(app, [command, str(path)])
    assert done.exit_code == 2
    assert "image null found in the plan, which has null and lacks face_detection" in done.output
    path.write_text(path.read_text().replace("null", "cuda"))
    done = CliRunner().invoke(app, [command, str(path)])
    assert done.exit_code == 2 and "no image 'cuda'; images.yml has: cpu, null" in done.output


def test_a_calibration_has_its_results_in_the_named_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sweep has, since a node of a cluster keeps them on a shared file system."""

    class Carried:
        failed = ()

        def __init__(self, plan: Any, _: Any, __: Any, results: Path, *rest: Any) -> None:
            self.folder = results / plan.name

        def run(self) -> None:
            self.folder.mkdir(parents=True)

    content = {"passed": True, "checks": []}
    monkeypatch.setattr(sweeps, "Sweep", Carried)
    monkeypatch.setattr(sweeps, "check_granted", lambda *_: None)
    monkeypatch.setattr(sweeps, "say_report", lambda _: None)
    monkeypatch.setattr("virtbed_analysis.calibrate", lambda folder: {**content, "of": str(folder)})
    done = CliRunner().invoke(app, ["calibrate", "--json", f"--results={tmp_path / 'shared'}"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["of"] == str(tmp_path / "shared" / "calibrate")


@pytest.mark.parametrize(
    ("problem", "good", "code"), [("", True, 0), ("", False, 1), ("no route", True, 2)]
)
def test_the_doctor_examines_several_hosts_and_goes_on_after_one_that_it_cannot(
    monkeypatch: pytest.MonkeyPatch, problem: str, good: bool, code: int
) -> None:
    def examine(self: Bench, **_: object) -> tuple[HostReport, bool]:
        if problem and self.name == "a":
            raise BenchError(problem)
        return replace(report(), ok=good), False

    monkeypatch.setattr(Bench, "examine", examine)
    monkeypatch.setattr(Bench, "hosts", lambda _: ("a", "b", "c"))
    monkeypatch.setattr(hosts.bench, "alone", nullcontext)
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "80"})
    assert done.exit_code == code, done.output
    assert "Platforms of 3 hosts" in done.output and (problem in done.output)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    document = decode(HostReports, json.loads(done.output))
    assert done.exit_code == code
    assert [(host.name, host.problem) for host in document.hosts] == [
        ("a", problem), ("b", ""), ("c", ""),
    ]  # fmt: skip


def test_the_doctor_refuses_an_image_that_does_not_exist() -> None:
    done = CliRunner().invoke(app, ["doctor", "--image", "cuda"])
    assert done.exit_code == 2 and "no image 'cuda'; images.yml has: cpu, null" in done.output


def test_an_unreadable_ledger_does_not_keep_a_plan_from_being_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger.sqlite"
    assert sweeps._seconds(ledger) == {} and not capsys.readouterr().err
    ledger.mkdir()  # it cannot be opened, as with another user's results
    assert sweeps._seconds(ledger) == {}
    assert "no times of earlier trials: " in capsys.readouterr().err
    ledger.rmdir()
    ledger.write_bytes(b"no journal" * 100)
    assert sweeps._seconds(ledger) == {}
    assert "virtbed sweep rebuilds it" in capsys.readouterr().err
