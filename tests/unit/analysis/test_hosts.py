"""Several hosts in one sweep: pooled if they are alike, else reported separately."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from virtbed_analysis import (
    AnalysisError,
    archive,
    archive_problems,
    frames,
    load,
    read_sweep,
    report,
)
from virtbed_analysis.crate import _other_report
from virtbed_analysis.document import document
from virtbed_analysis.estimate import cells
from virtbed_analysis.hosts import UnlikeHostsError, _variance, spread
from virtbed_analysis.intervals import t_quantile
from virtbed_contract import identifiers

from .conftest import Folder, failure

Json = dict[str, Any]
HOSTS = ("bench01", "bench02", "bench03")
WOBBLE = (1.0, 1.01, 0.99, 1.004, 0.996, 1.002)
COST = 1.2


def facts() -> Json:
    return {
        "cpu": {"model": "Xeon Test", "online": list(range(16))},
        "machine": {
            "id": "1", "model": "Dell R650", "firmware": "Dell 1.2 2024", "microcode": "0x1",
            "topology": "1 Package, 16 PU",
        },
        "memory_mib": {"total": 64_000},
        "kernel": "6.1.0",
        "engines": {"docker": {"name": "Docker", "version": "20.10"}},
    }  # fmt: skip


def reported(folder: Folder, host: str, **changes: Any) -> None:
    """Write a host's report."""
    content = {
        "schema": identifiers.HOST_REPORT,
        "host": host,
        "ok": True,
        "accelerator": None,
        "facts": facts() | changes,
        "platforms": [],
    }
    folder.write(f"doctor/{host}.json", content)


def lay(
    folder: Folder,
    replicates: int = 2,
    slow: dict[str, float] | None = None,
    costs: dict[str, float] | None = None,
) -> Folder:
    """Lay a sweep of three hosts, which take turns; `slow` and `costs` are by host."""
    number = 0
    for turn in range(replicates):
        for at, host in enumerate(HOSTS):
            number += 1
            time = 20 * WOBBLE[(turn + at) % 6] * (slow or {}).get(host, 1.0)
            cost = (costs or {}).get(host, COST) * (1 + (WOBBLE[(2 * turn + at) % 6] - 1) / 4)
            for platform, own in (("bm", 1.0), ("cn", cost)):
                name = folder.trial(platform, "pinned", number, {"a": [time * own] * 3})
                folder.edit(
                    f"trials/{name}/result.json",
                    lambda r, host=host: r["trial"].update(host=host),  # type: ignore[misc]
                )
    for host in HOSTS:
        reported(folder, host)
    return folder


def test_hosts_that_are_alike_are_pooled_and_their_spread_is_reported(folder: Folder) -> None:
    sweep = read_sweep(lay(folder).path)
    assert set(sweep.trials["hosts"]) == {"bench01; bench02; bench03"}
    (row,) = (r for r in cells(sweep.samples).to_dicts() if r["platform"] == "cn")
    assert row["ratio_replicates"] == 6 and row["ratio"] == pytest.approx(COST, rel=0.01)
    content = document(sweep)
    found = content["hosts"]
    assert found["names"] == list(HOSTS) and "not for another one" in found["sentence"]
    (apart,) = found["rows"]
    assert [one["replicates"] for one in apart["hosts"]] == [2, 2, 2]
    assert apart["between"] < 0.01 and apart["range"] < 0.01 and not apart["differ"]
    assert found["sentence"] in content["headline"]["sure"]
    hosts_of = next(r["values"] for r in content["provenance"] if r["item"] == "Host")
    assert hosts_of == list(HOSTS)


def test_one_host_has_no_part_on_hosts(quick: Folder) -> None:
    content = document(read_sweep(quick.path))
    assert content["hosts"] is None and "Pooled" not in " ".join(content["headline"]["sure"])


def test_a_slow_host_is_not_pooled_and_the_report_gives_the_ratio(folder: Folder) -> None:
    lay(folder, slow={"bench03": 1.56})
    with pytest.raises(UnlikeHostsError, match=r"bench03 takes 1\.5\d+ times as long as bench0"):
        read_sweep(folder.path)
    samples = load(folder.path)  # for whoever takes them apart
    with pytest.raises(AnalysisError, match="3 values of host found"):
        cells(samples)
    paths = report(folder.path)
    content = json.loads(paths.json.read_text())
    assert content["schema"] == identifiers.HOSTS
    (why,) = content["why"]
    assert why.startswith("bench03 takes 1.5") and "image_classification" in why
    (row,) = content["cells"]
    assert set(row["hosts"]) == set(HOSTS)
    assert all(one["ratio"] == pytest.approx(COST, rel=0.01) for one in row["hosts"].values())
    assert all(one["ratio_replicates"] == 2 for one in row["hosts"].values())
    page = paths.html.read_text()
    for host in HOSTS:
        assert f'href="report-{host}.html"' in page
        own = json.loads((folder.path / f"report-{host}.json").read_text())
        assert own["counts"]["analysed"] == 4 and own["counts"]["waiting"] == 0
        (cell,) = (c for c in own["cells"] if c["baseline"])
        assert cell["e2e_typical_ms"] == pytest.approx(31 if host == "bench03" else 20, rel=0.03)


def test_a_slow_host_without_bare_metal_is_not_pooled(folder: Folder) -> None:
    lay(folder, slow={"bench03": 1.56})
    for replicate in (3, 6):
        (place,) = folder.path.glob(f"trials/bm-*r{replicate:02d}")
        shutil.rmtree(place)
    with pytest.raises(UnlikeHostsError, match=r"bench03 takes 1\.5\d+ times .*, on cn pinned"):
        read_sweep(folder.path)


def test_hosts_that_turn_out_alike_leave_no_report_of_one_alone(folder: Folder) -> None:
    lay(folder)
    reported(folder, "bench02", kernel="6.2.0")
    report(folder.path)
    assert len(list(folder.path.glob("report-*"))) == 6
    reported(folder, "bench02")
    assert json.loads(report(folder.path).json.read_text())["hosts"]["names"] == list(HOSTS)
    assert not list(folder.path.glob("report-*"))


def test_a_large_folder_is_not_read_once_per_host(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    usual = frames._read
    monkeypatch.setattr(frames, "_read", lambda path: reads.append(path) or usual(path))
    report(lay(folder, slow={"bench03": 1.56}).path)
    assert len(reads) == 2  # to find that they are unlike, and for the parts


def test_trials_without_a_host_are_listed_on_the_common_page(folder: Folder) -> None:
    """Of a replicate without any result nobody knows the host."""
    lay(folder, slow={"bench03": 1.56})
    whole = json.loads(report(folder.path).json.read_text())
    assert whole["of_no_host"] == {"trials": 0, "failed": []}
    broken, _ = (folder.plan(platform, "pinned", 7)["id"] for platform in ("bm", "cn"))
    folder.write(f"trials/{broken}/failure.json", failure(broken, "port <22> taken"))
    torn = folder.plan("bm", "pinned", 8)["id"]
    (folder.path / "trials" / torn).mkdir()
    (folder.path / "trials" / torn / "result.json").write_text("{")
    paths = report(folder.path)
    left = json.loads(paths.json.read_text())["of_no_host"]
    assert left["trials"] == 3 and [row["trial"] for row in left["failed"]] == [broken, torn]
    page = paths.html.read_text()
    assert f"{broken}: port &lt;22&gt; taken" in page
    assert "3 trials of replicates for which no host has a result: 2 failed or left out" in page


def test_the_part_of_a_host_has_its_results_and_failures(folder: Folder) -> None:
    lay(folder, slow={"bench03": 1.56})
    sweep = read_sweep(folder.path, "bench03")
    assert set(sweep.trials["host"]) == set(sweep.trials["hosts"]) == {"bench03"}
    assert sweep.doctor and sweep.doctor.host == "bench03"
    assert sweep.design and {row.replicate for row in sweep.design.trials} == {3, 6}
    with pytest.raises(AnalysisError, match=r"results of bench01, bench02, bench03 found, one of"):
        read_sweep(folder.path, "bench04")


UNLIKE: dict[str, tuple[Callable[[Json], Any], str]] = {
    "model": (lambda f: f["machine"].update(model="HPE"), "model Dell R650 on bench01 and bench03"),
    "firmware": (lambda f: f["machine"].update(firmware="2"), "firmware Dell 1.2 2024 on bench01"),
    "topology": (lambda f: f["machine"].update(topology="2 Package"), "topology 1 Package, 16 PU"),
    "microcode": (lambda f: f["machine"].update(microcode=None), "not known on bench02"),
    "memory": (lambda f: f["memory_mib"].update(total=32_000), "memory 64000 MiB on bench01"),
    "kernel": (lambda f: f.update(kernel="6.2.0"), "kernel 6.1.0 on bench01 and bench03, 6.2.0 on"),
    "engine": (lambda f: f["engines"]["docker"].update(version="26"), "Docker 20.10 on bench01"),
    "CPUs": (lambda f: f["cpu"].update(online=[0, 1]), "online CPUs 16 on bench01 and bench03, 2"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_hosts_that_are_unlike_are_not_pooled(folder: Folder, what: str) -> None:
    change, why = UNLIKE[what]
    other = facts()
    change(other)
    lay(folder)
    reported(folder, "bench02", **other)
    with pytest.raises(UnlikeHostsError) as raised:
        read_sweep(folder.path)
    assert why in str(raised.value)


def test_a_host_without_a_report_is_not_alike(folder: Folder) -> None:
    lay(folder)
    (folder.path / "doctor/bench02.json").unlink()
    with pytest.raises(UnlikeHostsError, match="host report there on bench01 and bench03, none on"):
        read_sweep(folder.path)


def test_kernel_settings_seen_by_trials_are_compared_except_the_disk(folder: Folder) -> None:
    lay(folder)

    def saw(host: str, **changes: str) -> None:
        for path in folder.path.glob("trials/*/result.json"):
            if json.loads(path.read_text())["trial"]["host"] == host:
                name = str(path.relative_to(folder.path))
                folder.edit(
                    name, lambda r: r["environment"]["kernel_settings"].update(changes)
                )  # fmt: skip

    for host in HOSTS:
        saw(host, cmdline=f"quiet; root=UUID={host}")
    read_sweep(folder.path)
    saw("bench02", cmdline="quiet; root=UUID=bench02; mitigations=off")
    with pytest.raises(UnlikeHostsError) as raised:
        read_sweep(folder.path)
    assert "line nothing more on bench01 and bench03, mitigations=off on bench02" in str(
        raised.value
    )


def test_a_small_difference_of_memory_is_tolerated(folder: Folder) -> None:
    lay(folder)
    reported(folder, "bench02", memory_mib={"total": 64_300})
    assert len(read_sweep(folder.path).hosts) == 3


def test_a_cell_whose_cost_differs_between_hosts_is_marked(folder: Folder) -> None:
    """Their bare metal is as fast, and everything reported is alike: only the ratio tells."""
    lay(folder, 4, costs={"bench02": 1.5})
    content = document(read_sweep(folder.path))
    (apart,) = content["hosts"]["rows"]
    assert apart["differ"] and 0.1 < apart["between"] < 0.2 and apart["range"] > 0.2
    (cell,) = (c for c in content["cells"] if c["platform"] == "cn")
    assert "hosts differ" in {mark["text"] for mark in cell["marks"]}
    (warned,) = (w["text"] for w in content["headline"]["warnings"] if "between hosts" in w["text"])
    assert warned.startswith("1 of 1 ratio differs between hosts")


def test_a_pair_is_never_made_of_two_hosts(folder: Folder) -> None:
    lay(folder)
    name = next(p.parent.name for p in folder.path.glob("trials/cn*/result.json"))
    folder.edit(f"trials/{name}/result.json", lambda r: r["trial"].update(host="bench09"))
    with pytest.raises(AnalysisError, match="results of 2 hosts are not pooled"):
        read_sweep(folder.path)


def test_without_a_spread_a_host_beyond_the_margin_is_not_pooled(folder: Folder) -> None:
    """One replicate a host: nothing tells that the difference is chance."""
    lay(folder, 1, slow={"bench03": 1.1})
    with pytest.raises(UnlikeHostsError, match=r"bench03 takes 1\.\d+ .*no interval: 1 replicate"):
        read_sweep(folder.path)


def test_the_test_between_hosts_keeps_its_level_and_finds_their_spread() -> None:
    chance = np.random.default_rng(2112)
    sizes = (3, 5, 4)

    def drawn(between: float) -> list[tuple[float | None, float | None]]:
        return [
            _variance([chance.normal(chance.normal(0, between), 0.01, size) for size in sizes])
            for _ in range(1500)
        ]

    alike = [p for _, p in drawn(0.0) if p is not None]
    assert np.mean(np.array(alike) < 0.05) == pytest.approx(0.05, abs=0.02)
    found = np.array([value for value, _ in drawn(0.05) if value is not None])
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.05, rel=0.1)
    assert _variance([np.array([0.1]), np.array([0.2])]) == (None, None)


@pytest.mark.parametrize("between", [0.0, 0.005, 0.03])
def test_a_pooled_interval_covers_what_these_hosts_would_show(between: float) -> None:
    """Replicates taken for one sample: what lies between hosts widens the interval."""
    chance = np.random.default_rng(2112)
    sizes, sweeps = np.array([2, 3, 1]), 20_000
    own = chance.normal(0, between, (sweeps, len(sizes)))
    logs = np.repeat(own, sizes, axis=1) + chance.normal(0, 0.01, (sweeps, sizes.sum()))
    half = t_quantile(0.95, sizes.sum() - 1) * logs.std(axis=1, ddof=1) / np.sqrt(sizes.sum())
    off = np.abs(logs.mean(axis=1) - own @ sizes / sizes.sum())
    assert np.mean(off <= half) > 0.945


def test_cells_of_one_host_have_no_spread_between_hosts(folder: Folder) -> None:
    lay(folder, slow={"bench03": 1.56})
    one = read_sweep(folder.path, "bench01")
    assert spread(cells(one.samples).to_dicts(), one.trials) == []


def test_an_archive_of_hosts_that_are_unlike_is_whole(folder: Folder, tmp_path: Path) -> None:
    lay(folder, slow={"bench03": 1.56})
    file = tmp_path / "made.zip"
    archive(folder.path, file, {})
    assert list(archive_problems(file)) == []


def test_a_report_of_one_host_that_was_made_before_is_found_in_an_archive(folder: Folder) -> None:
    lay(folder)
    report(folder.path)
    (folder.path / "report-bench01.html").write_text("of a call that did not pool them")
    assert [line.split(" is not what")[0] for line in _other_report(folder.path.parent)] == [
        "quick/report-bench01.html"
    ]
