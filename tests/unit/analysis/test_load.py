import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from virtbed_analysis import AnalysisError, export, load, report, write_parquet
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


def alone(change: Callable[[Any], object]) -> Callable[[Any], None]:
    """Change samples, and nothing that tells the same of them."""
    return lambda folder: folder.edit(f"trials/{BAD}/result.json", change, alone=True)


def rescaled(factor: float) -> Callable[[Any], object]:
    def change(document: Any) -> None:
        for sample in document["samples"]:
            parts = {
                part: round(factor * sample[part]) for part in ("pre_ns", "infer_ns", "post_ns")
            }
            sample.update(parts, e2e_ns=sum(parts.values()))

    return change


def truncated(folder: Any) -> None:
    path = folder.path / f"trials/{BAD}/result.json"
    path.write_text(path.read_text()[:300])


def not_text(folder: Any) -> None:
    (folder.path / f"trials/{BAD}/result.json").write_bytes(b"\xff\xfe{}")


def no_evidence(folder: Any) -> None:
    (folder.path / f"trials/{BAD}/evidence.json").unlink()


def unplanned(folder: Any) -> None:
    folder.edit("design.json", lambda d: d.update(trials=d["trials"][:1]))


def idle(window_ns: int) -> Callable[[Any], None]:
    """Stretch the window of the measured requests, and the life of the process with it."""

    def spoil(folder: Any) -> None:
        result(lambda r: r["confounders"].update(window_ns=window_ns))(folder)
        evidence(lambda e: e.update(process_wall_ns=2 * window_ns))(folder)

    return spoil


REASONS: list[tuple[Callable[[Any], None], str]] = [
    (truncated, "not JSON, cut short"),
    (not_text, "not UTF-8"),
    (result(lambda r: r.update(schema="virtbed.result/9")), "schema 'virtbed.result/9'"),
    (result(lambda r: r.pop("startup")), "'startup' is a required property"),
    (result(lambda r: r["samples"][1].update(e2e_ns=-5)), r"\$.samples\[1\].e2e_ns"),
    (result(lambda r: r["samples"][1].update(e2e_ns=0)), "e2e_ns|took 0 ns"),
    (result(lambda r: r["trial"].update(id=GOOD)), f"duplicate: it is trial {GOOD}"),
    (result(lambda r: r["trial"].update(id=BAD.replace("r02", "r09"))), "not the trial its folder"),
    (result(lambda r: r["trial"].update(platform="cn")), "trial fields give cn-pinned"),
    (
        result(lambda r: r["trial"].update(plan_digest="sha256:" + "d" * 64)),
        "belongs to another plan",
    ),
    (result(lambda r: r["answers"].update(wrong=1)), "answers.wrong: 0 was expected"),
    (result(lambda r: [s.update(warmup=True) for s in r["samples"]]), "only warm-ups"),
    (unplanned, "not among the trials"),
    (result(lambda r: r["trial"].update(scale="tiny")), "scale 'tiny', .* plans 'trained'"),
    (result(lambda r: r["settings"].update(scenario="offline")), "fields give .*-offline-r02"),
    (result(lambda r: r["settings"].update(thread_policy="matched")), "ran with thread_policy 'ma"),
    (result(lambda r: r["trial"].update(thread_policy="matched")), "fields give .*-matched-r02"),
    (result(lambda r: r["trial"].update(variant="twin")), "fields give bm-pinned-c01-twin-"),
    (result(lambda r: r["trial"].update(processor="gpu")), "fields give .*-gpu-r02"),
    (result(lambda r: r["trial"].pop("quota_cpus")), "'quota_cpus' is a required property"),
    (result(lambda r: r["trial"].update(emulated=True)), "emulated True, .* plans False"),
    (result(lambda r: r["samples"][1].update(e2e_ns=19_000_000)), "sample 1 took 19000000 ns end"),
    (result(lambda r: r["samples"][2].update(infer_ns=1)), "sample 2 took 21000000 .* its phases"),
    (result(lambda r: r["samples"][1].update(queue_ns=10**10)), "measured for .* its queue"),
    (result(lambda r: r["samples"][1].update(e2e_ns=2e7)), "sample 1 has times that are not whole"),
    (result(lambda r: r["samples"][1].update(e2e_ns=2**63)), "9223372036854775807 is the largest"),
    (result(lambda r: r["samples"][1].update(e2e_ns=2**63 - 1)), "is greater than the maximum"),
    (result(lambda r: r["samples"].reverse()), "sample 2 is a warm-up after a measured sample"),
    (result(lambda r: r["samples"].pop()), "states 2 measured samples, but its samples give 1"),
    (result(lambda r: r["settings"].update(samples=3)), "states 3 measured samples, .* give 2"),
    (
        result(lambda r: r["settings"].update(warmup=0)),
        "states 0 warm-ups, but its samples give 1",
    ),
    (result(lambda r: r["answers"].update(checked=9)), "9 checked answers, but its samples give 3"),
    (result(lambda r: r["loadgen"].update(queries=9)), "9 queries, but its samples give 2"),
    (result(lambda r: r["loadgen"].update(percentiles_ns={"p99": 1})), "a percentile 'p99'"),
    (result(lambda r: r["loadgen"].update(queries=1)), "1 queries, but its samples give 2"),
    (
        result(lambda r: r["loadgen"].update(percentiles_ns={"99.00": 5, "9.0": 6, "100": 7})),
        "states 6 ns for percentile 9.0, more than 5 ns for percentile 99.00",
    ),
    (result(lambda r: r["loadgen"].update(reasons=["short"])), "LoadGen calls it VALID, .*: short"),
    (alone(rescaled(0.5)), "median latency of 2[0-9]+ ns, its samples give 1[0-9]+ ns"),
    (alone(rescaled(1e-3)), "median latency of 2[0-9]{7} ns, its samples give 2[0-9]{4} ns"),
    (
        result(lambda r: r["answers"]["by_input"].append(r["answers"]["by_input"][0])),
        "two answers to one input",
    ),
    (result(lambda r: r["samples"][0].update(input="b.png")), "input b.png, but no answer to it"),
    (result(lambda r: r["confounders"].update(window_ns=0)), "measured for 0 ns, but its samples"),
    (result(lambda r: r["confounders"].update(window_ns=4 * 10**7)), "its samples took 41000000"),
    (result(lambda r: r["confounders"].update(own_cpu_ns=10**10)), "10 s of CPU time by its conf"),
    (result(lambda r: r["rusage"].update(user_s=9.0)), "9.1 s of CPU time by its rusage"),
    (
        result(
            lambda r: r["confounders"]["throttling"].update(periods=1, throttled=4, throttled_ns=1)
        ),
        "throttled in 4 of 1 periods",
    ),
    (result(lambda r: r["startup"].update(load_ns=10**11)), "its parts took .* its process took"),
    (result(lambda r: r["startup"].update(spawn_ns=10**11)), "its parts took .* its process took"),
    (idle(3 * 10**10), "measured for 30.000 s, but its samples took 0.04. s .* not wait"),
    (result(lambda r: r["memory_kib"].update(peak=9)), "700000 KiB resident, but a peak of 9 KiB"),
    (result(lambda r: r["application"].update(name="face_detection")), "ran application 'face_d"),
    (result(lambda r: r["application"].update(scale="tiny")), "ran scale 'tiny', but 'trained'"),
    (result(lambda r: r["settings"].update(slowdown=0.1)), "slowdown 0.1 .* variant is plain"),
    (result(lambda r: r["settings"].update(seed=1)), "seed 1, but design.json plans 2112"),
    (result(lambda r: r["trial"].update(sweep="other")), "sweep 'other', but design.json plans"),
    (result(lambda r: r["trial"].update(started_at="2026-13-01T00:00:00Z")), "a time in ISO 8601"),
    (result(lambda r: r["trial"].update(started_at="2999-01-01T00:00:00Z")), "and now is needed"),
    (result(lambda r: r["trial"].update(started_at="1970-01-01T00:00:00Z")), "between 2020-01-01"),
    (result(lambda r: r["trial"].update(started_at="today")), r"trial.started_at"),
    (no_evidence, "no evidence.json in its folder"),
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


GUEST = "vm-pinned-c02-image_classification-r01"
BOX = "cn-vanilla-c02-image_classification-r01"
PINNED = "cn-pinned-c02-image_classification-r01"


def labels(**values: Any) -> Callable[[Any], None]:
    """Relabel the result alone."""
    return lambda folder: folder.edit(
        f"trials/{BOX}/result.json", lambda r: r["trial"].update(values)
    )


def proof(trial: str, change: Callable[[Any], object]) -> Callable[[Any], None]:
    return lambda folder: folder.edit(f"trials/{trial}/evidence.json", change)


def placed(part: str, trial: str = BOX, moment: str = "after", **values: Any) -> Any:
    return proof(trial, lambda e: e[moment][part].update(values))


def asked(trial: str = BOX, **values: Any) -> Any:
    return proof(trial, lambda e: e["asked"].update(values))


def saw(**values: Any) -> Callable[[Any], None]:
    """Change what the process saw, in the result and in its evidence."""
    return lambda folder: folder.edit(
        f"trials/{BOX}/result.json", lambda r: r["environment"].update(values)
    )


CONTRADICTIONS: list[tuple[Callable[[Any], None], str]] = [
    (labels(quota_cpus=None), "labelled quota_cpus None, its evidence 2.0"),
    (labels(memory_mib=512), "labelled memory_mib 512, its evidence 4096"),
    (labels(machine="kvm"), "machine 'kvm', but design.json plans 'metal'"),
    (labels(enclosure="podman"), "enclosure 'podman', but design.json plans 'docker'"),
    (labels(image_digest="sha256:" + "e" * 64), "labelled image_digest"),
    (asked(mode="pinned"), "labelled mode 'vanilla', its evidence 'pinned'"),
    (asked(cores=4), "labelled cores 2, its evidence 4"),
    (asked(enclosure="process"), "labelled enclosure 'docker', its evidence 'process'"),
    (asked(id="cn-vanilla-c02-r02"), "evidence is of the instance cn-vanilla-c02-r02"),
    (asked(image_name="0" * 16), "names the image 0000"),
    (asked(enclosure_limit="none"), "asks for a quota of 2.0 CPUs, limited by none"),
    (asked(own_kernel=True), "own_kernel True on the machine metal"),
    (placed("enclosure", quota_cpus=None), "after the trial: quota_cpus None found, 2.0 needed"),
    (placed("enclosure", moment="before", quota_cpus=1.0), "before the trial: quota_cpus 1.0"),
    (placed("enclosure", cpuset="0"), "enclosure read after the trial: cpuset '0' found"),
    (placed("enclosure", cpus_allowed_list="3"), "cpus_allowed_list '3' found, '0-15' needed"),
    (placed("enclosure", memory_mib=512), "memory_mib 512 found, 4096 needed"),
    (placed("enclosure", layers=["sha256:x"]), "layers .* needed"),
    (placed("machine", cpus_online="0-3"), "cpus_online '0-3' found, '0-15' needed"),
    (placed("machine", vcpus=2), "vcpus, which the machine metal does not have"),
    (asked(accelerator="kvm"), "accelerator kvm on the machine metal"),
    (proof(BOX, lambda e: e["after"].update(machine={})), "machine read after .* empty"),
    (proof(BOX, lambda e: e["after"].update(enclosure={})), "does not contain its CPUs"),
    (
        proof(BOX, lambda e: e["after"]["enclosure"].pop("quota_cpus")),
        "enclosure read after the trial: the reading does not contain its quota",
    ),
    (
        lambda folder: folder.edit(
            f"trials/{PINNED}/result.json",
            lambda r: r["environment"]["cgroup"].update(cpuset="0-15"),
        ),
        "the application read the cpuset '0-15', '0-1' needed",
    ),
    (
        proof(BOX, lambda e: e["after"].update(enclosure=None)),
        "no reading of machine and enclosure",
    ),
    (proof(BOX, lambda e: e.update(before=None)), "no reading .* before the trial"),
    (proof(BOX, lambda e: e.update(after=None)), "no reading .* after the trial"),
    (proof(BOX, lambda e: e.update(inside=None)), "no reading by the process"),
    (proof(BOX, lambda e: e["inside"].update(kernel="5")), "has kernel '6.1.0', its evidence '5'"),
    (proof(BOX, lambda e: e.update(mismatches=["quota"])), "attested, with mismatches: quota"),
    (proof(BOX, lambda e: e.update(process_wall_ns=10**9)), "its process took 1.000 s"),
    (proof(BOX, lambda e: e.update(process_wall_ns=None)), "no duration of the process"),
    (proof(BOX, lambda e: e.pop("asked")), "evidence.json breaks its schema at asked: missing"),
    (saw(cpus_allowed_list="0"), "read CPUs 0, 0-15 needed"),
    (saw(cgroup={"version": 1, "quota_cpus": None, "cpuset": "0-15"}), "a quota of none, 2 CPUs"),
    (
        lambda folder: folder.edit(
            f"trials/{BOX}/result.json", lambda r: r["confounders"].update(ran_on=[40])
        ),
        "found on CPUs outside of its affinity",
    ),
    (placed("machine", GUEST, accelerator="tcg"), "accelerator 'tcg' found, 'kvm' needed"),
    (placed("machine", GUEST, vcpus=1), "vcpus 1 found, 2 needed"),
    (placed("machine", GUEST, quotas={"vcpu_quota": 1}), "CPU quotas"),
    (placed("machine", GUEST, kernel="/images/0/vmlinuz"), "kernel .* of another image"),
    (placed("machine", GUEST, cpus_online="0-1"), "cpus_online, which the machine kvm does"),
    (placed("enclosure", GUEST, container="f00d"), "a container found, process needed"),
    (
        proof(GUEST, lambda e: e["after"]["machine"]["vcpu_threads"][1].update(migrations=9)),
        "vCPU 1 was moved to another CPU 6 times",
    ),
    (
        proof(
            GUEST, lambda e: e["after"]["machine"]["vcpu_threads"][0].update(cpus_allowed_list="5")
        ),
        "vCPU 0 read after the trial: CPUs '5' found, '0' needed",
    ),
    (
        lambda folder: folder.edit(
            f"trials/{GUEST}/result.json",
            lambda r: r["confounders"].update(transparent_hugepage="never"),
        ),
        "transparent hugepages never found in the guest",
    ),
]


@pytest.mark.parametrize(("spoil", "reason"), CONTRADICTIONS, ids=[r for _, r in CONTRADICTIONS])
def test_a_label_that_its_evidence_contradicts_is_no_result(
    folder: Any, spoil: Callable[[Any], None], reason: str
) -> None:
    folder.trial("vm", "pinned", 1, {"a": [20.0]}, cores=2)
    folder.trial("cn", "vanilla", 1, {"a": [20.0]}, cores=2)
    folder.trial("cn", "pinned", 1, {"a": [20.0]}, cores=2)
    assert read_sweep(folder.path).rejected == []
    spoil(folder)
    sweep = read_sweep(folder.path)
    (rejected,) = sweep.rejected
    assert re.search(reason, rejected.reason), rejected.reason
    assert sweep.trials.height == 2


@pytest.mark.parametrize("platform", ["bm", "cn", "podman", "gvisor", "vm", "vmcn", "microvm"])
@pytest.mark.parametrize("mode", ["vanilla", "pinned"])
@pytest.mark.parametrize("cores", [1, 4])
def test_results_of_every_platform_are_accepted_if_placed_as_requested(
    folder: Any, platform: str, mode: str, cores: int
) -> None:
    folder.trial(platform, mode, 1, {"a": [20.0]}, cores=cores, thread_policy="matched")
    assert read_sweep(folder.path).rejected == []


def copied(folder: Any, *, but: Callable[[Any], object] = lambda r: None) -> None:
    """Let one trial have the samples of another."""
    read = json.loads((folder.path / f"trials/{GOOD}/result.json").read_text())
    folder.edit(f"trials/{BAD}/result.json", lambda r: r.update(samples=read["samples"]))
    folder.edit(f"trials/{BAD}/result.json", but)


@pytest.mark.parametrize(
    "but",
    [lambda r: None, lambda r: r["samples"][0].update(pre_ns=1, infer_ns=1, post_ns=89_999_998)],
)
def test_both_of_two_trials_with_the_same_times_are_left_out(
    two: Any, but: Callable[[Any], object]
) -> None:
    copied(two, but=but)
    sweep = read_sweep(two.path)
    assert sweep.trials.height == 0
    assert [(r.file.split("/")[1], r.reason) for r in sweep.rejected] == [
        (one, f"has the measured samples of {other}, to the nanosecond: one is a copy")
        for one, other in ((GOOD, BAD), (BAD, GOOD))
    ]


def test_one_cell_twice_in_a_replicate_is_left_out(folder: Any) -> None:
    first = folder.trial("bm", "pinned", 1, {"a": [20.0]})
    second = folder.trial("bm", "pinned", 1, {"a": [21.0]}, named="trained")
    assert {r.reason for r in read_sweep(folder.path).rejected} == {
        f"is the same cell and replicate as {one}" for one in (first, second)
    }


def test_a_copy_in_another_folder_is_refused(two: Any) -> None:
    third = other(two, "shard", 3)
    name = GOOD.replace("r01", "r03")
    read = json.loads((two.path / f"trials/{GOOD}/result.json").read_text())
    path = third / f"trials/{name}/result.json"
    document = json.loads(path.read_text())
    document |= {key: read[key] for key in ("samples", "settings", "answers", "loadgen")}
    path.write_text(json.dumps(document))
    with pytest.raises(AnalysisError, match="have the same measured samples, to the nanosecond"):
        load(two.path, third)


def test_a_host_report_of_another_host_is_left_out(two: Any) -> None:
    facts = {"cpu": {"model": "Xeon", "online": [0]}}
    report = {"schema": identifiers.HOST_REPORT, "host": "bench02", "ok": True, "accelerator": None}
    two.write("doctor.json", report | {"facts": facts, "platforms": []})
    sweep = read_sweep(two.path)
    assert sweep.doctor is None
    assert [r.reason for r in sweep.rejected] == [
        "is of the host bench02, the trials ran on bench01"
    ]


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
    assert "has emulated False, but its accelerator is tcg" in rejected.reason


def on_an_emulated_host(folder: Any, name: str, marked: bool = True) -> None:
    folder.edit(f"trials/{name}/result.json", lambda r: r["trial"].update(emulated=marked))
    folder.edit(f"trials/{name}/evidence.json", lambda e: e["asked"].update(host_emulated=True))
    folder.edit("design.json", lambda d: [trial.update(emulated=marked) for trial in d["trials"]])


@pytest.mark.parametrize("platform", ["bm", "vm"])
def test_trials_on_an_emulated_host_are_emulated_with_any_accelerator(
    folder: Any, platform: str
) -> None:
    on_an_emulated_host(folder, folder.trial(platform, "pinned", 1, {"a.png": [20.0]}))
    sweep = read_sweep(folder.path)
    assert sweep.rejected == []
    assert sweep.trials["emulated"].to_list() == [True]


@pytest.mark.parametrize(("marked", "host"), [(False, True), (True, False)])
def test_an_emulated_flag_that_the_evidence_contradicts_is_rejected(
    folder: Any, marked: bool, host: bool
) -> None:
    name = folder.trial("bm", "pinned", 1, {"a.png": [20.0]})
    on_an_emulated_host(folder, name, marked)
    folder.edit(f"trials/{name}/evidence.json", lambda e: e["asked"].update(host_emulated=host))
    (rejected,) = read_sweep(folder.path).rejected
    where = "an emulated" if host else "a real"
    assert f"has emulated {marked}, its evidence has accelerator none on {where} host" in (
        rejected.reason
    )


def test_a_host_that_its_report_calls_emulated_has_no_figures(two: Any) -> None:
    facts = {"cpu": {"model": "LabCPU", "online": [0]}}
    report = {"schema": identifiers.HOST_REPORT, "host": "bench01", "ok": True, "accelerator": None}
    two.write("doctor.json", report | {"facts": facts, "platforms": [], "emulated": True})
    assert read_sweep(two.path).trials["emulated"].all()


def test_broken_design_is_named_and_results_still_load(two: Any) -> None:
    two.write("design.json", "{")
    sweep = read_sweep(two.path)
    assert sweep.trials.height == 2
    assert sweep.rejected[0].file == "design.json"


@pytest.mark.parametrize("read", [load, read_sweep, report])
def test_a_folder_without_a_sweep_is_refused(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    (tmp_path / "quick").mkdir()
    with pytest.raises(AnalysisError, match=r"has neither design\.json nor trials; give a results"):
        read(tmp_path / "quick")
    assert [*tmp_path.rglob("*")] == [tmp_path / "quick"]


def test_a_sweep_without_samples_is_no_export(folder: Any, tmp_path: Path) -> None:
    folder.plan("bm", "pinned", 1)
    folder.write("trials/bad/result.json", "{")
    file = tmp_path / "samples.parquet"
    with pytest.raises(
        AnalysisError, match=r"no trial with samples found, one needed \(1 file left out\)"
    ):
        export([folder.path], file)
    assert not file.exists()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no such results folder"):
        load(tmp_path / "none")


def other(folder: Any, name: str, replicate: int, **changes: Any) -> Path:
    """Lay a folder of one more trial next to another."""
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
    with pytest.raises(AnalysisError, match=r"results of 2 images are not pooled.*1 trial,"):
        load(two.path, other(two, "new", 3, image="sha256:" + "e" * 64))


def test_versions_of_one_application_are_not_pooled(two: Any) -> None:
    result(lambda r: r["application"].update(version="2"))(two)
    with pytest.raises(
        AnalysisError,
        match=r"2 versions of one application are not pooled.*image_classification 1 .1 trial, "
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
    printed = json.loads(metadata["columns"])
    assert {name: kind["type"] for name, kind in printed.items()} == {
        name: str(kind) for name, kind in plain.schema.items()
    }
    assert all(kind["meaning"].endswith(".") for kind in printed.values())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


def peaks(path: Path, platform: str, kib: int) -> list[str]:
    """Return why a trial with such a peak of memory is left out; its instance has 4 GiB."""
    folder = Folder(path)
    folder.trial(platform, "pinned", 1, {"a.png": [20.0]}, peak_kib=kib)
    return [row.reason for row in read_sweep(folder.path).rejected]


def test_no_instance_holds_twice_its_memory(tmp_path: Path) -> None:
    """A process on metal may: it has what the host has."""
    (fault,) = peaks(tmp_path / "box", "cn", 9 * 2**20)
    assert "had a peak of 9437184 KiB resident, but its instance has 4194304 KiB" in fault
    assert peaks(tmp_path / "full", "cn", 4 * 2**20) == []
    assert peaks(tmp_path / "metal", "bm", 9 * 2**20) == []


@pytest.mark.parametrize("real", [True, False], ids=["a real digest", "a digest of something else"])
def test_results_whose_answers_do_not_match_the_digest_are_left_out(
    folder: Any, real: bool
) -> None:
    trials = [folder.trial("bm", "pinned", r, {"a.png": [20.0 + r]}) for r in (1, 2, 3)]
    digest = "sha256:" + hashlib.sha256(json.dumps([("a.png", "cup")]).encode()).hexdigest()
    for trial in trials if real else ():
        folder.edit(f"trials/{trial}/result.json", lambda r: r["answers"].update(digest=digest))
    assert read_sweep(folder.path).rejected == []
    for trial in trials[:2] if real else trials[:1]:  # most of those with one digest
        folder.edit(
            f"trials/{trial}/result.json",
            lambda r: r["answers"]["by_input"][0].update(answer="dog"),
        )
    sweep = read_sweep(folder.path)
    assert sweep.trials["trial"].to_list() == (trials[2:] if real else trials[1:])
    assert "answers that are not those of its digest" in sweep.rejected[0].reason
