"""Plans: reading, limits, messages for mistakes, digests and factor keys."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.cli.sweeps import _best_samples, _seconds
from virtbed.design import design
from virtbed.ledger import Ledger
from virtbed.plan import (
    Plan,
    PlanError,
    check_applications,
    load_plan,
    plan_path,
    with_replicates,
)
from virtbed_analysis.estimate import samples_to_show
from virtbed_analysis.margin import answer
from virtbed_contract.factors import FACTORS, id_pattern
from virtbed_contract.identifiers import REPORT
from virtbed_contract.sweep import MARGIN, MOST_REPLICATES, answering_precision
from virtbed_workloads.registry import APPLICATIONS

from .conftest import PLATFORMS, report

KNOWN = {name: tuple(entry.scales) for name, entry in APPLICATIONS.items()}


SMALL = {
    "name": "demo",
    "applications": [{"name": "image_classification"}],
    "platforms": {"bm": ["pinned"]},
    "cores": [1],
}


def edited(tmp_path: Path, **changes: object) -> Path:
    data = yaml.safe_load((REPOSITORY / "plans" / "quick.yml").read_text()) | changes
    path = tmp_path / "edited.yml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("path", sorted((REPOSITORY / "plans").glob("*.yml")), ids=lambda p: p.stem)
def test_every_shipped_plan_is_valid_and_has_the_name_of_its_file(path: Path) -> None:
    plan = load_plan(path)
    assert plan.name == path.stem
    check_applications(plan, KNOWN)


def test_quick_takes_enough_samples_for_a_bound_on_the_99th_percentile() -> None:
    plan = load_plan(plan_path("quick"))
    assert all(work.samples >= samples_to_show(99) for work in plan.applications)


def test_quick_has_the_platforms_and_sizes_that_the_readme_promises() -> None:
    plan = load_plan(plan_path("quick"))
    assert plan.replicates >= 5
    assert plan.cores == [1, 2]
    assert {p: set(m) for p, m in plan.platforms.items()} == {
        "bm": {"pinned"},
        **{p: {"vanilla", "pinned"} for p in ("cn", "vm", "vmcn")},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicatez": 3}, r"edited.yml: replicatez: unknown key; did you mean replicates\?"),
        ({"cores": [0]}, r"cores.0: 0 found; Input should be greater than or equal to 1"),
        ({"cores": [1, 1]}, r"cores: \[1, 1\] has a value twice"),
        (
            {"platforms": {"bmm": ["pinned"]}},
            r"platforms.bmm: no such platform; platforms.yml has: bm, vm",
        ),
        ({"threds": ["default"]}, r"threds: unknown key; did you mean threads\?"),
        ({"threads": ["matched", "matched"]}, r"threads: .* has a value twice"),
        (
            {"variants": ["twin"]},
            r"variants \['twin'\] without plain, which the others are compared with; add plain",
        ),
        ({"processor": ["gpu"]}, r"processor: unknown key; did you mean processors\?"),
        (
            {"processors": ["cpu", "gpu"]},
            r"processors \['cpu', 'gpu'\] found: virtbed cannot measure on a GPU yet: no image",
        ),
        ({"processors": ["gpu"]}, r"keep to the processor cpu \(docs/tutorial/gpu.md"),
        ({"processors": ["tpu"]}, r"processors.0: 'tpu' found; Input should be 'cpu' or 'gpu'"),
        ({"gpu": "GPU-1"}, r"gpu 'GPU-1' found, but no cell has a GPU: take `gpu` out"),
        ({"gpu": 0}, r"gpu: 0 found"),
        ({"platforms": {"bm": ["fixed"]}}, r"platforms.bm.0: 'fixed' found"),
        ({"name": "No Spaces"}, r"name: 'No Spaces' found"),
        ({"replicates": "many"}, r"replicates: 'many' found"),
        ({"variants": ["plain", "slowed"]}, r"slowed with mode vanilla: .* use mode pinned alone"),
    ],
)
def test_the_message_for_a_mistake_names_the_key_and_the_value(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        load_plan(edited(tmp_path, **changes))


@pytest.mark.parametrize("text", ["- a list", "a: [", "\0"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "no.yml"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"no\.yml"):
        load_plan(path)


def test_the_message_for_an_unknown_plan_lists_the_existing_plans() -> None:
    with pytest.raises(PlanError, match=r"no plan 'quack'.*quick"):
        plan_path("quack")


@pytest.mark.parametrize(
    "application", [{"name": "image_clasification"}, {"name": "null", "scale": "trained"}]
)
def test_an_application_that_does_not_exist_is_refused(
    tmp_path: Path, application: dict[str, str]
) -> None:
    plan = load_plan(edited(tmp_path, applications=[application]))
    existing = r"does not exist; applications and their scales: .*image_classification"
    with pytest.raises(PlanError, match=existing):
        check_applications(plan, KNOWN)


def test_an_application_that_lacks_the_emulated_scale_is_refused_naming_that_key(
    tmp_path: Path,
) -> None:
    plan = load_plan(edited(tmp_path, applications=[{"name": "leaf_disease"}]))
    lacks = r"'leaf_disease' at scale 'tiny' does not exist, which emulated.scale requires"
    with pytest.raises(PlanError, match=lacks):
        check_applications(plan, {"leaf_disease": ("trained",)})
    check_applications(plan, {"leaf_disease": ("trained", "tiny")})


def test_the_digest_depends_on_a_plans_keys_and_not_on_its_layout(tmp_path: Path) -> None:
    same = tmp_path / "same.yml"
    other = edited(tmp_path, description="Another text for the reader.")
    same.write_text("# a comment\n" + other.read_text())
    assert load_plan(same).digest() == load_plan(plan_path("quick")).digest()
    assert load_plan(edited(tmp_path, seed=1)).digest() != load_plan(same).digest()


def test_the_json_schema_has_every_key_and_admits_no_other() -> None:
    schema = Plan.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"name", "seed", "replicates", "platforms", "emulated"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({}, r"target_qps \(.*; target_latency_ms \(.*"),
        ({"target_latency_ms": 100}, r"target_qps \("),
        ({"target_qps": 5}, r"target_latency_ms \(the bound that your service has"),
    ],
)
def test_a_server_needs_a_rate_and_a_bound(
    tmp_path: Path, given: dict[str, int], lacking: str
) -> None:
    """LoadGen would take MLPerf's bound, and calls a trial beyond it INVALID."""
    application = {"name": "image_classification", "scenario": "server", **given}
    with pytest.raises(PlanError, match=f"scenario server without {lacking}"):
        load_plan(edited(tmp_path, applications=[application]))


@pytest.mark.parametrize(
    ("scenario", "key", "needed"),
    [
        ("single_stream", "target_qps", "server or offline"),
        ("multi_stream", "target_qps", "server or offline"),
        ("single_stream", "target_latency_ms", "server"),
        ("offline", "target_latency_ms", "server"),
    ],
)
def test_a_target_that_the_scenario_ignores_is_refused(
    tmp_path: Path, scenario: str, key: str, needed: str
) -> None:
    application = {"name": "image_classification", "scenario": scenario, key: 5}
    ignored = f"{key} 5 found, which scenario {scenario} ignores; .* set scenario to {needed}"
    with pytest.raises(PlanError, match=ignored):
        load_plan(edited(tmp_path, applications=[application]))


@pytest.mark.parametrize(
    ("keys", "reader"),
    [({"min_replicates": 4}, "precision"), ({"slowdown": "20%"}, "variant slowed")],
)
def test_a_key_that_nothing_would_read_is_refused(
    tmp_path: Path, keys: dict[str, object], reader: str
) -> None:
    (name,) = keys
    with pytest.raises(PlanError, match=f"{name} .* found without {reader}"):
        load_plan(edited(tmp_path, **keys))


def test_an_application_can_be_listed_at_several_scales_but_only_once_at_each(
    tmp_path: Path,
) -> None:
    one = {"name": "image_classification"}
    other = one | {"scale": "tiny"}
    assert len(load_plan(edited(tmp_path, applications=[one, other])).applications) == 2
    with pytest.raises(PlanError, match="has a value twice"):
        load_plan(edited(tmp_path, applications=[one, one]))


@pytest.mark.parametrize(("written", "read"), [("2%", 0.02), (0.02, 0.02), ("0.5%", 0.005)])
def test_precision_is_a_percentage_or_a_fraction(written: object, read: float) -> None:
    plan = Plan.model_validate(SMALL | {"replicates": 20, "precision": written, "margin": "5%"})
    assert plan.precision == pytest.approx(read)


@pytest.mark.parametrize(("precision", "margin"), [("2%", "3%"), ("1.5%", "3%"), ("4%", "8%")])
def test_a_precision_that_may_not_answer_at_the_margin_is_refused(
    precision: str, margin: str
) -> None:
    """With 2% on either side, the interval 0.985 to 1.025 is not within 3%, and contains 1."""
    keys = SMALL | {"replicates": 20, "precision": precision, "margin": margin}
    with pytest.raises(ValueError, match=r"precision .* found, at most .* needed at a margin of"):
        Plan.model_validate(keys)


def test_the_remedies_that_the_message_names_for_such_a_precision_work() -> None:
    keys = SMALL | {"replicates": 20, "precision": "2%"}
    with pytest.raises(ValueError, match=r"at most 0.014 needed .* raise margin to 0.041"):
        Plan.model_validate(keys)
    assert Plan.model_validate(keys | {"precision": 0.014}).precision == 0.014
    assert Plan.model_validate(keys | {"margin": 0.041}).margin == 0.041


@pytest.mark.parametrize("margin", [0.005, 0.03, 0.3])
def test_at_the_widest_precision_every_ratio_has_an_answer(margin: float) -> None:
    half = 1 + answering_precision(margin)
    ratios = [0.5 + n / 1000 for n in range(1500)]
    assert {answer(r / half, r * half, margin) for r in ratios} == {"differs", "equivalent"}


@pytest.mark.parametrize("wrong", ["2", 2, "-1%", "fine", 0])
def test_any_other_precision_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="precision"):
        Plan.model_validate(SMALL | {"replicates": 20, "precision": wrong})


@pytest.mark.parametrize(
    ("written", "read"), [("3%", 0.03), (0.03, 0.03), ("0.5%", 0.005), ("2.5 %", 0.025)]
)
def test_a_margin_is_a_percentage_or_a_share(written: object, read: float) -> None:
    assert Plan.model_validate(SMALL | {"margin": written}).margin == pytest.approx(read)


def test_a_plan_without_a_margin_has_the_default_of_the_contract() -> None:
    assert Plan.model_validate(SMALL).margin == MARGIN == 0.03


@pytest.mark.parametrize("key", ["margin", "precision", "slowdown"])
@pytest.mark.parametrize(
    "wrong",
    ["3", 3, "-1%", -0.01, "abc", "abc%", "", "%", 0, 1, "0%", "100%", True, False, [3], "inf%",
     "nan", "nan%"],
)  # fmt: skip
def test_a_value_that_is_no_share_is_refused_and_the_message_shows_one(
    tmp_path: Path, key: str, wrong: object
) -> None:
    needed = rf"edited.yml: {key}: .* found; a share above 0% and below 100% is needed, such as 3%"
    with pytest.raises(PlanError, match=needed):
        load_plan(edited(tmp_path, **{key: wrong, "replicates": 20}))


def test_the_digest_ignores_replicates_and_includes_the_margin(tmp_path: Path) -> None:
    quick = load_plan(plan_path("quick"))
    assert with_replicates(quick, 30).digest() == quick.digest()
    assert with_replicates(quick, 30).replicates == 30
    assert with_replicates(quick, None) == quick
    assert load_plan(edited(tmp_path, margin="5%")).digest() != quick.digest()


@pytest.mark.parametrize("replicates", [0, 1000])
def test_a_number_of_replicates_that_no_plan_can_have_is_refused(replicates: int) -> None:
    with pytest.raises(PlanError, match="--replicates: replicates: "):
        with_replicates(load_plan(plan_path("quick")), replicates)


def test_the_ids_of_hundreds_of_replicates_are_valid_and_those_of_the_first_stay() -> None:
    quick = load_plan(plan_path("quick"))
    few, most = (
        [trial.id for trial in design(with_replicates(quick, n), report(), PLATFORMS).trials]
        for n in (99, MOST_REPLICATES)
    )
    assert most[: len(few)] == few and len(set(most)) == len(most)
    assert all(re.fullmatch(id_pattern(), name) for name in most)
    assert {name.rpartition("-")[2] for name in most} == {
        f"r{n:02d}" for n in range(1, MOST_REPLICATES + 1)
    }


def test_more_replicates_do_not_change_the_order_of_the_earlier_ones() -> None:
    quick = load_plan(plan_path("quick"))
    few, more = (design(with_replicates(quick, n), report(), PLATFORMS).trials for n in (3, 9))
    assert more[: len(few)] == few


def test_a_minimum_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValueError, match="min_replicates 8 above replicates 5; raise replicates"):
        Plan.model_validate(SMALL | {"precision": "2%"})


def test_keys_of_factors_are_those_of_the_registry() -> None:
    properties = Plan.model_json_schema()["properties"]
    for factor in FACTORS:
        if factor.plan_key:
            key = properties[factor.plan_key]
            default: object = factor.default
            if factor.counts:
                number, _ = key["anyOf"]
                least, most = number["minimum"], number["maximum"]
                assert [str(n) for n in range(least, most + 1)] == list(factor.values)
                default = int(factor.default)
            else:
                assert key["items"]["enum"] == list(factor.values)
            assert (key["default"], key["description"]) == ([default], factor.meaning)


def test_a_new_factor_is_a_new_key_of_a_plan(tmp_path: Path) -> None:
    """In a separate process, whose registry of factors has one more entry."""
    path = edited(tmp_path, labels=["a", "b"], platforms={"bm": ["pinned"]}, cores=[1])
    code = """
import sys
from pathlib import Path
from virtbed_contract import factors
label = factors.Factor("label", "labels", ("a", "b"), "a", "trial", "Does nothing.")
factors.FACTORS += (label,)
from tests.unit.virtbed.conftest import PLATFORMS, report
from virtbed.design import design
from virtbed.plan import load_plan
from virtbed_contract.codec import encode
designed = design(load_plan(Path(sys.argv[1])), report(), PLATFORMS)
assert {t.planned().label for t in designed.trials} == {"a", "b"}
assert "bm-pinned-c01-image_classification-b-r01" in {t.id for t in designed.trials}
assert {encode(t.planned())["label"] for t in designed.trials} == {"a", "b"}
"""
    subprocess.run([sys.executable, "-c", code, path], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize(
    "text", ["cores: [1]\ncores: [2]\n", "platforms:\n  bm: [pinned]\n  bm: [vanilla]\n"]
)
def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "twice.yml"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"(?s)is given twice; once is needed.*line [23]"):
        load_plan(path)


def test_a_key_overrides_a_merged_key(tmp_path: Path) -> None:
    text = (REPOSITORY / "plans" / "quick.yml").read_text()
    path = tmp_path / "merged.yml"
    path.write_text(text.replace("emulated: {", "emulated: {<<: {samples: 9}, "))
    assert load_plan(path).emulated.samples == 3


def test_the_best_number_of_samples_is_read_from_an_earlier_sweep(tmp_path: Path) -> None:
    plan = load_plan(plan_path("quick"))
    mine = {"application": "image_classification", "scale": "trained", "scenario": "single_stream"}
    rows = [
        mine | {"best": 40, "sentence": "40 would be best"},
        mine | {"scale": "tiny", "best": 7, "sentence": "of no application of this plan"},
        mine | {"best": None, "sentence": "not known"},
    ]
    assert _best_samples(plan, tmp_path) == []
    folder = tmp_path / "quick"
    folder.mkdir()
    for schema, expected in ((REPORT, rows[:1]), ("virtbed.report/1", [])):
        content = {"schema": schema, "diagnostics": {"samples": rows}}
        (folder / "report.json").write_text(json.dumps(content))
        assert _best_samples(plan, tmp_path) == expected
    for broken in ("{", "[]", json.dumps({"schema": REPORT})):
        (folder / "report.json").write_text(broken)
        assert _best_samples(plan, tmp_path) == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "plans").glob("*.yml")), ids=lambda p: p.stem)
def test_a_sweep_is_continued_by_its_name_wherever_its_plan_file_is(
    path: Path, tmp_path: Path
) -> None:
    """As a report advises: `virtbed sweep NAME --replicates 12`."""
    (tmp_path / "plans").mkdir()
    for name in ("ansible.cfg", "platforms.yml", "playbooks", "roles"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    plan = load_plan(path)
    kept = tmp_path / "results" / plan.name / "plan.yml"
    kept.parent.mkdir(parents=True)
    kept.write_text(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False))
    assert plan_path(plan.name, tmp_path) == kept
    assert load_plan(kept) == plan and load_plan(kept).digest() == plan.digest()


TOO_MUCH: list[tuple[dict[str, Any], str]] = [
    ({"memory_mib": 10**12}, "memory_mib: 1000000000000 found; .* less than or equal to 67108864"),
    ({"cores": [10**9]}, r"cores\.0: 1000000000 found; .* less than or equal to 4096"),
    ({"cores": [True]}, r"cores\.0: True found; .* valid integer"),
    ({"cores": ["2"]}, r"cores\.0: '2' found; .* valid integer"),
    ({"cores": list(range(1, 100))}, "cores: .* at most 64 items"),
    ({"timeout_s": 10**9}, "timeout_s: 1000000000 found"),
    ({"seed": 10**17 * 10**2}, "seed|digits"),
    ({"description": "x" * 20_000}, "description: 'xxx.*xxx' found; .* at most 10000"),
    ({"applications": [{"name": "null", "samples": 10**9}]}, "samples: 1000000000 found"),
    ({"applications": [{"name": "null", "warmup": 10**9}]}, "warmup: 1000000000 found"),
    ({"applications": [{"name": "../etc"}]}, r"applications\.0\.name: '\.\./etc' found"),
    ({"applications": [{"name": "x" * 500}]}, "applications.0.name: .* at most 64 characters"),
    ({"platforms": {"x" * 500: ["pinned"]}}, "platforms"),
    ({"name": "x" * 500}, "name: "),
    ({"name": "../x"}, "name: "),
    ({"emulated": {"replicates": 10**9}}, "emulated.replicates: 1000000000 found"),
    ({"replicates": 99, "cores": list(range(1, 65)),
      "applications": [{"name": f"a{n}"} for n in range(64)]},
     "trials of all cells and replicates found, at most 2000000 needed"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), TOO_MUCH)
def test_values_above_the_limits_are_refused_with_a_short_message(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=rf"edited\.yml: .*{message}") as raised:
        load_plan(edited(tmp_path, **keys))
    assert all(len(line) < 400 for line in str(raised.value).splitlines())


def test_a_plan_is_shown_without_the_times_of_a_damaged_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "ledger.sqlite"
    assert _seconds(journal) == {}
    with Ledger(journal) as ledger:
        ledger.begin({"plan": "x"}, [("a", 1, "bm")])
        ledger.close("a", "done", 2.0)
    assert _seconds(journal) == {"bm": 2.0}
    journal.write_bytes(b"\xff" * 5000)
    assert _seconds(journal) == {}
    assert "no times of earlier trials" in capsys.readouterr().err
    assert journal.read_bytes() == b"\xff" * 5000
