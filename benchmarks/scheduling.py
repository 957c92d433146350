"""Benchmark of designing, journaling and resuming a sweep of 10^5 and 10^6 trials: `make bench`.

Each size runs in its own process, so that its peak memory is that of this size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from virtbed.design import Design, design
from virtbed.ledger import Ledger
from virtbed.plan import Plan
from virtbed.platforms import load_platforms
from virtbed.progress import Progress
from virtbed.records import write_json
from virtbed_contract.codec import encode
from virtbed_contract.identifiers import HOST_REPORT
from virtbed_contract.sweep import HostReport, PlatformVerdict

SIZES = (100_000, 1_000_000)
OPERATIONS = 2_000
REPLICATES = 50
CORES = 64
PLATFORMS = load_platforms()
IMAGE = "sha256:" + "0" * 64


def main() -> int:
    """Print the table, or with --trials the row of one size as JSON; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, help="one size, as JSON (default: table of all)")
    trials = parser.parse_args().trials
    if trials:
        print(json.dumps(measure(trials)))
        return 0
    print("## Scheduling\n")
    print("| trials | plan s | journal s | design.json s | resume s | trials/s | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        argv = [sys.executable, __file__, f"--trials={size}"]
        row = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
        print("| {trials:,} | {plan_s:.1f} | {journal_s:.1f} | {write_s:.1f} | {resume_s:.1f} "
              "| {trials_per_s:,.0f} | {peak_mib:,.0f} |".format(**row), flush=True)  # fmt: skip
    return 0


def measure(size: int) -> dict[str, Any]:
    """Design about ``size`` trials, journal them, and mark `OPERATIONS` of them as done."""
    clock = time.monotonic
    started = clock()
    plan, designed = design_of(size)
    planned = clock()
    progress = Progress(Console(quiet=True), PLATFORMS.trial_s)
    with tempfile.TemporaryDirectory(dir=".") as folder, progress:
        journal = Path(folder, "ledger.sqlite")
        with Ledger(journal) as ledger:
            ledger.begin(
                {"plan": "p"}, [(t.id, t.position, t.instance.platform) for t in designed.trials]
            )
            journaled = clock()
            document = designed.document(plan, IMAGE, PLATFORMS, [])
            write_json(Path(folder, "design.json"), encode(document))
            written = clock()
            progress.begin(len(designed.trials), designed.trials, ledger.seconds())
            ready = clock()
            for trial in designed.trials[:OPERATIONS]:
                ledger.attempt(trial.id)
                ledger.close(trial.id, "done", 1.0)
                progress.done(trial, 1.0, "")
            operated = clock()
        with Ledger(journal) as ledger:
            resumed = clock()
            done = ledger.done()
            assert len(done) == OPERATIONS
            ended = clock()
    return {
        "trials": len(designed.trials),
        "plan_s": planned - started,
        "journal_s": journaled - planned,
        "write_s": written - journaled,
        "resume_s": ended - resumed,
        "trials_per_s": OPERATIONS / (operated - ready),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def design_of(size: int) -> tuple[Plan, Design]:
    """Return a plan and its design of about ``size`` trials: seven cells at each of 64 sizes."""
    cpus = list(range(CORES + 1))
    threads = "".join(f'<object type="PU" os_index="{cpu}"/>' for cpu in cpus)
    facts = {
        "cpu": {"online": cpus, "allowed": cpus, "isolated": [], "tickless": [], "parts": {}},
        "hwloc": {
            "xml": f'<topology version="2.0"><object type="Machine">{threads}</object></topology>',
            "problem": None,
        },
        "nodes_with_cpus": [],
        "nodes_allowed": [],
        "image": {"digest": IMAGE},
    }
    verdicts = tuple(PlatformVerdict(name, "available", "", "") for name in PLATFORMS.entries)
    report = HostReport(HOST_REPORT, "bench", True, facts, verdicts, "kvm")
    both = ["vanilla", "pinned"]
    content = {
        "name": "big",
        "replicates": REPLICATES,
        "platforms": {"bm": ["pinned"], "cn": both, "vm": both, "vmcn": both},
        "cores": list(range(1, CORES + 1)),
        "applications": [
            {"name": f"application_{n}"} for n in range(-(-size // (REPLICATES * 7 * CORES)))
        ],
    }
    plan = Plan.model_validate(content)
    return plan, design(plan, report, PLATFORMS)


if __name__ == "__main__":
    sys.exit(main())
