"""A factor or a measure that is added by one registry entry reaches every part of the project.

The tests copy the packages, add one entry to a registry of the copy, and run a new interpreter with
the copy. It returns plan, ids, design, schemas, export and report.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = REPOSITORY / "tests/unit/analysis/conftest.py"
MEMBERS = ("contract", "python", "workloads", "analysis")

SWEEP = """
import importlib.util, json, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("folders", sys.argv[1])
folders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folders)
here = Path(sys.argv[2])

def lay(design, measures):
    "Write a results folder for a design, with a result for every trial."
    folder = folders.Folder(here / design["sweep"])
    folder.design = design
    folder.write("design.json", design)
    for row in design["trials"]:
        own = 10.0 * (1 + row["replicate"] / 100 + row["position"] / 1000)
        trial = {key: value for key, value in row.items() if key != "block"}
        result = folder.result(trial, [folders.sample("a.png", own, (0.2, 0.1))])
        result["trial"]["plan_digest"] = design["plan_digest"]
        folder.write(f"trials/{row['id']}/result.json", result | {"measures": measures})
        folder.write(f"trials/{row['id']}/evidence.json", folders.evidence(result))
    return folder.path

def content(path):
    "Return the analysis of a results folder."
    from virtbed_analysis import described, load, report, write_parquet
    from virtbed_analysis.frames import read_sweep
    import polars as pl
    paths = report(path)
    file = path / "samples.parquet"
    write_parquet(load(path), file)
    return {
        "rejected": [str(rejected) for rejected in read_sweep(path).rejected],
        "described": described(),
        "export": pl.read_parquet(file).to_dict(as_series=False),
        "report": json.loads(paths.json.read_text()),
        "page": paths.html.read_text(),
    }
"""

FACTOR = """
    Factor(
        name="label",
        plan_key="labels",
        values=("a", "b"),
        default="a",
        grain="{grain}",
        meaning="Does nothing.",
        wording="label {{}}",
        {more}
    ),
"""
FACTOR_SCRIPT = """
from virtbed.design import design
from virtbed.plan import Plan, PlanError, load_plan
from virtbed.platforms import load_platforms
from virtbed_contract import schemas
from virtbed_contract.codec import encode
from virtbed_contract.sweep import HostReport, PlatformVerdict

def plan_of(labels):
    file = here / "plan.yml"
    file.write_text(json.dumps({
        "name": "demo", "replicates": 3, "labels": labels, "cores": [1],
        "applications": [{"name": "image_classification"}],
        "platforms": {"bm": ["pinned"], "cn": ["vanilla", "pinned"]},
    }))
    return load_plan(file)

try:
    refusal = str(plan_of(["a", "c"]))
except PlanError as error:
    refusal = str(error)
plan = plan_of(["a", "b"])
threads = "".join(f'<object type="PU" os_index="{cpu}"/>' for cpu in (0, 1))
xml = f'<topology version="2.0"><object type="Machine" cpuset="0x3">{threads}</object></topology>'
every = {"online": [0, 1], "allowed": [0, 1], "isolated": [], "tickless": [], "parts": {}}
facts = {
    "cpu": {**every, "isa": []},
    "hwloc": {"xml": xml, "problem": None},
    "nodes_with_cpus": [],
    "nodes_allowed": [],
    "image": {"digest": folders.IMAGE},
}
platforms = load_platforms()
verdicts = [PlatformVerdict(name, "available", "", "") for name in platforms.entries]
host = HostReport("virtbed.doctor/2", "bench01", True, facts, tuple(verdicts), "kvm")
designed = design(plan, host, platforms)
document = encode(designed.document(plan, folders.IMAGE, platforms, ["0123abc"]))
print(json.dumps({
    "refusal": refusal,
    "plan": Plan.model_json_schema()["properties"],
    "design": document,
    "argv": [list(trial.argv(1)) for trial in designed.trials],
    "schemas": {name: schema() for name, schema in schemas.SCHEMAS.items()},
    **content(lay(document, {})),
}))
"""

MEASURE = """
    Measure(
        name="wakeups",
        column="wakeups",
        unit="count",
        grain="trial",
        path=("measures", "wakeups"),
        group="other",
        words="wake-ups",
        meaning="Does nothing.",
        better="higher",
    ),
"""
MEASURE_SCRIPT = """
from virtbed_contract import schemas

folder = folders.Folder(here / "planned")
for replicate in (1, 2, 3):
    for platform in ("bm", "cn"):
        folder.plan(platform, "pinned", replicate)
design = folder.design | {"sweep": "demo"}
found = content(lay(design, {"wakeups": 7}))
print(json.dumps({"schemas": {"result": schemas.SCHEMAS["result"]()}, **found}))
"""


def copy_with(place: Path, module: str, registry: str, entry: str) -> None:
    """Copy the packages, and insert one entry at the start of a registry."""
    for member in MEMBERS:
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / member, place / member, ignore=unwanted)
    shutil.copy(REPOSITORY / "platforms.yml", place)
    for meta in REPOSITORY.glob("roles/*/meta/virtbed.yml"):
        copied = place / meta.relative_to(REPOSITORY)
        copied.parent.mkdir(parents=True)
        shutil.copy(meta, copied)
    path = place / "contract/virtbed_contract" / module
    before, begin, after = path.read_text(encoding="utf-8").partition(registry)
    assert begin, f"{module} has no {registry!r}"
    path.write_text(before + begin + entry + after, encoding="utf-8")


def run_with(place: Path, script: str) -> dict[str, Any]:
    """Run a script with the copied packages; return the JSON object that it prints."""
    members = os.pathsep.join(str(place / member) for member in MEMBERS)
    done = subprocess.run(
        [sys.executable, "-c", SWEEP + script, str(FOLDERS), str(place)],
        env=os.environ | {"PYTHONPATH": members}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module", params=["instance", "trial"])
def factor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp(f"factor-{request.param}")
    copy_with(
        place, "factors.py", "FACTORS: tuple[Factor, ...] = (\n",
        FACTOR.format(grain=request.param, more=""),
    )  # fmt: skip
    return run_with(place, FACTOR_SCRIPT) | {"grain": request.param}


def test_a_factor_reaches_the_plan(factor: Any) -> None:
    assert "labels" in factor["plan"]
    assert all(value in json.dumps(factor["plan"]["labels"]) for value in ('"a"', '"b"'))
    assert "labels" in factor["refusal"] and "'c'" in factor["refusal"]


def test_a_factor_reaches_ids_and_design(factor: Any) -> None:
    trials = factor["design"]["trials"]
    assert len(trials) == 3 * 2 * 3  # cells, labels, replicates
    for trial in trials:
        named = {"instance": "-c01-b-", "trial": "-b-r0"}[factor["grain"]]
        assert (named in trial["id"]) == (trial["label"] == "b"), trial["id"]
    blocks = {(trial["block"], trial["label"]) for trial in trials}
    assert len(blocks) == len(trials)
    assert len({block for block, _ in blocks}) == {"instance": 18, "trial": 9}[factor["grain"]]
    assert not any("label" in word for argv in factor["argv"] for word in argv)


def test_a_factor_reaches_the_schemas(factor: Any) -> None:
    result, design = factor["schemas"]["result"], factor["schemas"]["design"]
    for trial in (result["properties"]["trial"], design["properties"]["trials"]["items"]):
        assert trial["properties"]["label"]["enum"] == ["a", "b"]
        assert "label" in trial["required"]


def test_a_factor_reaches_the_export(factor: Any) -> None:
    assert factor["rejected"] == []
    assert factor["described"]["label"] == {"type": "String", "meaning": "Does nothing."}
    ids = dict(zip(factor["export"]["trial"], factor["export"]["label"], strict=True))
    assert ids == {trial["id"]: trial["label"] for trial in factor["design"]["trials"]}


def test_a_factor_reaches_the_report(factor: Any) -> None:
    report = factor["report"]
    for rows in (report["cells"], report["startup"], report["vanilla_to_pinned"]):
        assert {row["label"] for row in rows} == {"a", "b"}
    for row in report["cells"]:
        assert row["replicates"] == 3
        assert row["baseline"] or row["ratio_replicates"] == 3  # to bare metal with the same label
    assert "image_classification, trained, label b" in factor["page"]
    assert "label a" not in factor["page"]
    assert {"item": "Label", "values": ["a", "b"]} in report["provenance"]


@pytest.mark.parametrize("grain", ["instance", "trial"])
def test_a_factor_of_guests_varies_guests_only_and_their_baseline_has_its_default(
    grain: str, tmp_path: Path
) -> None:
    """Bare metal has the default also if the plan does not list it."""
    more = 'label="{}_label", baseline="default", own_kernel=True,'
    entry = FACTOR.format(grain=grain, more=more)
    copy_with(tmp_path, "factors.py", "FACTORS: tuple[Factor, ...] = (\n", entry)
    script = FACTOR_SCRIPT.replace('"cn": ["vanilla", "pinned"]', '"vm": ["pinned"]')
    both = run_with(tmp_path, script)
    without_default = script.replace('plan_of(["a", "b"])', 'plan_of(["b"])').replace(
        '"name": "demo"', '"name": "other"'
    )
    alone = run_with(tmp_path, without_default)
    for found, values in ((both, {"a", "b"}), (alone, {"b"})):
        labels: dict[str, set[str]] = {}
        for trial in found["design"]["trials"]:
            labels.setdefault(trial["platform"], set()).add(trial["label"])
            assert ("-b_label-" in trial["id"]) == (trial["label"] == "b"), trial["id"]
        assert labels == {"bm": {"a"}, "vm": values}
        assert found["rejected"] == []
        rows = {(row["platform"], row["label"]): row for row in found["report"]["cells"]}
        assert set(rows) == {("bm", "a"), *(("vm", value) for value in values)}
        assert all(rows["vm", value]["ratio_replicates"] == 3 for value in values)
        assert "label b" in found["page"]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("measure")
    copy_with(place, "measures.py", "MEASURES: tuple[Measure, ...] = (\n", MEASURE)
    return run_with(place, MEASURE_SCRIPT)


def test_a_measure_reaches_the_schema_and_the_export(measure: Any) -> None:
    own = measure["schemas"]["result"]["properties"]["measures"]["properties"]["wakeups"]
    assert own["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert measure["rejected"] == []
    assert measure["described"]["wakeups"] == {"type": "Float64", "meaning": "Does nothing."}
    assert set(measure["export"]["wakeups"]) == {7.0}


def test_a_measure_reaches_the_report(measure: Any) -> None:
    table = next(t for t in measure["report"]["other_measures"] if t["name"] == "wakeups")
    assert (table["words"], table["unit"], table["better"]) == ("wake-ups", "", "higher")
    values = {row["platform"]: (row["value"], row["ratio"]) for row in table["rows"]}
    assert values == {"bm": (pytest.approx(7), None), "cn": (pytest.approx(7), pytest.approx(1))}
    assert "Wake-ups: Does nothing. Higher is better." in measure["page"]
