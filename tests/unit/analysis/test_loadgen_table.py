"""LoadGen's verdicts and figures next to ours, latency under load, and throughput."""

from __future__ import annotations

import pytest

from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render

from .conftest import Folder, Json
from .test_latency import load, queries_of


def reported(folder: Folder) -> tuple[Json, str]:
    content = document(read_sweep(folder.path))
    own: Json = content["loadgen"]
    return own, render(content)


def says(folder: Folder, trial: str, **changes: object) -> None:
    folder.edit(f"trials/{trial}/result.json", lambda r: r["loadgen"].update(changes))


def test_invalid_trials_are_counted_with_their_reasons(folder: Folder) -> None:
    early = " * Only processed {} queries.  * Need to process at least 64 queries."
    for replicate, reasons in enumerate(
        ([early.format(20)], [early.format(21)], ["Reduce target QPS."], []), start=1
    ):
        trial = load(folder, "server", [1.0] * 20, replicate=replicate)
        says(folder, trial, validity="INVALID", reasons=reasons)
    load(folder, "server", [1.0] * 20, replicate=5)
    own, page = reported(folder)
    (cell,) = own["cells"]
    assert (cell["valid"], cell["trials"]) == (1, 5)
    assert {row["reason"]: row["trials"] for row in cell["reasons"]} == {
        "* Only processed 20 queries. * Need to process at least 64 queries.": 2,
        "Reduce target QPS.": 1,
        "LoadGen gives no reason": 1,
    }
    assert "4 of 5 trials are INVALID" in page
    assert "Reduce target QPS. (1 trial)" in page
    # Runs that are only too short give no warning: the quick rules promise no more.
    assert "2 trials are INVALID by MLPerf LoadGen&#39;s rules, and not only because of" in page


def test_loadgens_percentiles_and_ours_are_held_side_by_side(folder: Folder) -> None:
    """LoadGen takes place floor(q n) from 0: of 1 to 100 ms, the 91st and the 100th."""
    waits = [float(ms) for ms in range(1, 101)]
    like = {"50.00": 71_000_000, "90.00": 111_000_000, "99.00": 120_000_000}
    says(folder, load(folder, "server", waits), percentiles_ns=like)
    own, page = reported(folder)
    (trial,) = own["trials"]
    assert [pair["ours_ms"] for pair in trial["percentiles"]] == [71, 111, 120]
    assert (trial["apart"], trial["differs"]) == (0, False)
    assert "agree within 1%" in page

    unlike = load(folder, "server", waits, replicate=2)
    says(folder, unlike, percentiles_ns=like | {"99.00": 150_000_000})
    own, page = reported(folder)
    (cell,) = own["cells"]
    assert cell["differ"] == 1
    assert cell["worst"] == {"trial": unlike, "apart": pytest.approx(0.2)}
    assert f"1; the most, 20.0%, in {unlike}" in page


def test_a_wait_in_single_stream_is_detected(folder: Folder) -> None:
    trial = load(folder, "single_stream", [30.0] * 20)
    says(folder, trial, percentiles_ns={"50.00": 50_000_000, "90.00": 50_000_000})
    (row,) = reported(folder)[0]["trials"]
    assert row["differs"] and row["apart"] == pytest.approx(30 / 50)


def test_percentiles_that_loadgen_does_not_name_are_none(folder: Folder) -> None:
    trial = load(folder, "server", [1.0] * 20)
    says(folder, trial, percentiles_ns={"12.34": 1}, samples_per_second=None)
    (row,) = reported(folder)[0]["trials"]
    assert {pair["loadgen_ms"] for pair in row["percentiles"]} == {None}
    assert (row["apart"], row["differs"]) == (None, False)


def test_percentiles_of_a_query_of_several_are_of_the_whole(folder: Folder) -> None:
    trial = load(folder, "multi_stream", queries_of(8, 20.0, 3), queries=3)
    says(folder, trial, percentiles_ns={"50.00": 160_010_000})
    (row,) = reported(folder)[0]["trials"]
    assert row["percentiles"][0] == {"percentile": 50, "loadgen_ms": 160.01, "ours_ms": 160.01}
    assert row["percentiles"][2]["loadgen_ms"] is None  # unknown, so not held against ours
    assert not row["differs"]


def test_the_ratio_of_latency_is_shown_with_that_of_e2e(folder: Folder) -> None:
    """The container takes 1.25 times as long, and its requests wait for another five times."""
    for replicate, drift in ((1, 1.0), (2, 1.1), (3, 0.9)):
        load(folder, "server", [5.0 * drift] * 20, e2e_ms=20.0 * drift, replicate=replicate)
        load(
            folder, "server", [50.0 * drift] * 20,
            platform="cn", e2e_ms=25.0 * drift, replicate=replicate,
        )  # fmt: skip
    own, page = reported(folder)
    metal, container = own["latency"]
    assert container["latency_ratio"] == pytest.approx(75 / 25, rel=1e-5)
    assert container["e2e_ratio"] == pytest.approx(1.25)
    assert container["latency_ratio_low"] == pytest.approx(3, rel=1e-5)  # the drift is of both
    assert metal["latency_ratio"] is None and metal["latency_typical_ms"] == pytest.approx(
        25 * (0.9 * 1.1) ** (1 / 3)
    )
    assert container["latency_p90_ms"] == pytest.approx(82.5)
    assert container["latency_p99_ms"] is None
    assert (
        "Latency under load" in page
        and '3.000 <span class="faint">(3.000 to 3.000)</span><br><span class="faint">of latency<'
        in " ".join(page.split())
    )
    cell = document(read_sweep(folder.path))["cells"][1]
    assert (cell["ratio"], cell["latency_ratio"]) == (
        pytest.approx(3, rel=1e-5),
        pytest.approx(3, rel=1e-5),
    )


def test_a_query_of_several_is_compared_whole(folder: Folder) -> None:
    for platform, e2e_ms in (("bm", 20.0), ("cn", 30.0)):
        waits = queries_of(8, e2e_ms, 3)
        load(folder, "multi_stream", waits, queries=3, platform=platform, e2e_ms=e2e_ms)
    _, container = reported(folder)[0]["latency"]
    assert container["latency_typical_ms"] == pytest.approx(240.01)
    assert container["latency_ratio"] == pytest.approx(240.01 / 160.01)


def test_offline_has_throughput_instead(folder: Folder) -> None:
    for platform, e2e_ms, stated in (("bm", 20.0, 50.0), ("cn", 25.0, 44.0)):
        for replicate in (1, 2):
            trial = load(
                folder, "offline", queries_of(20, e2e_ms, 1),
                queries=1, platform=platform, e2e_ms=e2e_ms, replicate=replicate,
            )  # fmt: skip
            says(folder, trial, samples_per_second=stated)
    own, page = reported(folder)
    assert own["latency"] == []
    metal, container = own["throughput"]
    assert metal["per_second"] == pytest.approx(50, rel=1e-3)
    assert container["throughput_ratio"] == pytest.approx(0.8, rel=1e-3)
    assert [row["differ"] for row in own["cells"]] == [0, 2]  # 44 stated, 40 counted
    assert "latency has no meaning" in page


def test_single_stream_alone_has_no_table_of_latency(quick: Folder) -> None:
    own, page = reported(quick)
    assert (own["latency"], own["throughput"]) == ([], [])
    assert "Latency under load" not in page
    assert {row["differ"] for row in own["cells"]} == {0}
    assert {row["platform"] for row in own["trials"]} == {"bm", "cn"}  # no emulated one


def test_trials_are_listed_in_one_order(quick: Folder) -> None:
    own, _ = reported(quick)
    for cell in own["cells"]:
        of = ("platform", "mode")
        rows = [row for row in own["trials"] if all(row[key] == cell[key] for key in of)]
        names = [row["trial"] for row in rows]
        assert names == sorted(names) and len(names) == 5
    assert own == reported(quick)[0]


def test_each_ratio_and_figure_has_the_mark_of_its_replicates(folder: Folder) -> None:
    """The container's own work is far out in one replicate; its latency is as steady as ever."""
    for replicate in range(1, 13):
        own = 20.0 * (1.5 if replicate == 7 else 1 + 0.001 * (replicate % 3))
        load(folder, "server", [5.0] * 20, e2e_ms=20.0, replicate=replicate)
        load(
            folder, "server", [60.0 - own + 0.01 * (replicate % 4)] * 20,
            platform="cn", e2e_ms=own, replicate=replicate,
        )  # fmt: skip
    content = document(read_sweep(folder.path))
    _, container = content["loadgen"]["latency"]
    number = container["e2e_doubt"]
    assert number and container["doubt"] != number
    (row,) = [row for row in content["doubts"]["rows"] if row["number"] == number]
    assert row["of"] == "e2e over bare metal's, without the queue"
    page = render(content)
    assert page.count(f'href="#doubt-{number}"') == 1
    cells = content["loadgen"]["cells"]
    assert [cell["doubt"] for cell in cells] == [cell["doubt"] for cell in content["cells"]]


def test_tables_made_of_a_cells_ratio_have_its_mark(folder: Folder) -> None:
    for replicate in range(1, 13):
        suspect = {"steal_share": 0.2} if replicate == 2 else None
        for cores in (1, 2):
            for platform, late in (("bm", 1.0), ("cn", 1.5 if replicate == 7 else 1.0)):
                times = [20.0 * late / cores + 0.001 * (replicate % 5 + cores)] * 3
                mode = "pinned" if platform == "bm" else "vanilla"
                folder.trial(
                    platform, mode, replicate, {"a": times}, cores=cores, confounders=suspect
                )
    content = document(read_sweep(folder.path))
    marks = [cell["doubt"] for cell in content["cells"] if cell["platform"] == "cn"]
    assert all(marks)
    assert [row["doubt"] for row in content["without_suspects"]] == marks
    assert [row["doubt"] for row in content["container_to_host"]["rows"]] in (marks, [])
    assert all("doubt" in row for row in content["scale_up"])
