"""Shards of a sweep: whole replicates, disjoint and complete, and continued on other hosts."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from virtbed import ansible
from virtbed import bench as benches
from virtbed.bench import Bench
from virtbed.design import design
from virtbed.image import image_key
from virtbed.plan import Plan
from virtbed.progress import Progress
from virtbed.shards import Shard, ShardError, check_number
from virtbed.sweep import Sweep
from virtbed_contract.documents import TrialRequest
from virtbed_contract.events import TrialOutcome

from .conftest import PLATFORMS, report, small
from .test_sweep import Host, failed, good

Json = dict[str, Any]


class Cluster:
    """Fake hosts that are alike, on which sweeps and shards are carried out."""

    def __init__(self, folder: Path, fake: Host, plan: Plan) -> None:
        self.results = folder
        self.fake = fake
        self.plan = plan
        self.output = io.StringIO()

    def sweep(self, shard: str | None = None, host: str = "n1", plan: Plan | None = None) -> Sweep:
        self.fake.report = report(host=host)
        self.fake.report.facts["image"]["key"] = image_key()
        self.fake.blocks.clear()
        self.output.seek(0)
        self.output.truncate()
        progress = Progress(Console(file=self.output, width=400), PLATFORMS.trial_s)
        share = None if shard is None else Shard.parse(shard)
        sweep = Sweep(
            plan or self.plan, progress, Bench(hung_after_s=60), self.results,
            platforms=PLATFORMS, shard=share,
        )  # fmt: skip
        sweep.run()
        return sweep

    def cut_off_after(self, trials: int, shard: str, host: str, document: Json) -> Path:
        """Carry out a shard until `trials` trials have a result; the later ones fail."""
        number = iter(range(1_000))

        def outcome(request: TrialRequest, incoming: Path) -> TrialOutcome:
            kind = good(document) if next(number) < trials else failed("no matter")
            return kind(request, incoming)

        self.fake.trial = outcome
        folder = self.sweep(shard, host).folder
        self.fake.trial = good(document)
        return folder


@pytest.fixture
def cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan, harness_document: Json
) -> Cluster:
    fake = Host()
    fake.trial = good(harness_document)
    monkeypatch.setattr(ansible, "play", fake.play)
    monkeypatch.setattr(benches, "end_strays", lambda *_: None)
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Cluster(tmp_path / "results", fake, small(plan))


def planned(folder: Path) -> list[Mapping[str, Any]]:
    return list(json.loads((folder / "design.json").read_text())["trials"])


def results(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("trials/*/result.json")}


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "1/0", "0/0", "-1/3", "1", "1/", "/3", "1/2/3", "a/b", "1.0/3", "01/3",
             "", " 1/3", "1/3 ", "1/3\n", "\u0661/3", "1/99999"],
)  # fmt: skip
def test_a_text_that_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match=r"found, NUMBER/OF with a number from 1 to OF needed"):
        Shard.parse(text)


@pytest.mark.parametrize("of", range(1, 9))
def test_shards_are_disjoint_complete_and_equal(of: int) -> None:
    shares = [[r for r in range(1, 9) if Shard(n, of).has(r)] for n in range(1, of + 1)]
    assert sorted(r for share in shares for r in share) == list(range(1, 9))
    assert {len(share) for share in shares} <= {8 // of, 8 // of + 1} and all(shares)


@pytest.mark.parametrize("of", [1, 2, 3])
def test_more_replicates_do_not_move_earlier_ones_to_another_shard(of: int) -> None:
    for number in range(1, of + 1):
        few, many = ([r for r in range(1, n) if Shard(number, of).has(r)] for n in (6, 12))
        assert many[: len(few)] == few


@pytest.mark.parametrize("shards", [0, 4, 100])
def test_more_shards_than_replicates_are_refused(plan: Plan, shards: int) -> None:
    check_number(3, plan)
    with pytest.raises(ShardError, match=rf"{shards} shards of 3 replicates found, from 1 to 3"):
        check_number(shards, plan)


def test_the_order_within_a_replicate_is_the_same_as_in_the_whole_sweep(plan: Plan) -> None:
    whole = design(plan, report(guests="available"), PLATFORMS)
    shards = [whole.of(Shard(number, 3)) for number in (1, 2, 3)]
    assert sorted((t for s in shards for t in s.trials), key=lambda t: t.position) == list(
        whole.trials
    )
    assert [{t.replicate for t in shard.trials} for shard in shards] == [{1}, {2}, {3}]
    assert all(shard.placements == whole.placements for shard in shards)


def test_each_shard_has_a_folder_of_its_own_on_each_host(cluster: Cluster) -> None:
    whole = cluster.sweep().folder
    assert whole.name == "demo"
    shards = [cluster.sweep(f"{n}/3", f"n{n}").folder for n in (1, 2, 3)]
    assert [s.name for s in shards] == [f"demo.shard-{n}-of-3.n{n}" for n in (1, 2, 3)]
    rows = [row for shard in shards for row in planned(shard)]
    assert sorted(rows, key=lambda row: row["position"]) == planned(whole)
    assert [len(results(shard)) for shard in shards] == [2, 2, 2]
    assert set.union(*map(results, shards)) == results(whole)
    assert cluster.sweep("2/3", "n2").failed == [] and cluster.fake.blocks == []


def test_a_hosts_name_cannot_lead_to_another_folder(cluster: Cluster) -> None:
    folder = cluster.sweep("1/3", "../../x y").folder
    assert folder.parent == cluster.results
    assert folder.name == "demo.shard-1-of-3..._.._x_y"


def test_a_shard_continued_on_another_host_repeats_no_complete_replicate(
    cluster: Cluster, harness_document: Json
) -> None:
    cluster.plan = cluster.plan.model_copy(update={"replicates": 4})
    first = cluster.cut_off_after(3, "1/2", "n1", harness_document)
    assert len(results(first)) == 3
    second = cluster.sweep("1/2", "n2").folder
    assert cluster.fake.blocks and {name[-3:] for name in cluster.fake.blocks} == {"r03"}
    assert {row["replicate"] for row in planned(second)} == {1, 3}
    assert "replicate 1 is complete in demo.shard-1-of-2.n1: not repeated here" in (
        cluster.output.getvalue()
    )
    # Back on the first host: what the second did in the meantime is not done again.
    assert cluster.sweep("1/2", "n1").failed == [] and cluster.fake.blocks == []


@pytest.mark.parametrize("change", ["plan_digest", "image_digest"])
def test_replicates_of_another_plan_or_image_on_another_host_do_not_count(
    cluster: Cluster, change: str
) -> None:
    first = cluster.sweep("1/3", "n1").folder
    document = json.loads((first / "design.json").read_text())
    document[change] = "sha256:" + "0" * 64
    (first / "design.json").write_text(json.dumps(document))
    cluster.sweep("1/3", "n2")
    assert len(cluster.fake.blocks) == 2


@pytest.mark.parametrize(
    ("fact", "value", "why"),
    [
        (("kernel",), "5.10", "kernel 5.10 there, "),
        (("cpu", "model"), "VIA Nano", "CPU model VIA Nano there, "),
        (("engines", "docker", "version"), "2", "docker 2 there, 1.0 here"),
        (("engines",), None, "doctor.json cannot be used"),
    ],
)
def test_replicates_of_an_unlike_host_are_repeated(
    cluster: Cluster, fact: tuple[str, ...], value: str | None, why: str
) -> None:
    """`virtbed merge` could not join them with those of the other shards."""
    first = cluster.sweep("1/3", "n1").folder
    document = json.loads((first / "doctor.json").read_text())
    place = document["facts"]
    for key in fact[:-1]:
        place = place[key]
    place[fact[-1]] = value
    (first / "doctor.json").write_text(json.dumps(document))
    cluster.sweep("1/3", "n2")
    assert len(cluster.fake.blocks) == 2
    said = cluster.output.getvalue()
    assert "replicate 1 is complete in demo.shard-1-of-3.n1, but its host is unlike" in said
    assert why in said and "leave that folder out of virtbed merge" in said
    # A third host that is alike the second one finds that one's replicate.
    cluster.sweep("1/3", "n3")
    assert cluster.fake.blocks == []


@pytest.mark.parametrize("fault", ["torn", "edited", "of another trial", "no evidence"])
def test_a_replicate_with_a_bad_result_on_another_host_is_repeated(
    cluster: Cluster, fault: str
) -> None:
    """`virtbed merge` leaves that result out, so the joined sweep would lack it."""
    first, other = sorted((cluster.sweep("1/3", "n1").folder / "trials").iterdir())
    result = first / "result.json"
    if fault == "torn":
        result.write_text(result.read_text()[:200])
    elif fault == "edited":
        result.write_text(result.read_text().replace('"attempt": 1', '"attempt": 2'))
    elif fault == "of another trial":
        result.write_text((other / "result.json").read_text())
    else:
        (first / "evidence.json").unlink()
    again = cluster.sweep("1/3", "n2").folder
    assert results(again) == {first.name, other.name}
    said = cluster.output.getvalue()
    assert (
        f"complete in demo.shard-1-of-3.n1, but a result there is not valid ({first.name}" in said
    )
    cluster.sweep("1/3", "n3")  # the second host has a whole one
    assert cluster.fake.blocks == []


def test_an_interrupted_shard_continues_where_it_stopped(
    cluster: Cluster, harness_document: Json
) -> None:
    first = cluster.cut_off_after(1, "2/3", "n1", harness_document)
    before = results(first)
    again = cluster.sweep("2/3", "n1")
    assert again.folder == first and len(cluster.fake.blocks) == 1
    assert results(first) > before


def test_a_shard_without_a_trial_creates_no_folder(cluster: Cluster) -> None:
    """Emulated guests run in the first replicate only."""
    cluster.plan = cluster.plan.model_copy(update={"platforms": {"vm": ["pinned"]}})
    assert cluster.sweep("1/3").folder.is_dir()
    nothing = cluster.sweep("2/3")
    assert not nothing.folder.exists() and cluster.fake.blocks == [] and nothing.failed == []
    assert "nothing to do: shard 2/3 has no trial on this host" in cluster.output.getvalue()


def test_precision_needs_all_shards_and_is_not_applied_to_one(cluster: Cluster) -> None:
    cluster.plan = cluster.plan.model_copy(
        update={"precision": 0.01, "min_replicates": 2, "replicates": 6}
    )
    run = cluster.sweep("1/2")
    assert len(results(run.folder)) == 6
    assert "precision 0.01 is not applied" in cluster.output.getvalue()
