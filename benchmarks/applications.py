"""Benchmark of the applications' phases and memory, and of the harness; part of `make bench`.

It runs in the image. Absolute times are valid for this machine only; the ratios also hold
elsewhere, because both sides are measured alternately in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any, NoReturn

import tensorflow as tf

from virtbed_workloads import backend, loadgen
from virtbed_workloads.registry import APPLICATIONS

NAMES = [name for name, entry in APPLICATIONS.items() if not entry.hidden]
ROUNDS = 5
SECONDS = 4.0  # per side of a ratio and round


def main() -> int:
    """Run the benchmark and print its three tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NAMES, help="one application (default: all)")
    only = parser.parse_args().only
    names = [name for name in NAMES if only in (None, name)]
    print("## Phases: medians in ms, inference's share of the mean end-to-end time\n")
    print("| application | scale | pre | infer | post | infer share | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        for scale in ("trained", "mlperf"):
            print(phases(name, scale), flush=True)
    print("\n## Resident set over 1,000 samples (tiny)\n")
    print("| application | after warm-up MiB | end MiB | growth |\n|---|---|---|---|")
    for name in names:
        memory = trial(name, "tiny", samples=1000, warmup=200)["memory_kib"]
        first, last = memory["after_warmup"], memory["after_samples"]
        growth = f"{last / first - 1:+.1%}"
        print(f"| {name} | {first / 1024:.0f} | {last / 1024:.0f} | {growth} |", flush=True)
    print(f"\n## Ratios within one process, median of {ROUNDS} rounds\n")
    print("| application | scale | e2e: harness / bare loop | infer / bare tf.function |")
    print("|---|---|---|---|")
    for name in names:
        for scale in ("trained", "mlperf"):
            harness, infer = ratios(name, scale)
            print(f"| {name} | {scale} | {harness:.4f} | {infer} |", flush=True)
    return 0


def trial(name: str, scale: str, samples: int, warmup: int) -> dict[str, Any]:
    """Run one trial in its own process; return its result."""
    argv = [sys.executable, "-m", "virtbed_workloads", name, f"--scale={scale}"]
    argv += [f"--samples={samples}", f"--warmup={warmup}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} {scale}: {done.stderr.strip().splitlines()[-1]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def phases(name: str, scale: str) -> str:
    """Return a row of the first table."""
    document = trial(name, scale, samples=24, warmup=6)
    measured = [sample for sample in document["samples"] if not sample["warmup"]]
    medians = (
        statistics.median(sample[f"{phase}_ns"] for sample in measured) / 1e6
        for phase in ("pre", "infer", "post")
    )
    share = sum(s["infer_ns"] for s in measured) / sum(s["e2e_ns"] for s in measured)
    peak = document["memory_kib"]["peak"] / 1024
    times = " | ".join(f"{median:.2f}" for median in medians)
    return f"| {name} | {scale} | {times} | {share:.0%} | {peak:.0f} |"


def ratios(name: str, scale: str) -> tuple[float, str]:
    """Return the overhead of the harness and of `backend.compiled`, as two ratios.

    Returns:
        Mean end-to-end time through LoadGen over that of a bare loop; and `infer_ratio`'s text.
    """
    calls: list[Callable[[], object]] = []  # the bare tf.function calls of one inference
    recording = False
    original = backend.compiled

    def spy(function: Callable[..., Any], specs: Any) -> Callable[..., Any]:
        signature = [tf.TensorSpec(shape, dtype) for shape, dtype in specs]
        model = tf.function(function, input_signature=signature)
        ours = original(function, specs)

        def bare(arguments: tuple[Any, ...]) -> object:
            return tf.nest.map_structure(
                lambda tensor: tensor.numpy(), model(*map(tf.constant, arguments))
            )

        def call(*arguments: Any) -> Any:
            if recording:
                calls.append(partial(bare, arguments))
            return ours(*arguments)

        return call

    backend.compiled = spy  # so that the bare calls run the very same models on the same arrays
    try:
        application = APPLICATIONS[name].create(scale)
        application.load()
    finally:
        backend.compiled = original
    requests = [request for _, request in sorted(application.inputs().items())]

    def once(index: int) -> int:
        start_ns = monotonic_ns()
        features = application.preprocess(requests[index])
        application.postprocess(application.infer(features))
        return monotonic_ns() - start_ns

    for index in range(len(requests)):
        once(index)
    samples = max(len(requests), int(SECONDS * 1e9 / once(0)))
    overheads = []
    for _ in range(ROUNDS):
        order: list[int] = []
        latencies: list[int] = []

        # The bare loop runs each request right after LoadGen's, so that drift affects both sides.
        def serve(index: int, issued_ns: int, order: Any = order, times: Any = latencies) -> int:
            once(index)
            ended_ns = monotonic_ns()
            times.append(ended_ns - issued_ns)
            order.append(index)
            return ended_ns

        bare: list[int] = []
        loadgen.drive(
            loadgen.Load(samples=samples),
            len(requests),
            1e8,
            serve,
            lambda order=order, bare=bare: bare.append(once(order[-1])),
            fail,
        )
        overheads.append(statistics.fmean(latencies) / statistics.fmean(bare))
    features = application.preprocess(requests[0])
    recording = True
    application.infer(features)
    recording = False
    return statistics.median(overheads), infer_ratio(lambda: application.infer(features), calls)


def fail(error: BaseException) -> NoReturn:
    """Print the error and exit at once, because LoadGen cannot abort a test."""
    traceback.print_exception(error)
    os._exit(1)


def infer_ratio(infer: Callable[[], object], calls: list[Callable[[], object]]) -> str:
    """Return infer's time over that of its models called as bare `tf.function`s, as text."""

    def bare() -> None:
        for call in calls:
            call()

    def timed(call: Callable[[], object]) -> int:
        start_ns = monotonic_ns()
        call()
        return monotonic_ns() - start_ns

    repeats = max(3, int(SECONDS * 1e9 / max(timed(bare), timed(bare))))
    overheads = []
    for _ in range(ROUNDS):
        pairs = [(timed(infer), timed(bare)) for _ in range(repeats)]
        ours, plain = zip(*pairs, strict=True)
        overheads.append(statistics.median(ours) / statistics.median(plain))
    return f"{statistics.median(overheads):.4f}"


if __name__ == "__main__":
    sys.exit(main())
