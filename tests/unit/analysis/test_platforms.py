"""Names, words, order and marks of platforms come from the design, or from defaults."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from virtbed_analysis import figures, load, words
from virtbed_analysis.document import document
from virtbed_analysis.estimate import cells
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_analysis.platforms import platforms_of
from virtbed_contract.codec import encode
from virtbed_contract.documents import Platform

from .conftest import LISTED, Folder

BOX = Platform("box", "metal", "sandbox", "sandbox", "a kernel in user space", "#123abc", "*")


def with_box(folder: Folder, place: int) -> None:
    """Let the design name another platform, at some place of its list."""
    folder.design["platforms"].insert(place, encode(BOX))
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0]})
        folder.trial("cn", "pinned", replicate, {"a.png": [11.0 + replicate / 9]})
        folder.trial("box", "pinned", replicate, {"a.png": [12.0 + replicate / 9]})


def test_the_words_of_a_mode_name_the_limit_of_its_cpus() -> None:
    texts = {
        f"{name} {mode}": entry.in_words(mode)
        for name, entry in LISTED.items()
        for mode in ("vanilla", "pinned")
    }
    assert texts["bm vanilla"] == "bare metal, other CPUs offline"
    assert texts["vm vanilla"] == "KVM guest, floating vCPUs"
    assert texts["vmcn vanilla"] == "container in a KVM guest, CPU quota"
    assert texts["podman vanilla"] == "Podman container, CPU quota"
    assert {spoken.split(", ")[1] for code, spoken in texts.items() if "pinned" in code} == {
        "pinned"
    }
    row = {"platform": "cn", "mode": "vanilla", "cores": 2}
    assert words.instance(row, LISTED) == "container, CPU quota (cn vanilla) at 2 cores"
    assert words.instance(row) == "cn vanilla at 2 cores"  # without a design nothing says it
    twin = row | {"variant": "twin"}
    assert words.platform(twin, LISTED) == "container, CPU quota, twin (cn vanilla twin)"


def test_the_page_names_platforms_in_words_before_codes(folder: Folder) -> None:
    for replicate in (1, 2):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0]})
        folder.trial("cn", "vanilla", replicate, {"a.png": [11.0 + replicate / 9]})
    page = render(document(read_sweep(folder.path)))
    codes = [page[: at.start()].rstrip() for at in re.finditer("cn vanilla", page)]
    assert codes
    assert all(before.lower().endswith("container, cpu quota (") for before in codes)


@pytest.mark.parametrize(("place", "order"), [(0, "box bm cn"), (4, "bm cn box")])
def test_a_platform_that_only_the_design_knows_is_reported_as_any(
    folder: Folder, place: int, order: str
) -> None:
    with_box(folder, place)
    sweep = read_sweep(folder.path)
    assert sweep.rejected == []
    content = document(sweep)
    assert [cell["platform"] for cell in content["cells"]] == order.split()
    assert [entry["name"] for entry in content["platforms"]] == order.split()
    ratio = {cell["platform"]: cell["ratio"] for cell in content["cells"]}
    assert ratio["bm"] is None and ratio["box"] == pytest.approx(1.22, abs=0.01)
    page = render(content)
    for text in (BOX.words, BOX.boundary, BOX.enclosure):
        assert f"<td>{text}</td>" in page
    assert BOX.colour in figures.draw(content)["ratios"].panels[0]


def test_bare_metal_is_recognised_by_machine_and_enclosure_not_by_name(folder: Folder) -> None:
    for replicate in (1, 2):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0]})
        folder.trial("cn", "pinned", replicate, {"a.png": [11.0]})
    for path in [*folder.path.glob("trials/*")]:
        path.rename(path.with_name(path.name.replace("bm-", "iron-")))
    for path in [*folder.path.rglob("*.json")]:
        path.write_text(re.sub(r'"bm(["-])', r'"iron\1', path.read_text()))
    sweep = read_sweep(folder.path)
    assert (sweep.rejected, sweep.platforms.bare) == ([], "iron")
    ratios = {row["platform"]: row["ratio"] for row in cells(sweep.samples).to_dicts()}
    assert ratios == {"iron": None, "cn": pytest.approx(1.1)}


def test_without_a_design_bare_metal_is_listed_first(folder: Folder) -> None:
    for platform in ("vm", "cn", "bm"):
        folder.trial(platform, "pinned", 1, {"a.png": [10.0]})
    (folder.path / "design.json").unlink()
    sweep = read_sweep(folder.path)
    assert sweep.platforms.names == ["bm", "vm", "cn"]
    content = document(sweep)
    assert [entry["words"] for entry in content["platforms"]] == [
        "process on metal", "process on kvm", "docker on metal",
    ]  # fmt: skip
    looks = [(entry["colour"], entry["mark"]) for entry in content["platforms"]]
    assert len(set(looks)) == 3
    assert render(content)


def test_very_many_platforms_still_have_a_colour_and_a_mark() -> None:
    found = {f"p{n}": ("metal", f"e{n}") for n in range(30)}
    assert len(platforms_of([], found).names) == 30


def test_folders_of_other_platforms_are_pooled_in_one_order(tmp_path: Path) -> None:
    first, second = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    first.design["platforms"] = [encode(LISTED[name]) for name in ("cn", "bm")]
    second.design["platforms"] = [encode(LISTED[name]) for name in ("bm", "vm")]
    first.trial("cn", "pinned", 1, {"a.png": [10.0]})
    second.trial("bm", "pinned", 1, {"a.png": [10.0]})
    second.trial("vm", "pinned", 1, {"a.png": [10.0]})
    samples = load(first.path, second.path)
    assert samples.sort("platform")["platform"].to_list() == ["cn", "bm", "vm"]


def test_a_design_whose_mark_cannot_be_drawn_is_left_out_with_its_reason(quick: Any) -> None:
    quick.edit("design.json", lambda design: design["platforms"][0].update(mark="smile"))
    (rejected,) = read_sweep(quick.path).rejected
    assert rejected.file == "design.json" and "platforms[0].mark: 'smile' found" in rejected.reason


def test_the_analysis_names_no_platform() -> None:
    """But in the laboratory's table and in the studies' findings, as machine and enclosure."""
    package = Path(figures.__file__).parent
    for path in package.glob("*.py"):  # examples in docstrings are part of a longer text
        parsed = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts = {node.value for node in parsed if isinstance(node, ast.Constant)}
        assert not texts & {"bm", "cn", "vm", "vmcn"}, path.name
    for path in package.glob("templates/*.j2"):
        found = re.findall(r"[\"'](bm|cn|vm|vmcn)[\"']", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {found}"
