"""The harness with --endless: it answers requests, reports their number and measures nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "virtbed_workloads", "null", "--scale=tiny", "--endless"]


def lines_of(*arguments: str, number: int) -> list[dict[str, int]]:
    """Return the first lines that it prints, then kill it."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        return [json.loads(process.stdout.readline()) for _ in range(number)]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--samples=2", "--warmup=1"),
        ("--samples=8", "--scenario=offline"),
        ("--samples=20", "--scenario=server", "--target-qps=100", "--target-latency-ms=99"),
        # The study rules' ten minutes do not apply, because nothing is measured.
        ("--samples=8", "--scenario=multi_stream", "--rules=study"),
    ],
)
def test_it_continues_beyond_the_samples_and_reports_the_number_answered(
    arguments: tuple[str, ...],
) -> None:
    first, second = lines_of(*arguments, number=2)
    assert first == {"requests": 1}
    assert second.keys() == {"requests"} and second["requests"] > 20


def test_it_reports_once_per_second_at_most() -> None:
    started_at = time.monotonic()
    lines_of("--samples=2", number=3)
    assert time.monotonic() - started_at > 2


def test_a_wrong_answer_exits_with_its_own_code() -> None:
    done = subprocess.run(
        COMMAND, env=os.environ | {"VIRTBED_NULL": "fickle"}, capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "wrong answer" in done.stderr
