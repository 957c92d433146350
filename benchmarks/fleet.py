"""Benchmark of the controller of a sweep on up to 300 hosts: `make bench`.

The hosts are simulated: playbooks report the outcomes of trials at once, and nothing runs. All else
is a sweep's own work: it lays the plan out, leases replicates to hosts, checks and writes results,
and keeps the ledger. Ansible's own processes are not included (see orchestration.py).

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.virtbed.test_fleet import Hosts

from virtbed.fleet_ledger import FleetLedger
from virtbed.plan import Plan

HOSTS = (3, 300)
WRITES = 6_000
PLAN = Plan.model_validate(
    {
        "name": "fleet",
        "platforms": {"bm": ["pinned"], "cn": ["vanilla", "pinned"]},
        "cores": [1, 2],
        "applications": [{"name": "null"}],
    }
)
CELLS = 6
HARNESS = ["-m", "virtbed_workloads", "null", "--scale=tiny", "--samples=2"]


def main() -> int:
    """Print the table, or with --hosts the row of one size as JSON; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, help="one size, as JSON (default: table of all)")
    hosts = parser.parse_args().hosts
    if hosts:
        print(json.dumps(measure(hosts)))
        return 0
    print("## Controller of simulated hosts: no Ansible, no application\n")
    print("| hosts | trials | s | CPU s per host | CPU ms per trial | peak MiB "
          "| ledger writes/s |\n|---|---|---|---|---|---|---|")  # fmt: skip
    rows = []
    for hosts in HOSTS:
        argv = [sys.executable, __file__, f"--hosts={hosts}"]
        row = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
        print("| {hosts} | {trials:,} | {wall_s:.1f} | {cpu_s_per_host:.2f} "
              "| {cpu_ms_per_trial:.1f} | {peak_mib:,.0f} | {writes_per_s:,.0f} |".format(**row),
              flush=True)  # fmt: skip
        rows.append(row)
    print("\n" + compared(*rows))
    return 0


def compared(few: dict[str, float], many: dict[str, float]) -> str:
    """Return how the figures of two sizes relate, in a sentence.

    Args:
        few: The row of the smaller size.
        many: The row of the larger one.
    """
    cpu, writes = (many[name] / few[name] for name in ("cpu_ms_per_trial", "writes_per_s"))
    kib = (many["peak_mib"] - few["peak_mib"]) * 1024 / (many["hosts"] - few["hosts"])
    return (
        f"{many['hosts']} hosts over {few['hosts']}: {cpu:.2f} times the CPU time per trial, "
        f"{writes:.2f} times the ledger's writes per second, {kib:,.0f} KiB more memory per host."
    )


def measure(hosts: int) -> dict[str, float]:
    """Carry a sweep with a replicate per host out, then write to a ledger from as many threads."""
    done = subprocess.run([sys.executable, *HARNESS], check=True, capture_output=True, text=True)
    plan = PLAN.model_copy(update={"replicates": hosts})
    names = tuple(f"bench{number:03d}" for number in range(hosts))
    with tempfile.TemporaryDirectory(dir=".") as folder, pytest.MonkeyPatch.context() as patch:
        made = Hosts(Path(folder), json.loads(done.stdout), names)
        made.install(patch)
        started, cpu_s = time.monotonic(), time.process_time()
        sweep = made.run(plan, names)
        wall_s, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
        trials = len(list(sweep.folder.glob("trials/*/result.json")))
        if sweep.failed or trials != CELLS * hosts:
            sys.exit(f"{trials} results found, {CELLS * hosts} needed: {made.output.getvalue()}")
        writes_per_s = writing(Path(folder), hosts)
    return {
        "hosts": hosts,
        "trials": trials,
        "wall_s": wall_s,
        "cpu_s_per_host": cpu_s / hosts,
        "cpu_ms_per_trial": cpu_s * 1000 / trials,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "writes_per_s": writes_per_s,
    }


def writing(folder: Path, threads: int) -> float:
    """Return the writes per second to a new ledger by a number of threads."""
    each = WRITES // threads // 2

    def write(trial: str) -> None:
        for _ in range(each):
            ledger.attempt(trial)
            ledger.close(trial, "done", 1.0)

    trials = [(f"trial-{number}", number, "bm") for number in range(threads)]
    with FleetLedger(folder / "ledger.sqlite") as ledger, ThreadPoolExecutor(threads) as pool:
        ledger.begin({"plan": "p"}, trials)
        started = time.monotonic()
        list(pool.map(write, [trial for trial, _, _ in trials]))
        return 2 * each * threads / (time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
