"""A platform's cost taken apart: what each thing that was varied alone is of it."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed_analysis import explained
from virtbed_analysis.document import document
from virtbed_analysis.engine import half_width, points
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_contract.confinement import quota_of
from virtbed_contract.documents import Instance
from virtbed_contract.factors import FACTORS, of_grain

from .conftest import Folder, Json

TIMES = {
    ("bm", "pinned"): {"": 1.0, "huge_pages malloc": 0.9},
    ("cn", "pinned"): {
        "": 1.03, "seccomp_profile unconfined": 1.01, "network host": 1.029,
        "huge_pages malloc": 0.94, "runtime crun": 1.03,
    },
    ("cn", "vanilla"): {"": 1.6, "cfs_period 10ms": 1.3, "cfs_burst full": 1.2},
    ("gvisor", "pinned"): {"": 1.5},
}  # fmt: skip


def lay(
    folder: Folder, platform: str, mode: str, changed: str, replicate: int, ms: float,
    **more: Any,
) -> str:  # fmt: skip
    """Add a trial with what its evidence says of what was varied."""
    factor, _, value = changed.partition(" ")
    factors = {factor: value} if factor else {}
    name = folder.trial(platform, mode, replicate, {"a": [ms]}, **factors, **more)
    own = {f.name: factors.get(f.name, f.default) for f in of_grain("instance")}

    def say(evidence: Json) -> None:
        asked = evidence["asked"]
        asked["factors"] = own
        if platform == "bm":
            return
        quota = quota_of(Instance(**{**asked, "cpu_ids": tuple(asked["cpu_ids"])}))
        times = None if asked["private_kernel"] else quota.times if quota else None
        read = {
            "seccomp": "none" if value == "unconfined" else "filter",
            "network": "host" if own["network"] == "host" else "own",
            "runtime": "runc" if own["runtime"] == "engine" else own["runtime"],
            "quota_times": times,
        }
        for moment in ("before", "after"):
            evidence[moment]["enclosure"].update(read)
        evidence["inside"]["process_settings"]["quota_times"] = times

    folder.edit(f"trials/{name}/evidence.json", say, alone=True)
    if mode == "vanilla":
        inside = json.loads((folder.path / f"trials/{name}/evidence.json").read_text())["inside"]
        folder.edit(f"trials/{name}/result.json", lambda r: r.update(environment=inside))
    return name


def lay_star(folder: Folder) -> Folder:
    """Lay a sweep whose steps are known, but for noise of a thousandth."""
    chance = random.Random(2112)
    for replicate in range(1, 7):
        drift = 20.0 * (1 + replicate / 100)
        for (platform, mode), own in TIMES.items():
            stopped = {"throttling": {"periods": 40, "throttled": 30, "throttled_ns": 10**9}}
            for changed, times in own.items():
                more = {"confounders": stopped} if mode == "vanilla" else {}
                noise = chance.gauss(1, 0.001)
                lay(folder, platform, mode, changed, replicate, drift * times * noise, **more)
    return folder


@pytest.fixture
def star(folder: Folder) -> Folder:
    return lay_star(folder)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return document(read_sweep(lay_star(Folder(tmp_path_factory.mktemp("star") / "star")).path))


def steps(content: Json, platform: str) -> dict[str, Json]:
    (found,) = (row for row in content["explained"] if row["platform"] == platform)
    return {row["what"]: row for row in found["rows"]}


def test_parts_rest_and_mode_add_up_to_the_cost(content: Json) -> None:
    assert content["rejected"] == []
    json.dumps(content, allow_nan=False)
    found = steps(content, "cn")
    expected = {
        "seccomp filter": ("part", 0.02),
        "network namespace": ("part", 0.001),
        "everything else of container": ("rest", 0.009),
        "container, pinned": ("total", 0.03),
        "CPU quota in place of pinned": ("mode", 0.57),
        "container, CPU quota": ("total", 0.6),
        "runtime crun, pinned": ("change", 0.0),
        "huge pages malloc, pinned": ("change", -0.09),
        "quota period 10ms, CPU quota": ("change", -0.3),
        "full quota burst, CPU quota": ("change", -0.4),
    }
    assert {what: row["kind"] for what, row in found.items()} == {
        what: kind for what, (kind, _) in expected.items()
    }
    for what, (_, truth) in expected.items():
        assert found[what]["points"] == pytest.approx(truth, abs=0.006), what
        # Wide enough that no interval of ten misses by chance.
        assert abs(found[what]["points"] - truth) < found[what]["high"] - found[what]["low"], what
        assert found[what]["n"] == 6
        lies = found[what]["end"] - found[what]["start"]
        assert lies == pytest.approx(found[what]["points"]), what
    whole = sum(row["points"] for row in found.values() if row["kind"] in ("part", "rest", "mode"))
    assert whole == pytest.approx(found["container, CPU quota"]["points"])
    cells = {(c["platform"], c["mode"]): c for c in content["cells"] if c["cfs_burst"] == "none"}
    assert found["container, CPU quota"]["end"] == pytest.approx(
        next(
            c["ratio"]
            for c in content["cells"]
            if (c["platform"], c["mode"], c["cfs_period"], c["cfs_burst"])
            == ("cn", "vanilla", "100ms", "none")
        )
    )
    assert ("cn", "pinned") in cells


def test_what_has_one_cell_is_its_total_and_bare_metal_has_changes_only(content: Json) -> None:
    assert [(r["kind"], r["what"]) for r in steps(content, "gvisor").values()] == [
        ("total", "gVisor sandbox, pinned")
    ]
    (change,) = steps(content, "bm").values()
    assert (change["kind"], change["what"]) == ("change", "huge pages malloc")
    assert change["points"] == pytest.approx(-0.1, abs=0.005)
    assert (change["start"], change["end"]) == (1.0, pytest.approx(0.9, abs=0.005))


def test_stalls_explain_and_stand_next_to_the_cells_under_a_quota(content: Json) -> None:
    found = steps(content, "cn")
    stalled = {what for what, row in found.items() if row["stalled"] is not None}
    assert stalled == {
        "CPU quota in place of pinned", "container, CPU quota", "quota period 10ms, CPU quota",
        "full quota burst, CPU quota",
    }  # fmt: skip
    assert found["container, CPU quota"]["stalled"] == pytest.approx(0.75)
    assert {row["huge"] for row in found.values()} == {0.5}


def test_the_page_says_it_in_a_sentence_draws_it_and_lists_it(content: Json) -> None:
    page = render(content)
    sentence = next(r["sentence"] for r in content["explained"] if r["platform"] == "cn")
    assert sentence.startswith("container, CPU quota (cn vanilla): +")
    assert sentence.index("CPU quota in place of pinned") < sentence.index("seccomp filter")
    assert sentence.replace("'", "&#39;") in page
    assert 'id="explained"' in page and 'id="explained-1-' in page
    assert page.count("of bare metal&#39;s time") > 2 and "n = 6" in page
    assert render(content) == page


def test_a_sweep_that_varied_nothing_alone_has_no_waterfall(quick: Folder) -> None:
    content = document(read_sweep(quick.path))
    assert content["explained"] == []
    assert "What the cost is made of" not in render(content)


def test_a_waterfall_is_of_the_replicates_that_all_its_cells_have(star: Folder) -> None:
    name = "cn-pinned-c01-host_network-image_classification-r03"
    (star.path / f"trials/{name}/result.json").unlink()
    found = steps(document(read_sweep(star.path)), "cn")
    counts = {row["kind"]: row["n"] for row in found.values()}
    assert counts == {"part": 5, "rest": 5, "total": 5, "mode": 5, "change": 6}


@pytest.mark.parametrize("replicates", [1, 2])
def test_few_replicates_have_no_interval_or_a_wide_one(folder: Folder, replicates: int) -> None:
    for replicate in range(1, replicates + 1):
        for platform, changed, ms in (
            ("bm", "", 20.0), ("cn", "", 21.0), ("cn", "seccomp_profile unconfined", 20.5),
        ):  # fmt: skip
            lay(folder, platform, "pinned", changed, replicate, ms + 0.01 * replicate)
    found = steps(document(read_sweep(folder.path)), "cn")
    assert (found["seccomp filter"]["low"] is None) == (replicates == 1)
    json.dumps(document(read_sweep(folder.path)), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seccomp": "filter"}, "seccomp_profile unconfined was requested, which is none"),
        ({"seccomp": None}, "the container has not reported it"),
    ],
)
def test_a_trial_whose_evidence_does_not_bear_out_what_was_varied_is_left_out(
    star: Folder, change: Json, why: str
) -> None:
    name = "cn-pinned-c01-unconfined-image_classification-r02"
    star.edit(f"trials/{name}/evidence.json", lambda e: e["before"]["enclosure"].update(change))
    (left,) = document(read_sweep(star.path))["rejected"]
    assert name in left["file"] and why in left["reason"]


def test_intervals_of_points_cover_what_they_claim() -> None:
    """Differences of ratios, of 5 and 10 replicates with up to 20% noise: 95%, within 2%."""
    chance = np.random.default_rng(2112)
    for n, spread in ((5, 0.05), (10, 0.05), (10, 0.2)):
        truth = [1.6, 1.03]  # of the geometric means, as all ratios here
        covered, times = 0, 2000
        for noise in chance.normal(0, spread, (times, 2, n)):
            logs = [np.log(ratio) + own for ratio, own in zip(truth, noise, strict=True)]
            value, parts = points(logs, {0: 1.0, 1: -1.0})
            half = half_width([parts])
            assert half is not None
            covered += abs(value - (truth[0] - truth[1])) <= half
        assert 0.93 <= covered / times <= 0.97, (n, spread, covered / times)


def test_what_explains_a_cost_was_counted_in_its_own_cells() -> None:
    plain = {factor.name: factor.default for factor in FACTORS}
    cell = {"platform": "cn", "mode": "vanilla", "cores": 1, "application": "a", "scale": "tiny",
            "scenario": "single_stream", **plain, "emulated": False}  # fmt: skip
    others = ({"neighbours": "1"}, {"variant": "slowed"})
    rows = [{**cell, "stalled": 0.5}, *({**cell, **other, "stalled": 0.1} for other in others)]
    assert list(explained._counted(pl.DataFrame(rows), "stalled").values()) == [0.5]
