"""MLPerf's LoadGen: how it drives a scenario, by which rules, and what it then says.

LoadGen decides when each request comes and times it with its own clock, from the issue to the
completion that we report. It stands for MLPerf's rules; the timed path, unlike MLPerf's, begins
with a request's bytes and ends with its answer.
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
"""How far LoadGen's median latency and the harness's may lie apart."""
_BATCH = 8  # requests of one MultiStream query: MLPerf's number
_MLPERF_CONF_ONLY = 0  # TestSettings.FromConfig: the rules compiled into LoadGen, no file


@dataclass(frozen=True)
class Load:
    """What load to put on the application."""

    scenario: str = "single_stream"
    rules: str = "quick"
    """``quick``: as many requests as asked, however long they take. ``study``: MLPerf's minimum
    duration and number of queries."""
    samples: int = 20
    """Requests, by the quick rules; MultiStream rounds them up to whole queries of 8."""
    seed: int = 2112
    target_qps: float | None = None
    """Requests a second that Server issues; those that Offline expects by the study rules."""
    target_latency_ms: float | None = None
    """Server's bound on the 99th percentile; None takes MLPerf's for the model."""
    mlperf_model: str = "*"
    """Whose rules these are, such as ``resnet50``."""


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
        inputs: How many requests there are to choose from.
        typical_ns: What one took in the warm-up: LoadGen plans its queries by it.
        serve: Called with the index of an input and when LoadGen issued it (CLOCK_MONOTONIC, ns);
            returns when it was answered.
        after: Called after LoadGen knows of an answer, outside its clock.
        fail: Called with whatever ``serve`` or ``after`` raised; must end the process at once.
            LoadGen has no way to break off a test, and crashes where an exception unwinds it.

    Returns:
        The result's ``loadgen`` (verdict, LoadGen's own percentiles, the two clocks' medians), and
        under ``files`` LoadGen's logs by name.

    Raises:
        ApplicationError: Server without a rate.
    """
    import mlperf_loadgen

    settings = _settings(mlperf_loadgen, load, typical_ns)
    latencies_ns: list[int] = []

    def answer(queries: Sequence[tuple[int, int]], issued_ns: int) -> None:
        for identity, index in queries:
            latencies_ns.append(serve(index, issued_ns) - issued_ns)
            response = mlperf_loadgen.QuerySampleResponse(identity, 0, 0)
            mlperf_loadgen.QuerySamplesComplete([response])
            # A query of several is complete with its last: nothing may come between.
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

    waiting: SimpleQueue[tuple[list[tuple[int, int]], int] | None] = SimpleQueue()

    def work() -> None:
        while (issued := waiting.get()) is not None:
            guarded(answer, *issued)

    def issue(queries: list[Any]) -> None:
        issued_ns = monotonic_ns()
        pairs = [(query.id, query.index) for query in queries]
        if load.scenario == "server":  # which must not wait for the answer
            waiting.put((pairs, issued_ns))
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
        waiting.put(None)
        worker.join()
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(system)
        names = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")
        files = {name: (Path(folder) / name).read_text() for name in names}
    said = read_detail(files["mlperf_log_detail.txt"])
    return {**_verdict(load, said, latencies_ns), "files": files}


def read_detail(text: str) -> dict[str, Any]:
    """Read LoadGen's detail log: the last value of each key."""
    found = {}
    for line in text.splitlines():
        mark, _, entry = line.partition(" ")
        if mark == ":::MLLOG":
            record = json.loads(entry)
            found[record["key"]] = record["value"]
    return found


def clocks(latencies_ns: Sequence[int], loadgen_median_ns: int) -> dict[str, Any]:
    """Hold the harness's latencies against LoadGen's median of the same, taken as LoadGen does."""
    median_ns = sorted(latencies_ns)[len(latencies_ns) // 2]
    apart = abs(loadgen_median_ns - median_ns) / loadgen_median_ns
    return {
        "loadgen_median_ns": loadgen_median_ns,
        "harness_median_ns": median_ns,
        "apart": round(apart, 6),
        "agree": apart <= CLOCKS_AGREE,
    }


def _verdict(load: Load, said: dict[str, Any], latencies_ns: Sequence[int]) -> dict[str, Any]:
    # Of a scenario whose queries are of several samples, MLPerf's latency is that of the query.
    ending = "_percentile_latency_ns"
    if load.scenario == "multi_stream":
        ending = "_percentile_per_query_latency_ns"
    percentiles = {
        key.split("_")[1]: value
        for key, value in said.items()
        if key.startswith("result_") and key.endswith(ending)
    }
    return {
        "version": str(said["loadgen_version"]),
        "validity": said["result_validity"],
        "reasons": [
            str(said[key])
            for key in ("result_invalid_reason", "early_stopping_result")
            if said["result_validity"] != "VALID" and said.get(key)
        ],
        "duration_ms": said["effective_min_duration_ms"],
        "queries": said["result_query_count"],
        "percentiles_ns": percentiles,
        "samples_per_second": said.get(
            "result_samples_per_second", said.get("result_completed_samples_per_sec")
        ),
        "clocks": clocks(latencies_ns, said["result_50.00_percentile_latency_ns"]),
    }


def _settings(mlperf_loadgen: Any, load: Load, typical_ns: float) -> Any:
    if load.scenario == "server" and load.target_qps is None:
        raise ApplicationError(
            "scenario server without a rate: --target-qps (target_qps in a plan) is needed, the "
            "same on every platform; half of what single_stream reaches is a good start"
        )
    settings = mlperf_loadgen.TestSettings()
    scenario = SCENARIOS[load.scenario]
    settings.FromConfig("", load.mlperf_model, scenario, _MLPERF_CONF_ONLY)
    settings.scenario = getattr(mlperf_loadgen.TestScenario, scenario)
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    # MLPerf's sizes are those of its data sets; ours is the number of inputs.
    settings.performance_sample_count_override = 0
    settings.qsl_rng_seed = load.seed
    settings.sample_index_rng_seed = load.seed
    settings.schedule_rng_seed = load.seed
    # These only say how many queries to prepare: half the time, lest they run out.
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
