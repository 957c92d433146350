"""Merging the folders of one sweep: completely or not at all, with the reasons for a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from virtbed import ledger_view, records
from virtbed.cli import app
from virtbed.fleet_ledger import SEVERAL, FleetLedger
from virtbed.lease import Holder, LeaseError, locked, until
from virtbed.ledger import NAME, Digests, Ledger
from virtbed.merging import MergeError, joining, merge
from virtbed.merging.sources import identity, read_source
from virtbed.sweep.several import REPORTS, report_of
from virtbed_analysis.frames import read_sweep
from virtbed_contract.codec import encode
from virtbed_contract.factors import FACTORS
from virtbed_contract.sweep import PlannedHost

from ..analysis.conftest import Folder
from .conftest import PLATFORMS, report
from .test_shards import Cluster, Json, planned, results
from .test_shards import cluster as cluster

HOSTS = ("n1", "n2", "n3")


@pytest.fixture
def shards(cluster: Cluster) -> list[Path]:
    """Three shards on three hosts that are alike."""
    return [cluster.sweep(f"{n}/3", f"n{n}").folder for n in (1, 2, 3)]


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file with its content and the time of its last change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit(path: Path, change: Callable[[Json], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def without_ledger(folder: Path) -> None:
    """Remove the ledger, whose digests would show that a file was changed."""
    for path in folder.glob(f"{NAME}*"):
        path.unlink()


def other_result(folder: Path, trial: str) -> None:
    """Replace a trial's result by another valid one."""
    without_ledger(folder)
    edit(folder / "trials" / trial / "result.json", lambda r: r["warnings"].append("another"))


def one_of(folder: Path) -> str:
    return min(results(folder))


def test_joined_shards_are_equal_to_the_whole_sweep(cluster: Cluster, shards: list[Path]) -> None:
    whole = cluster.sweep(host="n1").folder
    into = cluster.results / "joined"
    done = merge(into, shards, PLATFORMS)
    assert results(into) == results(whole) and planned(into) == planned(whole)
    assert (done.trials, done.results, done.hosts, done.replicates) == (6, 6, HOSTS, ())
    assert sorted(done.taken.values()) == [2, 2, 2] and not done.left_out and not done.bad
    for shard in shards:
        for trial in results(shard):
            for path in (shard / "trials" / trial).iterdir():
                assert (into / "trials" / trial / path.name).read_bytes() == path.read_bytes()
    assert {row.status for row in ledger_view.look(into / NAME).rows} == {"done"}
    source = read_source(into)
    assert sorted(source.reports) == list(HOSTS) and source.design.placements == ()
    own = read_source(shards[0]).design.placements
    assert source.design.hosts == tuple(PlannedHost(host, own) for host in HOSTS)


def test_a_second_merge_changes_nothing(cluster: Cluster, shards: list[Path]) -> None:
    into = cluster.results / "joined"
    merge(into, shards, PLATFORMS)
    before, theirs = content(into), [content(shard) for shard in shards]
    again = merge(into, [*reversed(shards), *shards], PLATFORMS)
    assert content(into) == before and not again.taken
    assert [content(shard) for shard in shards] == theirs


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_folders_may_be_joined_one_by_one_in_any_order(
    cluster: Cluster, shards: list[Path], order: tuple[int, ...]
) -> None:
    at_once, one_by_one = cluster.results / "once", cluster.results / "each"
    merge(at_once, shards, PLATFORMS)
    for number in order:
        done = merge(one_by_one, [shards[number]], PLATFORMS)
    assert results(at_once) == results(one_by_one) and planned(at_once) == planned(one_by_one)
    assert done.results == 6


def test_missing_replicates_are_reported(cluster: Cluster, shards: list[Path]) -> None:
    done = merge(cluster.results / "joined", shards[::2], PLATFORMS)
    assert (done.results, done.replicates) == (4, (2,))


def test_a_merge_that_was_killed_is_finished_by_the_next(
    cluster: Cluster, shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    into, write_whole = cluster.results / "joined", joining.write_whole
    left = 0

    def killed(path: Path, write: Callable[[Path], object]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write_whole(path, write)

    monkeypatch.setattr(joining, "write_whole", killed)
    kills = 0
    for budget in range(1, 12):  # of the files that are written, 29 in all
        left = budget
        try:
            merge(into, shards, PLATFORMS)
        except KeyboardInterrupt:
            kills += 1
            assert all((into / "trials" / t / "evidence.json").exists() for t in results(into))
    assert kills > 5 and len(results(into)) == 6
    monkeypatch.setattr(joining, "write_whole", write_whole)
    assert merge(into, shards, PLATFORMS).results == 6
    assert merge(into, shards, PLATFORMS).taken == {}


def test_a_sweep_continues_in_a_joined_folder(cluster: Cluster) -> None:
    """For shards of one host, a merge writes the same ledger as a sweep."""
    shards = [cluster.sweep(f"{n}/3").folder for n in (1, 3)]
    merge(cluster.results / "demo", shards, PLATFORMS)
    run = cluster.sweep()
    assert len(cluster.fake.blocks) == 2 and {b[-3:] for b in cluster.fake.blocks} == {"r02"}
    assert len(results(run.folder)) == 6 and run.failed == []


def test_no_host_continues_a_joined_folder_of_several_hosts(
    cluster: Cluster, shards: list[Path]
) -> None:
    merge(cluster.results / "demo", shards, PLATFORMS)
    with pytest.raises(Exception, match=r"was merged from sweeps of one host each, n1, n2, n3;"):
        cluster.sweep()


def test_a_sweep_on_several_hosts_is_joined_with_each_hosts_placement(
    cluster: Cluster, shards: list[Path]
) -> None:
    def of_several(design: Json) -> None:
        hosts = [{"host": "n2", "placements": design["placements"]}]
        design.update(placements=[], hosts=hosts)

    edit(shards[1] / "design.json", of_several)
    (shards[1] / REPORTS).mkdir()
    (shards[1] / "doctor.json").rename(shards[1] / report_of("n2"))
    assert merge(cluster.results / "joined", shards, PLATFORMS).results == 6
    edit(
        shards[1] / "design.json",
        lambda design: design["hosts"][0]["placements"][0].update(cpus="0"),
    )
    with pytest.raises(MergeError, match=r"placement 1: 0 of node 0"):
        merge(cluster.results / "again", shards, PLATFORMS)


def test_joined_folders_must_share_the_identity_of_a_sweep(
    cluster: Cluster, shards: list[Path]
) -> None:
    import sqlite3

    source = read_source(shards[0])
    found = identity(source.design, source.reports["n1"], PLATFORMS)
    with sqlite3.connect(shards[0] / NAME) as db:
        bound = dict(db.execute("SELECT key, value FROM sweep").fetchall())
    assert bound.pop("host") == "n1"
    assert {key: found[key] for key in bound} == bound
    assert found.keys() - bound.keys() == {"CPU model"}


def test_no_plan_can_use_a_gpu_since_a_merge_does_not_compare_gpus() -> None:
    assert next(factor for factor in FACTORS if factor.name == "processor").not_yet


Change = Callable[[Json], object]
UNLIKE: dict[str, tuple[str, Change, str]] = {
    "plan": (
        "design.json", lambda d: d.update(plan_digest="sha256:" + "1" * 64), "plan sha256:111",
    ),
    "image": (
        "design.json", lambda d: d.update(image_digest="sha256:" + "2" * 64), "image sha256:222",
    ),
    "variant": ("design.json", lambda d: d.update(image="null"), "image variant null found"),
    "accelerator": ("design.json", lambda d: d.update(accelerator="kvm"), "accelerator kvm found"),
    "kernel": ("doctor.json", lambda d: d["facts"].update(kernel="5.10"), "kernel 5.10 found"),
    "CPUs": ("doctor.json", lambda d: d["facts"]["cpu"].update(allowed=[0]), "cpus 0 found"),
    "model": (
        "doctor.json", lambda d: d["facts"]["cpu"].update(model="another"), "CPU model another",
    ),
    "engine": (
        "doctor.json", lambda d: d["facts"]["engines"]["docker"].update(version="2"),
        "docker 2 found, 1.0 in",
    ),
    "placement": (
        "design.json", lambda d: d["placements"][0].update(cpus="0"), "placement 1: 0 of node 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNLIKE)
def test_differences_are_named_and_nothing_is_written(
    cluster: Cluster, shards: list[Path], what: str
) -> None:
    into = cluster.results / "joined"
    merge(into, shards[:1], PLATFORMS)
    name, change, expected = UNLIKE[what]
    without_ledger(shards[1])
    edit(shards[1] / name, change)
    if what in ("plan", "image"):  # in its results, too
        label = f"{what}_digest"
        digest = json.loads((shards[1] / name).read_text())[label]
        for path in shards[1].glob("trials/*/result.json"):
            edit(path, lambda r: r["trial"].update({label: digest}))
    before, theirs = content(into), content(shards[1])
    with pytest.raises(MergeError, match=expected) as error:
        merge(into, shards, PLATFORMS)
    assert str(shards[1]) in str(error.value)
    assert content(into) == before and content(shards[1]) == theirs
    with pytest.raises(MergeError, match=expected):
        merge(cluster.results / "new", shards[:2], PLATFORMS)
    assert not (cluster.results / "new").exists()


def test_two_machines_with_one_name_are_refused(cluster: Cluster, shards: list[Path]) -> None:
    again = cluster.sweep("2/3", "n1").folder  # n2 has the replicate, so this one has no result
    for folder, number in ((shards[0], "1"), (again, "2")):
        edit(folder / "doctor.json", lambda r, n=number: r["facts"].update(machine={"id": n}))
    with pytest.raises(MergeError, match=r"n1 is another machine than n1 in .*, by machine-id"):
        merge(cluster.results / "joined", [shards[0], again], PLATFORMS)
    edit(again / "doctor.json", lambda r: r["facts"]["machine"].update(id="1"))
    assert merge(cluster.results / "joined", [*shards, again], PLATFORMS).results == 6


def test_a_host_that_cannot_run_all_cells_is_named(cluster: Cluster, shards: list[Path]) -> None:
    def fewer(design: Json) -> None:
        del design["trials"][0]

    copy = shards[0].with_name("copy")
    shutil.copytree(shards[0], copy)
    without_ledger(copy)
    trial = planned(copy)[0]["id"]
    shutil.rmtree(copy / "trials" / trial)
    edit(copy / "design.json", fewer)
    with pytest.raises(MergeError, match=rf"{trial} is not planned as in .*other cells"):
        merge(cluster.results / "joined", [shards[0], copy], PLATFORMS)


def test_two_results_of_one_trial_are_named_and_both_stay(
    cluster: Cluster, shards: list[Path]
) -> None:
    copy = shards[0].with_name("copy")
    shutil.copytree(shards[0], copy)
    trial = one_of(copy)
    other_result(copy, trial)
    into = cluster.results / "joined"
    for existing in ([], shards[:1], [copy]):
        shutil.rmtree(into, ignore_errors=True)
        if existing:
            merge(into, existing, PLATFORMS)
        before = content(into)
        with pytest.raises(MergeError, match=rf"^{trial}: two results of host n1, in .*leave one"):
            merge(into, [*shards, copy], PLATFORMS)
        assert content(into) == before


def test_the_same_results_twice_are_no_conflict(cluster: Cluster, shards: list[Path]) -> None:
    copy = shards[0].with_name("copy")
    shutil.copytree(shards[0], copy)
    assert merge(cluster.results / "joined", [*shards, copy], PLATFORMS).results == 6


def test_a_replicate_that_is_complete_on_two_hosts_is_a_conflict(
    cluster: Cluster, shards: list[Path]
) -> None:
    for folder in cluster.results.glob("demo.shard-1-of-3.*"):
        folder.rename(folder.with_name("kept"))  # or the second would skip it
    again = cluster.sweep("1/3", "n9").folder
    with pytest.raises(
        MergeError, match=r"replicate 1: all 2 of its trials, such as .* from n1 and from n9"
    ):
        merge(cluster.results / "joined", [again, shards[0].with_name("kept")], PLATFORMS)


@pytest.mark.parametrize("first", [True, False])
def test_a_replicate_that_was_repeated_elsewhere_is_taken_from_one_host(
    cluster: Cluster, harness_document: Json, first: bool
) -> None:
    part = cluster.cut_off_after(1, "2/3", "n1", harness_document)
    whole = cluster.sweep("2/3", "n2").folder
    (lost,) = results(part)
    into = cluster.results / "joined"
    if first:
        assert merge(into, [part], PLATFORMS).hosts == ("n1",)
    for _ in range(2):
        done = merge(into, [part, whole], PLATFORMS)
        assert done.hosts == ("n2",) and done.results == 2
        assert list(done.left_out.values()) == [
            "replicate 2 is taken from n2, which has 2 of its 2 trials"
        ]
    hosts = {
        json.loads(path.read_text())["trial"]["host"] for path in into.glob("trials/*/result.json")
    }
    assert hosts == {"n2"}
    assert (into / "aside" / f"{lost}-1" / "result.json").exists() is first
    assert (part / "trials" / lost / "result.json").exists()


@pytest.mark.parametrize("backwards", [True, False])
def test_of_two_incomplete_replicates_one_is_taken_until_one_is_complete(
    cluster: Cluster, harness_document: Json, *, backwards: bool
) -> None:
    """Both are from a shard whose task was requeued on each host."""
    halves = [cluster.cut_off_after(1, "2/3", host, harness_document) for host in ("n1", "n2")]
    into = cluster.results / "joined"
    for half in halves[::-1] if backwards else ():
        merge(into, [half], PLATFORMS)
    done = merge(into, halves, PLATFORMS)
    assert done.hosts == ("n1",) and done.results == 1
    assert list(done.left_out.values()) == [
        "replicate 2 is taken from n1, which has 1 of its 2 trials"
    ]
    cluster.sweep("2/3", "n2")
    done = merge(into, halves, PLATFORMS)
    assert done.hosts == ("n2",) and done.results == 2


def test_a_result_that_was_measured_again_replaces_the_earlier_one(
    cluster: Cluster, shards: list[Path]
) -> None:
    into, trial = cluster.results / "joined", one_of(shards[0])
    merge(into, shards, PLATFORMS)
    folder = shards[0] / "trials" / trial
    old = (folder / "result.json").read_bytes()
    aside = shards[0] / "earlier" / "1" / trial
    shutil.copytree(folder, aside)
    other_result(shards[0], trial)
    edit(folder / "result.json", lambda r: r["trial"].update(attempt=2))
    done = merge(into, shards, PLATFORMS)
    new = (folder / "result.json").read_bytes()
    assert dict(done.taken) == {str(shards[0]): 1}
    assert (into / "trials" / trial / "result.json").read_bytes() == new != old
    assert (into / "earlier" / "1" / trial / "result.json").read_bytes() == old
    before = content(into)
    assert not merge(into, shards, PLATFORMS).taken and content(into) == before
    # A copy of the earlier folder does not restore the earlier result.
    stale = shards[0].with_name("stale")
    shutil.copytree(shards[0], stale)
    shutil.rmtree(stale / "earlier")
    shutil.rmtree(stale / "trials" / trial)
    shutil.copytree(aside, stale / "trials" / trial)
    assert not merge(into, [*shards, stale], PLATFORMS).taken and content(into) == before


def test_earlier_results_are_taken_with_their_hosts_replicate(
    cluster: Cluster, harness_document: Json
) -> None:
    """Otherwise a replicate would have results of two hosts, and the report would be refused."""
    part = cluster.cut_off_after(1, "2/3", "n1", harness_document)
    (trial,) = results(part)
    shutil.copytree(part / "trials" / trial, part / "earlier" / "1" / trial)
    into, other = cluster.results / "joined", cluster.results / "other"
    merge(into, [part], PLATFORMS)
    shutil.copytree(into, other)
    whole = cluster.sweep("2/3", "n2").folder
    for folders in ([whole], [whole, other], [part]):
        assert merge(into, folders, PLATFORMS).hosts == ("n2",)
        assert not list(into.glob("earlier/*/*"))
    assert len(list(into.glob(f"aside/{trial}-*/result.json"))) == 2


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (
        lambda f: edit(f / "result.json", lambda r: r["samples"][0].update(e2e_ns=1)),
        "result.json was changed after it was written",
    ),
    "evidence": (
        lambda f: edit(f / "evidence.json", lambda e: e.update(mismatches=["x"])),
        "evidence.json was changed after it was written",
    ),
    "gone": (lambda f: shutil.rmtree(f), "no result.json found, one needed"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_invalid_results_are_named_and_left_out(
    cluster: Cluster, shards: list[Path], damage: str
) -> None:
    spoil, why = DAMAGES[damage]
    trial = one_of(shards[1])
    spoil(shards[1] / "trials" / trial)
    into = cluster.results / "joined"
    done = merge(into, shards, PLATFORMS)
    assert done.results == 5 and trial not in results(into)
    assert why in done.bad[str(shards[1] / "trials" / trial)]
    for row in ledger_view.look(into / NAME).rows:
        assert row.status == ("todo" if row.id == trial else "done")


LIES: dict[str, tuple[Change, str]] = {
    "id": (lambda t: t.update(id="bm-pinned-c01-image_classification-r09"), "id 'bm"),
    "replicate": (lambda t: t.update(replicate=9), "replicate 9 found, 2 needed"),
    "cores": (lambda t: t.update(cores=2), "cores 2 found, 1 needed"),
    "sweep": (lambda t: t.update(sweep="other"), "sweep 'other' found, 'demo' needed"),
    "plan": (lambda t: t.update(plan_digest="sha256:" + "3" * 64), "plan_digest 'sha256:333"),
    "image": (lambda t: t.update(image_digest="sha256:" + "3" * 64), "image_digest 'sha256:333"),
    "host": (lambda t: t.update(host="n7"), "host 'n7' found, n2 needed"),
}


@pytest.mark.parametrize("lie", LIES)
def test_without_a_ledger_the_labels_of_a_result_must_match_the_plan(
    cluster: Cluster, shards: list[Path], lie: str
) -> None:
    change, why = LIES[lie]
    trial = one_of(shards[1])
    without_ledger(shards[1])
    edit(shards[1] / "trials" / trial / "result.json", lambda r: change(r["trial"]))
    done = merge(cluster.results / "joined", shards, PLATFORMS)
    assert why in done.bad[str(shards[1] / "trials" / trial)]


def test_a_failed_trial_keeps_its_reason_until_it_has_a_result(
    cluster: Cluster, harness_document: Json
) -> None:
    part = cluster.cut_off_after(1, "2/3", "n1", harness_document)
    into = cluster.results / "joined"
    merge(into, [part], PLATFORMS)
    (failed,) = {row["id"] for row in planned(part)} - results(part)
    assert json.loads((into / "trials" / failed / "failure.json").read_text())["message"]
    rows = {row.id: row for row in ledger_view.look(into / NAME).rows}
    assert (rows[failed].status, rows[failed].reason) == ("failed", "no matter")
    before = content(into)
    merge(into, [part], PLATFORMS)
    assert content(into) == before
    cluster.sweep("2/3", "n1")
    assert merge(into, [part], PLATFORMS).results == 2
    assert not (into / "trials" / failed / "failure.json").exists()


def test_a_folder_without_a_sweep_is_refused(cluster: Cluster, shards: list[Path]) -> None:
    into = cluster.results / "joined"
    empty = cluster.results / "empty"
    empty.mkdir()
    for folders, expected in (
        ([], "no folder to join found"),
        ([empty], "no design.json in its folder"),
        ([cluster.results / "nowhere"], "no design.json in its folder"),
        ([into], "is also among the folders to join"),
    ):
        with pytest.raises(MergeError, match=expected):
            merge(into, folders, PLATFORMS)
    assert not into.exists()
    (empty / "notes.txt").touch()
    with pytest.raises(MergeError, match="has other files than results"):
        merge(empty, shards, PLATFORMS)


def test_a_folder_of_a_running_sweep_is_not_written(cluster: Cluster, shards: list[Path]) -> None:
    into = cluster.results / "joined"
    merge(into, shards[:1], PLATFORMS)
    with locked(into), pytest.raises(LeaseError):
        merge(into, shards, PLATFORMS)


def test_folders_of_tasks_that_have_not_started_are_skipped(
    cluster: Cluster, shards: list[Path]
) -> None:
    into, started = cluster.results / "joined", cluster.results / "demo.shard-2-of-3.n9"
    (started / "ansible").mkdir(parents=True)
    done = merge(into, [*shards[:1], started], PLATFORMS)
    assert done.results == 2 and done.not_started == (started,)
    assert merge(into, [started], PLATFORMS).results == 2
    # With results, the folder is not of a task that has not started.
    shutil.copytree(shards[1] / "trials", started / "trials")
    with pytest.raises(MergeError, match=r"no design.json in its folder"):
        merge(into, [*shards, started], PLATFORMS)


def test_a_shard_that_is_still_carried_out_is_completed_by_a_later_merge(
    cluster: Cluster, harness_document: Json
) -> None:
    """The ledger has a holder, one trial is finished and one is running."""
    part = cluster.cut_off_after(1, "2/3", "n1", harness_document)
    (running,) = {row["id"] for row in planned(part)} - results(part)
    shutil.rmtree(part / "trials" / running)
    into = cluster.results / "joined"
    with Ledger(part / NAME) as ledger, ledger.left():
        ledger.take(Holder.here(), until(60))
        ledger.lease([running])
        (part / "trials" / running).mkdir()
        (part / "trials" / running / "evidence.json").write_text("{")
        for _ in range(2):
            done = merge(into, [part], PLATFORMS)
            assert done.results == 1 and not done.bad
            assert done.unfinished == {
                str(part): "1 of 2 trials have no result yet, it is being carried out by "
                f"{Holder.here()}"
            }
        before = content(into)
        merge(into, [part], PLATFORMS)
        assert content(into) == before
    cluster.sweep("2/3", "n1")
    done = merge(into, [part], PLATFORMS)
    assert done.results == 2 and not done.unfinished
    before = content(into)
    assert not merge(into, [part], PLATFORMS).taken and content(into) == before


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_plan_that_is_no_file_is_refused(
    cluster: Cluster, shards: list[Path], tmp_path: Path, kind: str
) -> None:
    """A link may lead to a file that only this user may read."""
    (secret := tmp_path / "secret").write_text("secret")
    (plan := shards[1] / "plan.yml").unlink()
    plan.symlink_to(secret) if kind == "link" else plan.mkdir()
    into = cluster.results / "joined"
    with pytest.raises(MergeError, match=r"plan\.yml: it is no regular file"):
        merge(into, shards, PLATFORMS)
    assert not into.exists()


def test_a_file_that_becomes_a_link_while_it_is_copied_is_not_followed(
    cluster: Cluster, shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secret := tmp_path / "secret").write_text("secret")
    trial = shards[0] / "trials" / one_of(shards[0])
    log, read = trial / "mlperf_log_summary.txt", records.digest

    def replaced(path: Path) -> str:
        found = read(path)
        if path == log:
            log.unlink()
            log.symlink_to(secret)
        return found

    monkeypatch.setattr(records, "digest", replaced)
    into = cluster.results / "joined"
    with pytest.raises(OSError, match="symbolic link"):
        merge(into, shards, PLATFORMS)
    assert not any(
        path.is_symlink() or (path.is_file() and path.read_bytes() == b"secret")
        for path in into.rglob("*")
    )


def test_a_trial_that_changes_while_it_is_read_is_read_again(
    cluster: Cluster, shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result replaces an earlier one, after the ledger's digests were read."""
    trial, read = one_of(shards[0]), ledger_view.digests
    stale = read(shards[0] / NAME) | {trial: Digests("0" * 64, "0" * 64)}
    answers = iter([stale])
    monkeypatch.setattr(ledger_view, "digests", lambda path: next(answers, read(path)))
    into = cluster.results / "joined"
    with Ledger(shards[0] / NAME) as ledger:
        ledger.take(Holder.here(), until(60))
        done = merge(into, [shards[0]], PLATFORMS)
    assert done.results == 2 and not done.bad


def test_the_ledger_of_a_sweep_on_several_hosts_is_not_replaced(
    cluster: Cluster, shards: list[Path]
) -> None:
    into = shards[0]
    without_ledger(into)
    with FleetLedger(into / NAME) as ledger:
        ledger.begin(SEVERAL, [])
        ledger.bind(1, "n1")
    before = (into / NAME).read_bytes()
    with pytest.raises(MergeError, match=r"was made by a sweep on several hosts.* a new folder"):
        merge(into, shards[1:], PLATFORMS)
    assert (into / NAME).read_bytes() == before
    assert merge(cluster.results / "joined", shards, PLATFORMS).results == 6


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    def called(*words: Any) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["merge", *map(str, words)], env={"COLUMNS": "400"})
        return result.exit_code, result.output

    return called


def test_the_command_reports_what_it_did(
    cluster: Cluster, shards: list[Path], command: Callable[..., tuple[int, str]]
) -> None:
    into = cluster.results / "joined"
    status, output = command(into, *shards[:2])
    assert status == 0 and "4 of 4 trials have results, of n1, n2" in output
    assert f"2 results taken from {shards[0]}" in output
    assert "replicates 3 of the plan are in none" in output
    assert "nothing new" in command(into, *shards[:2])[1]
    (shards[2] / "trials" / one_of(shards[2]) / "result.json").unlink()
    status, output = command(into, *shards)
    assert status == 1 and "left out: no result.json found" in output
    (shards[0].parent / "demo.shard-2-of-3.n8").mkdir()
    output = command(into, *shards, shards[0].parent / "demo.shard-2-of-3.n8")[1]
    assert f"{shards[2]}: 1 of 2 trials have no result yet" in output
    assert "demo.shard-2-of-3.n8 skipped, since it has no design.json and no result" in output
    assert "call it again then" in output
    status, output = command(into, cluster.results / "nowhere")
    assert status == 2 and "no design.json" in output


def test_joined_results_are_read_like_those_of_the_whole_sweep(tmp_path: Path) -> None:
    """With the real analysis, which checks each result."""
    whole = Folder(tmp_path / "whole")
    for replicate in (1, 2, 3):
        for platform, ms in (("bm", 20.0), ("cn", 22.0)):
            whole.trial(platform, "pinned", replicate, {"a": [ms + replicate / 997] * 3})
    whole.write("doctor.json", encode(report(host="bench01")))
    shards = []
    for number in (1, 2, 3):
        shards.append(tmp_path / f"whole.shard-{number}-of-3.bench01")
        shutil.copytree(whole.path, shards[-1])
        for row in planned(shards[-1]):
            if row["replicate"] != number:
                shutil.rmtree(shards[-1] / "trials" / row["id"])
        own = [row for row in planned(shards[-1]) if row["replicate"] == number]
        (shards[-1] / "design.json").write_text(json.dumps(whole.design | {"trials": own}))
    into = tmp_path / "joined"
    done = merge(into, shards, PLATFORMS)
    assert (done.results, done.bad) == (6, {})
    both = [read_sweep(folder) for folder in (whole.path, into)]
    assert both[0].trials.equals(both[1].trials) and both[1].rejected == []
    # A result that the report would leave out is not taken.
    trial = one_of(shards[1])
    edit(
        shards[1] / "trials" / trial / "result.json",
        lambda r: r["samples"][-1].update(e2e_ns=r["samples"][-1]["e2e_ns"] * 2),
    )
    done = merge(tmp_path / "again", shards, PLATFORMS)
    assert done.results == 5 and str(shards[1] / "trials" / trial) in done.bad
