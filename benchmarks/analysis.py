"""Benchmark of the analysis of a large sweep; part of `make bench`.

It writes a results folder of 10,000 trials of 100 requests in 1,000 cells, in a sweep's format with
made-up times. Then it times loading, estimation, report, archive and verification, and how soon a
browser shows the page.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from tests.integration.browser import CHROMIUM, FLAGS
from tests.unit.analysis.conftest import DEFAULTS, Folder, evidence, sample

from virtbed_analysis.crate import archive, problems
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_contract.factors import size_id, trial_id

PLATFORMS = [
    ("bm", "pinned"),
    ("cn", "vanilla"),
    ("cn", "pinned"),
    ("vm", "vanilla"),
    ("vm", "pinned"),
]
CORES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def main() -> int:
    """Run the benchmark and print its table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--samples", type=int, default=100, help="per trial (default: 100)")
    parser.add_argument("--replicates", type=int, default=10, help="per cell (default: 10)")
    arguments = parser.parse_args()
    steps = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "large")
        write_results(Folder(folder), arguments.trials, arguments.samples, arguments.replicates)
        started = time.monotonic()
        sweep = read_sweep(folder)
        steps["load"] = time.monotonic()
        content = document(sweep)
        steps["estimate"] = time.monotonic()
        page = render(content)
        steps["report"] = time.monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        archive(folder, Path(name, "large.zip"), {})
        steps["archive (reads and reports again)"] = time.monotonic()
        wrong = list(problems(Path(name, "large.zip")))
        steps["verify (reads and reports again)"] = time.monotonic()
        Path(name, "page.html").write_text(page)
        opening = opening_times(Path(name, "page.html"))
    if sweep.trials.height != arguments.trials or wrong:
        sys.exit(
            f"{sweep.trials.height} of {arguments.trials} trials read: {sweep.rejected[:1]} {wrong}"
        )
    print(f"## Analysis of {sweep.trials.height:,} trials, {sweep.samples.height:,} samples, "
          f"{len(content['cells']):,} cells\n\n| step | s |\n|---|---|")  # fmt: skip
    for step, ended in steps.items():
        print(f"| {step} | {ended - started:.1f} |")
        started = ended
    print(f"\nPeak memory to the report {peak:,.0f} MiB; the page has {len(page) / 2**20:.1f} MiB. "
          f"{opening}")  # fmt: skip
    return 0


def opening_times(page: Path) -> str:
    """Return a sentence with the times until a browser first shows the page and has loaded it."""
    if not CHROMIUM.exists():
        return f"Not opened in a browser: {CHROMIUM} not found (`make integration` installs it)."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page()
        tab.goto(page.as_uri())
        first, whole = tab.evaluate(
            "[performance.getEntriesByName('first-contentful-paint')[0].startTime,"
            " performance.getEntriesByType('navigation')[0].domComplete]"
        )
        browser.close()
    return f"Chromium shows it after {first / 1000:.1f} s, complete after {whole / 1000:.1f} s."


def write_results(folder: Folder, trials: int, samples: int, replicates: int) -> None:
    """Write a results folder; cells vary application, size and platform."""
    chance = random.Random(1)  # nosec B311 # made-up times
    names = [f"application_{n:03d}" for n in range(trials // replicates // 50 + 1)]
    cells = itertools.product(names, CORES, PLATFORMS)
    for number in range(trials):
        if number % replicates == 0:
            application, cores, (platform, mode) = next(cells)
        trial = {
            "platform": platform, "mode": mode, "cores": cores, "application": application,
            "scale": "trained", "scenario": "single_stream", "emulated": False,
            "replicate": number % replicates + 1, "position": number + 1, **DEFAULTS,
        }  # fmt: skip
        size = size_id(platform, mode, cores, trial)
        id_ = trial_id(size, application, None, "single_stream", trial["replicate"], trial)
        speed = chance.lognormvariate(0, 0.02) / cores**0.7
        times = [chance.lognormvariate(3.2, 0.1) * speed for _ in range(samples)]
        result = folder.result(
            trial | {"id": id_},
            [sample(f"{i % 10}", ms, (0.25, 0.1)) for i, ms in enumerate(times)],
        )
        folder.write(f"trials/{id_}/result.json", result)
        folder.write(f"trials/{id_}/evidence.json", evidence(result))


if __name__ == "__main__":
    sys.exit(main())
