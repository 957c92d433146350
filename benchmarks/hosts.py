"""Benchmark of a sweep on three hosts over the same sweep on one: how much sooner it ends.

The hosts are namespaces of this machine, reached over SSH (tests/integration/boxes.py), so this
needs root, an SSH server and the image of plans/quick.yml, as the integration tests do. All of them
share the CPUs of this machine with the controller. Therefore the trials compute nothing: the
application null answers one request per second. So the figure shows what the controller, Ansible
and the ledger allow, and nothing about applications that compete for one machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from virtbed.checkout import REPOSITORY

sys.path.insert(0, str(REPOSITORY))  # for the hosts and commands of the tests
from tests.commands import run
from tests.integration.boxes import Box, inventory, running

NAME = "bench-hosts"
NAMES = ("box01", "box02", "box03")
AIM = 2.5


@dataclass(frozen=True)
class Row:
    """One sweep.

    Attributes:
        hosts: Number of hosts.
        wall_s: Seconds from its call to its end, with the hosts' examination and restoration.
        process_s: Seconds of each trial's process.
    """

    hosts: int
    wall_s: float
    process_s: Sequence[float]

    @property
    def host_s(self) -> float:
        """Seconds of a host per trial, also those in which it waits for the others."""
        return self.hosts * self.wall_s / len(self.process_s)


def main() -> int:
    """Run the benchmark and print its table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=15, help="of one trial (default: 15)")
    parser.add_argument("--requests", type=int, default=30, help="per trial (default: 30)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(NAMES) as boxes:
        path = Path(folder, f"{NAME}.yml")
        path.write_text(yaml.safe_dump(plan(options.replicates, options.requests)))
        three = sweep(path, boxes)
        one = sweep(path, {name: boxes[name] for name in NAMES[:1]})
    print(table(one, three))
    return 0


def plan(replicates: int, requests: int) -> dict[str, object]:
    """Return a plan of one cell, whose trials wait for about a second per request."""
    application = {
        "name": "null", "scale": "tiny", "scenario": "server", "target_qps": 1,
        "target_latency_ms": 1000, "samples": requests, "warmup": 1,
    }  # fmt: skip
    return {
        "name": NAME, "replicates": replicates, "platforms": {"bm": ["pinned"]}, "cores": [1],
        "applications": [application],
    }  # fmt: skip


def sweep(path: Path, boxes: Mapping[str, Box]) -> Row:
    """Carry a plan out on some hosts; its results are removed."""
    results = REPOSITORY / "results" / NAME
    shutil.rmtree(results, ignore_errors=True)
    try:
        started = time.monotonic()
        run("virtbed", "sweep", str(path), "--inventory", inventory(boxes, path.parent))
        wall_s = time.monotonic() - started
        read = [json.loads(file.read_text()) for file in results.glob("trials/*/result.json")]
        if {one["trial"]["host"] for one in read} != {*boxes}:
            sys.exit(f"a host of {', '.join(boxes)} ran no trial; more replicates are needed")
        evidence = [json.loads(file.read_text()) for file in results.glob("trials/*/evidence.json")]
        return Row(len(boxes), wall_s, [one["process_wall_ns"] / 1e9 for one in evidence])
    finally:
        shutil.rmtree(results, ignore_errors=True)


def table(one: Row, three: Row) -> str:
    """Return the table of the two sweeps, and whether the speed-up is the one aimed at."""
    lines = ["## Speed-up by hosts: trials that wait, hosts in namespaces of this machine\n",
             "| hosts | trials | sweep s | process s per trial | host s per trial |",
             "|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {row.hosts} | {len(row.process_s)} | {row.wall_s:.0f} "
        f"| {statistics.fmean(row.process_s):.1f} | {row.host_s:.1f} |"
        for row in (one, three)
    ]
    ratio = one.wall_s / three.wall_s
    verdict = "held" if ratio >= AIM else "MISSED"
    lines += ["", f"{three.hosts} hosts over {one.hosts}: {ratio:.2f} times as fast, aim at least "
              f"{AIM}: {verdict}"]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
