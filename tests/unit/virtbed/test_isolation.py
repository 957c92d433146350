"""`virtbed isolation`: its table, its sentences, and its output after a sweep."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from virtbed.cli import app
from virtbed.cli import explain as command
from virtbed.render.isolation import isolation_table
from virtbed_analysis import UnlikeHostsError

from .test_explain import SUBJECT
from .test_render_table import assert_fits, shown


def row(platform: str, neighbours: str, ratio: float, **more: Any) -> dict[str, Any]:
    known = {"ratio_low": ratio - 0.015, "ratio_high": ratio + 0.0175, "answer": "differs"}
    known |= {"neighbours_cpus": "0 (same L3, with housekeeping)", "neighbours_busy": 0.972}
    known |= {"ratio_replicates": 10, "sentence": f"{platform} {neighbours} A."}
    row = {"platform": platform, "mode": "pinned", "neighbours": neighbours, "ratio": ratio}
    return {**SUBJECT, **row, **known, **more}


CONTENT = {
    "confidence": 0.95,
    "isolation": [
        row("bm", "1", 1.0345),
        row("cn", "15", 1.2),
        row("podman", "1", 1.1, ratio_low=None, ratio_high=None, answer="cannot tell",
            neighbours_cpus=None, neighbours_busy=None),
    ],
}  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 132])
def test_the_table_fits_with_every_interval_on_one_line(width: int) -> None:
    text = shown(isolation_table(CONTENT), width)
    assert_fits(text, width)
    for part in ("1.034 (1.020 to 1.052)", "1.200 (1.185 to 1.218)", "97%", "15", "differs"):
        assert part in text


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    (tmp_path / "trials").mkdir()

    def ask(content: dict[str, Any], *options: str) -> Any:
        monkeypatch.setattr(command, "_isolation", lambda folder, host: content)
        return CliRunner().invoke(app, ["isolation", str(tmp_path), *options])

    return ask


def test_the_command_prints_each_sentence_and_then_the_table(invoke: Any) -> None:
    done = invoke(CONTENT)
    assert done.exit_code == 0
    assert done.stdout.count("cn 15 A.\n") == 1
    assert json.loads(invoke(CONTENT, "--json").stdout) == CONTENT["isolation"]


def test_the_command_names_the_remedy_if_nothing_had_neighbours(invoke: Any) -> None:
    done = invoke({"confidence": 0.95, "isolation": []})
    assert done.exit_code == 1
    assert "neighbours: [0, 1]" in done.stdout


def test_after_a_sweep_results_are_read_once_and_unlike_hosts_get_a_hint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[Any] = []

    def once(folder: Any, host: str = "") -> Any:
        read.append((folder, host))
        if len(read) > 1:
            raise UnlikeHostsError("demo", ["one", "two"], [], [])
        return "sweep"

    monkeypatch.setattr("virtbed_analysis.read_sweep", once)
    monkeypatch.setattr("virtbed_analysis.isolation_of", lambda sweep: CONTENT)
    command.say_isolation(tmp_path)
    assert "cn 15 A." in capsys.readouterr().out
    assert read == [(tmp_path, "")]
    command.say_isolation(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed == (
        "the hosts one and others are unlike; `virtbed isolation --host` shows one of them"
    )
