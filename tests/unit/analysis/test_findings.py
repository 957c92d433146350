"""Effects with known truth, and every answer that a finding can give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from virtbed_analysis.answers import (
    Case,
    Known,
    Verdict,
    answer,
    judged,
    limit_of,
    sentence,
    side_of,
    verdicts,
)
from virtbed_analysis.cells import Cell, cell_of
from virtbed_analysis.claims import Measured
from virtbed_analysis.context import serial
from virtbed_analysis.document import document
from virtbed_analysis.effects import Effect, Units, effects, of_sweep
from virtbed_analysis.engine import Logs
from virtbed_analysis.findings import FINDINGS, PENALTY, Finding, rows
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.platforms import Platforms

from .conftest import DEFAULTS, LISTED, Folder, failure

RANDOM = np.random.default_rng(5)
ONE = np.array(["a.png"])
PLATFORMS = Platforms(LISTED)

CONTAINER = "container, pinned (cn pinned)"


def lay(seconds: dict[tuple[str, str, str, int, str], float], noise: float = 0.01) -> Units:
    """Make eight replicates of each (work, processor, platform, cores, mode).

    A work is an application; after commas its scale, and its threads.
    """
    logs = {}
    for (work, processor, platform, cores, mode), typical in seconds.items():
        means = np.log(typical) + noise * RANDOM.standard_normal(8)
        units = {str(replicate): (ONE, np.array([log])) for replicate, log in enumerate(means)}
        logs[cell(work, processor, platform, cores, mode)] = Logs.of(units)
    return Units(logs, "replicate", {}, PLATFORMS)


def cell(work: str, processor: str, platform: str, cores: int, mode: str) -> Cell:
    application, scale, threads = [*work.split(", "), "", ""][:3]
    return cell_of(
        DEFAULTS
        | {"application": application, "scale": scale, "scenario": "", "weights": "",
           "cores": cores, "platform": platform, "mode": mode, "processor": processor,
           "thread_policy": threads or "default"}
    )  # fmt: skip


def verdict_of(units: Units, id_: str, known: Known | None = None) -> Verdict:
    return next(v for v in verdicts(units, known) if v.finding.id == id_)


def metal(cores: int = 1, seconds: float = 1.0, work: str = "faces") -> dict:
    return {(work, "cpu", "bm", cores, "pinned"): seconds}


def on(platform: str, mode: str, seconds: float, cores: int = 1, work: str = "faces") -> dict:
    return {(work, "cpu", platform, cores, mode): seconds}


def test_an_effect_is_scipys_paired_t_interval() -> None:
    above, below = RANDOM.normal(0.3, 0.1, 9), RANDOM.normal(0.1, 0.1, 9)
    (effect,) = effects([("x", [above - below])])
    wanted = stats.ttest_rel(above, below).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((np.exp(wanted.low), np.exp(wanted.high)))
    assert effect.value == pytest.approx(np.exp((above - below).mean()))


def test_a_difference_of_two_effects_is_scipys_welch_interval() -> None:
    one, other = RANDOM.normal(0.3, 0.1, 9), RANDOM.normal(0.1, 0.3, 5)
    (effect,) = effects([("x", [one, -other])])
    wanted = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((np.exp(wanted.low), np.exp(wanted.high)))


def test_a_plain_effect_agrees_with_scipys_bootstrap() -> None:
    differences = RANDOM.normal(0.2, 0.1, 40)
    (effect,) = effects([("x", [differences])])
    found = stats.bootstrap((differences,), np.mean, method="BCa", random_state=RANDOM)
    low, high = np.exp(found.confidence_interval)
    width = high - low
    assert effect.low == pytest.approx(low, abs=width / 10)
    assert effect.high == pytest.approx(high, abs=width / 10)


def test_the_intervals_of_one_finding_are_simultaneous() -> None:
    """Of sweeps where nothing differs, at most one in twenty may find any of ten effects."""
    wrong = 0
    for _ in range(2000):
        found = effects((str(i), [RANDOM.standard_normal(6)]) for i in range(10))
        wrong += any(not e.low < 1 < e.high for e in found if e.low and e.high)
    assert 0.03 < wrong / 2000 < 0.065


def test_one_unit_has_an_effect_and_no_interval() -> None:
    assert effects([("x", [np.array([0.0])])]) == [Effect("x", 1.0, None, None, 1)]


def test_cells_are_paired_by_replicate_and_input(folder: Folder) -> None:
    for replicate, drift in enumerate((1.0, 3.0, 2.0), start=1):
        folder.trial("bm", "pinned", replicate, {"a": [10 * drift], "b": [100 * drift]})
        folder.trial("cn", "pinned", replicate, {"b": [120 * drift]})
    sweep = read_sweep(folder.path)
    units = of_sweep(sweep.samples, sweep.platforms)
    (cell,) = units.cells(platform="cn")
    (effect,) = effects([("x", [units.cost(cell)])])
    assert (effect.value, effect.low, effect.high) == pytest.approx((1.2, 1.2, 1.2))


def test_costs_are_against_bare_metal_of_one_mode_at_every_size() -> None:
    """A sweep's is pinned; where that is missing no other stands in, as it would unnoticed."""
    units = lay(on("bm", "vanilla", 1.0) | on("vm", "pinned", 1.2))
    (cell,) = units.cells(platform="vm")
    assert units.cost(cell) is None
    units = replace(units, metal_mode="vanilla")  # the published data has no other
    assert effects([("x", [units.cost(cell)])])[0].value == pytest.approx(1.2, rel=0.02)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.id)
def test_a_finding_without_measurements_is_not_tested_and_states_its_needs(
    finding: Finding,
) -> None:
    verdict = verdict_of(lay(metal()), finding.id)
    assert verdict.answer == "not tested"
    assert sentence(verdict) == f"Needs {finding.needs}."


def intervals(*spans: tuple[float, float] | None) -> list[Effect]:
    return [
        Effect("x", 1.0, None, None, 1) if s is None else Effect("x", (s[0] * s[1]) ** 0.5, *s, 5)
        for s in spans
    ]


UP, DOWN, WIDE, NEAR = (1.2, 1.3), (0.7, 0.8), (0.9, 1.11), (0.99, 1.01)
TINY = (1.0005, 1.0015)


@pytest.mark.parametrize(
    ("id_", "spans", "wanted"),
    [
        ("vanilla-container", [UP, DOWN], "supported"),
        ("vanilla-container", [DOWN, DOWN], "refuted"),
        ("vanilla-container", [WIDE, DOWN], "inconclusive"),
        ("vanilla-container", [None], "inconclusive"),
        ("vanilla-container", [TINY], "refuted"),  # 0.1% more is no cost of interest
        ("gpu-pre-post", [UP, UP], "supported"),
        ("gpu-pre-post", [UP, TINY], "refuted"),
        ("penalty-size", [UP, UP], "supported"),
        ("penalty-size", [UP, NEAR], "supported"),
        ("penalty-size", [UP, WIDE], "inconclusive"),
        ("penalty-size", [UP, WIDE, DOWN], "refuted"),
        ("penalty-size", [NEAR, NEAR], "inconclusive"),  # small steps may make a large one
        ("penalty-size", [TINY], "refuted"),
        ("container-in-vm", [UP, DOWN], "supported"),
        ("container-in-vm", [UP, UP], "refuted"),
        ("container-in-vm", [UP, (0.998, 0.9995)], "refuted"),
        ("passthrough", [NEAR, DOWN], "supported"),
        ("passthrough", [NEAR, WIDE], "inconclusive"),
        ("passthrough", [NEAR, UP], "refuted"),
        ("application", [NEAR, DOWN], "supported"),
        ("application", [NEAR, NEAR], "refuted"),
        ("application", [NEAR, WIDE], "inconclusive"),
        ("metal-scaling", [UP, NEAR], "supported"),
        ("metal-scaling", [NEAR, UP], "refuted"),  # a dip that is made good is no end
        ("metal-scaling", [NEAR, WIDE], "inconclusive"),
    ],
)
def test_an_answer_follows_from_whole_intervals(
    id_: str, spans: list[tuple[float, float] | None], wanted: str
) -> None:
    finding = next(f for f in FINDINGS if f.id == id_)
    limit = limit_of(finding)
    wholes = finding.rule != "falls" or len(spans) == 1
    cases = [
        Case(effect, side_of(finding, effect, limit, step=not wholes), "one curve", wholes)
        for effect in intervals(*spans)
    ]
    assert answer(finding, cases, limit) == wanted


def test_pinning_is_tested_only_where_there_is_a_penalty() -> None:
    penalty = metal() | on("cn", "vanilla", 1.5)
    assert verdict_of(lay(penalty | on("cn", "pinned", 1.05)), "pinning").answer == "supported"
    assert verdict_of(lay(penalty | on("cn", "pinned", 1.45)), "pinning").answer == "refuted"
    # 57% of the penalty, which is most of it, though by less than a margin of cost.
    most = metal() | on("cn", "vanilla", 1.12) | on("cn", "pinned", 1.05)
    assert verdict_of(lay(most, noise=0.001), "pinning").answer == "supported"
    none = metal() | on("cn", "vanilla", 1.05) | on("cn", "pinned", 1.0)
    assert verdict_of(lay(none), "pinning").answer == "not tested"


def penalty(*by_size: float) -> dict:
    """Return bare metal and vanilla containers of 1, 2, 4... cores with these penalties."""
    timed: dict = {}
    for power, cost in enumerate(by_size):
        cores, seconds = 2**power, 0.5**power
        timed |= metal(cores, seconds) | on("cn", "vanilla", cost * seconds, cores)
    return timed


def test_penalties_at_the_limit_are_rarely_taken_for_clear_ones() -> None:
    """Whether there is one to remove is decided of all cells at once (Holm)."""
    pinning = next(finding for finding in FINDINGS if finding.id == "pinning")
    seconds: dict = {}
    for work in (f"work {n}" for n in range(20)):
        seconds |= metal(work=work) | on("cn", "vanilla", PENALTY, work=work)
        seconds |= on("cn", "pinned", 1.0, work=work)
    asked = [any(pinning.candidates(Measured(lay(seconds)))) for _ in range(100)]
    assert np.mean(asked) <= 0.09


def test_the_penalty_falls_only_where_no_step_of_the_curve_rises() -> None:
    verdict = verdict_of(lay(penalty(3.0, 1.5, 1.2)), "penalty-size")
    assert verdict.answer == "supported"
    found = {effect.about: effect.value for effect in verdict.effects}
    assert found["faces, 1 over 2 cores"] == pytest.approx(2.0, rel=0.03)
    assert found["faces, 1 over 4 cores"] == pytest.approx(2.5, rel=0.03)
    # From its first size to its last it falls; in between it rises.
    dips = verdict_of(lay(penalty(2.0, 1.1, 1.8)), "penalty-size")
    assert dips.answer == "refuted"
    assert sentence(dips).startswith("faces, 2 over 4 cores: 0.6")
    assert verdict_of(lay(penalty(1.2, 1.2, 1.2)), "penalty-size").answer == "refuted"


def test_small_steps_that_make_a_large_one_are_a_fall() -> None:
    slowly = [1.20, 1.18, 1.16, 1.14, 1.12]
    assert verdict_of(lay(penalty(*slowly), noise=0.002), "penalty-size").answer == "supported"


def test_metal_stops_scaling_where_no_further_doubling_gives_a_tenth() -> None:
    assert verdict_of(lay(metal(1) | metal(2, 0.5)), "metal-scaling").answer == "refuted"
    stops = metal(1) | metal(2, 0.5) | metal(4, 0.49)
    verdict = verdict_of(lay(stops), "metal-scaling")
    assert verdict.answer == "supported"
    assert sentence(verdict).startswith("faces, 2 to 4 cores: 1.0")
    assert sentence(verdict).endswith(
        "Of 2 effects, 1 support the claim, 1 contradict it, 0 do neither."
    )
    # Where more cores pay again it has not stopped.
    assert verdict_of(lay(stops | metal(8, 0.25)), "metal-scaling").answer == "refuted"


def test_an_application_of_one_thread_does_not_show_that_metal_stops_scaling(
    folder: Folder,
) -> None:
    chance = np.random.default_rng(2)
    for replicate in range(1, 7):
        for cores in (1, 2):
            for work, busy in (("faces", 0.97), ("words", 1.9)):
                ms = 20 * chance.lognormal(0, 0.01)
                name = folder.trial(
                    "bm", "pinned", replicate, {"a": [ms]}, cores=cores, application=work,
                    confounders={"own_cpu_ns": round(2e9 * min(busy, cores))},
                )  # fmt: skip
                assert name
    sweep = read_sweep(folder.path)
    (reason,) = serial(sweep.trials).values()
    assert reason.startswith("it kept 0.97 of 2 CPUs busy")
    found = next(r for r in document(sweep)["findings"] if r["id"] == "metal-scaling")
    assert [effect["about"] for effect in found["effects"]] == ["words, trained, 1 to 2 cores"]
    assert found["left_out"] == [f"faces, trained, 1 to 2 cores: {reason}"]


def test_an_application_with_a_pool_of_one_thread_shows_nothing_of_metal(folder: Folder) -> None:
    for cores in (1, 2):
        name = folder.trial("bm", "pinned", 1, {"a": [20.0]}, cores=cores)
        folder.edit(
            f"trials/{name}/result.json",
            lambda r: r["environment"]["threads"].update(intra_op=1, inter_op=1),
        )
    (reason,) = serial(read_sweep(folder.path).trials).values()
    assert reason.startswith("its pools had 1 thread")


def test_each_of_several_applications_is_compared_with_the_others() -> None:
    works = {"faces": 1.2, "scans": 1.1, "words": 1.1, "sounds": 1.1}
    timed: dict = {}
    for work, cost in works.items():
        timed |= metal(work=work) | on("cn", "pinned", cost, work=work)
    verdict = verdict_of(lay(timed, noise=0.001), "application")
    found = {effect.about: effect.value for effect in verdict.effects}
    assert found.keys() == {
        f"{CONTAINER}, {work}, 1 core over {', '.join(sorted(works.keys() - {work}))}"
        for work in works
    }
    assert found[f"{CONTAINER}, faces, 1 core over scans, sounds, words"] == pytest.approx(
        1.2 / 1.1, rel=0.01
    )
    others = (1.2 * 1.1 * 1.1) ** (1 / 3)
    assert found[f"{CONTAINER}, words, 1 core over faces, scans, sounds"] == pytest.approx(
        1.1 / others, rel=0.01
    )
    assert verdict.answer == "supported"
    many: dict = {}
    for n in range(9):
        many |= metal(work=f"w{n}") | on("cn", "pinned", 1.1, work=f"w{n}")
    assert (
        verdict_of(lay(many), "application").effects[0].about
        == f"{CONTAINER}, w0, 1 core over 8 others"
    )


def test_one_application_at_another_scale_or_with_other_threads_is_no_other_application() -> None:
    timed: dict = {}
    for work, cost in (("faces, tiny", 1.1), ("faces, mlperf", 1.5), ("faces, tiny, matched", 2)):
        timed |= metal(work=work) | on("cn", "pinned", cost, work=work)
    assert verdict_of(lay(timed), "application").answer == "not tested"


def test_an_application_of_one_replicate_does_not_silence_the_others() -> None:
    timed: dict = {}
    for work, cost in (("faces", 1.05), ("scans", 1.4), ("words", 1.1)):
        timed |= metal(work=work) | on("cn", "pinned", cost, work=work)
    units = lay(timed)
    for cell in units.cells(application="words"):
        own = units.logs[cell]
        units.logs[cell] = own.at(own.units[:1], own.inputs)  # type: ignore[index]
    verdict = verdict_of(units, "application")
    assert [effect.about for effect in verdict.effects] == [
        f"{CONTAINER}, faces, 1 core over scans"
    ]
    assert verdict.answer == "supported"


def test_an_interval_that_overflows_is_no_interval() -> None:
    (effect, *_) = effects((str(i), [np.array([0.0, 1.0])]) for i in range(10_000))
    assert effect.value == pytest.approx(np.exp(0.5))
    assert effect.low is effect.high is None


def test_the_application_that_computes_less_gains_less_from_a_gpu() -> None:
    gpu = {(w, "gpu", "bm", 1, "pinned"): s for w, s in (("faces", 0.1), ("words", 0.5))}
    measured = lay(metal() | metal(work="words") | gpu)
    shares = {c: 0.2 if c.application == "faces" else 0.8 for c in measured.logs}
    verdict = verdict_of(Units(measured.logs, "replicate", shares, PLATFORMS), "gpu-pre-post")
    assert verdict.answer == "supported"
    assert verdict.effects[0].value == pytest.approx(5, rel=0.05)
    assert "faces (20% pre and post) over words (80%), 1 core" in verdict.effects[0].about


def test_applications_of_nearly_the_same_shares_are_not_ordered_by_them() -> None:
    gpu = {(w, "gpu", "bm", 1, "pinned"): s for w, s in (("faces", 0.1), ("words", 0.5))}
    measured = lay(metal() | metal(work="words") | gpu)
    shares = {c: 0.40 if c.application == "faces" else 0.45 for c in measured.logs}
    verdict = verdict_of(Units(measured.logs, "replicate", shares, PLATFORMS), "gpu-pre-post")
    assert verdict.answer == "not tested"
    assert "5.0 points apart, 10 needed" in verdict.left_out[0]


def test_a_cell_whose_answers_differ_is_left_out_and_named() -> None:
    slow = on("cn", "vanilla", 2.0)
    units = lay(metal() | slow | on("vm", "vanilla", 1.1))
    wrong = cell("faces", "cpu", "cn", 1, "vanilla")
    known = Known(differing=frozenset({wrong}))
    assert verdict_of(units, "vanilla-container").answer == "supported"
    verdict = verdict_of(units, "vanilla-container", known)
    assert verdict.answer == "not tested"
    assert (
        "(cn vanilla) at 1 core, faces: its answers differ from bare metal's" in verdict.left_out[0]
    )
    assert not verdict_of(units, "passthrough", known).left_out  # which asks nothing of that cell


def test_a_sweep_whose_answers_differ_says_so_next_to_its_findings(folder: Folder) -> None:
    chance = np.random.default_rng(3)
    for replicate in range(1, 6):
        for platform, mode, cost in (("bm", "pinned", 1.0), ("cn", "vanilla", 2.0),
                                     ("vm", "vanilla", 1.1)):  # fmt: skip
            ms = 20 * cost * chance.lognormal(0, 0.01)
            answers = "d" if platform == "cn" else "c"
            folder.trial(platform, mode, replicate, {"a": [ms]}, answers=answers)
    found = document(read_sweep(folder.path))["findings"]
    row = next(row for row in found if row["id"] == "vanilla-container")
    assert row["answer"] == "not tested"
    assert "cn vanilla" in row["left_out"][0]


def test_a_cell_that_lost_its_slow_trials_is_left_out_and_named(folder: Folder) -> None:
    """A guest that is as slow as the container, whose slow trials were ended at a time limit."""
    chance = np.random.default_rng(5)
    for replicate in range(1, 7):
        for platform, mode, ms in (
            ("bm", "pinned", 10.0), ("cn", "vanilla", 13.0), ("vm", "vanilla", 11.0),
        ):  # fmt: skip
            own = ms * float(np.exp(0.005 * chance.standard_normal()))
            folder.trial(platform, mode, replicate, {"a": [own] * 3})
    id_ = "vanilla-container"

    def found() -> dict[str, object]:
        listed = document(read_sweep(folder.path))["findings"]
        return next(row for row in listed if row["id"] == id_)

    assert found()["answer"] == "supported"
    other = folder.plan("vm", "vanilla", 7)["id"]
    folder.write(f"trials/{other}/failure.json", failure(other, "no address"))
    assert found()["answer"] == "supported"
    late = folder.plan("vm", "vanilla", 8)["id"]
    folder.write(f"trials/{late}/failure.json", failure(late, "still running after 600 s"))
    row = found()
    assert row["answer"] == "not tested"
    assert "2 of 8 trials failed (1 at a time limit)" in str(row["left_out"])


def test_replicates_that_are_equal_have_no_interval() -> None:
    units = lay(metal() | on("cn", "vanilla", 2.0) | on("vm", "vanilla", 1.0), noise=0.0)
    verdict = verdict_of(units, "vanilla-container")
    assert verdict.answer == "inconclusive"
    assert verdict.effects[0].low is None
    assert "no interval: 8 equal values show no spread" in sentence(verdict)


def test_an_interval_with_an_end_that_overflows_decides_nothing() -> None:
    units = lay(metal() | on("cn", "vanilla", 2.0) | on("vm", "vanilla", 1.0))
    wild = cell("faces", "cpu", "cn", 1, "vanilla")
    ends = ((ONE, np.array([-115.0])), (ONE, np.array([0.0])))
    units.logs[wild] = Logs.of(dict(zip("01", ends, strict=True)))  # type: ignore[index]
    verdict = verdict_of(units, "vanilla-container")
    assert verdict.answer == "inconclusive"
    assert verdict.effects[0].low is None


def test_the_sentence_cites_the_effect_whose_interval_decides() -> None:
    """Not the largest: that one may rest on two replicates that tell next to nothing."""
    large, sure = metal(work="big") | metal(work="sure"), {}
    for work, cost in (("big", 3.0), ("sure", 1.4)):
        sure |= on("cn", "vanilla", cost, work=work) | on("vm", "vanilla", 1.0, work=work)
    units = lay(large | sure)
    big = cell("big", "cpu", "cn", 1, "vanilla")
    ends = ((ONE, np.array([0.1])), (ONE, np.array([2.1])))
    units.logs[big] = Logs.of(dict(zip("01", ends, strict=True)))  # type: ignore[index]
    verdict = verdict_of(units, "vanilla-container")
    assert verdict.answer == "supported"
    assert sentence(verdict).startswith("sure, 1 core: 1.")


def test_a_verdict_states_its_margin_and_its_limits() -> None:
    units = lay(metal() | on("cn", "vanilla", 1.10) | on("vm", "vanilla", 1.0), noise=0.03)
    found = {row["id"]: row for row in rows(units)}
    row = found["vanilla-container"]
    assert row["margin"] == 1.03
    assert row["margin_words"] == "Effects above 1.030 count."
    assert (
        "would no longer be supported" in row["would_change"] or "replicates" in row["would_change"]
    )
    assert "could not be distinguished" in row["not_seen"]
    assert found["passthrough"]["would_change"].startswith("A test needs a KVM guest")
    wide = lay(metal() | on("cn", "vanilla", 1.10) | on("vm", "vanilla", 1.0), noise=0.2)
    row = next(row for row in rows(wide) if row["id"] == "vanilla-container")
    assert row["answer"] == "inconclusive"
    assert "replicates" in row["would_change"]


def test_the_smallest_effect_of_interest_can_be_set() -> None:
    units = lay(metal() | on("cn", "vanilla", 1.10) | on("vm", "vanilla", 1.0), noise=0.002)
    for margin, wanted in ((0.03, "supported"), (0.2, "refuted")):
        row = next(row for row in rows(units, margin=margin) if row["id"] == "vanilla-container")
        assert row["answer"] == wanted


def at_the_margin(id_: str) -> dict:
    """Return times of a truth that just does not support a finding: the least favourable one."""
    timed: dict = {}
    for cores in (1, 2, 4):
        match id_:
            case "vanilla-container":
                timed |= on("cn", "vanilla", 1.03, cores) | on("vm", "vanilla", 1.0, cores)
            case "penalty-size":
                first = 1.03 if cores == 1 else 1.0
                timed |= metal(cores) | on("cn", "vanilla", first, cores)
            case "container-in-vm":
                timed |= on("vm", "pinned", 1.03, cores) | on("vmcn", "pinned", 1.0, cores)
            case "pinning":  # what is left is half of the penalty
                timed |= metal(cores) | on("cn", "vanilla", 1.5, cores)
                timed |= on("cn", "pinned", 1.5**0.5, cores)
            case "application":
                for work, cost in (("faces", 1.05), ("words", 1.0)):
                    timed |= metal(cores, work=work) | on("cn", "pinned", cost, cores, work)
            case "metal-scaling":
                for work in ("faces", "words"):
                    timed |= metal(cores, 1.1 ** (1 - cores.bit_length()), work)
    return timed


@pytest.mark.parametrize(
    "id_",
    ["vanilla-container", "penalty-size", "container-in-vm", "pinning", "application",
     "metal-scaling"],
)  # fmt: skip
def test_a_false_claim_is_supported_in_at_most_one_sweep_of_twenty(id_: str) -> None:
    timed = at_the_margin(id_)
    sweeps = 300
    finding = next(finding for finding in FINDINGS if finding.id == id_)
    limit = limit_of(finding)
    wrong = 0
    for _ in range(sweeps):
        cases = judged(finding, finding.candidates(Measured(lay(timed, noise=0.02))), limit)
        wrong += answer(finding, cases, limit) == "supported"
    assert wrong / sweeps < 0.05 + 2 * (0.05 * 0.95 / sweeps) ** 0.5


def test_a_size_that_no_doubling_reaches_may_scale_again() -> None:
    sizes = metal(1) | metal(2, 0.5) | metal(4, 0.49) | metal(6, 0.3)
    further = verdict_of(lay(sizes), "metal-scaling")
    assert further.answer == "refuted"
    assert further.effects[-1].about.endswith("4 to 6 cores, per doubling")
