"""The published measurements: their table to three decimals, their weaknesses, bad files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from virtbed.image import REPOSITORY
from virtbed_analysis import AnalysisError, analyse_published, published, words
from virtbed_analysis.estimate import cells
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.weaknesses import weaknesses

from .conftest import Folder

DATA = REPOSITORY.parent / "shared/reference/dnn_virt_evaluation.csv"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here: nothing compared")
HEADER = "app,cores,mode,platform,row,input,exec_time_s"


@pytest.fixture(scope="module")
def timings() -> pl.DataFrame:
    return published.read(DATA)


def table(text: str) -> dict[tuple[str, str, int], str]:
    """Read the Markdown table of the data's README: ratio by mode, platform and cores."""
    lines = [re.split(r"\s*\|\s*", line.strip("| \n")) for line in text.splitlines() if "|" in line]
    head = next(line for line in lines if line[0] == "Yolo")
    found = {}
    for line in lines[lines.index(head) + 2 :]:
        mode, platform = line[0].split()
        for cores, figure in zip(head[1:], line[1:], strict=True):
            found[mode, platform, int(cores)] = figure
    return found


@needs_data
def test_the_published_table_is_reproduced_to_three_decimals(timings: pl.DataFrame) -> None:
    wanted = table((DATA.parent / "README.md").read_text())
    ratios = published.ratios(timings).filter(pl.col("app") == "Yolo", pl.col("mode") != "GPU")
    found = {(r["mode"], r["platform"], r["cores"]): f"{r['ratio']:.3f}" for r in ratios.to_dicts()}
    assert len(wanted) == 36
    assert found == {cell: figure for cell, figure in wanted.items() if figure != "-"}


@needs_data
def test_every_weakness_that_the_data_can_show_is_named(timings: pl.DataFrame) -> None:
    found = {w.id: w.text for w in weaknesses(timings, published.ratios(timings))}
    assert list(found) == [
        "pooled-warm-up", "input-order", "fixed-order", "missing-cell", "one-run", "one-baseline",
        "slower-with-cores", "outlying-run", "alike-neighbours", "inputs-apart", "unexplained-cell",
    ]  # fmt: skip
    assert "FaceNet 64" in found["pooled-warm-up"]
    assert found["missing-cell"].endswith("Yolo CN vanilla at 32 cores.")
    assert found["unexplained-cell"].startswith("FaceNet VMCN GPU takes 0.495 to 0.554")
    assert "FaceNet 2 in 66 cells, Yolo 2 in 65 cells" in found["fixed-order"]
    assert "FaceNet 1.73 times from 32 to 64, Yolo 1.41 times" in found["slower-with-cores"]
    assert found["outlying-run"].startswith("11 of 3669 later runs take more than 2 times")
    assert "4.04 times (FaceNet VMCN pinned at 64 cores" in found["outlying-run"]
    assert found["alike-neighbours"].startswith("In 18 of 131 cells")
    assert "In 48 of 107 cells (FaceNet 46, Yolo 2)" in found["inputs-apart"]
    assert "common to up to 6 ratios" in found["one-baseline"]


@needs_data
def test_the_published_data_answers_the_findings() -> None:
    content = analyse_published(DATA)
    assert (content["timings"], content["cells"]) == (3800, 131)
    assert {v["id"]: v["answer"] for v in content["verdicts"]} == {
        "application": "supported",
        "gpu-pre-post": "not tested",
        "vanilla-container": "supported",
        "penalty-size": "supported",
        "pinning": "inconclusive",
        "container-in-vm": "supported",
        "metal-scaling": "supported",
        "passthrough": "inconclusive",
    }
    json.dumps(content, allow_nan=False)


@needs_data
def test_the_figures_that_the_project_holds_are_those_of_the_data(timings: pl.DataFrame) -> None:
    rounded = pl.col("ratio", "ratio_steady").round(3)
    found = published.ratios(timings).with_columns(rounded).select(published.figures().columns)
    assert found.cast({"inputs": pl.Int64}).equals(published.figures())


def test_a_sweep_is_put_next_to_the_published_ratios_of_its_size_and_mode(
    folder: Folder,
) -> None:
    times = {("bm", "pinned"): 10, ("cn", "pinned"): 11, ("vm", "vanilla"): 30}
    for replicate, noise in enumerate((0.99, 1.0, 1.01), start=1):
        for (platform, mode), ms in times.items():
            own = noise if platform != "bm" else 1.0
            folder.trial(platform, mode, replicate, {"a": [ms * own]}, cores=2)
        folder.trial("cn", "vanilla", replicate, {"a": [10.0 * noise]}, cores=1)
    sweep = read_sweep(folder.path)
    found = published.next_to_published(cells(sweep.samples).to_dicts(), sweep.platforms)
    assert [(r["platform"], r["published"], r["answer"]) for r in found["rows"]] == [
        ("vm", {"FaceNet": 1.081, "Yolo": 1.432}, "outside"),
        ("cn", {"FaceNet": 1.175, "Yolo": 1.043}, "inside"),
    ]
    assert (found["compared"], found["answers"]["outside"]) == (2, 1)


@pytest.mark.parametrize(
    ("noise", "margin", "answer"),
    [(0.001, 0.03, "inside"), (0.5, 0.03, "cannot tell"), (0.04, 0.0, "cannot tell"),
     (0.04, 0.2, "inside"), (0.0, 0.03, "cannot tell")],
)  # fmt: skip
def test_only_an_interval_that_lies_in_their_range_is_said_to(
    folder: Folder, noise: float, margin: float, answer: str
) -> None:
    """The wider an interval, the more it meets; overlap with 1.043 to 1.175 shows nothing."""
    for replicate, sign in enumerate((1, -1, 1, -1), start=1):
        folder.trial("bm", "pinned", replicate, {"a": [10.0]}, cores=2)
        folder.trial("cn", "pinned", replicate, {"a": [11.0 * (1 + sign * noise)]}, cores=2)
    sweep = read_sweep(folder.path)
    found = published.next_to_published(cells(sweep.samples).to_dicts(), sweep.platforms, margin)
    assert [row["answer"] for row in found["rows"]] == [answer]
    said = words.agreement(found)
    assert f"widened by {100 * margin:.3g}%, the whole interval is inside" in said
    assert f"inside for {int(answer == 'inside')}, outside for 0" in said


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    file = path / "timings.csv"
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


GOOD = ("F,2,vanilla,BM,1,a,9.0", "F,2,vanilla,BM,2,b,1.0", "F,2,vanilla,CN,1,a,2.0",
        "F,2,vanilla,CN,2,b,2.0")  # fmt: skip


def test_warm_ups_count_as_published_and_are_left_out_next_to_it(tmp_path: Path) -> None:
    (row,) = published.ratios(published.read(write(tmp_path, *GOOD))).to_dicts()
    assert row["ratio"] == pytest.approx((2 / 9 * 2) ** 0.5)
    assert row["ratio_steady"] == pytest.approx(2.0)


def test_sound_data_has_no_weakness_but_its_single_runs(tmp_path: Path) -> None:
    even = [line.replace("9.0", "1.0") for line in GOOD]
    timings = published.read(write(tmp_path, *even))
    found = weaknesses(timings, published.ratios(timings))
    assert [weakness.id for weakness in found] == ["one-run"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("F,2,vanilla,XN,3,c,1.0", "line 6 has platform 'XN'.*one of BM, CN, VM, VMCN"),
        ("F,2,fast,CN,3,c,1.0", "line 6 has mode 'fast'.*one of GPU, pinned, vanilla"),
        ("F,two,vanilla,CN,3,c,1.0", "line 6 has cores 'two', a positive number needed"),
        ("F,0,vanilla,CN,3,c,1.0", "line 6 has cores '0', a positive number needed"),
        ("F,2,vanilla,CN,3,c,-1", "line 6 has exec_time_s '-1', a positive number needed"),
        ("F,2,vanilla,CN,3,c,nan", "line 6 has exec_time_s 'nan', a positive number needed"),
        ("F,2,vanilla,CN,3,c,", "line 6 has exec_time_s .*, a positive number needed"),
        ("F,2,vanilla,CN,2,c,1.0", "found 2 times, once needed"),
        ("F,2,vanilla,CN,3,c,1.0,9,9", "cannot be read as CSV"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(AnalysisError, match=message):
        published.read(write(tmp_path, *GOOD, line))


def test_another_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"columns a, b found, app, cores, .* needed too"):
        published.read(write(tmp_path, "1,2", header="a,b"))
