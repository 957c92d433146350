"""Sweeps with a known difference, one or several a side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from virtbed_analysis import AnalysisError, engine, words
from virtbed_analysis.comparison import changed, compare
from virtbed_analysis.page import render_comparison

from .conftest import Folder, failure
from .test_latency import load
from .test_report import Page

RANDOM = np.random.default_rng(8)


def lay(path: Path, times: dict[tuple[str, str], float], **changes: Any) -> Path:
    folder = Folder(path)
    for replicate in range(1, 7):
        for (platform, mode), ms in times.items():
            noisy = ms * float(np.exp(0.01 * RANDOM.standard_normal()))
            folder.trial(platform, mode, replicate, {"a": [noisy], "b": [3 * noisy]}, **changes)
    return path


BEFORE = {("bm", "pinned"): 10.0, ("cn", "vanilla"): 13.0, ("vm", "pinned"): 12.0}
MENDED = BEFORE | {("cn", "vanilla"): 10.5}


def several(path: Path, name: str, times: dict[tuple[str, str], float], days: int) -> list[Path]:
    """Lay sweeps of several days: on each the host is faster or slower by some per cent."""
    speeds = np.exp(0.01 * np.array([-1, 1, 0.5, -0.5]))[:days]
    return [
        lay(path / f"{name}{day}", {cell: ms * float(speed) for cell, ms in times.items()})
        for day, speed in enumerate(speeds)
    ]


def found(message: dict[str, Any], what: str) -> dict[str, str]:
    return {row["platform"]: changed(row[what]) for row in message["cells"] if row[what]}


def test_a_slower_host_changes_times_and_not_costs(tmp_path: Path) -> None:
    slower = {cell: 1.5 * ms for cell, ms in BEFORE.items()}
    comparison = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", slower))
    for row in comparison["cells"]:
        assert row["time"]["value"] == pytest.approx(1.5, rel=0.03)
    costs = {(row["platform"], row["mode"]): row["cost"] for row in comparison["cells"]}
    assert costs["bm", "pinned"] is None
    assert costs["cn", "vanilla"]["low"] < 1 < costs["cn", "vanilla"]["high"]


def test_times_of_one_sweep_per_side_have_no_interval(tmp_path: Path) -> None:
    comparison = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", MENDED))
    assert comparison["unit"] == "replicate"
    assert comparison["summary"].startswith(
        "Two sweeps, one per side: differences between days are"
    )
    for row in comparison["cells"]:
        time = row["time"]
        assert (time["low"], time["high"], time["answer"]) == (None, None, "cannot tell")


def test_a_platform_that_was_fixed_costs_less(tmp_path: Path) -> None:
    comparison = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", MENDED))
    assert found(comparison, "cost")["cn"] == "less"
    assert comparison["summary"].endswith(
        "Of 2 cells, 0 cost, against bare metal, clearly more in the second, 1 clearly less, "
        f"{list(found(comparison, 'cost').values()).count('equivalent')} as much within 3%, "
        f"{list(found(comparison, 'cost').values()).count('cannot tell')} undecided."
    )


def test_a_change_is_equivalent_only_if_its_interval_is_within_the_margin(tmp_path: Path) -> None:
    sweeps = lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", BEFORE)
    assert set(found(compare(*sweeps, margin=0.2), "cost").values()) == {"equivalent"}
    assert set(found(compare(*sweeps, margin=0.001), "cost").values()) == {"cannot tell"}


def test_with_several_sweeps_per_side_the_sweep_is_the_unit(tmp_path: Path) -> None:
    before, after = (several(tmp_path, *side) for side in (("a", BEFORE, 2), ("b", MENDED, 3)))
    comparison = compare(before, after)
    assert comparison["unit"] == "sweep" and len(comparison["first"]) == 2
    assert "2 against 3 sweeps" in comparison["summary"]
    (cn,) = [row for row in comparison["cells"] if row["platform"] == "cn"]
    assert cn["time"]["n"] == cn["cost"]["n"] == 2
    assert cn["cost"]["value"] == pytest.approx(10.5 / 13, rel=0.02)
    assert changed(cn["cost"]) == "less"
    assert cn["time"]["low"] is not None


def test_one_new_sweep_is_judged_by_how_the_old_ones_differ(tmp_path: Path) -> None:
    before, (after,) = (several(tmp_path, *side) for side in (("a", BEFORE, 4), ("b", MENDED, 1)))
    comparison = compare(before, [after])
    (cn,) = [row for row in comparison["cells"] if row["platform"] == "cn"]
    assert changed(cn["time"]) == changed(cn["cost"]) == "less"
    assert "A single sweep does not show differences between days" in comparison["summary"]
    assert "single sweep" not in compare(before[:2], before[2:])["summary"]


def test_a_folder_without_results_is_refused_and_the_one_inside_is_named(tmp_path: Path) -> None:
    """As an unpacked archive, whose results lie one folder deeper."""
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    one, other = lay(unpacked / "a", BEFORE), lay(tmp_path / "b", MENDED)
    assert compare(one, other)["cells"]
    with pytest.raises(AnalysisError, match=f"unpacked archive has them in {one}"):
        compare(unpacked, other, fail_above=0.03)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(AnalysisError, match=r"has neither design\.json nor trials; give"):
        compare(other, tmp_path / "nothing")


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (1, 4)])
def test_intervals_of_sweeps_cover_when_days_differ(sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(sizes)
    hits = []
    for _ in range(1_500):
        first, second = (random.normal(0, 0.05, n) for n in sizes)
        found = engine.effect("", [-first, second], pooled=True)
        hits.append(found.low is not None and found.low <= 1 <= (found.high or 0))
    assert 0.93 <= np.mean(hits) <= 0.99  # Welch's of two and two is wider than it need be


@pytest.mark.parametrize(
    ("factor", "limit", "verdict"),
    [(1.1, 0.03, "above"), (1.0, 0.2, "not above"), (1.0, 0.001, "cannot tell")],
)
def test_a_rise_is_above_the_limit_or_not_above_or_undecided(
    tmp_path: Path, factor: float, limit: float, verdict: str
) -> None:
    raised = BEFORE | {("cn", "vanilla"): 13.0 * factor}
    comparison = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", raised), fail_above=limit)
    fail = comparison["fail"]
    assert (fail["verdict"], fail["judged"]) == (verdict, 2)
    assert [row["platform"] for row in fail["above"]] == (["cn"] if verdict == "above" else [])
    assert words.rise(fail) in render_comparison(comparison).replace("&#39;", "'")
    json.dumps(comparison, allow_nan=False)


def test_a_rise_without_any_interval_is_undecided(tmp_path: Path) -> None:
    alone = {("bm", "pinned"): 10.0}
    comparison = compare(lay(tmp_path / "a", alone), lay(tmp_path / "b", alone), fail_above=0.5)
    assert comparison["fail"]["verdict"] == "cannot tell" and not comparison["fail"]["judged"]


def lay_queue(path: Path, waits: dict[str, float]) -> Path:
    folder = Folder(path)
    for replicate in range(1, 7):
        for platform, wait in waits.items():
            noise = float(np.exp(0.005 * RANDOM.standard_normal()))
            load(
                folder, "server", [wait * noise] * 20, platform=platform, replicate=replicate,
                e2e_ms=20.0 * noise,
            )  # fmt: skip
    return path


def test_a_longer_queue_is_a_rise_even_if_requests_take_as_long(tmp_path: Path) -> None:
    before = lay_queue(tmp_path / "a", {"bm": 5.0, "cn": 6.0})
    after = lay_queue(tmp_path / "b", {"bm": 5.0, "cn": 60.0})
    comparison = compare(before, after, fail_above=0.03)
    assert comparison["fail"]["verdict"] == "above"
    (cn,) = comparison["fail"]["above"]
    assert cn["effect"]["value"] == pytest.approx(80 / 26, rel=0.03)
    assert "queue" in comparison["summary"] and "queue" in render_comparison(comparison)


def test_a_cell_that_no_longer_gives_results_may_have_risen(tmp_path: Path) -> None:
    few = {cell: ms for cell, ms in BEFORE.items() if cell[0] != "cn"}
    fail = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", few), fail_above=0.5)["fail"]
    assert fail["verdict"] == "cannot tell"
    assert "container" in words.rise(fail) or "cn vanilla" in words.rise(fail)
    assert "none in the second" in words.rise(fail)


@pytest.mark.parametrize(("platform", "side"), [("cn", "b"), ("bm", "a")])
def test_trials_that_are_lost_may_hide_a_rise(tmp_path: Path, platform: str, side: str) -> None:
    sides = {name: lay(tmp_path / name, BEFORE) for name in ("a", "b")}
    assert compare(*sides.values(), fail_above=0.5)["fail"]["verdict"] == "not above"
    for replicate in (2, 4):
        mode = "vanilla" if platform == "cn" else "pinned"
        (trial,) = (sides[side] / "trials").glob(f"{platform}-{mode}-*-r{replicate:02}")
        (trial / "result.json").unlink()
        (trial / "evidence.json").unlink()
        (trial / "failure.json").write_text(json.dumps(failure(trial.name, "still running")))
    comparison = compare(*sides.values(), fail_above=0.5)
    assert comparison["fail"]["verdict"] == "cannot tell"
    assert "2 of 6 trials" in words.rise(comparison["fail"])
    json.dumps(comparison, allow_nan=False)


def test_a_cell_that_shares_no_input_may_have_risen(tmp_path: Path) -> None:
    one, folder = lay(tmp_path / "a", BEFORE), Folder(tmp_path / "b")
    for replicate in range(1, 7):
        for (platform, mode), ms in BEFORE.items():
            own = ms * float(np.exp(0.01 * RANDOM.standard_normal()))
            folder.trial(platform, mode, replicate, {"c" if platform == "cn" else "a": [own]})
    fail = compare(one, folder.path, fail_above=0.5)["fail"]
    assert fail["verdict"] == "cannot tell" and fail["judged"] == 1
    assert "no common replicate or input" in words.rise(fail)


def test_a_host_of_half_the_speed_does_not_pass_without_an_interval(tmp_path: Path) -> None:
    slower = {cell: 2 * ms for cell, ms in BEFORE.items()}
    fail = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", slower), fail_above=0.2)["fail"]
    assert fail["verdict"] == "cannot tell"
    assert "no interval" in words.rise(fail)


def test_differences_and_cells_of_one_side_only_are_named(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    other = lay(tmp_path / "b", {("bm", "pinned"): 10.0}, image="sha256:" + "e" * 64)
    comparison = compare(one, other)
    (image,) = (row for row in comparison["differs"] if row["item"] == "Image digest")
    assert image["first"] != image["second"]
    assert [row["platform"] for row in comparison["only_first"]] == ["vm", "cn"]
    assert comparison["only_second"] == []
    json.dumps(comparison, allow_nan=False)


def test_sweeps_of_one_side_that_are_unlike_are_named(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    other = lay(tmp_path / "b", BEFORE, image="sha256:" + "e" * 64)
    comparison = compare([one, other], lay(tmp_path / "c", BEFORE))
    assert ("first", "Image digest") in {(row["side"], row["item"]) for row in comparison["unlike"]}


def test_a_sweep_is_not_compared_with_itself_nor_with_a_copy(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    with pytest.raises(AnalysisError, match="compared with itself"):
        compare(one, one / "trials" / "..")
    copy = tmp_path / "copy"
    shutil.copytree(one, copy)
    with pytest.raises(AnalysisError, match="18 of 18 trials in common, the first bm-pinned"):
        compare(one, copy)
    shutil.rmtree(next((copy / "trials").glob("bm-*")))
    with pytest.raises(AnalysisError, match="17 of 18 trials in common"):
        compare([one, lay(tmp_path / "c", BEFORE)], [lay(tmp_path / "d", BEFORE), copy])


def test_suspect_trials_of_either_side_are_reported(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    assert "suspect" not in compare(one, lay(tmp_path / "b", BEFORE))["summary"]
    busy = lay(tmp_path / "c", BEFORE, confounders={"steal_share": 0.3})
    comparison = compare(one, busy)
    assert (
        "Suspect are 0 of 18 trials of the first and 18 of 18 of the second"
        in comparison["summary"]
    )
    assert comparison["suspect"] == {"first": 0, "second": 18}


def test_a_copy_with_other_labels_is_a_copy(tmp_path: Path) -> None:
    one, copy = lay(tmp_path / "a", BEFORE), tmp_path / "b"
    shutil.copytree(one, copy)
    for path in copy.rglob("*.json"):
        text = path.read_text().replace("b" * 64, "d" * 64).replace("bench01", "bench02")
        path.write_text(text.replace("2026-01-02", "2026-03-04"))
    with pytest.raises(AnalysisError, match="18 of 18 trials in common"):
        compare(one, copy)


def test_the_same_plan_on_another_day_is_another_sweep(tmp_path: Path) -> None:
    one, other = lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", BEFORE)
    assert compare(one, other)["cells"]


def test_inputs_of_one_side_only_are_in_neither_time_nor_cost(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    folder = Folder(tmp_path / "b")
    for replicate in range(1, 5):
        for (platform, mode), ms in BEFORE.items():
            own = ms * (1 + 0.01 * (-1) ** replicate)
            times = {"a": [own], "c": [900.0 if platform == "cn" else 9.0]}
            folder.trial(platform, mode, replicate, times)
    comparison = compare(one, folder.path)
    for row in comparison["cells"]:
        for effect in filter(None, (row["time"], row["cost"])):
            assert effect["value"] == pytest.approx(1, rel=0.05)


def test_the_page_is_whole_and_has_the_same_numbers(tmp_path: Path) -> None:
    comparison = compare(several(tmp_path, "a", BEFORE, 2), several(tmp_path, "b", BEFORE, 2))
    page = Page(render_comparison(comparison))
    assert page.open == [] and all(link.startswith("#") for link in page.links)
    numbers: list[str] = []
    for row in comparison["cells"]:
        numbers.append(str(row["cores"]))
        for effect in (row["time"], row["cost"]):
            ends = [words.ratio(effect[end]) for end in ("value", "low", "high")] if effect else []
            numbers += (
                ["{} ({} to {})".format(*ends), changed(effect)] if ends else [words.NONE] * 2
            )
    assert page.tables["cells"] == numbers


OTHER_WORK: dict[str, tuple[tuple[str, str], Any]] = {
    "versions of one application": (("application", "version"), "2"),
    "models of one application": (("application", "model"), "EfficientNet-B7"),
    "seeds of the inputs": (("settings", "seed"), 7),
    "rules for one application": (("settings", "rules"), "study"),
}


def changed_in(path: Path, where: tuple[str, str], value: Any) -> Path:
    """Lay a sweep whose trials all have another value."""
    folder = Folder(path)
    for replicate in range(1, 5):
        for platform, mode in BEFORE:
            name = folder.trial(
                platform, mode, replicate, {"a": [10.0 + replicate + RANDOM.random()]}
            )

            def change(result: Any) -> None:
                result[where[0]][where[1]] = value

            folder.edit(f"trials/{name}/result.json", change)
    if where == ("settings", "seed"):
        folder.design["seed"] = value
        folder.write("design.json", folder.design)
    return path


@pytest.mark.parametrize("several", OTHER_WORK)
def test_sweeps_of_other_work_are_not_compared(tmp_path: Path, several: str) -> None:
    one = lay(tmp_path / "a", BEFORE)
    other = changed_in(tmp_path / "b", *OTHER_WORK[several])
    with pytest.raises(AnalysisError, match=f"2 {several} are not compared, since the work"):
        compare(one, other)
    with pytest.raises(AnalysisError, match="are not compared"):
        compare([one, other], [lay(tmp_path / "c", BEFORE)])


def test_differences_that_a_comparison_may_be_about_are_named(tmp_path: Path) -> None:
    """An upgrade of the frameworks, another kernel: a reader asks for what they change."""
    one = lay(tmp_path / "a", BEFORE)
    newer = {"tensorflow": "2.22.0", "keras": "3.15", "backend": "tensorflow"}
    comparison = compare(one, changed_in(tmp_path / "b", ("application", "frameworks"), newer))
    assert "Frameworks" in {row["item"] for row in comparison["differs"]}
    assert comparison["cells"]


def test_sweeps_without_a_common_cell_list_what_each_has(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    comparison = compare(one, lay(tmp_path / "b", BEFORE, scale="tiny"), fail_above=0.03)
    assert "(trained, single_stream, trained weights)" in comparison["summary"]
    assert "(tiny, single_stream, seeded weights)" in comparison["summary"]
    assert comparison["fail"]["verdict"] == "cannot tell"
    render_comparison(comparison)
