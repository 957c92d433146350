"""Tests of the rules that make a trial on a GPU suspect, and of counters that wrap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from virtbed_contract.gpu_state import Doubt, GpuProcess, GpuState, doubts, energy_mj, risen

from .test_nvml import WHOLE

SECOND = 10**9
QUIET = replace(
    WHOLE, at_ns=0, throttle=("asked_clocks",), processes=(), link_generation=5,
    throttled_ns={"power": 100, "heat": 200},
)  # fmt: skip
OURS = GpuProcess(4711, "compute", 700)


def later(**more: Any) -> GpuState:
    return replace(QUIET, at_ns=10 * SECOND, **more)


def working(**more: Any) -> GpuState:
    return replace(QUIET, **{"at_ns": 5 * SECOND, "processes": (OURS,), **more})


def found(
    before: GpuState = QUIET, after: GpuState | None = None,
    during: tuple[GpuState, ...] | None = None, locked_mhz: int | None = None,
) -> list[tuple[str, str, bool]]:  # fmt: skip
    rows = doubts(
        before, after or later(), (working(),) * 3 if during is None else during, [4711], locked_mhz
    )
    assert all(isinstance(row, Doubt) for row in rows)
    return [(row.kind, row.words, row.unjudged) for row in rows]


def test_a_quiet_gpu_causes_no_doubt() -> None:
    assert found() == [] == found(locked_mhz=1410)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("sw_power_cap", "its power limit"),
        ("hw_slowdown", "its hardware"),
        ("sw_thermal", "heat"),
        ("hw_thermal", "heat that its hardware detected"),
        ("power_brake", "the power supply"),
    ],
)
def test_a_gpu_that_was_slowed(reason: str, words: str) -> None:
    slowed = (working(), working(throttle=("asked_clocks", reason)), working())
    assert found(during=slowed) == [("throttled", f"slowed by {words} in 1 of 5 readings", False)]


@pytest.mark.parametrize(
    "reason", ["idle", "asked_clocks", "sync_boost", "display_clocks", "bit_11"]
)
def test_a_clock_that_is_low_by_choice_causes_no_doubt(reason: str) -> None:
    assert found(during=(working(throttle=(reason,)),)) == []


def test_counters_show_throttling_between_readings() -> None:
    after = later(throttled_ns={"power": 100, "heat": 200 + 3 * SECOND // 2})
    assert found(after=after) == [("throttled", "slowed by heat for 1.50 s", False)]
    # If a counter and a reading show the same, there is one doubt.
    twice = found(after=after, during=(working(throttle=("sw_thermal",)),))
    assert twice == [("throttled", "slowed by heat for 1.50 s", False)]


@pytest.mark.parametrize("counters", [{"power": 100, "heat": 3}, {"power": 100}])
def test_a_counter_that_was_reset_is_not_judged(counters: dict[str, int]) -> None:
    ((kind, words, unjudged),) = found(after=later(throttled_ns=counters))
    assert kind == "throttled" and "heat: not known" in words and unjudged


def test_a_counter_that_wrapped_is_subtracted() -> None:
    before = replace(QUIET, throttled_ns={"heat": 2**64 - SECOND})
    after = later(throttled_ns={"heat": SECOND})
    assert found(before, after) == [("throttled", "slowed by heat for 2.00 s", False)]


def test_rules_without_readings_are_reported_as_unjudged() -> None:
    dumb = {
        "throttle": None, "throttled_ns": None, "processes": None, "link_width": None,
        "sm_mhz": None,
        "unknown": {"throttle": "no permission", "processes": "no permission",
                    "link_width": "the GPU does not support it"},
    }  # fmt: skip
    rows = found(replace(QUIET, **dumb), later(**dumb), (working(**dumb),))
    assert rows == [
        ("throttled", "not known: no permission", True),
        ("processes", "not known: no permission", True),
        ("link", "not known: the GPU does not support it", True),
        ("clocks", "its clock was not read while it worked", True),
    ]


def test_other_processes_are_named() -> None:
    other = (OURS, GpuProcess(12, "graphics", 30), GpuProcess(9, "compute", None))
    rows = found(during=(working(processes=other),))
    assert rows == [
        ("processes", "other processes used it: 9 (compute), 12 (graphics, 30 MiB)", False)
    ]
    assert found(after=later(processes=(GpuProcess(12, "mps", None),)))[0][0] == "processes"


def test_a_link_below_its_width() -> None:
    narrow = {"link_width": 8}
    rows = found(replace(QUIET, **narrow), later(**narrow), (working(**narrow),))
    assert rows == [("link", "its link has 8 lanes of 16", False)]


def test_a_link_is_slow_only_if_the_gpu_works() -> None:
    idle = {"link_generation": 1}
    assert found(replace(QUIET, **idle), later(**idle)) == []
    words = "its link was of generation 1, of 5, while it worked"
    assert found(during=(working(), working(**idle))) == [("link", words, False)]


@pytest.mark.parametrize(
    ("clocks", "locked", "words"),
    [
        ((1410, 1410), None, None),
        ((1410, 1395), None, None),  # one step
        ((1410, 1380), None, "its clock moved from 1380 to 1410 MHz"),
        ((1410, 1395), 1410, None),
        ((1380, 1380), 1410, "its clock was 1380 to 1380 MHz, though locked to 1410"),
        ((1410, 1980), 1410, "its clock was 1410 to 1980 MHz, though locked to 1410"),
    ],
)
def test_clocks_that_moved(clocks: tuple[int, ...], locked: int | None, words: str | None) -> None:
    rows = found(during=tuple(working(sm_mhz=mhz) for mhz in clocks), locked_mhz=locked)
    assert rows == ([("clocks", words, False)] if words else [])


def test_a_memory_clock_that_moved_and_a_gpu_that_was_not_warmed_up() -> None:
    rows = found(during=(working(memory_mhz=405, performance=8), working()))
    assert [words for _, words, _ in rows] == [
        "the clock of its memory moved from 405 to 2619",
        "it went from performance state 8 to 0 while it worked: it was not warmed up",
    ]


def test_idle_clocks_before_and_after_cause_no_doubt() -> None:
    idle = {"sm_mhz": 210, "performance": 8, "throttle": ("idle",)}
    assert found(replace(QUIET, **idle), later(**idle)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uuid": "GPU-2"}, f"uuid was {WHOLE.uuid} before the trial and GPU-2 after it"),
        ({"mig": True}, "mig was False before the trial and True after it"),
        ({"persistence": False}, "persistence was True before"),
        ({"power_limit_mw": 200_000}, "power_limit_mw was 350000 before"),
        ({"ecc": None}, None),
    ],
)
def test_a_setting_that_changed(change: dict[str, Any], words: str | None) -> None:
    rows = found(after=later(**change))
    assert [kind for kind, _, _ in rows] == (["changed"] if words else [])
    assert not words or rows[0][1].startswith(words)


def test_errors_of_memory() -> None:
    rows = found(after=later(ecc_uncorrected=2, ecc_corrected=999))
    assert rows == [("errors", "2 errors of its memory were not corrected, 0 needed", False)]


@pytest.mark.parametrize(
    ("before", "after", "most", "expected"),
    [
        (5, 7, None, 2),
        (5, 7, 10, 2),
        (5, 7, 1, None),  # more than is possible
        (7, 5, None, None),
        (2**32 - 1000, 500, 2000, 1500),
        (2**32 - 1000, 500, 1000, None),  # it was reset
        (2**64 - 10, 5, 100, 15),
        (2**32 - 1, 2**31, 2**40, 2**31 + 1),
        (2**40, 5, 100, None),
        (0, 0, 0, 0),
    ],
)
def test_by_how_much_a_counter_rose(
    before: int, after: int, most: float | None, expected: int | None
) -> None:
    assert risen(before, after, most) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1_000_000, 4_000_000, 3_000_000),  # 10 s of 300 W
        (2**32 - 1_000_000, 2_000_000, 3_000_000),
        (5_000_000_000, 1_000, None),  # the driver was loaded again
        (1_000_000, 9_000_000_000, None),
        (None, 5, None),
        (5, None, None),
    ],
)
def test_energy_between_two_states(
    before: int | None, after: int | None, expected: int | None
) -> None:
    first, last = replace(QUIET, energy_mj=before), later(energy_mj=after)
    assert energy_mj(first, last) == expected
    assert energy_mj(first, replace(last, uuid="GPU-2")) is None
    unlimited = replace(last, power_limit_mw=None), replace(first, power_limit_mw=None)
    if before is not None and after is not None and after < before:
        assert energy_mj(unlimited[1], unlimited[0]) is None
