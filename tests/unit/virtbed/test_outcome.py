"""The drift of a guest's clock, computed from readings with a known drift."""

from __future__ import annotations

import pytest

from virtbed.outcome import clock_apart_share
from virtbed_contract.events import Readings
from virtbed_contract.sweep import Reading

S = 1_000_000_000


def readings(elapsed_s: float, latency_s: float = 0.1) -> Readings:
    """Two readings, 100 s apart by the controller's clock, `elapsed_s` by the guest's."""

    def clock(at_s: float, guest_s: float) -> Reading:
        half = latency_s / 2
        clock = {
            "asked_ns": round((at_s - half) * S),
            "instance_ns": round(guest_s * S),
            "answered_ns": round((at_s + half) * S),
        }
        return Reading({"clock": clock}, None)

    return Readings(before=clock(1_000, 30), after=clock(1_100, 30 + elapsed_s))


@pytest.mark.parametrize("elapsed_s", [100.0, 100.1, 99.9])
def test_a_difference_within_the_latency_does_not_count(elapsed_s: float) -> None:
    assert clock_apart_share(readings(elapsed_s)) == 0.0


@pytest.mark.parametrize("elapsed_s", [98.0, 102.0])
def test_a_drift_of_2_percent_is_found(elapsed_s: float) -> None:
    assert clock_apart_share(readings(elapsed_s)) == pytest.approx(0.02, abs=0.0015)


def test_without_a_second_clock_there_is_no_drift() -> None:
    metal = Reading({"cpus_online": "0-1"}, None)
    assert clock_apart_share(Readings(before=metal, after=metal)) is None
    assert clock_apart_share(Readings()) is None
