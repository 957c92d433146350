"""What neighbours slow each platform by: a truth that is known, and what evidence bears out."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from virtbed_analysis import suspicions
from virtbed_analysis.advice import advise
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.isolation import of_sweep
from virtbed_analysis.page import render
from virtbed_analysis.question import Question
from virtbed_contract.factors import of_grain

from .conftest import Folder, Json

SLOWED = {"bm": 1.05, "cn": 1.2}
COST = {"bm": 1.0, "cn": 1.1}


def read(name: str, cpu: int, requests: int, uptime_s: float, cpu_s: float) -> Json:
    process = {
        "pid": 100 + cpu, "started": 4711, "threads": 9, "cpus_allowed_list": str(cpu),
        "mems_allowed_list": "0", "memory_policy": "bind:0", "quota_cpus": None, "ran_on": [cpu],
        "migrations": 2, "cpu_s": cpu_s,
    }  # fmt: skip
    return {
        "instance": name, "uptime_s": uptime_s, "requests": requests, "ended": None,
        "processes": [process],
    }  # fmt: skip


def lay(
    folder: Folder, platform: str, number: int, replicate: int, ms: float, shares: str = "L3",
    busy: float = 0.9, **more: Any,
) -> str:  # fmt: skip
    """Add a trial with so many neighbours, and what result and evidence say of them."""
    times = {"a": [ms * 0.99, ms * 1.01]}
    name = folder.trial(platform, "pinned", replicate, times, neighbours=str(number), **more)
    cpus = [*range(1, 1 + number)]
    placed = [
        {"cpus": str(cpu), "mems": "0", "shares": shares, "housekeeping": cpu == 1} for cpu in cpus
    ]

    def say(evidence: Json) -> None:
        asked = evidence["asked"]
        asked["factors"] = {f.name: f.default for f in of_grain("instance")}
        asked["factors"]["neighbours"] = str(number)
        asked["neighbours"] = placed
        names = [f"{asked['id']}-n{n}" for n in range(1, 1 + number)]
        # One reading stands for both moments, as conftest has it: these differ.
        evidence["after"] = json.loads(json.dumps(evidence["after"]))
        for moment, requests, at_s, worked in (("before", 5, 50.0, 30.0), ("after", 45, 60.0, 0.0)):
            worked = worked or 30.0 + 10 * busy
            evidence[moment]["neighbours"] = [
                read(one, cpu, requests, at_s, worked) for one, cpu in zip(names, cpus, strict=True)
            ]

    folder.edit(f"trials/{name}/evidence.json", say)
    kept = ("cpus", "shares", "housekeeping")
    ran = [
        {**{key: one[key] for key in kept}, "requests": 40, "busy_cpus": round(busy, 3)}
        for one in placed
    ]
    folder.edit(f"trials/{name}/result.json", lambda result: result.update(neighbours=ran))
    return name


def lay_all(folder: Folder, replicates: int = 6) -> Folder:
    chance = random.Random(2112)
    for replicate in range(1, 1 + replicates):
        drift = 20.0 * (1 + replicate / 50)
        for platform, cost in COST.items():
            for number in (0, 1, 2):
                slowed = SLOWED[platform] ** number
                ms = drift * cost * slowed * chance.gauss(1, 0.002)
                lay(folder, platform, number, replicate, ms)
    return folder


@pytest.fixture
def shared(folder: Folder) -> Folder:
    return lay_all(folder, 2)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return document(read_sweep(lay_all(Folder(tmp_path_factory.mktemp("all") / "all")).path))


def test_the_slowdown_of_each_platform_is_over_the_same_platform_without(content: Json) -> None:
    assert content["rejected"] == []
    rows = {(row["platform"], row["neighbours"]): row for row in content["isolation"]}
    assert set(rows) == {(platform, n) for platform in SLOWED for n in ("1", "2")}
    for (platform, number), row in rows.items():
        truth = SLOWED[platform] ** int(number)
        assert row["ratio"] == pytest.approx(truth, rel=0.005)
        assert row["ratio_low"] < truth < row["ratio_high"]
        assert row["ratio_replicates"] == 6
        assert row["answer"] == "differs"
        assert row["neighbours_busy"] == pytest.approx(0.9)
    assert rows["cn", "2"]["neighbours_cpus"] == "1 (same L3, with housekeeping); 2 (same L3)"


def test_over_bare_metal_the_platforms_own_cost_is_in_it_and_bare_metal_has_none(
    content: Json,
) -> None:
    ratios = {(c["platform"], c["neighbours"]): c["ratio"] for c in content["cells"]}
    assert ratios["bm", "0"] is None
    assert ratios["bm", "1"] == pytest.approx(1.05, rel=0.01)
    assert ratios["cn", "0"] == pytest.approx(1.1, rel=0.01)
    assert ratios["cn", "1"] == pytest.approx(1.1 * 1.2, rel=0.01)


def test_page_and_terminal_say_so_next_to_each_other(shared: Folder, content: Json) -> None:
    page = render(content)
    assert '<h2 id="section-isolation">Isolation</h2>' in page
    assert 'id="isolation"' in page
    assert "1 (same L3, with housekeeping)" in page
    assert "neighbours: 1" in page
    found = of_sweep(read_sweep(shared.path))
    sentences = [row["sentence"] for row in found["isolation"]]
    assert len(sentences) == 4
    (said,) = (
        s for s in sentences if "(cn pinned)" in s and s.endswith("neighbours: 1 as without.")
    )
    assert said.startswith("container, pinned (cn pinned) at 1 core takes 1.")
    json.dumps(content)


def test_findings_and_advice_are_of_cells_without_neighbours(shared: Folder, content: Json) -> None:
    alone = json.dumps([content["findings"], content["next_instance"], content["headline"]])
    assert "neighbours: " not in alone
    answer = advise(read_sweep(shared.path), Question("image_classification"))
    assert "neighbours: " not in json.dumps(answer)


def test_what_neighbours_do_is_no_part_of_a_platforms_cost(content: Json) -> None:
    assert content["explained"] == []
    assert "section-what-the-cost-is-made-of" not in render(content)


def test_without_neighbours_there_is_no_section(folder: Folder) -> None:
    for replicate in (1, 2, 3):
        lay(folder, "bm", 0, replicate, 20.0 + replicate)
        lay(folder, "cn", 0, replicate, 22.0 + replicate)
    content = document(read_sweep(folder.path))
    assert (content["rejected"], content["isolation"]) == ([], [])
    assert "section-isolation" not in render(content)
    assert of_sweep(read_sweep(folder.path))["isolation"] == []


def test_what_was_measured_before_there_were_neighbours_had_none(folder: Folder) -> None:
    for replicate in (1, 2):
        for platform in ("bm", "cn"):
            name = lay(folder, platform, 0, replicate, 20.0 + replicate)
            folder.edit(f"trials/{name}/result.json", without_a_word)
            folder.edit(f"trials/{name}/evidence.json", lambda e: e["asked"].pop("neighbours"))
    folder.edit("design.json", lambda design: [t.pop("neighbours") for t in design["trials"]])
    content = document(read_sweep(folder.path))
    assert content["rejected"] == []
    assert [cell["neighbours"] for cell in content["cells"]] == ["0", "0"]


def without_a_word(result: Json) -> None:
    del result["trial"]["neighbours"], result["neighbours"]


def edit(folder: Folder, change: Any) -> list[Json]:
    """Change the evidence of one trial; return what is left out then."""
    name = "trials/cn-pinned-c01-neighbours_1-image_classification-r02/evidence.json"
    folder.edit(name, change)
    found: list[Json] = document(read_sweep(folder.path))["rejected"]
    return found


def process(evidence: Json, moment: str) -> Json:
    found: Json = evidence[moment]["neighbours"][0]["processes"][0]
    return found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda e: e["asked"].update(neighbours=[]), "its evidence places 0"),
        (lambda e: e["asked"]["neighbours"][0].update(cpus="0"), "neighbours share"),
        (lambda e: e["after"].update(neighbours=[]), "0 neighbours were read, 1 needed"),
        (lambda e: e["before"].update(neighbours=[{}]), "an invalid reading of a neighbour"),
        (lambda e: process(e, "after").update(cpus_allowed_list="0-1"), "may run on CPUs 0-1"),
        (lambda e: process(e, "after").update(migrations=3), "was moved to another CPU 1 times"),
        (lambda e: e["after"]["neighbours"][0].update(requests=5), "answered no request while"),
        (lambda e: e["after"]["neighbours"][0].update(ended="exit status 1: x"), "ended before"),
        (lambda e: process(e, "after").update(cpu_s=31.0), "contradicts the neighbours that"),
    ],
)
def test_evidence_that_does_not_bear_neighbours_out_leaves_the_trial_out(
    shared: Folder, change: Any, why: str
) -> None:
    (left,) = edit(shared, change)
    assert "cn-pinned-c01-neighbours_1-image_classification-r02" in left["file"]
    assert why in left["reason"]


def test_a_trial_that_was_asked_for_none_has_none(shared: Folder) -> None:
    name = "trials/bm-pinned-c01-image_classification-r01/result.json"
    other = "trials/bm-pinned-c01-neighbours_1-image_classification-r01/result.json"
    ran = json.loads((shared.path / other).read_text())["neighbours"]
    shared.edit(name, lambda result: result.update(neighbours=ran))
    (left,) = document(read_sweep(shared.path))["rejected"]
    assert "lists neighbours, but its instance has none" in left["reason"]


@pytest.mark.parametrize(("shares", "suspect"), [("core", False), ("L3", True)])
def test_what_runs_on_the_same_cores_is_no_suspicion_where_neighbours_were_put_there(
    folder: Folder, shares: str, suspect: bool
) -> None:
    name = lay(
        folder, "bm", 1, 1, 20.0, shares=shares, confounders={"siblings_share": 0.9}
    )  # fmt: skip
    result = json.loads((folder.path / f"trials/{name}/result.json").read_text())
    assert any(s.startswith("sibling threads") for s in suspicions(result)) == suspect


def test_neighbours_that_idled_are_seen_in_the_table(folder: Folder) -> None:
    for replicate in (1, 2):
        lay(folder, "bm", 0, replicate, 20.0 + replicate)
        lay(folder, "bm", 1, replicate, 20.1 + replicate, busy=0.02 * replicate)
    (row,) = document(read_sweep(folder.path))["isolation"]
    assert row["neighbours_busy"] == pytest.approx(0.03)
