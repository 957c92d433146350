"""Benchmark of the orchestration's cost per trial; part of `make bench`.

The same tiny trials are run by a sweep, by one plain `ansible-playbook` per trial, and by a shell
loop. The process is the same in all three; the rest of each trial's time is orchestration. The
sweep's part also includes a fresh instance and both attestations, which the other two lack.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from virtbed.ansible import marked
from virtbed.checkout import REPOSITORY
from virtbed.here import command
from virtbed.ledger import Ledger
from virtbed_contract.kernel.processes import with_environment

NAME = "bench-orchestration"
# Maximum ratio of a sweep's seconds outside the process to those of one ansible-playbook per trial.
AIMS = {"bm": 1.0, "cn": 1.5}
LOADING_S = 5  # from the start of a trial until it measures
WINDOW_S = 5
TRIAL = ["-m", "virtbed_workloads", "image_classification", "--scale=tiny", "--samples=2"]


def main() -> int:
    """Run the benchmark and print its table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=10, help="trials per way (default: 10)")
    replicates = parser.parse_args().replicates
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_playbook(Path(folder))
        # Half before the sweep and half after it, because other load on this machine changes.
        first = alternately(bare, replicates - replicates // 2)
        swept, process = sweep(replicates, Path(folder))
        times = [*first, *alternately(bare, replicates // 2)]
        share = controller(Path(folder))
    plain, playbook = map(statistics.fmean, zip(*times, strict=True))
    print("## Orchestration: seconds per trial, tiny image classification\n")
    print("| carried out by | wall s per trial | outside the process s | wall / process |"
          "\n|---|---|---|---|")  # fmt: skip
    rows = [("a shell loop", plain, plain), ("one ansible-playbook per trial", playbook, plain)]
    rows += [(f"virtbed sweep, {p}", swept[p], process[p]) for p in swept]
    for label, wall, own in rows:
        print(f"| {label} | {wall:.2f} | {wall - own:.2f} | {wall / own:.2f} |")
    print("\nOutside the process, a sweep over one ansible-playbook per trial:\n")
    for platform, aim in AIMS.items():
        ratio = (swept[platform] - process[platform]) / (playbook - plain)
        verdict = "held" if ratio <= aim else "MISSED"
        print(f"* {platform}: {ratio:.2f}, aim at most {aim}: {verdict}")
    print(f"\nWhile a trial measured, virtbed and Ansible together used {share:.2%} of one CPU.")
    return 0


def bare_playbook(folder: Path) -> list[str]:
    """Write a playbook of one task that runs the process; return the command that runs it."""
    task = {"name": "Run", "ansible.builtin.command": {"argv": command(TRIAL)}}
    play = {"name": "Run a trial", "hosts": "bench", "gather_facts": False, "tasks": [task]}
    path = folder / "bare.yml"
    path.write_text(yaml.safe_dump([play]))
    return [str(Path(sys.executable).with_name("ansible-playbook")), str(path)]


def alternately(playbook: list[str], times: int) -> list[tuple[float, float]]:
    """Time the process alone and a playbook that runs it, alternately; return pairs of seconds."""
    return [(seconds(command(TRIAL)), seconds(playbook)) for _ in range(times)]


def seconds(argv: list[str]) -> float:
    """Return the wall seconds of a command."""
    started = time.monotonic()
    subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True)
    return time.monotonic() - started


def sweep(replicates: int, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean seconds per trial and per process, by platform.

    A trial's seconds count from the end of the previous trial: release of the previous instance,
    provisioning of its own, attestations and process.
    """
    application = {"name": "image_classification", "scale": "tiny", "samples": 2}
    platforms = {"bm": ["pinned"], "cn": ["pinned"]}
    with finished(
        folder, replicates=replicates, applications=[application], platforms=platforms, cores=[1]
    ) as results:
        process: dict[str, list[float]] = {}
        for trial in sorted((results / "trials").iterdir()):
            platform = trial.name.split("-")[0]
            evidence = json.loads((trial / "evidence.json").read_text())
            process.setdefault(platform, []).append(evidence["process_wall_ns"] / 1e9)
        with Ledger(results / "ledger.sqlite") as ledger:
            wall = ledger.seconds()
    return wall, {platform: statistics.fmean(times) for platform, times in process.items()}


def controller(folder: Path) -> float:
    """Return the mean share of one CPU that the controller's processes used while trials measured.

    From the scheduler's own accounting (schedstat), because clock ticks miss short runs.
    """
    application = {"name": "question_answering", "scale": "trained", "samples": 200}
    shares = []
    with started(
        folder, replicates=3, applications=[application], platforms={"bm": ["pinned"]},
        cores=[len(os.sched_getaffinity(0))],
    ) as (sweep, _):  # fmt: skip
        while sweep.poll() is None:
            time.sleep(0.5)
            if trials():
                time.sleep(LOADING_S)
                before, since = controllers_ns(sweep.pid), time.monotonic_ns()
                time.sleep(WINDOW_S)
                after, until = controllers_ns(sweep.pid), time.monotonic_ns()
                if not trials():
                    sys.exit(f"the trial ended within {WINDOW_S} s; more samples are needed")
                ran = sum(after[pid] - before[pid] for pid in before.keys() & after.keys())
                shares.append(ran / (until - since))
            while trials():
                time.sleep(0.5)
    return statistics.fmean(shares)


def trials() -> list[int]:
    """Return the process ids of the running trial."""
    return with_environment(lambda variable: variable.startswith(b"VIRTBED_INSTANCE="))


def controllers_ns(sweep: int) -> dict[int, int]:
    """Return the CPU time so far, in ns, of each of the controller's processes, by process id."""
    return {
        pid: sum(
            int((task / "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
        for pid in {sweep, *with_environment(marked)} - set(trials())
    }


@contextmanager
def finished(folder: Path, **plan: object) -> Iterator[Path]:
    """Sweep a plan; yield its results folder, which is removed at the end."""
    with started(folder, **plan) as (sweep, results):
        if sweep.wait():
            sys.exit(f"the sweep of {plan} failed; run that plan with virtbed sweep to see why")
        yield results


@contextmanager
def started(folder: Path, **plan: object) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start the sweep of a plan; yield its process and its results folder, removed at the end."""
    path = folder / f"{NAME}.yml"
    path.write_text(yaml.safe_dump({"name": NAME, **plan}))
    results = REPOSITORY / "results" / NAME
    shutil.rmtree(results, ignore_errors=True)
    tool = Path(sys.executable).with_name("virtbed")
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        with subprocess.Popen([tool, "sweep", path], **nowhere) as sweep:
            yield sweep, results
    finally:
        shutil.rmtree(results, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
