"""`arithmetic.faults` names each inconsistency within a result, one rule at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtbed_contract.arithmetic import faults

from ..analysis.conftest import Folder, sample

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def result(folder: Folder) -> dict[str, Any]:
    """A result of three measured samples after a warm-up, of a container."""
    trial = folder.plan("cn", "pinned", 1)
    made = [sample("a.png", 12, (0.25, 0.1), warmup=True)]
    made += [sample(name, ms, (0.25, 0.1)) for name, ms in (("a.png", 10), ("b.png", 11))]
    return folder.result(trial, [*made, sample("a.png", 10.5, (0.25, 0.1))])


def test_a_result_of_the_harness_has_no_fault(result: dict[str, Any]) -> None:
    assert [*faults(result)] == []


def late(result: dict[str, Any]) -> None:
    """Move the warm-up behind a measured sample."""
    result["samples"][1]["warmup"], result["samples"][0]["warmup"] = True, False


def tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda r: r["samples"][2].update(e2e_ns=5), "sample 2 took 5 ns end to end, but its"),
        (lambda r: r["samples"][1].update(e2e_ns=1e7), "times that are not whole numbers of"),
        (lambda r: r["samples"][1].update(e2e_ns=0), "sample 1 took 0 ns, more than 0 needed"),
        (late, "sample 1 is a warm-up after a measured sample"),
        (lambda r: [s.update(warmup=True) for s in r["samples"]], "has no measured sample"),
        (lambda r: r["settings"].update(samples=4), "states 4 measured samples, but its samples"),
        (lambda r: r["answers"].update(checked=1), "states 1 checked answers"),
        (lambda r: r["answers"]["by_input"].pop(), "of the input b.png, but no answer"),
        (
            lambda r: r["answers"]["by_input"].append(r["answers"]["by_input"][0]),
            "has two answers to one input",
        ),
        (lambda r: r["loadgen"].update(queries=2), "states 2 queries, but its samples give 3"),
        (lambda r: r["loadgen"].update(reasons=["too short"]), "VALID, and gives reasons against"),
        (
            lambda r: r["loadgen"]["clocks"].update(harness_median_ns=1),
            "states a median latency of 1 ns",
        ),
        (
            lambda r: r["loadgen"].update(percentiles_ns={"50.00": 9, "90.00": 8}),
            "states 9 ns for percentile 50.00, more than 8 ns for percentile 90.00",
        ),
        (
            lambda r: r["loadgen"].update(percentiles_ns={"half": 9}),
            "states a percentile 'half', but a number from 0 to 100 is needed",
        ),
        (lambda r: r["confounders"].update(window_ns=1), "measured for 1 ns, but its samples took"),
        (
            lambda r: r["confounders"].update(window_ns=3_600_000_000_000),
            "this scenario does not wait between them",
        ),
        (lambda r: r["rusage"].update(user_s=900.0), "used 900.1 s of CPU time by its rusage"),
        (
            lambda r: r["confounders"]["throttling"].update(periods=1, throttled=9),
            "was throttled in 9 of 1 periods",
        ),
        (lambda r: r["memory_kib"].update(peak=1), "KiB resident, but a peak of 1 KiB"),
        (lambda r: r["memory_kib"].update(peak=2**30), "KiB resident, but its instance"),
        (lambda r: r["trial"].update(scale="tiny"), "ran scale 'trained', but 'tiny' is needed"),
        (lambda r: r["settings"].update(slowdown=0.1), "has slowdown 0.1 (share of its time)"),
        (lambda r: r["trial"].update(accelerator="tcg"), "has emulated False, but its accelerator"),
        (lambda r: r["trial"].update(started_at="1970-01-01T00:00:09Z"), "the clock was wrong"),
        (lambda r: r["trial"].update(started_at=tomorrow()), "the clock was wrong"),
        (lambda r: r["trial"].update(started_at="noon"), "started at noon, but a time in"),
    ],
)
def test_an_inconsistent_number_is_named(
    result: dict[str, Any], change: Change, fault: str
) -> None:
    change(result)
    assert any(fault in found for found in faults(result)), [*faults(result)]


def test_bare_metal_may_use_more_memory_than_its_instance(folder: Folder) -> None:
    bare = folder.result(folder.plan("bm", "pinned", 1), [sample("a.png", 10, (0.25, 0.1))])
    bare["memory_kib"]["peak"] = 2**30
    assert [*faults(bare)] == []


def test_a_server_waits_between_requests(result: dict[str, Any]) -> None:
    result["confounders"]["window_ns"] = 3_600_000_000_000
    result["settings"]["scenario"] = "server"
    assert [*faults(result)] == []
