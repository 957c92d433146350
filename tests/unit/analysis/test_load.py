import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from virtbed_analysis import AnalysisError, load, write_parquet
from virtbed_analysis.frames import read_sweep
from virtbed_contract import identifiers

from .conftest import Folder

GOOD = "bm-pinned-c01-image_classification-r01"
BAD = "bm-pinned-c01-image_classification-r02"


@pytest.fixture
def two(folder: Any) -> Any:
    for replicate in (1, 2):
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0, 21.0]}, warmup_ms=(90.0,))
    return folder


def test_one_row_a_sample_with_the_trial_columns(two: Any) -> None:
    samples = load(two.path)
    assert samples.height == 6
    first = samples.filter(trial=GOOD).sort("sample").to_dicts()
    assert [row["e2e_ns"] for row in first] == [90_000_000, 20_000_000, 21_000_000]
    assert [row["warmup"] for row in first] == [True, False, False]
    assert {row["platform"] for row in first} == {"bm"}
    assert first[0]["import_ns"] == 4_000_000_000


def result(change: Callable[[Any], object]) -> Callable[[Any], None]:
    return lambda folder: folder.edit(f"trials/{BAD}/result.json", change)


def evidence(change: Callable[[Any], object]) -> Callable[[Any], None]:
    return lambda folder: folder.edit(f"trials/{BAD}/evidence.json", change)


def truncated(folder: Any) -> None:
    path = folder.path / f"trials/{BAD}/result.json"
    path.write_text(path.read_text()[:300])


def not_text(folder: Any) -> None:
    (folder.path / f"trials/{BAD}/result.json").write_bytes(b"\xff\xfe{}")


def no_evidence(folder: Any) -> None:
    (folder.path / f"trials/{BAD}/evidence.json").unlink()


def unplanned(folder: Any) -> None:
    folder.edit("design.json", lambda d: d.update(trials=d["trials"][:1]))


REASONS: list[tuple[Callable[[Any], None], str]] = [
    (truncated, "not JSON, cut short"),
    (not_text, "not UTF-8"),
    (result(lambda r: r.update(schema="virtbed.result/9")), "schema 'virtbed.result/9'"),
    (result(lambda r: r.pop("startup")), "'startup' is a required property"),
    (result(lambda r: r["samples"][1].update(e2e_ns=-5)), r"\$.samples\[1\].e2e_ns"),
    (result(lambda r: r["samples"][1].update(e2e_ns=0)), "e2e_ns|took 0 ns"),
    (result(lambda r: r["trial"].update(id=GOOD)), f"duplicate: it is trial {GOOD}"),
    (result(lambda r: r["trial"].update(id=BAD.replace("r02", "r09"))), "not the trial its folder"),
    (result(lambda r: r["trial"].update(platform="cn")), "trial fields say cn-pinned"),
    (
        result(lambda r: r["trial"].update(plan_digest="sha256:" + "d" * 64)),
        "belongs to another plan",
    ),
    (result(lambda r: r["answers"].update(wrong=1)), "answers.wrong: 0 was expected"),
    (result(lambda r: [s.update(warmup=True) for s in r["samples"]]), "only warm-ups"),
    (unplanned, "not among the trials"),
    (result(lambda r: r["trial"].update(scale="tiny")), "scale 'tiny', .* with 'trained'"),
    (result(lambda r: r["settings"].update(scenario="offline")), "fields say .*-offline-r02"),
    (result(lambda r: r["settings"].update(thread_policy="matched")), "ran with thread_policy 'ma"),
    (result(lambda r: r["trial"].update(thread_policy="matched")), "fields say .*-matched-r02"),
    (result(lambda r: r["trial"].update(variant="twin")), "fields say bm-pinned-c01-twin-"),
    (result(lambda r: r["trial"].update(processor="gpu")), "fields say .*-gpu-r02"),
    (result(lambda r: r["trial"].pop("quota_cpus")), "'quota_cpus' is a required property"),
    (result(lambda r: r["trial"].update(emulated=True)), "emulated True, .* with False"),
    (no_evidence, "no evidence.json beside it"),
    (evidence(lambda e: e.update(trial=GOOD)), "evidence.json is of trial"),
    (
        evidence(lambda e: e.update(attested=False, mismatches=["cpuset asked 0, found 0-1"])),
        "not attested: cpuset asked 0, found 0-1",
    ),
]


@pytest.mark.parametrize(("spoil", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_a_bad_file_is_named_with_its_reason_and_the_rest_analysed(
    two: Any, spoil: Callable[[Any], None], reason: str
) -> None:
    spoil(two)
    sweep = read_sweep(two.path)
    assert sweep.trials["trial"].to_list() == [GOOD]
    assert [r.file for r in sweep.rejected] == [f"trials/{BAD}/result.json"]
    assert re.search(reason, sweep.rejected[0].reason)


def test_ids_that_name_scale_and_scenario_are_read(folder: Any) -> None:
    """As virtbed.design makes them where a plan has several scales or scenarios."""
    changes = {"scenario": "offline", "thread_policy": "matched"}
    name = folder.trial("bm", "pinned", 1, {"a.png": [20.0]}, scale="tiny", named="tiny", **changes)
    assert name == "bm-pinned-c01-image_classification-tiny-offline-matched-r01"
    sweep = read_sweep(folder.path)
    assert sweep.rejected == []
    assert sweep.trials["trial"].to_list() == [name]


def test_load_logs_what_it_leaves_out(two: Any, caplog: pytest.LogCaptureFixture) -> None:
    no_evidence(two)
    load(two.path)
    assert f"trials/{BAD}/result.json left out: no evidence.json" in caplog.text


def test_images_are_not_pooled(two: Any) -> None:
    other = "sha256:" + "e" * 64
    two.trial("cn", "pinned", 1, {"a.png": [20.0]}, image=other)
    with pytest.raises(AnalysisError, match="2 images") as raised:
        load(two.path)
    assert other in str(raised.value)
    assert "sha256:" + "a" * 64 in str(raised.value)


def test_tcg_that_is_not_flagged_as_emulated_is_no_result(folder: Any) -> None:
    name = folder.trial("vm", "pinned", 1, {"a.png": [20.0]})
    folder.edit(f"trials/{name}/result.json", lambda r: r["trial"].update(accelerator="tcg"))
    folder.edit(f"trials/{name}/evidence.json", lambda e: e["asked"].update(accelerator="tcg"))
    (rejected,) = read_sweep(folder.path).rejected
    assert "has emulated False, its accelerator is tcg" in rejected.reason


def test_broken_design_is_named_and_results_still_load(two: Any) -> None:
    two.write("design.json", "{")
    sweep = read_sweep(two.path)
    assert sweep.trials.height == 2
    assert sweep.rejected[0].file == "design.json"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no such results folder"):
        load(tmp_path / "none")


def other(folder: Any, name: str, replicate: int, **changes: Any) -> Path:
    """Lay a folder of one more trial beside another."""
    made = Folder(folder.path.parent / name)
    made.trial("bm", "pinned", replicate, {"a.png": [20.0]}, **changes)
    return made.path


def test_shards_of_a_sweep_are_pooled(two: Any) -> None:
    samples = load(two.path, other(two, "shard", 3))
    assert sorted(samples["trial"].unique()) == [GOOD, BAD, GOOD.replace("r01", "r03")]


def test_a_trial_that_is_in_two_folders_is_refused(two: Any) -> None:
    with pytest.raises(AnalysisError, match=f"{GOOD} of host bench01 is in 2 of the folders"):
        load(two.path, other(two, "again", 1))


def test_sweeps_of_unlike_images_are_not_pooled(two: Any) -> None:
    with pytest.raises(AnalysisError, match=r"results of 2 images are not pooled.*1 trials"):
        load(two.path, other(two, "new", 3, image="sha256:" + "e" * 64))


def test_versions_of_one_application_are_not_pooled(two: Any) -> None:
    result(lambda r: r["application"].update(version="2"))(two)
    with pytest.raises(
        AnalysisError,
        match=r"2 versions of one application are not pooled.*image_classification 1 .1 trials, "
        r"first .*image_classification 2 ",
    ):
        read_sweep(two.path)


def test_parquet_holds_the_frame_and_what_each_column_means(two: Any, tmp_path: Path) -> None:
    samples = load(two.path)
    file = tmp_path / "samples.parquet"
    write_parquet(samples, file)
    plain = samples.with_columns(pl.col(pl.Enum).cast(pl.String))
    assert pl.read_parquet(file).equals(plain)
    assert pl.read_parquet(file).schema == plain.schema
    metadata = pl.read_parquet_metadata(file)
    assert metadata["schema"] == identifiers.SAMPLES
    told = json.loads(metadata["columns"])
    assert {name: kind["type"] for name, kind in told.items()} == {
        name: str(kind) for name, kind in plain.schema.items()
    }
    assert all(kind["meaning"].endswith(".") for kind in told.values())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
