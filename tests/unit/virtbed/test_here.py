"""The command of `virtbed run`, and its errors; no image is needed."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from virtbed import bench, here
from virtbed.checkout import REPOSITORY
from virtbed.cli import app, hosts
from virtbed.here import RunError, command, current_image, run_here
from virtbed_contract.tree import enter


def test_the_image_is_where_the_inventory_keeps_it(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    hosts = {"a": {"virtbed_state_dir": str(tmp_path / "state")}}
    inventory.write_text(json.dumps({"bench": {"hosts": hosts}}))
    assert current_image([str(inventory)]) == tmp_path / "state" / "images" / "current-cpu"
    inventory.write_text(json.dumps({"bench": {"hosts": {"a": None}}}))
    with pytest.raises(RunError, match="with virtbed_state_dir found, one needed"):
        current_image([str(inventory)])


def test_a_missing_image_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no .*manifest.json found, an image is needed"):
        command([], image=tmp_path)


def test_the_checkouts_sources_are_first_on_pythons_path(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    argv = command(["-V"], tmp_path, tmp_path)
    assert argv[:5] == ["bwrap", "--die-with-parent", "--ro-bind", str(tmp_path / "rootfs"), "/"]
    bound = {argv[n + 2]: argv[n + 1] for n, word in enumerate(argv) if word == "--ro-bind"}
    for member, package in (("contract", "virtbed_contract"), ("workloads", "virtbed_workloads")):
        assert bound[f"/tmp/tools/{package}"] == str(REPOSITORY / member / package)
    assert bound["/tmp/inputs"] == str(tmp_path)
    assert "PYTHONPATH=/tmp/tools" in argv
    assert argv[-2:] == ["python3", "-V"]


def test_a_tree_under_construction_can_be_writable_and_without_network() -> None:
    argv = enter("/tree", writable=True, network=False)
    assert argv[2:5] == ["--bind", "/tree", "/"]
    assert argv[-1] == "--unshare-net"
    assert "--unshare-net" not in enter("/tree")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a banner\nnull failed: 3 found", "null failed: 3 found"),
        (
            "a banner\nTraceback (most recent call last):\n  File x, line 3\nKeyError: 1\n"
            "leaf failed: 1",
            "Traceback (most recent call last):\n  File x, line 3\nKeyError: 1\nleaf failed: 1",
        ),
        ("", "exit status 3"),
    ],
)
def test_the_error_of_an_application_is_its_last_line_or_its_traceback(
    monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    fails = ["sh", "-c", 'printf %s "$1" >&2; exit 3', "sh", output]
    monkeypatch.setattr(here, "command", lambda *_: fails)
    with pytest.raises(RunError) as refused:
        run_here(["leaf"])
    assert (str(refused.value), refused.value.code) == (message, 3)


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        (["-m", "pytest", "--help"], ["-m", "pytest", "--help"]),
        (["x.py", "-q", "--", "-h"], ["x.py", "-q", "--", "-h"]),
        (["--", "--help"], ["--help"]),
        (["--help"], None),
        ([], None),
    ],
)
def test_help_of_in_image_is_printed_at_once_and_that_of_a_program_is_passed_on(
    typed: list[str], passed: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments for Python, no image and no free host is needed."""
    seen: list[list[str]] = []
    monkeypatch.setattr(hosts, "command", lambda arguments: seen.append([*arguments]) or ["true"])
    monkeypatch.setattr(bench, "alone", nullcontext)
    done = CliRunner().invoke(app, ["in-image", *typed])
    assert seen == ([passed] if passed else []), done.output
    assert passed or "Usage: " in done.output
