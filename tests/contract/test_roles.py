"""Every role satisfies the interface of roles/README.md, and nothing outside a role names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.platforms import load_platforms

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = REPOSITORY / "roles"
PLATFORMS = load_platforms()
NAMED = sorted(PLATFORMS.roles)
MODULES = sorted(ROLES.glob("*/library/*.py"))

ALWAYS = {"main", "verify", "release"}
# Entry points by the property that asks for them; `restore` goes with `engine`, its opposite.
IF_ASKED = {"engine", "image", "restore", "end"}


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's tags as plain texts."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))


def read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """Give every task of a file, those of blocks too."""

    def within(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for item in items:
            parts = [part for key in ("block", "rescue", "always") for part in item.get(key, [])]
            if "block" in item:
                yield from within(parts)
            else:
                yield item

    return within(read(path) or [])


def action(task: dict[str, Any]) -> str:
    """Return the module of a task: the key that is no keyword, or has a collection's name."""
    keywords = {
        "name", "register", "when", "loop", "loop_control", "vars", "delegate_to", "changed_when",
        "failed_when", "until", "retries", "delay", "connection", "environment", "apply",
    }  # fmt: skip
    (found,) = set(task) - keywords
    return found


def entry_points(role: str) -> set[str]:
    return {path.stem for path in (ROLES / role / "tasks").glob("*.yml")}


@pytest.mark.parametrize("role", NAMED)
def test_a_role_has_the_entry_points_that_its_properties_demand(role: str) -> None:
    has, properties = entry_points(role), PLATFORMS.roles[role]
    assert has >= ALWAYS
    # An engine without daemon and settings may have nothing to do: its package is all.
    assert "engine" in has or not properties.daemons
    assert "engine" not in has or properties.daemons or properties.engines
    assert ("image" in has) == properties.store
    assert ("end" in has) == properties.private_kernel
    assert "engine" in has or "restore" not in has
    imported = {
        str(task[key])
        for name in has
        for task in tasks(ROLES / role / "tasks" / f"{name}.yml")
        for key in ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks")
        if key in task
    }
    assert {name for name in has if f"{name}.yml" not in imported} <= ALWAYS | IF_ASKED


@pytest.mark.parametrize("role", NAMED)
def test_verify_reads_once_and_then_asserts(role: str) -> None:
    found = list(tasks(ROLES / role / "tasks" / "verify.yml"))
    reading = [n for n, task in enumerate(found) if task.get("register") == f"{role}_reading"]
    assert len(reading) == 1, "one task registers the reading, under the role's one name"
    registered = {task["register"] for task in found if "register" in task}
    assert registered == {f"{role}_reading"}
    after = [action(task) for task in found[reading[0] + 1 :]]
    assert after and set(after) == {"ansible.builtin.assert"}
    before = [action(task) for task in found[: reading[0]]]
    assert set(before) <= {"ansible.builtin.import_role"}, "only of what machines have in common"


@pytest.mark.parametrize("role", [role for role in NAMED if role.startswith("enclosure_")])
def test_an_enclosure_says_how_a_process_is_started_in_it(role: str) -> None:
    assert f"{role}_argv" in read(ROLES / role / "vars" / "main.yml")


@pytest.mark.parametrize("role", NAMED)
def test_a_role_limits_cpus_in_both_modes(role: str) -> None:
    properties = PLATFORMS.roles[role]
    assert set(properties.limits) == {"vanilla", "pinned"}
    assert set(properties.trial_s) == {"real", "emulated"}
    if role.startswith("machine_"):
        assert not properties.private_kernel
    else:
        assert not properties.own_kernel


def test_an_engine_of_two_roles_is_one_engine() -> None:
    known: dict[str, Any] = {}
    for role in PLATFORMS.roles.values():
        for key, engine in role.engines.items():
            assert known.setdefault(key, engine) == engine


@pytest.mark.parametrize("path", sorted(ROLES.glob("*/meta/argument_specs.yml")), ids=str)
def test_argument_specs_copy_no_document_and_cost_no_trial(path: Path) -> None:
    specs = read(path)["argument_specs"]
    role = path.parents[1].name
    if role.startswith(("machine_", "enclosure_")):
        # Validated once per instance; verify and release run in every trial and every block.
        assert set(specs) <= {"main", "engine", "image"}
        assert set(specs) == {"main", "engine", "image"} & entry_points(role)
    for spec in specs.values():
        for name, option in (spec.get("options") or {}).items():
            assert "options" not in option, f"{name}: the contract has the fields of documents"


def sources() -> Iterator[tuple[str, str]]:
    """Give place and text of each line that belongs to no role of platforms.yml.

    Without comments and docstrings, which may give examples.
    """
    for top in ("playbooks", "roles", "python", "contract", "inventory"):
        for path in sorted((REPOSITORY / top).rglob("*")):
            parts = path.relative_to(REPOSITORY).parts
            if path.suffix not in {".py", ".yml", ".j2", ""} or not path.is_file():
                continue
            if (top == "roles" and parts[1] in NAMED) or any(p.startswith(".") for p in parts):
                continue
            text = path.read_text(encoding="utf-8")
            skipped = docstrings(text) if path.suffix == ".py" else set()
            for number, line in enumerate(text.splitlines(), start=1):
                if number not in skipped:
                    yield f"{'/'.join(parts)}:{number}", line.partition("#")[0]


def docstrings(text: str) -> set[int]:
    """Return the lines of a module's docstrings, and of what Ansible takes its reference from."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        documented = (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (node.targets[0].id in {"DOCUMENTATION", "EXAMPLES", "RETURN"})
        )
        if documented or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def test_no_validation_is_switched_off_and_no_digest_is_cut() -> None:
    for path in [*ROLES.rglob("*.yml"), *(REPOSITORY / "playbooks").rglob("*.yml")]:
        text = path.read_text(encoding="utf-8")
        assert "rolespec_validate: false" not in text, path
        assert "[7:23]" not in text, path


# Why a place may know one platform's technology: it is that technology's, not the platform's.
KNOWS = {
    "roles/host_doctor": "whether KVM works is a fact of the host, which only a boot by QEMU tells",
    "roles/image_rootfs": "the image is for guests, and one enclosure is offered in them: Docker",
    "roles/image_disk": "the guest's disk has a Docker store that holds the image",
    "contract/virtbed_contract/kernel": "what QEMU, KVM and gVisor show of themselves in /proc",
    "contract/virtbed_contract/documents.py": "accelerators: kvm and tcg, what runs a guest's CPUs",
    "contract/virtbed_contract/result.py": "accelerators",
    "contract/virtbed_contract/sweep.py": "accelerators",
    "contract/virtbed_contract/attestation.py": "what gVisor's kernel hides, by its property",
    "python/virtbed": "says in words what the doctor found of KVM",
    "playbooks/teardown.yml": "says which packages stay",
}


def test_nothing_outside_a_role_names_it() -> None:
    full = re.compile(r"\b(" + "|".join(NAMED) + r")\b")
    short = "|".join(sorted({name.partition("_")[2] for name in NAMED}))
    compared = re.compile(
        rf"\b(machine|enclosure|platform)\b['\"\])]*\s*(==|!=)\s*['\"]({short})['\"]"
    )
    listed = re.compile(r"\b(machine|enclosure|platform)\b['\"\])]*\s+(not )?in\s*[\[({]['\"]")
    for place, line in sources():
        for pattern in (full, compared, listed):
            assert not pattern.search(line), f"{place}: {line.strip()}"


def test_nothing_outside_a_role_knows_its_engine() -> None:
    roles = PLATFORMS.roles.values()
    words = {key for role in roles for key in role.engines}
    words |= {name for role in roles for daemon in role.daemons.items() for name in daemon}
    words |= {
        program
        for role in roles
        for engine in role.engines.values()
        for names in engine.programs
        for program in names
    }
    known = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(words))) + r")(?![\w-])")
    for place, line in sources():
        if not place.startswith(tuple(KNOWS)):
            assert not known.search(line), f"{place}: {line.strip()}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_returns_what_it_documents(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    documented = set(yaml.safe_load(texts["RETURN"]) or {})
    exits = [
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "exit_json"
    ]
    assert exits
    named = {word.arg for call in exits for word in call.keywords if word.arg} - {"changed"}
    unpacked = any(word.arg is None for call in exits for word in call.keywords)
    assert named <= documented
    assert unpacked or named == documented
    options = yaml.safe_load(texts["DOCUMENTATION"])
    assert options["module"] == path.stem


@pytest.mark.parametrize("role", NAMED)
def test_a_reading_is_returned_as_reading(role: str) -> None:
    """By a module of the role, or by an action plugin that playbooks and roles share."""
    (task,) = (
        task
        for task in tasks(ROLES / role / "tasks" / "verify.yml")
        if task.get("register") == f"{role}_reading"
    )
    places = [ROLES / role / "library", REPOSITORY / "playbooks" / "action_plugins"]
    found = [place / f"{action(task)}.py" for place in places]
    (path,) = (path for path in found if path.exists())
    text = path.read_text(encoding="utf-8")
    assert '"reading":' in text or "reading=" in text
