"""Shared parts of the commands: refusals, inventories, variables."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from virtbed.bench import LOCAL
from virtbed.cli.console import bench_of, refuse


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_refusal_is_one_line_with_control_characters_made_visible(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended:
        refuse(ValueError("3 found, 4 needed \x1b[2J [bold]"), 7)
    assert ended.value.exit_code == 7
    assert printed(capsys) == "virtbed: 3 found, 4 needed \\x1b[2J [bold]"


def test_without_an_inventory_the_host_is_this_machine() -> None:
    host = bench_of(None)
    assert tuple(host.inventories) == (LOCAL,)
    assert (host.limit, host.hung_after_s) == (None, 300.0)


def test_variables_are_pairs_or_json_and_later_ones_win() -> None:
    host = bench_of(None, "bench01", ["a=1", '{"a": [2], "b": {"c": true}}', "d=x=y"])
    assert host.limit == "bench01"
    variables = {name: host.variables[name] for name in ("a", "b", "d")}
    assert variables == {"a": [2], "b": {"c": True}, "d": "x=y"}


@pytest.mark.parametrize(
    ("inventory", "variables", "why"),
    [
        (["gone"], [], "no inventory gone found; --inventory needs the path of an inventory"),
        (["a\0b"], [], "found; --inventory needs the path of an inventory"),
        (None, ["a"], "--extra-vars a: NAME=VALUE or a JSON object needed"),
        (None, ['{"a": '], "--extra-vars"),
        (None, ["virtbed_instance=1"], "virtbed_instance: a sweep sets that itself"),
    ],
)
def test_unusable_options_are_refused_with_a_message(
    capsys: pytest.CaptureFixture[str], inventory: list[str] | None, variables: list[str], why: str
) -> None:
    with pytest.raises(typer.Exit) as ended:
        bench_of(inventory, None, variables)
    assert ended.value.exit_code == 2
    assert why in printed(capsys)


def test_a_list_of_hosts_with_a_comma_is_not_taken_for_a_path(tmp_path: Path) -> None:
    assert tuple(bench_of(["bench01,", str(tmp_path)]).inventories) == ("bench01,", str(tmp_path))
