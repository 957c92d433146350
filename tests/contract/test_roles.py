"""Every machine and enclosure role has the interface of roles/README.md, and no code names a role.

Each check yields its faults as sentences. It runs on the roles of this checkout, where it must
yield none, and on broken copies of the README's example, where it must yield one.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.platforms import load_platforms
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.documents import Instance, Platform, RoleProperties, TrialRequest

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = REPOSITORY / "roles"
FOLDERS = sorted([*ROLES.glob("machine_*"), *ROLES.glob("enclosure_*")])
# Roles that several machines share are not machines themselves, and have no properties.
PARTS = {folder.name for folder in FOLDERS if not (folder / "meta/virtbed.yml").exists()}
NAMED = sorted(load_platforms().roles)
FIELDS = {field.name for kind in (Instance, TrialRequest) for field in dataclasses.fields(kind)}


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def properties_faults(role: Path) -> Iterator[str]:
    """Yield the faults of a role's properties."""
    try:
        found = decode(RoleProperties, loaded(role / "meta/virtbed.yml"), "meta/virtbed.yml")
    except DocumentError as error:
        yield str(error)
        return
    if set(found.limits) != {"vanilla", "pinned"}:
        yield f"limits of {sorted(found.limits)} found, of each mode needed"
    if set(found.trial_s) != {"real", "emulated"}:
        yield f"trial_s of {sorted(found.trial_s)} found, real and emulated needed"
    if (found.daemons or found.settings) and not found.engines:
        yield "daemons or settings found that belong to no engine"
    if role.name.startswith("machine_") and (found.private_kernel or found.store):
        yield "private_kernel or store found, which an enclosure has"
    if role.name.startswith("enclosure_") and found.own_kernel:
        yield "own_kernel found, which a machine has"
    if role.name.startswith("enclosure_") and "count" in found.limits.values():
        yield "a limit by count found, which a machine has"


def entry_point_faults(role: Path) -> Iterator[str]:
    """Yield the entry points that are missing, and those that exist without their property."""
    found = loaded(role / "meta/virtbed.yml")
    needed = {
        "main": True,
        "verify": True,
        "release": True,
        "engine": bool(found.get("engines")),
        "image": bool(found.get("store")),
        "end": bool(found.get("private_kernel")),
    }
    for name, wanted in needed.items():
        if (role / f"tasks/{name}.yml").exists() != wanted:
            yield f"tasks/{name}.yml: {'missing' if wanted else 'found without its property'}"


def verify_faults(role: Path) -> Iterator[str]:
    """Yield the tasks of verify.yml other than one reading and assertions about it."""
    tasks = loaded(role / "tasks/verify.yml")
    while tasks and tasks[0].get("ansible.builtin.import_role", {}).get("name") in PARTS:
        tasks = tasks[1:]
    reading = f"{role.name}_reading"
    if not tasks or tasks[0].get("register") != reading:
        yield f"verify.yml does not begin with a task that registers {reading}"
    if len(tasks) < 2:
        yield "verify.yml asserts nothing"
    if loaded(role / "meta/virtbed.yml").get("own_kernel"):
        attest = {"name": "machine_guest", "tasks_from": "attest"}
        if tasks[-1].get("ansible.builtin.import_role") != attest:
            yield "verify.yml does not end with machine_guest's attest: its guest is not judged"
    for task in (each for written in tasks[1:] for each in expanded(written)):
        if "ansible.builtin.assert" not in task or "register" in task:
            yield f"verify.yml: {task['name']!r} found, an assertion needed"


def expanded(task: Mapping[str, Any]) -> list[Any]:
    """Return the tasks that an import from a shared part adds; any other task as it is."""
    role = task.get("ansible.builtin.import_role", {})
    if role.get("name") not in PARTS:
        return [task]
    return list(loaded(ROLES / role["name"] / f"tasks/{role['tasks_from']}.yml"))


def argv_faults(role: Path) -> Iterator[str]:
    """Yield a fault if an enclosure lacks its argv prefix."""
    if role.name.startswith("enclosure_"):
        name = f"{role.name}_argv"
        if name not in (loaded(role / "vars/main.yml") or {}):
            yield f"vars/main.yml does not define {name}"


def options(specification: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each option of an entry point, at every depth."""
    for name, option in (specification.get("options") or {}).items():
        yield name, option
        yield from options(option)


def argument_faults(role: Path) -> Iterator[str]:
    """Yield argument specs that repeat a document of the contract, or are checked at each trial."""
    entries = (loaded(role / "meta/argument_specs.yml") or {}).get("argument_specs", {})
    for entry, specification in entries.items():
        for name, option in options(specification):
            if name in FIELDS:
                yield f"argument_specs.yml: {entry}: {name}, a field of the contract's"
            if name.startswith(("virtbed_instance", "virtbed_trial")) and "options" in option:
                yield f"argument_specs.yml: {entry}: {name} is spelled out"
    if role.name in NAMED or role.name == EXAMPLE:
        once = {
            name for name in ("main", "engine", "image") if (role / f"tasks/{name}.yml").exists()
        }
        if set(entries) != once:
            yield f"argument_specs.yml has {sorted(entries)}, {sorted(once)} needed"


CHECKS = (properties_faults, entry_point_faults, verify_faults, argv_faults, argument_faults)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("role", NAMED)
def test_a_role_has_the_interface(role: str, check: Callable[[Path], Iterator[str]]) -> None:
    assert list(check(ROLES / role)) == []


def test_no_other_role_repeats_a_document_in_its_argument_specs() -> None:
    others = {path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml")}
    assert len(others) > len(NAMED)
    assert {role.name: found for role in others if (found := list(argument_faults(role)))} == {}


def test_every_role_is_in_platforms_yml_or_a_shared_part_of_machines() -> None:
    assert sorted({folder.name for folder in FOLDERS} - PARTS) == NAMED
    parts = {
        dependency["role"]
        for folder in FOLDERS
        for dependency in (loaded(folder / "meta/main.yml") or {}).get("dependencies", [])
    }
    assert parts == PARTS == {"machine_guest"}
    assert not any((ROLES / part / "tasks/main.yml").exists() for part in PARTS)


EXAMPLE = "enclosure_bubblewrap"
FILE = re.compile(r"^`(\S+\.yml)`:\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Write the README's example of a role into a folder."""
    for name, content in FILE.findall((ROLES / "README.md").read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path / "roles" / EXAMPLE


def test_the_example_has_the_interface(example: Path) -> None:
    assert [fault for check in CHECKS for fault in check(example)] == []
    (entry,) = loaded(example.parents[1] / "platforms.yml").items()
    assert f"enclosure_{decode(Platform, {'name': entry[0], **entry[1]}).enclosure}" == EXAMPLE


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("meta/virtbed.yml", "limits:", "limit:", "limit: unknown key"),
        ("meta/virtbed.yml", "vanilla: none, ", "", "of each mode needed"),
        ("meta/virtbed.yml", "vanilla: none", "vanilla: count", "a limit by count"),
        ("meta/virtbed.yml", "real: 1, ", "", "real and emulated needed"),
        ("meta/virtbed.yml", "packages:", "own_kernel: true\npackages:", "own_kernel found"),
        ("meta/virtbed.yml", "packages:", "store: /x\npackages:", "image.yml: missing"),
        ("meta/virtbed.yml", "packages:", "private_kernel: true\npackages:", "end.yml: missing"),
        ("meta/virtbed.yml", "engines:", "daemons: {a: b}\nsettings:", "meta/virtbed.yml"),
        ("meta/virtbed.yml", r"engines:(.|\n)*", "daemons: {a: b}\n", "belong to no engine"),
        ("meta/virtbed.yml", r"engines:(.|\n)*", "", "engine.yml: found without"),
        ("tasks/main.yml", None, "", "main.yml: missing"),
        ("tasks/verify.yml", "enclosure_bubblewrap_reading\n", "read\n", "does not begin with"),
        ("tasks/verify.yml", r"\n- name: Assert(.|\n)*", "", "asserts nothing"),
        ("tasks/verify.yml", "assert:", "command:", "an assertion needed"),
        ("tasks/verify.yml", "    quiet: true", "  register: more", "an assertion needed"),
        ("tasks/verify.yml", "---", "---\n- name: More\n  ping:", "does not begin with"),
        ("vars/main.yml", "enclosure_bubblewrap_argv", "enclosure_bubblewrap_command", "_argv"),
        ("meta/argument_specs.yml", "      virtbed_state_dir:", "      cores:", "cores, a field"),
        (
            "meta/argument_specs.yml", "        type: dict",
            "        type: dict\n        options: {other: {type: int}}", "is spelled out",
        ),
        ("meta/argument_specs.yml", "  engine:", "  verify:", "needed"),
        ("meta/argument_specs.yml", None, "", "has []"),
    ],
)  # fmt: skip
def test_a_broken_role_is_found(
    example: Path, file: str, old: str | None, new: str, fault: str
) -> None:
    path = example / file
    if old is None:
        path.unlink()
    else:
        text, number = re.subn(old, new, path.read_text(encoding="utf-8"), count=1)
        assert number == 1
        path.write_text(text, encoding="utf-8")
    faults: list[str] = []
    for check in CHECKS:
        faults += check(example)
        if check is properties_faults and faults:
            break
    assert any(fault in found for found in faults), faults


@pytest.mark.parametrize("role", ["machine_kvm", "machine_microvm"])
def test_a_machine_that_does_not_attest_its_guest_is_found(role: str, tmp_path: Path) -> None:
    copy = tmp_path / role
    shutil.copytree(ROLES / role, copy)
    tasks = loaded(copy / "tasks/verify.yml")
    (copy / "tasks/verify.yml").write_text(yaml.safe_dump(tasks[:-1]), encoding="utf-8")
    assert any("its guest is not judged" in fault for fault in verify_faults(copy))


# Files that may name another role, and the reason.
NAMED_IN = {
    ("roles/trial_attest/tasks/keep.yml", "machine_guest"): "the clock of a guest, of any machine",
    ("roles/trial_attest/vars/main.yml", "machine_guest"): "the same",
    ("roles/image_rootfs/tasks/guest.yml", "enclosure_docker"): "the guest's store is Docker's",
}
PLACES = ("playbooks", "python/virtbed", "roles")
NAMES = "|".join(sorted({folder.name.partition("_")[2] for folder in FOLDERS}, key=len)[::-1])
OWN = "|".join(sorted(name.partition("_")[2] for name in NAMED))
ROLE = re.compile(rf"(?<![a-z])(?:machine|enclosure)_(?:{NAMES})(?![a-z])")
CONDITION = re.compile(
    rf"""[!=]=\s*['"](?:{OWN})['"] | ['"](?:{OWN})['"]\s*[!=]=
    | \bin\s*[\[({{][^\])}}]*['"](?:{OWN})['"] | ['"](?:{OWN})['"]\s+(?:not\s+)?in\b
    | \bcase\s+['"](?:{OWN})['"]""",
    re.VERBOSE,
)


def named(path: str, text: str) -> set[tuple[str, str]]:
    """Return the roles that a file names and its conditions on a role, each with the file.

    A role may name itself, and a machine may name the shared parts.
    """
    own = path.split("/")[1] if path.startswith(("roles/machine_", "roles/enclosure_")) else None
    free = {own, *(PARTS if path.startswith("roles/machine_") else ())}
    found = {role for role in ROLE.findall(text) if role not in free}
    if own is None:
        found |= {match.group() for match in CONDITION.finditer(text)}
    return {(path, what) for what in found}


def files(*places: str) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file in git below some places."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *places], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        path = REPOSITORY / name
        if name and path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, content.decode()


def test_no_other_file_names_a_role() -> None:
    sources = [entry for entry in files(*PLACES) if entry[0] != "roles/README.md"]
    assert len(sources) > 150
    found = set().union(*(named(path, text) for path, text in sources))
    assert found == set(NAMED_IN)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("playbooks/provision.yml", "tasks_from: x\nname: machine_kvm"),
        ("playbooks/provision.yml", "when: __enclosure_docker_image is defined"),
        ("playbooks/provision.yml", "when: virtbed_instance.enclosure == 'docker'"),
        ("roles/trial_run/tasks/main.yml", "{{ 1 if machine != \"kvm\" else 2 }}"),
        ("roles/trial_run/tasks/main.yml", "when: machine in ['xen', 'kvm']"),
        ("python/virtbed/design.py", 'if "metal" == entry.machine:'),
        ("python/virtbed/design.py", 'if entry.machine in ("metal",):'),
        ("python/virtbed/design.py", 'match enclosure:\n    case "docker":'),
        ("roles/machine_kvm/tasks/main.yml", "name: machine_microvm"),
        ("roles/enclosure_docker/tasks/main.yml", "name: machine_guest"),
    ],
)  # fmt: skip
def test_the_name_of_a_role_is_found(path: str, text: str) -> None:
    assert named(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("roles/machine_kvm/tasks/main.yml", "name: machine_guest\nname: machine_kvm"),
        ("playbooks/provision.yml", "name: \"machine_{{ virtbed_instance.machine }}\""),
        ("playbooks/provision.yml", "register: machine_reading\nwhen: x == 'dockerfile'"),
        ("python/virtbed/design.py", 'accelerator = "kvm" if usable else "tcg"'),
    ],
)  # fmt: skip
def test_text_that_names_no_other_role_is_not_found(path: str, text: str) -> None:
    assert not named(path, text)


# Written in parts, because this file is searched too.
GONE = ("rolespec" + "_validate", "[7" + ":23]", "mock" + "_modules")


@pytest.mark.parametrize("word", GONE)
def test_removed_options_are_not_used_again(word: str) -> None:
    found = {name for name, text in files() if word in text}
    assert found == set()
