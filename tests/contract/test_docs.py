"""The documentation agrees with the checkout: links, generated pages, examples, one version."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.contract.test_registries import FACTOR_SCRIPT, copy_with, run_with
from tests.pages import FENCE, NAMES, PAGES, text, tool

from virtbed.checkout import REPOSITORY
from virtbed.plan import Plan
from virtbed.platforms import load_platforms
from virtbed_analysis import claims
from virtbed_analysis.cells import cell_of
from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Logs
from virtbed_analysis.platforms import Platforms
from virtbed_contract.factors import FACTORS
from virtbed_workloads.contract import Application

# Links.


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as code hosts and MkDocs make them."""
    headings = re.findall(r"^#+ (.+?)\s*$", FENCE.sub("", page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def dead_links(name: str, page: str) -> list[str]:
    """Return the links of a page to files and anchors that do not exist in the checkout."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page)):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (REPOSITORY / name).parent / path if path else REPOSITORY / name
        if not file.exists():
            dead.append(target)
        elif anchor and file.suffix == ".md":
            linked = page if not path else file.read_text(encoding="utf-8")
            dead += [] if anchor in anchors(linked) else [target]
    return dead


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_has_a_target(name: str) -> None:
    assert dead_links(name, text(name)) == []


def test_a_dead_link_is_found() -> None:
    page = "# One two\n[a](#one-two) [b](#gone) [c](docs/gone.md) [d](docs/index.md#gone)\n"
    assert dead_links("README.md", page) == ["#gone", "docs/gone.md", "docs/index.md#gone"]


def test_in_the_site_a_link_out_of_the_docs_becomes_a_path(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "plan.yml").touch()
    (docs / "other.md").touch()
    source = "[it](../plan.yml) [plan.yml](../plan.yml) [o](other.md) [x](../gone.md)"
    made = tool("checkout_links").without_checkout_links(source, docs / "page.md", docs)
    assert made == "it (`plan.yml`) `plan.yml` [o](other.md) [x](../gone.md)"


def test_every_page_is_in_the_site() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    settings = yaml.load(text("mkdocs.yml"), Loader)
    listed = re.findall(r"'([\w/-]+\.md)'", str(settings["nav"]))
    ours = {n.removeprefix("docs/") for n in PAGES if n.startswith("docs/")}
    # Decisions are listed in their own index; see test_decisions_are_numbered_without_gaps….
    assert sorted(listed) == sorted(n for n in ours if not re.match(r"decisions/\d", n))


def test_pictures_are_small_and_shown_with_a_description() -> None:
    pictures = [name for name in NAMES if name.startswith("docs/pictures/")]
    for name in pictures:
        assert (REPOSITORY / name).stat().st_size < 200_000
        shown = [re.search(rf"!\[.{{20,}}\]\(.*{Path(name).name}\)", text(page)) for page in PAGES]
        assert any(shown), name
    assert pictures


# Generated pages.


WRITTEN = {
    str(path.relative_to(REPOSITORY)): page for path, page in tool("reference").written().items()
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert text(name) == WRITTEN[name], "run make reference"


def test_the_reference_has_every_command_key_and_role() -> None:
    assert {name for name, _ in tool("reference").commands()} >= {"virtbed", "virtbed lab up"}
    for key in Plan.model_fields:
        assert f"| `{key}` |" in text("docs/reference/plan.md")
    for role in (REPOSITORY / "roles").iterdir():
        if role.is_dir():
            assert f"\n## {role.name}\n" in text("docs/reference/roles.md")
            assert f"roles/{role.name}/README.md" in WRITTEN


def test_decisions_are_numbered_without_gaps_and_each_is_in_the_index() -> None:
    decisions = dict(tool("reference").decisions())
    assert [int(number) for number, *_ in decisions.values()] == [*range(1, len(decisions) + 1)]
    for path, (number, *_) in decisions.items():
        assert path.name.startswith(f"{int(number):03}-")
        assert f"]({path.name})" in text("docs/decisions/README.md")


REPLACED = re.compile(r"^\d{4}-\d\d-\d\d\. Replaced( in part)? by (.+)\.$", re.MULTILINE)
REPLACES = re.compile(r"^Replaces (.+?)( in part)?\.$", re.MULTILINE)
Replacement = tuple[int, int, bool]
"""The older decision, the newer one, and whether it replaces the older one only in part."""


def linked_decisions(sentence: str) -> Iterator[int]:
    """Yield the number of each decision that a sentence links to.

    Raises:
        AssertionError: A link's text and its file have different numbers.
    """
    for number, file in re.findall(r"\[(\d+)\]\((\d{3})-[^)]+\)", sentence):
        assert int(number) == int(file), sentence
        yield int(number)


def replacements(pages: Mapping[int, str]) -> tuple[set[Replacement], set[Replacement]]:
    """Return the replacements that the older decisions state, and those that the newer ones state.

    Args:
        pages: The text of each decision by its number.
    """
    by_older = {
        (number, newer, bool(part))
        for number, page in pages.items()
        for part, sentence in REPLACED.findall(page)
        for newer in linked_decisions(sentence)
    }
    by_newer = {
        (older, number, bool(part))
        for number, page in pages.items()
        for sentence, part in REPLACES.findall(page)
        for older in linked_decisions(sentence)
    }
    return by_older, by_newer


def test_a_replaced_decision_and_its_replacement_link_to_each_other() -> None:
    decisions = tool("reference").decisions()
    pages = {int(number): path.read_text(encoding="utf-8") for path, (number, *_) in decisions}
    by_older, by_newer = replacements(pages)
    assert by_older == by_newer
    assert len(by_older) >= 9
    assert all(older < newer for older, newer, _ in by_older)


def test_a_replacement_that_only_one_decision_states_is_found() -> None:
    older = "# 1. A\n\n2026-11-23. Replaced in part by [2](002-b.md) and [3](003-c.md).\n\nText.\n"
    pages = {1: older, 2: "# 2. B\n\n2026-11-24. Holds.\n\nReplaces [1](001-a.md) in part.\n"}
    by_older, by_newer = replacements(pages)
    assert by_older - by_newer == {(1, 3, True)}


# What a set-up makes on a host.


def test_the_page_on_the_host_lists_packages_settings_daemons_and_stores() -> None:
    page = text("docs/concepts/host.md")
    base = yaml.safe_load(text("roles/host_packages/vars/main.yml"))["__host_packages_names"]
    needed = {*base}
    for role in load_platforms().roles.values():
        needed |= {name.replace("-{init}", "") for name in role.packages}
        for engine in role.engines.values():
            needed |= {*re.split(r"[,| ]+", engine.package)} - {""}
        needed |= {*role.settings, *role.daemons, role.store} - {""}
    assert len(needed) > 20
    missing = [n for n in needed if not re.search(rf"(?<![\w-]){re.escape(n)}\b", page)]
    assert missing == []


# Examples.


def test_the_example_platform_is_in_platforms_yml() -> None:
    (entry, *_) = (
        c for kind, c in FENCE.findall(text("docs/how-to/platform.md")) if kind == "yaml"
    )
    ((name, shown),) = yaml.safe_load(entry).items()
    assert yaml.safe_load(text("platforms.yml"))[name] == shown


EXAMPLES = {
    "application": "virtbed_workloads.registry",
    "factor": "virtbed_contract.factors",
    "finding": "virtbed_analysis.claims",
    "measure": "virtbed_contract.measures",
    "threshold": "virtbed_analysis.suspicion",
}


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_entry_of_a_page_is_valid(page: str) -> None:
    """Functions that the page leaves to its reader are replaced by stubs."""
    *_, code = (c for kind, c in FENCE.findall(text(f"docs/how-to/{page}.md")) if kind == "python")
    names = dict(vars(importlib.import_module(EXAMPLES[page])))
    left_out = {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name)} - names.keys()
    assert all(name.startswith("_") for name in left_out)
    made = eval(code, names | dict.fromkeys(left_out, lambda *_: None))
    assert type(made).__module__ == EXAMPLES[page]


def test_the_example_factor_reaches_the_report(tmp_path: Path) -> None:
    """The entry is added to a copy of the packages; the harness's part is left to the reader."""
    (entry,) = (c for kind, c in FENCE.findall(text("docs/how-to/factor.md")) if kind == "python")
    factor = eval(entry, dict(vars(importlib.import_module(EXAMPLES["factor"]))))
    copy_with(tmp_path, "factors.py", "FACTORS: tuple[Factor, ...] = (\n", entry.strip() + ",\n")
    values = json.dumps([*factor.values])
    script = FACTOR_SCRIPT.replace("labels", factor.plan_key).replace('["a", "b"]', values)
    found = run_with(tmp_path, script)
    assert found["rejected"] == []
    assert {row[factor.name] for row in found["report"]["cells"]} == {*factor.values}


def test_the_example_finding_compares_the_cells_that_the_page_names() -> None:
    function, entry = (
        code for kind, code in FENCE.findall(text("docs/how-to/finding.md")) if kind == "python"
    )
    names = dict(vars(claims))
    exec(function, names)
    finding = eval(entry, names)
    row = {factor.name: factor.default for factor in FACTORS} | {
        "application": "a", "scale": "tiny", "scenario": "", "weights": "", "cores": 1,
    }  # fmt: skip
    seconds = {("podman", "pinned"): 3.0, ("cn", "pinned"): 2.0, ("podman", "vanilla"): 9.0}
    logs = {
        cell_of(row | {"platform": platform, "mode": mode}): Logs.of(
            {"1": (np.array(["a.png"]), np.log([time]))}
        )
        for (platform, mode), time in seconds.items()
    }
    units = Units(logs, "replicate", {}, Platforms(load_platforms().entries))
    (case,) = finding.candidates(claims.Measured(units))
    assert [(cell.platform, cell.mode) for cell in case.cells] == list(seconds)[:2]
    assert np.exp(case.groups[0]) == pytest.approx([1.5])


def test_the_example_application_is_complete() -> None:
    """tests/applications runs it, where Keras is installed."""
    blocks = FENCE.findall(text("docs/how-to/application.md"))
    module, entry = (code for kind, code in blocks if kind == "python")
    (plan,) = (code for kind, code in blocks if kind == "yaml")
    classes = {n.name: n for n in ast.parse(module).body if isinstance(n, ast.ClassDef)}
    assert set(re.findall(r'"leaf_disease:(\w+)"', entry)) == set(classes)
    for written in classes.values():
        has = {n.name for n in written.body if isinstance(n, ast.FunctionDef)}
        assert has >= Application.__abstractmethods__
    assert [a.name for a in Plan.model_validate(yaml.safe_load(plan)).applications] == [
        "leaf_disease"
    ]


# One version.


def versions(root: Path = REPOSITORY) -> dict[str, str]:
    """Return the version in each place of a checkout that states it."""

    def text(name: str) -> str:
        return (root / name).read_text(encoding="utf-8")

    found = {"CITATION.cff": yaml.safe_load(text("CITATION.cff"))["version"]}
    for member in ("contract", "python", "analysis", "workloads"):
        project = tomllib.loads(text(f"{member}/pyproject.toml"))["project"]
        found[member] = project["version"]
        extra = [r for rs in project.get("optional-dependencies", {}).values() for r in rs]
        for requirement in [*project.get("dependencies", ()), *extra]:
            if re.match(r"virtbed-\w+==", requirement):
                found[f"{member}: {requirement}"] = requirement.partition("==")[2]
    for name in NAMES:
        stated = None
        if name.endswith("/__init__.py") and (root / name).is_file():
            stated = re.search(r'__version__ = "(.+)"', text(name))
        if stated:
            found[name] = stated[1]
    return found


def test_all_packages_have_one_version() -> None:
    found = versions()
    assert len(found) >= 10
    assert set(found.values()) == {found["python"]}, found
    assert text("CHANGELOG.md").split("\n## ")[1].startswith(found["python"])


def test_make_version_sets_it_everywhere(tmp_path: Path) -> None:
    named = [name for name in NAMES if re.search(r"(pyproject\.toml|/__init__\.py|\.cff)$", name)]
    for name in [*named, "Makefile"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    subprocess.run(["make", "--quiet", "version", "TO=12.3.4"], cwd=tmp_path, check=True)
    found = versions(tmp_path)
    assert len(found) == len(versions()) and set(found.values()) == {"12.3.4"}
