"""MLPerf's LoadGen: run a scenario by its rules and read its verdict.

LoadGen decides when each request is issued and times it with its own clock, from the issue to the
completion that `drive` reports. It applies MLPerf's rules; unlike MLPerf's, the timed path begins
with a request's bytes and ends with its answer. The harness is the only user.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import monotonic_ns
from typing import Any, NoReturn

from virtbed_workloads.contract import ApplicationError

SCENARIOS = {
    "single_stream": "SingleStream",
    "multi_stream": "MultiStream",
    "offline": "Offline",
    "server": "Server",
}
RULES = ("quick", "study")
CLOCKS_AGREE = 0.01
"""Largest relative difference between LoadGen's median latency and the harness's."""
_BATCH = 8  # requests of one MultiStream query: MLPerf's number
_MLPERF_CONF_ONLY = 0  # TestSettings.FromConfig: the rules compiled into LoadGen, no file


@dataclass(frozen=True)
class Load:
    """The load on the application."""

    scenario: str = "single_stream"
    rules: str = "quick"
    """``quick``: ``samples`` requests, however long they take. ``study``: MLPerf's minimum
    duration and number of queries."""
    samples: int = 20
    """Number of requests by the quick rules; MultiStream rounds it up to whole queries of 8."""
    seed: int = 2112
    target_qps: float | None = None
    """Requests per second that Server issues, and that Offline expects by the study rules."""
    target_latency_ms: float | None = None
    """Server's bound on the 99th percentile of latency, queue included."""
    mlperf_model: str = "*"
    """The MLPerf benchmark whose rules apply, such as ``resnet50``; ``*`` for the defaults."""


def drive(
    load: Load,
    inputs: int,
    typical_ns: float,
    serve: Callable[[int, int], int],
    after: Callable[[], None],
    fail: Callable[[BaseException], NoReturn],
) -> dict[str, Any]:
    """Let LoadGen issue requests until the rules are met.

    Args:
        load: The scenario and its rules.
        inputs: Number of inputs to choose from.
        typical_ns: Time of one request in the warm-up, by which LoadGen plans its queries.
        serve: Called with the index of an input and the time at which LoadGen issued it
            (CLOCK_MONOTONIC, ns); returns the time of the answer.
        after: Called after LoadGen has received an answer, outside its timed path.
        fail: Called with any exception that ``serve`` or ``after`` raises; must end the process at
            once. LoadGen cannot abort a test, and crashes if an exception unwinds it.

    Returns:
        The result's ``loadgen`` (verdict, LoadGen's own percentiles, the two clocks' medians), and
        under ``files`` LoadGen's logs by name.

    Raises:
        ApplicationError: The scenario is server, and no rate or no bound is set.
    """
    import mlperf_loadgen

    settings = _settings(mlperf_loadgen, load, typical_ns)
    latencies_ns: list[int] = []

    def answer(queries: Sequence[tuple[int, int]], issued_ns: int) -> None:
        for identity, index in queries:
            latencies_ns.append(serve(index, issued_ns) - issued_ns)
            response = mlperf_loadgen.QuerySampleResponse(identity, 0, 0)
            mlperf_loadgen.QuerySamplesComplete([response])
            # A query of several samples is complete with its last, so no check between them.
            if load.scenario == "single_stream":
                after()
        if load.scenario != "single_stream":
            after()

    def guarded(work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            fail(error)

    pending: SimpleQueue[tuple[list[tuple[int, int]], int] | None] = SimpleQueue()

    def work() -> None:
        while (issued := pending.get()) is not None:
            guarded(answer, *issued)

    def issue(queries: list[Any]) -> None:
        issued_ns = monotonic_ns()
        pairs = [(query.id, query.index) for query in queries]
        if load.scenario == "server":  # LoadGen must not wait for the answer
            pending.put((pairs, issued_ns))
        else:
            guarded(answer, pairs, issued_ns)

    worker = Thread(target=work, daemon=True)
    worker.start()
    with tempfile.TemporaryDirectory() as folder:
        logs = mlperf_loadgen.LogSettings()
        logs.log_output.outdir = folder
        logs.enable_trace = False
        system = mlperf_loadgen.ConstructSUT(issue, lambda: None)
        library = mlperf_loadgen.ConstructQSL(inputs, inputs, lambda _: None, lambda _: None)
        mlperf_loadgen.StartTestWithLogSettings(system, library, settings, logs, "")
        pending.put(None)
        worker.join()
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(system)
        names = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")
        files = {name: (Path(folder) / name).read_text() for name in names}
    detail = read_detail(files["mlperf_log_detail.txt"])
    return {**_verdict(load, detail, latencies_ns), "files": files}


def read_detail(text: str) -> dict[str, Any]:
    """Return the last value of each key in LoadGen's detail log."""
    values = {}
    for line in text.splitlines():
        mark, _, entry = line.partition(" ")
        if mark == ":::MLLOG":
            record = json.loads(entry)
            values[record["key"]] = record["value"]
    return values


def clocks(latencies_ns: Sequence[int], loadgen_median_ns: int) -> dict[str, Any]:
    """Compare the median of the harness's latencies with LoadGen's median of the same requests.

    The median is the upper one of an even number, as in LoadGen.
    """
    median_ns = sorted(latencies_ns)[len(latencies_ns) // 2]
    apart = abs(loadgen_median_ns - median_ns) / loadgen_median_ns
    return {
        "loadgen_median_ns": loadgen_median_ns,
        "harness_median_ns": median_ns,
        "apart": round(apart, 6),
        "agree": apart <= CLOCKS_AGREE,
    }


def _verdict(load: Load, detail: dict[str, Any], latencies_ns: Sequence[int]) -> dict[str, Any]:
    # With several samples per query, MLPerf's latency is that of the query.
    ending = "_percentile_latency_ns"
    if load.scenario == "multi_stream":
        ending = "_percentile_per_query_latency_ns"
    percentiles = {
        key.split("_")[1]: value
        for key, value in detail.items()
        if key.startswith("result_") and key.endswith(ending)
    }
    return {
        "version": str(detail["loadgen_version"]),
        "validity": detail["result_validity"],
        "reasons": [
            str(detail[key])
            for key in ("result_invalid_reason", "early_stopping_result")
            if detail["result_validity"] != "VALID" and detail.get(key)
        ],
        "duration_ms": detail["effective_min_duration_ms"],
        "queries": detail["result_query_count"],
        "percentiles_ns": percentiles,
        "samples_per_second": detail.get(
            "result_samples_per_second", detail.get("result_completed_samples_per_sec")
        ),
        "clocks": clocks(latencies_ns, detail["result_50.00_percentile_latency_ns"]),
    }


def _settings(mlperf_loadgen: Any, load: Load, typical_ns: float) -> Any:
    if load.scenario == "server" and load.target_qps is None:
        raise ApplicationError(
            "scenario server without a rate: --target-qps (target_qps in a plan) is needed, the "
            "same on every platform; half of single_stream's rate is a good start"
        )
    if load.scenario == "server" and load.target_latency_ms is None:
        raise ApplicationError(
            "scenario server without a bound: --target-latency-ms (target_latency_ms in a plan) is "
            "needed, beyond which LoadGen calls the trial INVALID; MLPerf's own bounds are for "
            "requests that are preprocessed already"
        )
    settings = mlperf_loadgen.TestSettings()
    scenario = SCENARIOS[load.scenario]
    settings.FromConfig("", load.mlperf_model, scenario, _MLPERF_CONF_ONLY)
    settings.scenario = getattr(mlperf_loadgen.TestScenario, scenario)
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    # MLPerf's sample counts are those of its data sets; 0 uses the number of inputs here.
    settings.performance_sample_count_override = 0
    settings.qsl_rng_seed = load.seed
    settings.sample_index_rng_seed = load.seed
    settings.schedule_rng_seed = load.seed
    # LoadGen prepares as many queries as these times let it expect. Half the typical time, so that
    # the queries do not run out.
    settings.single_stream_expected_latency_ns = int(typical_ns / 2)
    settings.multi_stream_expected_latency_ns = int(typical_ns * _BATCH / 2)
    settings.multi_stream_samples_per_query = _BATCH
    settings.offline_expected_qps = load.target_qps or 1.1e9 / typical_ns
    if load.target_qps is not None:
        settings.server_target_qps = load.target_qps
    if load.target_latency_ms is not None:
        settings.server_target_latency_ns = int(load.target_latency_ms * 1e6)
    if load.rules == "quick":
        queries = load.samples
        if load.scenario == "multi_stream":
            queries = math.ceil(load.samples / _BATCH)
        settings.min_duration_ms = 0
        settings.min_query_count = settings.max_query_count = queries
    return settings
