"""The documentation of each role's modules matches their arguments and return values."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = sorted(REPOSITORY.glob("roles/*/library/*.py"))
# The aspects of an option in DOCUMENTATION and in argument_spec, and their defaults.
ASPECTS = {"type": "str", "elements": None, "required": False, "default": None, "choices": None}


def documented(tree: ast.Module, name: str) -> Any:
    """Return the parsed YAML text of a module's constant, such as DOCUMENTATION."""
    return yaml.safe_load(ast.literal_eval(_assigned(tree, name)))


def _assigned(tree: ast.AST, name: str) -> ast.expr:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            return node.value
    raise AssertionError(f"nothing is assigned to {name}")


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
            yield node


def taken(tree: ast.Module) -> dict[str, dict[str, Any]]:
    """Return the argument_spec that a module passes to AnsibleModule."""
    (call,) = _calls(tree, "AnsibleModule")
    (value,) = (keyword.value for keyword in call.keywords if keyword.arg == "argument_spec")
    if isinstance(value, ast.Name):
        value = _assigned(tree, value.id)
    found: dict[str, dict[str, Any]] = ast.literal_eval(value)
    return found


def returned(tree: ast.Module) -> list[set[str]]:
    """Return the keys that each call of exit_json passes, without `changed`."""
    return [
        {key for keyword in call.keywords for key in _keys(tree, main, keyword)} - {"changed"}
        for main in _functions(tree, "main")
        for call in _calls(main, "exit_json")
    ]


def _functions(tree: ast.Module, name: str) -> list[ast.FunctionDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]


def _keys(tree: ast.Module, main: ast.FunctionDef, keyword: ast.keyword) -> set[str]:
    """Return a keyword's name; for ``**variable``, the keys of that dictionary.

    One of the module's functions must return that dictionary as a literal.
    """
    if keyword.arg is not None:
        return {keyword.arg}
    made = _assigned(main, ast.unparse(keyword.value))
    assert isinstance(made, ast.Call)
    (function,) = _functions(tree, ast.unparse(made.func))
    results = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    assert results and all(isinstance(result, ast.Dict) for result in results)
    return {ast.literal_eval(key) for result in results for key in result.keys if key}


def faults(code: str) -> list[str]:
    """Return the differences between a module and its documentation, as sentences."""
    tree = ast.parse(code)
    options = documented(tree, "DOCUMENTATION")["options"]
    specification = taken(tree)
    found = []
    if set(options) != set(specification):
        found.append(f"options {sorted(options)} documented, {sorted(specification)} taken")
    for name in options.keys() & specification.keys():
        for aspect, default in ASPECTS.items():
            text, code = (where[name].get(aspect, default) for where in (options, specification))
            if text != code:
                found.append(f"{aspect} of {name}: {text} documented, {code} taken")
    keys = set(documented(tree, "RETURN"))
    exits = returned(tree)
    if not exits or len(exits) != len(list(_calls(tree, "exit_json"))):
        found.append("no exit_json in main, or one elsewhere")
    found += [f"{sorted(keys)} documented, {sorted(e)} returned" for e in exits if e != keys]
    return found


def test_modules_are_found() -> None:
    assert len(MODULES) > 10


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_a_module_matches_its_documentation(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


GOOD = '''
DOCUMENTATION = """
options:
  name: {type: str, required: true}
  numbers: {type: list, elements: int, default: [1]}
"""
RETURN = """
reading: {type: dict}
log: {type: str}
size: {type: int}
"""
SPEC = {
    "name": {"required": True},
    "numbers": {"type": "list", "elements": "int", "default": [1]},
}

def read():
    return {"log": "", "size": 0}

def main():
    module = AnsibleModule(argument_spec=SPEC)
    document = read()
    module.exit_json(changed=False, reading={}, **document)
'''


def test_a_good_module_has_no_fault() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("  name: {", "  title: {", "['numbers', 'title'] documented, ['name', 'numbers'] taken"),
        ('"name": {"required": True},', "", "documented, ['numbers'] taken"),
        (", required: true", "", "required of name: False documented, True taken"),
        ("type: list,", "type: str,", "type of numbers: str documented, list taken"),
        ("elements: int", "elements: str", "elements of numbers"),
        ("default: [1]", "default: [2]", "default of numbers"),
        ('"required": True', '"required": True, "choices": ["a"]', "choices of name"),
        ("reading: {type: dict}", "", "['log', 'size'] documented"),
        ("log: {type: str}", "logs: {type: str}", "['log', 'reading', 'size'] returned"),
        ("reading={}, ", "", "['log', 'size'] returned"),
        ('"size": 0', '"bytes": 0', "['bytes', 'log', 'reading'] returned"),
        ("module.exit_json(", "module.fail_json(", "no exit_json"),
        ("def main", "def end():\n    module.exit_json()\n\ndef main", "or one elsewhere"),
        (
            "    document =",
            "    module.exit_json(reading={})\n    document =",
            "['reading'] returned",
        ),
    ],
)
def test_a_module_that_differs_is_found(old: str, new: str, fault: str) -> None:
    assert GOOD.count(old) == 1
    assert any(fault in found for found in faults(GOOD.replace(old, new)))
