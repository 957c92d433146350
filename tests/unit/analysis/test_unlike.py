"""Trials that are unlike besides their platform are refused, left out or marked, by one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from virtbed_analysis import AnalysisError, load
from virtbed_analysis.advice import Question, advise
from virtbed_analysis.comparison import compare
from virtbed_analysis.differences import differing
from virtbed_analysis.document import document
from virtbed_analysis.estimate import cells
from virtbed_analysis.frames import Sweep, read_sweep
from virtbed_analysis.page import render
from virtbed_analysis.per_trial import startup
from virtbed_analysis.unlike import COLUMNS, TABLE

from .conftest import Folder, Json

Change = Callable[[Json], object]


@pytest.fixture
def pairs(folder: Folder) -> Folder:
    """Bare metal, a container and a guest, three replicates."""
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 + replicate]})
        folder.trial("cn", "pinned", replicate, {"a": [22.0 + replicate]})
        folder.trial("vm", "pinned", replicate, {"a": [24.0 + replicate]})
    return folder


def ident(platform: str, replicate: int) -> str:
    return f"{platform}-pinned-c01-image_classification-r{replicate:02d}"


def change(folder: Folder, platform: str, replicate: int, change: Change) -> None:
    """Change a result, and its evidence where that says the same."""
    folder.edit(f"trials/{ident(platform, replicate)}/result.json", change)


def asked(folder: Folder, platform: str, replicate: int, **values: Any) -> None:
    name = f"trials/{ident(platform, replicate)}"
    folder.edit(f"{name}/result.json", lambda r: r["trial"].update(values))
    folder.edit(f"{name}/evidence.json", lambda e: e["asked"].update(values))
    folder.edit(
        f"{name}/evidence.json",
        lambda e: [e[moment]["enclosure"].update(values) for moment in ("before", "after")],
    )


def ratios(sweep: Sweep) -> dict[str, tuple[float | None, int]]:
    rows = document(sweep)["cells"]
    return {row["platform"]: (row["ratio"], row["ratio_replicates"]) for row in rows}


def undesigned(folder: Folder) -> None:
    """Remove the design, which tells some differences by itself."""
    (folder.path / "design.json").unlink()


CN_2 = ident("cn", 2)
REFUSED: dict[str, tuple[Callable[[Folder], object], str]] = {
    "host": (
        lambda f: change(f, "cn", 2, lambda r: r["trial"].update(host="bench02")),
        r"results of 2 hosts are not pooled.*bench01 \(2 trials, first bm-.*bench02 \(1 trial, "
        rf"first {CN_2}\).*Pairs of two hosts are never made.*virtbed compare",
    ),
    "plan": (
        lambda f: change(f, "cn", 2, lambda r: r["trial"].update(plan_digest="sha256:" + "d" * 64)),
        "2 plans are not pooled",
    ),
    "Python": (
        lambda f: change(f, "cn", 2, lambda r: r["environment"].update(python="3.13.1")),
        r"2 versions of Python.*3\.11\.2 .*3\.13\.1",
    ),
    "memory": (lambda f: asked(f, "cn", 2, memory_mib=512), "2 sizes of memory.*4096.*512"),
    "seed": (
        lambda f: change(f, "cn", 2, lambda r: r["settings"].update(seed=1)),
        "2 seeds of the inputs.*other inputs are other work",
    ),
    "sweep": (
        lambda f: change(f, "cn", 2, lambda r: r["trial"].update(sweep="other")),
        r"2 sweeps are not pooled.*other \(1 trial,",
    ),
    "version": (
        lambda f: change(f, "cn", 2, lambda r: r["application"].update(version="2")),
        "2 versions of one application",
    ),
    "frameworks": (
        lambda f: change(
            f, "cn", 2, lambda r: r["application"]["frameworks"].update(tensorflow="2.22.0")
        ),
        r"2 sets of frameworks.*tensorflow 2\.21\.0.*tensorflow 2\.22\.0",
    ),
    "model": (
        lambda f: change(f, "cn", 2, lambda r: r["application"].update(model="B7")),
        "2 models.*image_classification trained B7 .*EfficientNet",
    ),
    "weights": (
        lambda f: change(f, "cn", 2, lambda r: r["application"].update(weights="seeded")),
        "2 kinds of weights",
    ),
    "rules": (
        lambda f: change(f, "cn", 2, lambda r: r["settings"].update(rules="study")),
        "2 rules for one application.*quick.*study",
    ),
    "rate": (
        lambda f: change(f, "cn", 2, lambda r: r["settings"].update(target_qps=5.0)),
        "2 rates of one application.*not known",
    ),
    "bound": (
        lambda f: change(f, "cn", 2, lambda r: r["settings"].update(target_latency_ms=5.0)),
        "2 bounds on the latency",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_every_number_a_mixture_is_refused(pairs: Folder, what: str) -> None:
    spoil, message = REFUSED[what]
    spoil(pairs)
    undesigned(pairs)
    with pytest.raises(AnalysisError, match=message):
        read_sweep(pairs.path)


def test_two_slowdowns_are_refused(folder: Folder) -> None:
    for replicate, slowdown in ((1, 0.1), (2, 0.2)):
        folder.trial("bm", "pinned", replicate, {"a": [20.0]}, variant="slowed", slowdown=slowdown)
    with pytest.raises(AnalysisError, match=r"2 slowdowns of one variant.*slowed 0\.1 .*0\.2 "):
        read_sweep(folder.path)


STATES: dict[str, Change] = {
    "kernel": lambda r: r["environment"].update(kernel="6.12.9"),
    "CPU model": lambda r: r["environment"].update(cpu_model="EPYC"),
    "instruction sets": lambda r: r["environment"].update(isa=["avx2", "avx512f"]),
    "clock source": lambda r: r["environment"].update(clocksource="hpet"),
    "frequency governor": lambda r: r["confounders"].update(governor="powersave"),
    "turbo": lambda r: r["environment"].update(turbo=False),
    "CPU mitigations": lambda r: r["environment"].update(mitigations={"meltdown": "PTI"}),
    "huge pages": lambda r: r["confounders"].update(transparent_hugepage="always"),
    "oneDNN's kernels": lambda r: r["environment"].update(onednn_isa="Intel AVX-512"),
}


@pytest.mark.parametrize("what", sorted(STATES.keys() - {"oneDNN's kernels"}))
def test_a_pair_under_two_states_of_one_kernel_has_no_ratio(pairs: Folder, what: str) -> None:
    change(pairs, "cn", 2, STATES[what])
    sweep = read_sweep(pairs.path)
    (rejected,) = sweep.rejected
    assert rejected.file == f"trials/{ident('cn', 2)}/result.json"
    assert rejected.reason.startswith(f"{what} ")
    assert "in bare metal of its replicate" in rejected.reason
    assert ratios(sweep)["cn"][1] == 2
    assert ratios(sweep)["vm"][1] == 3


def test_the_odd_one_is_the_one_unlike_bare_metal_not_the_rarer_one(pairs: Folder) -> None:
    change(pairs, "bm", 2, STATES["kernel"])
    for platform in ("cn",):
        pairs.trial(platform, "vanilla", 2, {"a": [30.0]})
    rejected = {row.file.split("/")[1] for row in read_sweep(pairs.path).rejected}
    assert rejected == {ident("cn", 2), ident("cn", 2).replace("pinned", "vanilla")}


def test_a_container_from_which_oneDNN_gets_less_is_marked(pairs: Folder) -> None:
    every(pairs, "cn", STATES["oneDNN's kernels"])
    content = document(read_sweep(pairs.path))
    assert content["rejected"] == []
    (row,) = content["unlike"]
    assert (row["platform"], row["value"], row["other"]) == ("cn", "Intel AVX-512", "Intel AVX2")


def test_what_an_engine_masks_is_marked_and_left_in(pairs: Folder) -> None:
    nothing = {"clocksource": None, "cpu_model": None, "mitigations": None}
    every(pairs, "cn", lambda r: r["environment"].update(nothing))
    content = document(read_sweep(pairs.path))
    assert content["rejected"] == []
    assert {row["value"] for row in content["unlike"]} == {"not known"}
    assert len(content["unlike"]) == 3


@pytest.mark.parametrize("what", sorted(STATES.keys() - {"turbo", "frequency governor"}))
def test_replicates_under_other_states_are_marked(pairs: Folder, what: str) -> None:
    for platform in ("bm", "cn") if what != "oneDNN's kernels" else ("bm",):
        change(pairs, platform, 3, STATES[what])
    content = document(read_sweep(pairs.path))
    assert content["rejected"] == []
    found = [row for row in content["unlike"] if row["platform"] is None]
    assert [row["fact"] for row in found] == [what]
    assert "replicates 3" in found[0]["where"]


def every(folder: Folder, platform: str, spoil: Change) -> None:
    for replicate in (1, 2, 3):
        change(folder, platform, replicate, spoil)


PAIRS = {what: spoil for what, spoil in STATES.items() if what != "huge pages"} | {
    "threads within an operation": lambda r: r["environment"]["threads"].update(intra_op=2),
    "threads between operations": lambda r: r["environment"]["threads"].update(inter_op=2),
}


@pytest.mark.parametrize("what", PAIRS)
def test_a_guest_that_differs_keeps_its_ratio_with_both_values_next_to_it(
    pairs: Folder, what: str
) -> None:
    every(pairs, "bm", lambda r: r["confounders"].update(governor="performance"))
    every(pairs, "cn", lambda r: r["confounders"].update(governor="performance"))
    every(pairs, "vm", PAIRS[what])
    content = document(read_sweep(pairs.path))
    assert content["rejected"] == []
    (row,) = content["unlike"]
    assert (row["fact"], row["platform"], row["trials"]) == (what, "vm", 3)
    assert row["value"] != row["other"]
    assert row["where"] == "vm and its bare metal"
    vm = next(cell for cell in content["cells"] if cell["platform"] == "vm")
    assert vm["ratio_replicates"] == 3


def test_what_a_kernel_does_not_tell_differs_from_nothing(pairs: Folder) -> None:
    nothing = {"clocksource": None, "cpu_model": None, "mitigations": None, "onednn_isa": None}
    every(pairs, "vm", lambda r: r["environment"].update(nothing))
    assert document(read_sweep(pairs.path))["unlike"] == []


def test_clock_rates_apart_on_one_kernel_are_marked(pairs: Folder) -> None:
    every(pairs, "cn", lambda r: r["confounders"].update(mhz={"before": 2600.0, "after": 2600.0}))
    every(pairs, "vm", lambda r: r["confounders"].update(mhz={"before": 2600.0, "after": 2600.0}))
    (row,) = document(read_sweep(pairs.path))["unlike"]
    assert (row["fact"], row["where"]) == ("clock rate", "cn pinned and its bare metal")
    assert (row["value"], row["other"], row["trials"]) == ("2600", "2000", 3)


def test_emulated_trials_are_not_compared(pairs: Folder) -> None:
    name = pairs.trial("vm", "vanilla", 1, {"a": [5000.0]}, emulated=True, scale="tiny")
    pairs.edit(f"trials/{name}/result.json", STATES["kernel"])
    pairs.edit(f"trials/{name}/result.json", lambda r: r["settings"].update(rules="study"))
    content = document(read_sweep(pairs.path))
    assert content["rejected"] == content["unlike"] == []
    assert content["counts"]["emulated"] == 1


def test_lists_are_said_by_what_the_other_has_not() -> None:
    assert differing("avx; avx2; fma", "avx; avx2") == ("fma", "nothing else")
    assert differing("a: x; b: y", "a: x; b: z") == ("b: y", "b: z")
    assert differing(None, True) == ("not known", "on")


def test_each_fact_is_a_column_and_the_report_lists_the_table(pairs: Folder) -> None:
    sweep = read_sweep(pairs.path)
    assert set(COLUMNS) <= set(sweep.trials.columns)
    rows = document(sweep)["must_be_alike"]
    assert [(row["fact"], row["rule"]) for row in rows] == [(f.words, f.rule) for f in TABLE]
    assert all(row["reason"] for row in rows)


def two_hosts(pairs: Folder) -> tuple[Path, Path]:
    """Lay a slow host's folder, of containers alone, next to that of a fast one."""
    other = Folder(pairs.path.parent / "slow")
    for replicate in (1, 2, 3):
        name = other.trial("cn", "pinned", replicate, {"a": [2 * (22.0 + replicate)]})
        other.edit(f"trials/{name}/result.json", lambda r: r["trial"].update(host="slow"))
    return pairs.path, other.path


def test_hosts_are_loaded_together_and_never_averaged(pairs: Folder) -> None:
    samples = load(*two_hosts(pairs))
    assert sorted(samples["host"].unique()) == ["bench01", "slow"]
    trials = samples.unique(["host", "trial"])
    for estimate, frame in ((cells, samples), (startup, trials)):
        with pytest.raises(AnalysisError, match=r"2 values of host found \(bench01, slow\)"):
            estimate(frame)
    assert cells(samples.filter(pl.col("host") == "bench01")).height == 3


def test_hosts_are_compared(pairs: Folder) -> None:
    (cell,) = compare(*two_hosts(pairs))["cells"]
    assert cell["platform"] == "cn" and cell["cost"] is None
    assert cell["time"]["value"] == pytest.approx(2, rel=0.01)


def test_cpus_that_were_offline_are_no_other_mitigations(folder: Folder) -> None:
    """Vanilla bare metal by hotplug has no second threads online; the kernel tells so here."""
    reported = {
        "l1tf": "Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT {}",
        "mds": "Mitigation: Clear CPU buffers; SMT {}",
        "spectre_v2": "Mitigation: Enhanced IBRS; IBPB: conditional{}; RSB filling",
        "itlb_multihit": "KVM: Mitigation: {}",
    }
    alone = ("disabled", "disabled", "", "VMX disabled")
    states = ("vulnerable", "vulnerable", "; STIBP: conditional", "Split huge pages")
    for platform, mode, parts in (("bm", "pinned", states), ("bm", "vanilla", alone)):
        name = folder.trial(platform, mode, 1, {"a": [20.0]})
        said = {
            key: text.format(part)
            for (key, text), part in zip(reported.items(), parts, strict=True)
        }
        folder.edit(
            f"trials/{name}/result.json",
            lambda result, said=said: result["environment"].update(mitigations=said),
        )
    sweep = read_sweep(folder.path)
    assert not sweep.rejected
    assert sweep.trials["mitigations"].unique().to_list() == [
        "l1tf: Mitigation: PTE Inversion; mds: Mitigation: Clear CPU buffers; "
        "spectre_v2: Mitigation: Enhanced IBRS; IBPB: conditional; RSB filling"
    ]


@pytest.mark.parametrize(
    ("times", "value", "other"),
    [
        ({"a.png": [20.0] * 3}, "nothing else", "b.png"),
        ({"a.png": [20.0] * 3, "c.png": [45.0] * 3}, "c.png", "b.png"),
    ],
    ids=["lacking", "renamed"],
)
def test_a_trial_of_other_inputs_is_marked(
    folder: Folder, times: dict[str, list[float]], value: str, other: str
) -> None:
    """A ratio takes the inputs of both sides; the typical time of the trial's cell is another's."""
    whole = {"a.png": [20.0] * 3, "b.png": [45.0] * 3}
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, whole)
        folder.trial("cn", "pinned", replicate, times if replicate == 2 else whole)
    content = document(read_sweep(folder.path))
    (row,) = content["unlike"]
    assert (row["fact"], row["value"], row["other"]) == ("inputs measured", value, other)
    assert (row["trials"], row["where"]) == (
        1, "image_classification, trained, single_stream, replicates 2",
    )  # fmt: skip
    assert "1 difference besides the platform" in render(content)
    advice = advise(read_sweep(folder.path), Question("image_classification"))["notes"]
    assert any(
        f"1 trial measured other inputs than most, first {ident('cn', 2)}" in t for t in advice
    )
