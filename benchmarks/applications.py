"""Where each application's time goes, and what the harness costs: `make bench`.

Runs in the image. Absolute times are this machine's; what holds elsewhere are the ratios, each
between two things measured in turns within one process.
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
SECONDS = 4.0  # of each side of a ratio in a round


def main() -> int:
    """Print the three tables."""
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
    print("| application | after the warm-up MiB | end MiB | growth |\n|---|---|---|---|")
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
    """Run one trial in a process of its own; return its document."""
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
    """Return e2e through LoadGen and the harness's steps over a bare loop, and infer's ratio."""
    calls: list[Callable[[], object]] = []  # each as a bare tf.function's, while one infers
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
    found = []
    for _ in range(ROUNDS):
        order: list[int] = []
        latencies: list[int] = []

        # The bare loop takes each request right after LoadGen's, so that drift falls on both.
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
            end,
        )
        found.append(statistics.fmean(latencies) / statistics.fmean(bare))
    features = application.preprocess(requests[0])
    recording = True
    application.infer(features)
    recording = False
    return statistics.median(found), infer_ratio(lambda: application.infer(features), calls)


def end(error: BaseException) -> NoReturn:
    """Stop where LoadGen cannot be left in order."""
    traceback.print_exception(error)
    os._exit(1)


def infer_ratio(infer: Callable[[], object], calls: list[Callable[[], object]]) -> str:
    """Return infer's time over that of the same calls of its models as bare `tf.function`s."""

    def bare() -> None:
        for call in calls:
            call()

    def timed(call: Callable[[], object]) -> int:
        start_ns = monotonic_ns()
        call()
        return monotonic_ns() - start_ns

    repeats = max(3, int(SECONDS * 1e9 / max(timed(bare), timed(bare))))
    found = []
    for _ in range(ROUNDS):
        pairs = [(timed(infer), timed(bare)) for _ in range(repeats)]
        ours, plain = zip(*pairs, strict=True)
        found.append(statistics.median(ours) / statistics.median(plain))
    return f"{statistics.median(found):.4f}"


if __name__ == "__main__":
    sys.exit(main())
