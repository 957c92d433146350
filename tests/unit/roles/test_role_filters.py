"""Filters of the playbooks: packages, engines and settings that roles need on a host."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

PATH = Path(__file__).resolve().parents[3] / "playbooks/filter_plugins/virtbed_roles.py"


def engine(*programs: list[str], package: str = "") -> dict[str, Any]:
    return {"programs": list(programs), "package": package}


ROLES = {
    "enclosure_one": {
        "engines": {"one": engine(["one"], ["oned", "one-server"], package="one.io")},
        "packages": ["python3-one"],
        "settings": {"/etc/one/one.json": "{}"},
    },
    "machine_two": {"engines": {}, "packages": ["two-{init}", "python3-one"], "settings": {}},
}


@pytest.fixture(scope="module")
def filters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("virtbed_roles", PATH)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def programs(*present: str) -> dict[str, bool]:
    return {name: name in present for name in ("one", "oned", "one-server")}


def test_the_lines_of_the_check_are_parsed(filters: ModuleType) -> None:
    lines = [
        "program one yes",
        "program oned no",
        "daemon oned no",
        "unit one.socket yes",
        "path /etc/one yes",
    ]
    assert filters.found(lines) == {
        "program": {"one": True, "oned": False},
        "daemon": {"oned": False},
        "unit": {"one.socket": True},
        "path": {"/etc/one": True},
    }


def test_a_role_is_usable_with_one_program_of_each_list(filters: ModuleType) -> None:
    assert filters.usable(ROLES, programs("one", "one-server")) == ["enclosure_one", "machine_two"]
    assert filters.usable(ROLES, programs("one")) == ["machine_two"]


def test_an_engine_that_is_installed_already_is_not_installed_again(filters: ModuleType) -> None:
    assert filters.packages(ROLES, programs(), "sysv") == ["one.io", "python3-one", "two-sysv"]
    elsewhere = filters.packages(ROLES, programs("one", "oned"), "systemd")
    assert elsewhere == ["python3-one", "two-systemd"]


def test_alternative_packages_depend_on_the_distribution(filters: ModuleType) -> None:
    split = engine(["one"], ["oned"], package="one.io, one-cli | one.io")
    roles = {"enclosure_one": {**ROLES["enclosure_one"], "engines": {"one": split}}}
    names = filters.packages(roles, programs(), "sysv")
    assert names == ["one-cli | one.io", "one.io", "python3-one"]
    assert filters.alternatives(names) == ["one-cli", "one.io"]
    one = "one.io:\n  Installed: (none)\n  Candidate: 20.1\n  Version table:\n     20.1 500\n"
    none = "one-cli:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"
    client = "one-cli:\n  Installed: (none)\n  Candidate: 26.1\n  Version table:\n     26.1 500\n"
    assert filters.chosen(names, one + client) == ["one-cli", "one.io", "python3-one"]
    assert filters.chosen(names, one) == ["one.io", "python3-one"]
    assert filters.chosen(names, one + none) == ["one.io", "python3-one"]
    with pytest.raises(ValueError, match=r"none of one-cli, one\.io found"):
        filters.chosen(names, "")
    assert filters.packages(roles, programs("one", "oned"), "sysv") == ["python3-one"]


@pytest.mark.parametrize(
    ("present", "written", "ours"),
    [((), False, True), ((), True, False), (("one", "oned"), False, False)],
)
def test_settings_are_written_only_if_file_and_engine_did_not_exist(
    filters: ModuleType, present: tuple[str, ...], written: bool, ours: bool
) -> None:
    before = {"program": programs(*present), "daemon": {}, "path": {"/etc/one/one.json": written}}
    assert filters.settings(ROLES, before) == ({"/etc/one/one.json": "{}"} if ours else {})


def test_set_up_records_running_daemons_before_it_uses_any() -> None:
    (_, play) = yaml.safe_load((PATH.parents[1] / "testbed.yml").read_text(encoding="utf-8"))
    (block,) = play["tasks"]
    roles = [task.get("ansible.builtin.include_role", {}) for task in block["block"]]
    parts = [(role.get("name"), role.get("tasks_from", "main")) for role in roles]
    assert parts.index(("host_packages", "look")) < parts.index(("host_doctor", "verify"))
    # note.yml uses that result and does not check again.
    note = yaml.safe_load((PATH.parents[2] / "roles/host_packages/tasks/note.yml").read_text())
    (look,) = [task for task in note if task.get("ansible.builtin.include_tasks") == "look.yml"]
    assert look["when"] == "host_packages_found is not defined"


def test_only_images_of_the_present_sources_are_kept() -> None:
    spec = importlib.util.spec_from_file_location(
        "virtbed_image", PATH.with_name("virtbed_image.py")
    )
    assert spec and spec.loader
    image = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(image)
    published = {
        "cpu": {"digest": "sha256:" + "a" * 64, "key": "1"},
        "null": {"digest": "sha256:" + "b" * 64, "key": "2"},
        "gone": {"digest": "sha256:" + "c" * 64, "key": "3"},  # no such variant
        "old": {"digest": "sha256:" + "d" * 64},
    }
    keys = {"cpu": "1", "null": "other", "old": "4"}
    assert image.kept(published, keys) == {"cpu": "a" * 16}
