"""Fixtures of the doctests: a working folder with generated sweeps and CSV tables.

`results/quick` and `results/after` are two sweeps of one plan on one host; containers are slower in
the latter. `results/calibrate` has a twin. `timings.csv` and `prices.csv` are a user's tables.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.analysis.conftest import Folder

CELLS = {("bm", "pinned"): 10.0, ("cn", "pinned"): 10.1, ("cn", "vanilla"): 14.0}
TIMINGS = """app,cores,mode,platform,row,input,exec_time_s
F,2,vanilla,BM,1,a,1.0
F,2,vanilla,BM,2,b,1.0
F,2,vanilla,CN,1,a,2.0
F,2,vanilla,CN,2,b,2.0
"""
PRICES = """platform,cores,processor,price_per_hour
bm,1,cpu,0.20
cn,1,cpu,0.05
"""


def _noise(trial: int) -> float:
    return 1 + (7 * trial % 11) / 9973


def _sweep(path: Path, shift: int, slower: float = 1.0) -> None:
    """Write a sweep of five replicates; `slower` multiplies the times of containers."""
    path.parent.mkdir(exist_ok=True)
    folder = Folder(path)
    for replicate in range(1, 6):
        for number, ((platform, mode), ms) in enumerate(CELLS.items()):
            time_ms = ms * _noise(replicate + 5 * number + shift)
            time_ms *= slower if platform == "cn" else 1.0
            times = {"a.png": [time_ms] * 3, "b.png": [2 * time_ms]}
            folder.trial(platform, mode, replicate, times)


@pytest.fixture(scope="session")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, written once per session."""
    root = tmp_path_factory.mktemp("examples")
    _sweep(root / "results/quick", 0)
    _sweep(root / "results/after", 40, slower=1.2)
    twins = Folder(root / "results/calibrate")
    for replicate in range(1, 9):
        for number, variant in enumerate(("plain", "twin")):
            time_ms = 10 * _noise(replicate + 8 * number + 90)
            twins.trial("bm", "pinned", replicate, {"a.png": [time_ms] * 3}, variant=variant)
    (root / "timings.csv").write_text(TIMINGS)
    (root / "prices.csv").write_text(PRICES)
    return root


@pytest.fixture(autouse=True)
def _working_folder(sweeps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweeps)
