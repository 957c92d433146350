import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from virtbed_analysis import estimate, load, per_trial
from virtbed_analysis.document import document
from virtbed_analysis.effects import of_sweep
from virtbed_analysis.engine import Logs, contrast
from virtbed_analysis.frames import Sweep, read_sweep
from virtbed_analysis.intervals import mean_interval
from virtbed_analysis.page import render
from virtbed_contract.measures import percentile_rank

from .conftest import DEFAULTS, LISTED

PARTS = {
    name: {"machine": entry.machine, "enclosure": entry.enclosure} for name, entry in LISTED.items()
}


def only(frame: pl.DataFrame, **cell: Any) -> dict[str, Any]:
    return frame.filter(**cell).row(0, named=True)


def frame(times: dict[tuple[str, str, int, str], list[float]]) -> pl.DataFrame:
    """Samples from {(platform, mode, replicate, input): times in ms}."""
    rows = [
        {"platform": p, "mode": m, "replicate": r, "input": i, "e2e_ns": ms * 1e6, **PARTS[p]}
        for (p, m, r, i), all_ms in times.items()
        for ms in all_ms
    ]
    return pl.DataFrame(rows).with_columns(
        cores=1,
        application=pl.lit("app"),
        scale=pl.lit("trained"),
        scenario=pl.lit("single_stream"),
        warmup=False,
        emulated=False,
        **{name: pl.lit(value) for name, value in DEFAULTS.items()},
    )


def test_known_ratio_is_recovered(quick: Any) -> None:
    cells = estimate.cells(load(quick.path))
    pinned, vanilla = (only(cells, platform="cn", mode=m) for m in ("pinned", "vanilla"))
    assert pinned["ratio"] == pytest.approx(1.02)
    assert vanilla["ratio"] == pytest.approx(1.35, rel=0.001)
    assert vanilla["ratio_low"] < 1.35 < vanilla["ratio_high"]
    assert vanilla["ratio_low"] > 1.3  # drift shared by a replicate must not widen it
    assert (vanilla["ratio_replicates"], vanilla["ratio_dropped"]) == (5, 0)
    bm = only(cells, platform="bm")
    assert bm["baseline"] and bm["ratio"] is None


def test_interval_is_students_t_on_the_replicates(quick: Any) -> None:
    row = only(estimate.cells(load(quick.path)), platform="cn", mode="vanilla")
    d = np.log(1.35 * np.array([0.99, 1.0, 1.01, 1.02, 0.98]))
    low, high = stats.t.interval(0.95, 4, loc=d.mean(), scale=stats.sem(d))
    assert row["ratio_low"] == pytest.approx(math.exp(low), rel=1e-6)
    assert row["ratio_high"] == pytest.approx(math.exp(high), rel=1e-6)


def test_vanilla_to_pinned(quick: Any) -> None:
    modes = estimate.vanilla_to_pinned(load(quick.path))
    assert modes["platform"].to_list() == ["cn"]  # vm is emulated, bm has one mode
    assert modes["ratio"][0] == pytest.approx(1.35 / 1.02, rel=0.001)


def test_warm_ups_are_excluded(quick: Any) -> None:
    bm = only(estimate.cells(load(quick.path)), platform="bm")
    assert bm["samples"] == 30
    assert bm["e2e_mean_ms"] < 50  # warm-ups took 900 ms


def test_absolute_times(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [10.0, 10.0, 40.0], "b.png": [40.0]})
    bm = only(estimate.cells(load(folder.path)), platform="bm")
    assert bm["e2e_typical_ms"] == pytest.approx((20 + 40) / 2)  # over the inputs' means
    assert bm["e2e_median_ms"] == pytest.approx(25)
    assert bm["e2e_mean_ms"] == pytest.approx(25)
    assert bm["pre_mean_ms"] == pytest.approx(25 / 4)


def test_typical_times_have_no_interval_and_a_time_of_zero_is_null(folder: Any) -> None:
    for replicate, ms in enumerate((10.0, 11.0, 12.0), start=1):
        folder.trial("bm", "pinned", replicate, {"a.png": [ms]}, phases=(0.5, 0.0))
    bm = only(estimate.cells(load(folder.path)), platform="bm")
    assert bm["pre_typical_ms"] == pytest.approx((5.0 * 5.5 * 6.0) ** (1 / 3))
    assert bm["post_typical_ms"] is None
    assert not [column for column in bm if column.endswith(("low_ms", "high_ms"))]
    assert bm["post_mean_ms"] == 0


def test_a_start_is_the_sum_of_its_parts_where_all_are_known(folder: Any) -> None:
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0]})
    change(folder, "bm-pinned-c01-image_classification-r02", load_ns=2_750_000_000)
    change(folder, "bm-pinned-c01-image_classification-r03", spawn_ns=None, load_ns=1)
    (start,) = per_trial.startup(read_sweep(folder.path).trials).to_dicts()
    wholes = 250 + 4000 + 900 + 1200, 250 + 4000 + 2750 + 1200
    assert start["start_typical_ms"] == pytest.approx(math.sqrt(wholes[0] * wholes[1]))
    assert not [column for column in start if column.endswith(("low_ms", "high_ms"))]
    assert (start["spawn_ms"], start["load_ms"], start["replicates"]) == (250, 900, 3)


def test_a_start_with_an_unknown_part_has_no_sum(folder: Any) -> None:
    change(folder, folder.trial("bm", "pinned", 1, {"a.png": [10.0]}), spawn_ns=None)
    (start,) = per_trial.startup(read_sweep(folder.path).trials).to_dicts()
    assert (start["start_typical_ms"], start["spawn_ms"], start["load_ms"]) == (None, None, 900)
    assert render(document(read_sweep(folder.path)))


def change(folder: Any, trial: str, **startup: Any) -> None:
    folder.edit(f"trials/{trial}/result.json", lambda result: result["startup"].update(startup))


def test_a_quotas_stalls_are_seen_though_most_samples_have_none(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [20.0] * 12})
    folder.trial("cn", "vanilla", 1, {"a.png": [20.0] * 9 + [60.0] * 3})
    cn = only(estimate.cells(load(folder.path)), platform="cn")
    assert cn["e2e_median_ms"] == pytest.approx(20)
    assert cn["ratio"] == pytest.approx(1.5)


def test_emulated_cells_are_never_compared(quick: Any) -> None:
    for mode in ("vanilla", "pinned"):  # even a container or bare metal, were it marked so
        quick.trial("cn", mode, 1, {"a.png": [9_000.0]}, emulated=True, cores=2)
    quick.trial("bm", "pinned", 1, {"a.png": [9_000.0]}, emulated=True, cores=2)
    sweep = read_sweep(quick.path)
    assert estimate.cells(sweep.samples)["cores"].to_list() == [1, 1, 1]
    assert "vm" not in estimate.cells(sweep.samples)["platform"]
    assert estimate.vanilla_to_pinned(sweep.samples)["cores"].to_list() == [1]
    assert per_trial.startup(sweep.trials)["cores"].to_list() == [1, 1, 1]
    emulated = per_trial.emulated(sweep.samples, sweep.trials)
    assert emulated.height == 5
    assert not [c for c in emulated.columns if "ratio" in c or "low" in c]


def test_one_replicate_gives_no_interval(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [10.0]})
    folder.trial("cn", "pinned", 1, {"a.png": [11.0]})
    cn = only(estimate.cells(load(folder.path)), platform="cn")
    assert cn["ratio"] == pytest.approx(1.1)
    assert (cn["ratio_low"], cn["ratio_high"]) == (None, None)


def test_replicates_without_a_pair_are_dropped_and_counted(folder: Any) -> None:
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0]})
    for replicate, ms in ((2, 12.0), (3, 12.0), (4, 99.0)):
        folder.trial("cn", "pinned", replicate, {"a.png": [ms]})
    cn = only(estimate.cells(load(folder.path)), platform="cn")
    assert cn["ratio"] == pytest.approx(1.2)
    assert (cn["ratio_replicates"], cn["ratio_dropped"]) == (2, 2)


def test_no_baseline_no_ratio(folder: Any) -> None:
    folder.trial("bm", "vanilla", 1, {"a.png": [10.0]})
    folder.trial("bm", "pinned", 1, {"a.png": [10.0]}, cores=2)
    folder.trial("cn", "pinned", 1, {"a.png": [11.0]})
    cells = estimate.cells(load(folder.path))
    assert cells["ratio"].to_list() == [None, None, None]


@settings(deadline=None)  # on a busy machine one example in a thousand takes long
@given(
    ratio=st.floats(0.2, 5),
    bm=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=1),
    cn=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=1),
)
def test_input_mix_does_not_move_the_ratio(
    ratio: float, bm: dict[str, int], cn: dict[str, int]
) -> None:
    """Inputs cost 10 to 100,000 ms: pooled times would say anything, pairs say the ratio."""
    cost = {name: 10.0 ** (1 + k) for k, name in enumerate("abcdef")}
    samples = frame(
        {("bm", "pinned", 1, i): [cost[i]] * n for i, n in bm.items()}
        | {("cn", "pinned", 1, i): [cost[i] * ratio] * n for i, n in cn.items()}
    )
    found = only(estimate.ratio_to_bare_metal(samples), platform="cn")
    if bm.keys() & cn.keys():
        assert found["ratio"] == pytest.approx(ratio)
    else:
        assert found["ratio"] is None and found["ratio_dropped"] == 1


@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=20), shift=st.floats(-3, 3))
def test_interval_agrees_with_scipy_and_moves_with_the_data(
    values: list[float], shift: float
) -> None:
    def interval(x: np.ndarray) -> tuple[float, float]:
        low, high = mean_interval(
            np.array([x.mean()]), np.array([x.std(ddof=1)]), np.array([len(x)])
        )
        return float(low[0]), float(high[0])

    x = np.array(values)
    low, high = interval(x)
    assert low <= x.mean() <= high
    if x.std() > 1e-9:
        expected = stats.t.interval(0.95, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
        assert (low, high) == pytest.approx(tuple(expected))
    assert interval(x + shift) == pytest.approx((low + shift, high + shift), abs=1e-9)


def test_intervals_cover_what_they_claim() -> None:
    """2,000 simulated sweeps of five replicates, through the estimator itself.

    Each replicate shifts both sides (drift, which pairing removes), each trial shifts by itself,
    and each sample has lognormal noise. The true ratio is 1.2; a binomial 95% of 2,000 has a
    standard error of 0.5 points, so 93 to 97 leaves four of them on either side.
    """
    sweeps, replicates, inputs, samples = 2_000, 5, 2, 3
    random = np.random.default_rng(2112)
    shape = (sweeps, replicates, inputs, samples)
    drift = random.normal(0, 0.05, (sweeps, replicates, 1, 1))
    cost = np.log([20e6, 60e6]).reshape(1, 1, inputs, 1)
    which = [axis.ravel() for axis in np.indices(shape)]
    sides = []
    for platform, truth in (("bm", 1.0), ("cn", 1.2)):
        own = random.normal(0, 0.03, (sweeps, replicates, 1, 1))
        logs = math.log(truth) + cost + drift + own + random.normal(0, 0.1, shape)
        parts = {key: [value] * logs.size for key, value in PARTS[platform].items()}
        columns = parts | {"platform": [platform] * logs.size, "e2e_ns": np.exp(logs).ravel()}
        columns |= {"application": which[0], "replicate": which[1], "input": which[2]}
        sides.append(pl.DataFrame(columns))
    frame = pl.concat(sides).with_columns(
        mode=pl.lit("pinned"),
        cores=1,
        scale=pl.lit("trained"),
        scenario=pl.lit("single_stream"),
        warmup=False,
        emulated=False,
        **{name: pl.lit(value) for name, value in DEFAULTS.items()},
    )
    found = estimate.ratio_to_bare_metal(frame)
    assert found.height == sweeps
    covered = found.select(pl.lit(1.2).is_between("ratio_low", "ratio_high").mean()).item()
    assert 0.93 <= covered <= 0.97


def test_answers_that_differ_from_bare_metals_are_flagged(folder: Any) -> None:
    e2e_ms = {"a.png": [20.0]}
    for platform, answers in (("bm", "c"), ("cn", "c"), ("vm", "d")):
        folder.trial(platform, "pinned", 1, e2e_ms, answers=answers)
    # Another scale has other answers, and an emulated guest is held to bare metal's all the same.
    folder.trial("bm", "pinned", 1, e2e_ms, scale="tiny", application="other", answers="e")
    folder.trial(
        "vm", "pinned", 1, e2e_ms, scale="tiny", application="other", answers="f", emulated=True
    )
    rows = per_trial.answers_differ(read_sweep(folder.path).trials).to_dicts()
    assert [(row["platform"], row["application"]) for row in rows] == [
        ("vm", "image_classification"),
        ("vm", "other"),
    ]
    assert rows[0]["answers"] == ["sha256:" + "d" * 64]
    assert rows[0]["expected"] == ["sha256:" + "c" * 64]


def test_bare_metal_that_differs_from_itself_flags_every_cell(folder: Any) -> None:
    for replicate, answers in ((1, "c"), (2, "d")):
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0]}, answers=answers)
    (row,) = per_trial.answers_differ(read_sweep(folder.path).trials).to_dicts()
    assert (row["platform"], row["trials"], len(row["expected"])) == ("bm", 2, 2)


def test_equal_answers_are_not_flagged(quick: Any) -> None:
    assert per_trial.answers_differ(read_sweep(quick.path).trials).is_empty()


def test_a_gpu_gains_more_on_inference_than_end_to_end(quick: Any) -> None:
    on_cpu = load(quick.path)
    gpu = pl.lit("gpu", dtype=on_cpu.schema["processor"])
    faster = [(pl.col("e2e_ns") // 4), (pl.col("infer_ns") // 10)]
    both = pl.concat([on_cpu, on_cpu.with_columns(*faster, processor=gpu)])
    for phase, gain in (("e2e", 4), ("infer", 10)):
        rows = estimate.gpu_speed_up(both, phase)
        assert set(rows["platform"]) == {"bm", "cn"}  # and none of the emulated guests
        assert rows["ratio"].to_list() == pytest.approx([gain] * 3, rel=1e-5)
    assert estimate.gpu_speed_up(on_cpu).is_empty()


def test_threads_that_match_the_cores_gain_what_they_save(quick: Any) -> None:
    default = load(quick.path)
    matched = pl.lit("matched", dtype=default.schema["thread_policy"])
    faster = default.with_columns(pl.col("e2e_ns") // 2, thread_policy=matched)
    rows = estimate.thread_policy_gain(pl.concat([default, faster]))
    assert rows["ratio"].to_list() == pytest.approx([2.0] * 3, rel=1e-5)
    assert set(rows["thread_policy"]) == {"default"}


@pytest.mark.parametrize(
    ("samples", "p90", "p99"), [(9, None, None), (99, 90, None), (100, 90, 99)]
)
def test_a_percentile_is_a_sample_that_others_lie_beyond(
    folder: Any, samples: int, p90: int | None, p99: int | None
) -> None:
    folder.trial("bm", "pinned", 1, {"a": [float(ms) for ms in range(1, samples + 1)]})
    cell = only(estimate.cells(load(folder.path)), platform="bm")
    assert (cell["latency_p90_ms"], cell["latency_p99_ms"]) == (p90, p99)


def test_a_percentile_rank_is_the_nearest_rank() -> None:
    """Against counting: the first of n of which no fewer than p percent are that small."""
    for n in range(1, 1001):
        rank = 1
        for percentile in range(1, 101):
            while Fraction(rank, n) < Fraction(percentile, 100):
                rank += 1
            assert percentile_rank(percentile, n) == rank, (percentile, n)


@pytest.mark.parametrize("percentile", estimate.TAILS)
def test_a_percentile_of_any_number_of_samples_has_its_rank(percentile: int) -> None:
    sizes = range(1, 1001)
    frame = pl.DataFrame(
        {
            "n": np.repeat(sizes, sizes),
            "value": np.concatenate([np.arange(n, 0, -1) for n in sizes]),
        }
    )
    found = dict(frame.group_by("n").agg(estimate.tail("value", percentile)).iter_rows())
    wanted = {
        n: None
        if n < 100 // (100 - percentile)
        else next(k for k in range(1, n + 1) if 100 * k >= percentile * n)
        for n in sizes
    }
    assert found == wanted


def test_a_ratio_is_of_the_time_of_the_mix_of_inputs(folder: Any) -> None:
    """One input takes twice as long, the other as long: what a user pays is in between."""
    folder.trial("bm", "pinned", 1, {"a.png": [10.0], "b.png": [30.0]})
    folder.trial("cn", "pinned", 1, {"a.png": [20.0, 20.0], "b.png": [30.0], "c.png": [900.0]})
    sweep = read_sweep(folder.path)
    cn = only(estimate.cells(sweep.samples), platform="cn")
    assert cn["ratio"] == pytest.approx(50 / 40)
    units = of_sweep(sweep.samples, sweep.platforms)
    (cell,) = units.cells(platform="cn")
    assert np.exp(units.cost(cell)) == pytest.approx(50 / 40)
    kept = per_trial.log_means(sweep.samples)
    above, below = (kept[f"{name}-pinned-c01-image_classification-r01"] for name in ("cn", "bm"))
    sides = (Logs.of({1: (list(own), list(own.values()))}) for own in (above, below))
    logs = contrast(*zip((1.0, -1.0), sides, strict=True))
    assert np.exp(logs) == pytest.approx([50 / 40])


def relabelled(sweep: Sweep, seeded: pl.Expr) -> Sweep:
    """Return a sweep some of whose trials had seeded weights, as no folder's may that is read."""
    weights = pl.when(seeded).then(pl.lit("seeded")).otherwise("weights").alias("weights")
    return replace(
        sweep,
        trials=sweep.trials.with_columns(weights),
        samples=sweep.samples.with_columns(weights),
    )


def test_weights_are_those_of_the_row(folder: Any) -> None:
    """Two weights of one application and scale: no row is labelled by another's."""
    for replicate, platform in itertools.product((1, 2), ("bm", "cn", "vm")):
        folder.trial(platform, "pinned", replicate, {"a": [10.0 + replicate]})
    sweep = relabelled(read_sweep(folder.path), pl.col("platform") == "vm")
    content = document(sweep)
    for table in ("cells", "startup"):
        found = {row["platform"]: row["weights"] for row in content[table]}
        assert found == {"bm": "trained", "cn": "trained", "vm": "seeded"}, table
    units = of_sweep(sweep.samples, sweep.platforms)
    labelled = [(cell.platform, cell.weights) for cell in units.cells()]
    assert sorted(labelled) == [("bm", "trained"), ("cn", "trained"), ("vm", "seeded")]
    assert only(estimate.cells(sweep.samples), platform="vm")["ratio"] is None  # no like baseline


def test_a_cell_of_two_weights_is_two_rows(folder: Any) -> None:
    for replicate in (1, 2, 3, 4):
        folder.trial("bm", "pinned", replicate, {"a": [10.0 * replicate]})
    cells = estimate.cells(relabelled(read_sweep(folder.path), pl.col("replicate") > 2).samples)
    rows = {row["weights"]: (row["replicates"], row["e2e_mean_ms"]) for row in cells.to_dicts()}
    assert rows == {"trained": (2, 15.0), "seeded": (2, 35.0)}
