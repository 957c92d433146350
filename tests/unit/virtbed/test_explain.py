"""`virtbed explain`: its table, its sentences, and a sweep with nothing to explain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from virtbed.cli import app
from virtbed.cli import explain as command
from virtbed.render.explained import explained_table

from .test_render_table import assert_fits, shown

SUBJECT = {
    "cores": 1, "application": "image_classification", "scale": "trained",
    "scenario": "single_stream", "thread_policy": "default", "processor": "cpu",
    "weights": "trained",
}  # fmt: skip


def step(what: str, kind: str, points: float, **more: Any) -> dict[str, Any]:
    shown = {"low": points - 0.15, "high": points + 0.175, "n": 10, "stalled": None, "huge": None}
    return {"what": what, "kind": kind, "points": points, "start": 1.0, "end": 2.0} | shown | more


ROWS = [
    step("the image's kernel in place of the host's", "part", 0.0123),
    step("CPU quota in place of pinned", "mode", 0.58, stalled=0.431),
    step("container in a KVM guest, CPU quota", "total", 12.3456, stalled=0.431),
    step("quota period 100ms, floating vCPUs", "change", -0.3, low=None, high=None, huge=0.62),
]
CONTENT = {
    "confidence": 0.95,
    "explained": [
        {**SUBJECT, "platform": "vmcn", "mode": "vanilla", "n": 10, "rows": ROWS, "sentence": "A."},
        {**SUBJECT, "platform": "bm", "mode": "pinned", "n": 0, "rows": ROWS[3:], "sentence": ""},
    ],
}


@pytest.mark.parametrize("width", [60, 80, 132])
def test_the_table_fits_with_every_interval_on_one_line(width: int) -> None:
    text = shown(explained_table(CONTENT), width)
    assert_fits(text, width)
    for part in (
        "+1.2 (-13.8 to +18.7)",
        "+58.0 (+43.0 to +75.5)",
        "+1234.6 (",
        "-30.0",
        "43%",
        "62%",
    ):
        assert part in text


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    (tmp_path / "trials").mkdir()

    def ask(content: dict[str, Any], *options: str) -> Any:
        monkeypatch.setattr(command, "_content", lambda folder, host: content)
        return CliRunner().invoke(app, ["explain", str(tmp_path), *options])

    return ask


def test_the_command_prints_each_sentence_once_and_then_all_steps(invoke: Any) -> None:
    done = invoke(CONTENT)
    assert done.exit_code == 0
    assert done.stdout.count("A.\n") == 1 and done.stdout.count("+58.0 (+43.0 to +75.5)") == 1
    assert json.loads(invoke(CONTENT, "--json").stdout) == CONTENT["explained"]


def test_the_command_names_the_remedy_if_nothing_was_varied(invoke: Any) -> None:
    done = invoke({"confidence": 0.95, "explained": []})
    assert done.exit_code == 1
    assert "plans/explain.yml" in " ".join(done.stdout.split())


def test_a_folder_without_results_is_refused(tmp_path: Any) -> None:
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "none")])
    assert done.exit_code == 2
