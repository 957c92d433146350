from __future__ import annotations

import io

from rich.console import Console

from virtbed.design import design
from virtbed.plan import Plan
from virtbed.progress import Progress, estimate_s, minutes

from .conftest import PLATFORMS, report


def test_the_estimate_uses_measured_times_and_guesses_for_other_platforms(plan: Plan) -> None:
    trials = [t for t in design(plan, report(), PLATFORMS).trials if t.instance.machine == "metal"]
    bm = sum(t.instance.platform == "bm" for t in trials)
    cn = len(trials) - bm
    guess_s = PLATFORMS.trial_s
    guessed = bm * guess_s("bm", False) + cn * guess_s("cn", False)
    assert estimate_s(trials, {}, guess_s) == guessed
    assert estimate_s(trials, {"bm": 1.0}, guess_s) == bm + cn * guess_s("cn", False)


def test_the_guess_for_an_emulated_guest_is_longer_than_for_a_real_one() -> None:
    for platform in PLATFORMS.entries:
        if PLATFORMS.parts(platform)[0].own_kernel:
            assert PLATFORMS.trial_s(platform, True) > PLATFORMS.trial_s(platform, False)


def test_a_trial_with_mlperfs_rules_takes_at_least_ten_minutes(plan: Plan) -> None:
    study = plan.applications[0].model_copy(update={"rules": "study"})
    studied = plan.model_copy(update={"applications": [study]})
    (trial, *_) = design(studied, report(), PLATFORMS).trials
    assert estimate_s([trial], dict.fromkeys(PLATFORMS.entries, 1.0), PLATFORMS.trial_s) > 600


def test_durations_are_printed_in_seconds_or_minutes() -> None:
    assert [minutes(s) for s in (5.2, 89, 600)] == ["5 s", "89 s", "10 min"]


def test_without_a_terminal_each_trial_is_one_line_with_count_and_eta(plan: Plan) -> None:
    out = io.StringIO()
    trials = list(design(plan, report(), PLATFORMS).trials)
    with Progress(Console(file=out, width=400), PLATFORMS.trial_s) as progress:
        progress.begin(len(trials), trials[1:], {})
        progress.done(trials[1], 10.0, "")
        progress.done(trials[2], 10.0, "a [wrong] pin")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith(f"{len(trials)} trials, 1 done before; {len(trials) - 1} to go")
    assert f"[ 2/{len(trials)}] {trials[1].id} done (10 s, ETA" in lines[1]
    assert f"{trials[2].id} FAILED: a [wrong] pin" in lines[2]


def test_several_hosts_are_named_and_share_the_work(plan: Plan) -> None:
    out = io.StringIO()
    trials = list(design(plan, report(), PLATFORMS).trials)
    seconds = dict.fromkeys(PLATFORMS.entries, 600.0)
    with Progress(Console(file=out, width=400), PLATFORMS.trial_s) as progress:
        progress.begin(len(trials), trials, seconds, hosts=3)
        for host, trial in zip(("bench01", "bench02", "bench03"), trials, strict=False):
            progress.of(host).doing(trial)
        progress.of("bench02").done(trials[1], 600.0, "")
        progress.idle("bench03")
        progress.of("bench02").done(trials[0], 600.0, "no")
        progress.again(trials[:2])  # bench02 was lost: another host begins again
        progress.again(trials[:2])
        progress.of("bench01").done(trials[0], 600.0, "")
        progress.of("bench02").say("is set aside")
    lines, n = out.getvalue().splitlines(), len(trials)
    assert lines[0].endswith(f"{n} to go, about {n * 10 / 3:.0f} min")
    assert f"[ 1/{n}] {trials[1].id} on bench02 done" in lines[1]
    assert lines[1].endswith(f"ETA {(n - 1) * 10 / 3:.0f} min)")
    assert lines[2].startswith(f"[ 2/{n}]")
    assert lines[2].endswith(f"ETA {(n - 2) * 10 / 2:.0f} min)")
    assert lines[3].startswith(f"[ 1/{n}]") and lines[4] == "bench02: is set aside"
