"""Each reader of the kernel and the atomic writer of files exist in one place only.

Two copies of a parser or of a list become different with time: three lists of instruction sets once
disagreed on sse4_1.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KERNEL = "contract/virtbed_contract/kernel"
MEMBERS = ("analysis", "benchmarks", "contract", "playbooks", "python", "roles", "workloads")


def _calls(node: ast.AST, name: str) -> list[ast.Call]:
    """Return the calls of a function or method of this name within a node."""
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        == name
    ]


def _texts(node: ast.AST) -> set[str]:
    """Return the text constants within a node, including docstrings."""
    return {
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def _parses_cpu_lists(node: ast.AST) -> bool:
    """Return whether a node is a function that splits at dashes and makes a range."""
    cuts = [*_calls(node, "partition"), *_calls(node, "split")]
    dashes = any(
        isinstance(argument, ast.Constant) and argument.value == "-"
        for call in cuts
        for argument in call.args[:1]
    )
    return isinstance(node, ast.FunctionDef) and dashes and bool(_calls(node, "range"))


def _formats_cpu_lists(node: ast.AST) -> bool:
    """Return whether a node is a function that joins texts like a-b with commas."""
    if not isinstance(node, ast.FunctionDef):
        return False
    commas = any(
        isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Constant)
        and call.func.value.value == ","
        for call in _calls(node, "join")
    )
    ranges = any(
        isinstance(part, ast.JoinedStr)
        and [value.value for value in part.values if isinstance(value, ast.Constant)] == ["-"]
        for part in ast.walk(node)
    )
    return commas and ranges


def _syncs_files(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and bool(_calls(node, "fsync"))


def _lists_instruction_sets(node: ast.AST) -> bool:
    return isinstance(node, (ast.Tuple, ast.List, ast.Set)) and {"avx2", "fma"} <= _texts(node)


def _names(*files: str) -> Callable[[ast.AST], bool]:
    """Return a check for a text that ends with the name of one of these kernel files."""

    def named(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.endswith(files)
            and " " not in node.value
        )

    return named


PLACES: dict[str, tuple[Callable[[ast.AST], bool], set[str]]] = {
    "parser of CPU lists": (_parses_cpu_lists, {"cpus.py"}),
    "writer of CPU lists": (_formats_cpu_lists, {"cpus.py"}),
    "whole-file writer": (_syncs_files, {"files.py"}),
    "list of instruction sets": (_lists_instruction_sets, {"isa.py"}),
    "reader of control groups": (
        _names("cpu.max", "cpu.cfs_quota_us", "cpuset.cpus.effective", "memory.max", "cpu.stat"),
        {"cgroups.py"},
    ),
    "reader of a process": (
        _names("numa_maps", "Mems_allowed_list"),
        {"processes.py"},
    ),
    "reader of the topology": (
        _names("thread_siblings_list", "cpulist", "current_clocksource"),
        {"topology.py"},
    ),
}


def _sources() -> Iterator[tuple[str, ast.AST]]:
    for member in MEMBERS:
        for path in sorted((REPOSITORY / member).rglob("*.py")):
            yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    return dict(_sources())


@pytest.mark.parametrize("what", PLACES)
def test_it_exists_in_one_place_only(what: str, trees: dict[str, ast.AST]) -> None:
    holds, homes = PLACES[what]
    found = {name for name, tree in trees.items() if any(map(holds, ast.walk(tree)))}
    assert found == {f"{KERNEL}/{home}" for home in homes}


def _contains(text: str) -> Callable[[ast.AST], bool]:
    return lambda node: (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and text in node.value
    )


def _sets(name: str) -> Callable[[ast.AST], bool]:
    return lambda node: (
        isinstance(node, ast.Assign) and name in {ast.unparse(target) for target in node.targets}
    )


@pytest.mark.parametrize(
    ("holds", "home"),
    [
        (_contains("Only processed"), "measures.py"),  # LoadGen's words
        (_contains("CPU features that a guest or a sandbox hides"), "likeness.py"),
        (_sets("MARGIN"), "sweep.py"),
    ],
)
def test_a_fact_of_the_contract_has_no_copy(
    holds: Callable[[ast.AST], bool], home: str, trees: dict[str, ast.AST]
) -> None:
    found = {name for name, tree in trees.items() if any(map(holds, ast.walk(tree)))}
    assert found == {f"contract/virtbed_contract/{home}"}


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (
            "parser of CPU lists",
            "def numbers(text):\n"
            " for part in text.split(','):\n"
            "  first, _, last = part.partition('-')\n"
            "  yield from range(int(first), int(last or first) + 1)",
        ),
        (
            "writer of CPU lists",
            "def text(runs):\n return ','.join(f'{low}-{high}' for low, high in runs)",
        ),
        ("whole-file writer", "def keep(path):\n os.fsync(path)"),
        ("list of instruction sets", "KNOWN = ('avx', 'avx2', 'fma')"),
        ("reader of control groups", "quota = (group / 'cpu.max').read_text()"),
    ],
)
def test_a_second_copy_is_found(what: str, code: str) -> None:
    holds, _ = PLACES[what]
    assert any(map(holds, ast.walk(ast.parse(code))))


# It also starts a sweep, so it is not the remedy for a missing part; help and headings may name it.
_WHOLE = "make testbed"
_SETUP = re.compile(r"make setup(?! PLAN=)")
_TAUGHT = {"python/virtbed/cli/__init__.py"}


def _remedies(name: str, text: str) -> list[str]:
    """Return the commands in a file's messages that differ from the contract's remedy."""
    wrong = [_WHOLE] * (_WHOLE in text and name not in _TAUGHT)
    return wrong + (_SETUP.findall(text) if name.endswith(".yml") else [])


def test_all_messages_name_one_command_that_sets_a_host_up() -> None:
    from virtbed_contract.remedies import setup

    assert setup() == "run make setup PLAN=…"
    found = {}
    for member in ("roles", "python", "playbooks"):
        for path in sorted((REPOSITORY / member).rglob("*")):
            if path.suffix in {".py", ".yml", ".md"}:
                name = str(path.relative_to(REPOSITORY))
                found[name] = _remedies(name, path.read_text(encoding="utf-8"))
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert _remedies("roles/a.yml", "needed; run make setup") == ["make setup"]
    assert _remedies("roles/a.yml", "needed; run make testbed") == ["make testbed"]
