"""What `virtbed advise` prints: plain words, whole numbers with their intervals, 80 columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from virtbed.cli import app
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep

from .conftest import Folder, failure
from .test_advice import APP, lay


@pytest.fixture
def wide(folder: Folder) -> Folder:
    """Long names, large numbers, lost and suspect trials: the widest rows there are."""
    lay(folder, "microvm", "vanilla", 16, 5_512, thread_policy="matched")
    lay(folder, "vmcn", "vanilla", 16, 5_900, confounders={"steal_share": 0.2})
    lay(folder, "bm", "pinned", 1, 12_345)
    trial = folder.plan("vmcn", "vanilla", 9, cores=16)["id"]
    folder.write(f"trials/{trial}/failure.json", failure(trial, "port <22> taken " + "long " * 40))
    prices = "platform,cores,processor,price_per_hour\n" + "".join(
        f"{name},{cores},cpu,{price}\n"
        for name, cores, price in [("microvm", 16, 3.1), ("vmcn", 16, 3.3), ("bm", 1, 1)]
    )
    folder.write("prices.csv", prices)
    return folder


def said(folder: Path, *options: str, columns: int = 80) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["advise", str(folder), "--app", APP, *options], env={"COLUMNS": str(columns)}
    )
    return result.exit_code, result.output


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("prices", [False, True])
@pytest.mark.parametrize("slo", [False, True])
def test_advice_fits_the_terminal(wide: Folder, columns: int, prices: bool, slo: bool) -> None:
    options = ["--price-table", str(wide.path / "prices.csv")] if prices else []
    options += ["--slo-ms", "50000"] if slo else []
    status, text = said(wide.path, *options, columns=columns)
    assert status == 0
    assert max(map(len, text.splitlines())) <= columns
    reported = re.sub(r"\s+", " ", text)
    assert "(microvm vanilla matched)" in reported or "(bm pinned)" in reported
    table = text[text.index("Candidates") :].splitlines()
    head = table[1].split()
    assert head[:2] == ["cell", "code"]
    assert "1 lost" in text and "6 suspect" in text
    rows = [line for line in table[2:] if re.search(r"\d \(", line)]
    if not prices:  # no interval is torn
        assert all(line.count("(") == line.count(")") for line in rows)
        assert any(re.search(r"\d+ \(\d+ to \d+\)", line) for line in rows)


def test_an_answer_is_said_in_plain_words_first(wide: Folder) -> None:
    _, text = said(wide.path)
    begin = "Choose microVM, floating vCPUs, 16 cores, matched threads (microvm vanilla matched)."
    assert re.sub(r"\s+", " ", text).startswith(begin + " The fastest of 3. Runner-up: ")
    assert "left out" not in text


def test_what_cannot_be_decided_says_so_and_is_no_failure(folder: Folder) -> None:
    for name in ("bm", "cn"):
        for replicate, ms in enumerate((90.0, 110.0, 100.0 if name == "bm" else 99.0), start=1):
            folder.trial(name, "pinned", replicate if name == "bm" else 4 - replicate, {"a": [ms]})
    status, text = said(folder.path)
    reported = re.sub(r"\s+", " ", text)
    assert status == 0
    assert reported.startswith("Cannot tell: ")
    undecided = "Undecided, and not recommended yet:"
    assert f"{undecided} bare metal, pinned, 1 core (bm pinned); container, pinned" in reported
    assert "If you must start with one now: " in reported and "Choose " not in reported
    assert "Candidates, the one to start with first" in reported
    lead = document(read_sweep(folder.path))["headline"]["lead"]  # in the same words
    assert f"{undecided} container, pinned (cn pinned)" in lead
    assert "more replicates would decide, if the ratios are as measured." in reported


def test_no_evidence_is_a_failure(wide: Folder) -> None:
    status, text = said(wide.path, "--slo-ms", "1")
    assert status == 1
    assert "6 of 6 instances broke 1 ms at p99" in re.sub(r"\s+", " ", text)
    status, text = said(wide.path, "--slo-ms", "1", "--json")
    assert status == 1 and json.loads(text)["answer"] == "none"
    status, text = said(wide.path, "--margin", "10", "--json")
    assert status == 0 and json.loads(text)["question"]["margin"] == pytest.approx(0.1)
