from __future__ import annotations

import io

from rich.console import Console

from virtbed.design import design
from virtbed.plan import Plan
from virtbed.progress import GUESS_S, Progress, estimate_s, minutes

from .conftest import report


def test_the_estimate_is_what_was_seen_else_a_guess(plan: Plan) -> None:
    trials = [t for t in design(plan, report()).trials if t.instance.machine == "metal"]
    bm = sum(t.instance.platform == "bm" for t in trials)
    cn = len(trials) - bm
    assert estimate_s(trials, {}) == bm * GUESS_S["bm"] + cn * GUESS_S["cn"]
    assert estimate_s(trials, {"bm": 1.0}) == bm + cn * GUESS_S["cn"]


def test_a_trial_by_mlperfs_rules_takes_ten_minutes_at_least(plan: Plan) -> None:
    study = plan.applications[0].model_copy(update={"rules": "study"})
    (trial, *_) = design(plan.model_copy(update={"applications": [study]}), report()).trials
    assert estimate_s([trial], {"bm": 1.0, "cn": 1.0, "vm": 1.0, "vmcn": 1.0}) > 600


def test_minutes() -> None:
    assert [minutes(s) for s in (5.2, 89, 600)] == ["5 s", "89 s", "10 min"]


def test_off_a_terminal_each_trial_is_one_line_with_count_and_eta(plan: Plan) -> None:
    out = io.StringIO()
    trials = list(design(plan, report()).trials)
    with Progress(Console(file=out, width=400)) as progress:
        progress.begin(len(trials), trials[1:], {})
        progress.done(trials[1], 10.0, "")
        progress.done(trials[2], 10.0, "a [wrong] pin")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith(f"{len(trials)} trials, 1 done before; {len(trials) - 1} to go")
    assert f"[ 2/{len(trials)}] {trials[1].id} done (10 s, ETA" in lines[1]
    assert f"{trials[2].id} FAILED: a [wrong] pin" in lines[2]
