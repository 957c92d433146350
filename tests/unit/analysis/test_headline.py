"""The first screen says what to choose and how sure that is, and no more than intervals allow."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import numpy as np
import pytest
from scipy import stats

from virtbed_analysis import words
from virtbed_analysis.advice import Question, advise
from virtbed_analysis.choosing import Choice, choices, either, listed, span
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.headline import answer, headline
from virtbed_analysis.page import render
from virtbed_contract.codec import encode
from virtbed_contract.factors import size_id, trial_id

from .conftest import DEFAULTS, LISTED, Folder, Json
from .test_latency import load

COUNTS = ("planned", "analysed", "emulated", "suspect", "failed", "waiting", "unneeded", "rejected")


def cell(
    code: str, ratio: float | None, half: float | None = 0.01, *, cores: int = 1, **changes: Any
) -> Json:
    """Return a row of a report's cells: "cn pinned", its ratio, and its interval's half."""
    platform, mode = code.split()
    known = ratio is not None and half is not None
    return {
        "platform": platform,
        "mode": mode,
        "cores": cores,
        "application": "image_classification",
        "scale": "trained",
        "scenario": "single_stream",
        **DEFAULTS,
        "weights": "trained",
        "baseline": code == "bm pinned",
        "ratio": ratio,
        "ratio_low": ratio / (1 + half) if known else None,  # type: ignore[operator]
        "ratio_high": ratio * (1 + half) if known else None,  # type: ignore[operator]
        "ratio_replicates": 5 if known else 1,
        "replicates": 5 if known else 1,
        **changes,
    }


def content(*cells: Json, **changes: Any) -> Json:
    """Return what the headline reads of a report's content."""
    counts = dict.fromkeys(COUNTS, 0) | {"analysed": 30} | changes.pop("counts", {})
    return {
        "sweep": "quick",
        "platforms": [encode(entry) for entry in LISTED.values()],
        "cells": [cell("bm pinned", None), *cells],
        "counts": counts,
        **{part: [] for part in ("failed", "without_suspects", "answers_differ", "emulated")},
        "not_run": [],
        **changes,
    }


def trial(row: Json, replicate: int) -> str:
    size = size_id(row["platform"], row["mode"], row["cores"], row)
    return trial_id(size, row["application"], None, row["scenario"], replicate, row)


def without(row: Json, ratio: float | None, half: float = 0.01) -> Json:
    """Return a row of `without_suspects` for a cell."""
    clean = cell("cn pinned", ratio, half)
    ends = ("ratio", "ratio_low", "ratio_high")
    return row | {f"clean_{end}": None if ratio is None else clean[end] for end in ends}


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.99, 1.02, "same"),
        (1.01, 1.029, "same"),  # a cost, too small to act on
        (1.01, 1.031, "more"),
        (1.2, 1.3, "more"),
        (0.99, 1.031, "unknown"),
        (0.96, 1.01, "unknown"),
        (0.9, 0.95, "less"),
        (0.5, 2.0, "unknown"),
        (None, None, "unknown"),
        (1.0, 1.0, "unknown"),  # replicates alike to the last digit show no precision
    ],
)
def test_an_answer_is_what_the_whole_interval_allows(
    low: float | None, high: float | None, message: str
) -> None:
    assert answer(low, high, 0.03) == message


def test_a_clear_winner_is_chosen_and_slow_platforms_are_named() -> None:
    screen = headline(content(cell("cn vanilla", 1.35, 0.03), cell("cn pinned", 1.005)))
    assert screen["lead"] == (
        "Choose container, pinned (cn pinned): within 3% of pinned bare metal at 1 core. Avoid "
        "where time matters: container, CPU quota (cn vanilla), 1.350 times bare metal (1.311 to "
        "1.391) at 1 core."
    )
    assert screen["warnings"] == []
    assert "5 pairs of replicates" in screen["sure"][0]
    (application,) = screen["applications"]
    assert [option["answer"] for option in application["options"]] == [
        "31.1% to 39.1% more",
        "nothing measurable",
    ]


def test_all_platforms_without_a_cost_are_offered_equally() -> None:
    screen = headline(content(cell("cn pinned", 1.0), cell("vm pinned", 1.01)))
    both = "container, pinned (cn pinned) or KVM guest, pinned (vm pinned)"
    assert screen["lead"].startswith(f"Choose {both}: within 3%")


def test_sizes_with_different_answers_get_separate_statements() -> None:
    screen = headline(
        content(cell("cn pinned", 1.2, cores=1), cell("cn pinned", 1.0, cores=2),
                cell("cn pinned", 1.0, cores=4))
    )  # fmt: skip
    first, second = screen["applications"][0]["choose"]
    assert first.startswith("At 1 core container, pinned (cn pinned) costs least: 18.8% to 21.2%")
    assert "No platform is shown to be within 3% of bare metal there" in first
    assert second.startswith("At 2 and 4 cores choose container, pinned (cn pinned): within 3%")
    (option,) = screen["applications"][0]["options"]
    assert option["answer"] == "18.8% to 21.2% more at 1 core; nothing measurable at 2 and 4 cores"


def test_the_smallest_cost_is_named_only_if_no_interval_overlaps_its_own() -> None:
    apart = headline(content(cell("cn pinned", 1.1), cell("vm pinned", 1.2)))
    assert apart["lead"].startswith("Container, pinned (cn pinned) costs least")
    near = headline(content(cell("cn pinned", 1.1), cell("vm pinned", 1.11)))
    assert "which platform costs least is undecided: container" in near["lead"]
    assert "costs least:" not in near["lead"]
    unknown = headline(content(cell("cn pinned", 1.1), cell("vm pinned", 1.3, None)))
    assert "not recommended yet: KVM guest, pinned (vm pinned), 1.300" in unknown["lead"]
    assert "Avoid where time matters: container, pinned (cn pinned), 1.100" in unknown["lead"]


def test_a_failed_cell_is_not_chosen_and_others_are_not_called_cheapest() -> None:
    row = cell("cn pinned", 1.0)
    failed = [{"trial": trial(row, 6)}]
    screen = headline(content(row, cell("vm pinned", 1.1), failed=failed, counts={"failed": 1}))
    assert (
        "container, pinned (cn pinned), 1.000 times bare metal (0.990 to 1.010; 1 of 6 trials "
        "failed)" in screen["lead"]
    )
    assert "costs least" not in screen["lead"] and "hoose container" not in screen["lead"]


def test_undecided_cells_are_not_chosen_and_the_next_step_is_shown() -> None:
    screen = headline(content(cell("cn pinned", 1.02, 0.1), cell("vm pinned", 0.99, 0.2)))
    assert "not recommended yet" in screen["lead"]
    assert "No platform is shown to be within 3%" in screen["lead"]
    (warning,) = screen["warnings"]
    assert warning["text"].startswith('2 of 2 answers are "cannot tell": the interval')
    assert "Raise replicates" in warning["next"]


@pytest.mark.parametrize("part", ["remedy", "command"])
def test_warnings_refer_to_the_next_step_of_the_resolution(
    part: str,
) -> None:
    found = {"sentence": "s", "remedy": None, "command": None, part: "more than 99 replicates"}
    screen = headline(content(cell("cn pinned", 1.02, 0.1), resolution=found))
    assert screen[part] == "more than 99 replicates"
    assert screen["warnings"][0]["next"] == "See Next, above."


def test_one_replicate_supports_no_choice() -> None:
    screen = headline(content(cell("cn pinned", 1.0, None), cell("vm pinned", 1.4, None)))
    assert screen["lead"] == (
        "This sweep supports no choice: no interval from 1 replicate in every cell."
    )
    assert screen["warnings"][0]["text"].startswith("2 of 2 cells have no interval")


def test_a_missing_baseline_is_stated() -> None:
    screen = headline(content(cell("cn pinned", None)))
    assert "none compared with bare metal" in screen["lead"]
    assert screen["applications"] == screen["sure"] == []
    assert headline(content())["lead"] == (
        "1 cell measured, of bare metal alone: nothing to compare with it yet."
    )
    nothing = content() | {"cells": []}
    assert headline(nothing)["lead"] == "Nothing has been measured yet."


def test_suspect_trials_alone_support_no_choice() -> None:
    cells = [cell("cn vanilla", 1.35), cell("cn pinned", 1.005)]
    screen = headline(
        content(*cells, without_suspects=[without(row, None) for row in cells],
                counts={"suspect": 30, "analysed": 30})
    )  # fmt: skip
    assert screen["lead"] == (
        "This sweep supports no choice: too few trials that are not suspect in every cell."
    )
    (warning,) = screen["warnings"]
    assert warning["text"].startswith("30 of 30 trials are suspect")
    assert "Without them, 2 of 2 answers would be different" in warning["text"]


def test_an_answer_that_depends_on_suspect_trials_is_not_chosen() -> None:
    good, doubtful = cell("cn pinned", 1.0), cell("vm pinned", 1.0)
    suspects = [without(good, 1.001), without(doubtful, 1.05, 0.1)]
    screen = headline(content(good, doubtful, without_suspects=suspects))
    assert screen["lead"].startswith("Choose container, pinned (cn pinned): within")
    assert (
        "Fast enough by its times, but not to be chosen: KVM guest, pinned (vm pinned) at 1 core "
        "(without suspect trials: cannot tell)." in screen["lead"]
    )


def test_a_cost_that_depends_on_suspect_trials_has_a_reservation() -> None:
    dear, good = cell("cn vanilla", 1.35), cell("cn pinned", 1.0)
    screen = headline(
        content(dear, good, without_suspects=[without(dear, None), without(good, 1.0)])
    )
    assert screen["lead"].endswith(
        "Avoid where time matters, with a reservation: container, CPU quota (cn vanilla), 1.350 "
        "times bare metal (1.337 to 1.364; too few trials that are not suspect) at 1 core."
    )


def test_a_cost_of_other_work_is_not_named() -> None:
    dear, good = cell("cn vanilla", 1.35), cell("cn pinned", 1.0)
    screen = headline(content(dear, good, answers_differ=[dear]))
    assert "vanilla" not in screen["lead"]


def test_a_platform_whose_trials_failed_is_not_chosen() -> None:
    row = cell("cn pinned", 1.0)
    failed = [{"trial": trial(row, replicate)} for replicate in (6, 7)]
    screen = headline(content(row, failed=failed, counts={"failed": 2}))
    assert screen["lead"] == "This sweep supports no choice: 2 of 7 trials failed."
    assert "2 trials failed" in screen["warnings"][0]["text"]
    assert "virtbed sweep quick" in screen["warnings"][0]["next"]
    other = [{"trial": trial(cell("vm pinned", 1.0), 1)}]
    assert headline(content(row, failed=other, counts={"failed": 1}))["lead"].startswith("Choose c")


def test_a_platform_whose_answers_differ_is_not_chosen() -> None:
    row = cell("cn pinned", 1.0)
    screen = headline(content(row, answers_differ=[row]))
    assert screen["lead"] == "This sweep supports no choice: its answers differ from bare metal's."
    assert screen["warnings"][0]["text"].startswith("1 cell gave other answers")


def test_missing_measurements_have_warnings() -> None:
    screen = headline(
        content(cell("cn pinned", 1.0), emulated=[cell("vm pinned", None)],
                not_run=[{"platform": "gvisor"}], counts={"waiting": 3, "rejected": 1})
    )  # fmt: skip
    text = " ".join(warning["text"] for warning in screen["warnings"])
    for part in ("1 cell emulated (KVM guest)", "(gVisor sandbox)", "3 planned trials", "1 file"):
        assert part in text
    assert all(warning["next"] for warning in screen["warnings"])
    assert all(re.search(r"\d", warning["text"]) for warning in screen["warnings"])


def test_the_lead_of_several_applications_states_the_most_common_choices() -> None:
    works = ("a", "b", "c")
    cells = [
        row
        for work in works
        for row in (
            cell("cn pinned", 1.0 if work != "c" else 1.3, application=work),
            cell("cn vanilla", 1.5, application=work),
        )
    ]
    screen = headline(content(*cells))
    assert screen["lead"].startswith(
        "In 2 of 3 settings (application, size) choose container, pinned (cn pinned): within 3% of "
        "pinned bare metal. In 1 of 3 settings"
    )
    assert "container, CPU quota (cn vanilla), up to 51.5% more" in screen["lead"]
    assert [row["subject"] for row in screen["applications"]] == [
        f"{work}, trained" for work in works
    ]


def test_settings_that_the_lead_does_not_describe_are_counted() -> None:
    costs = {"a": 1.0, "b": 1.3, "c": 1.01, "d": 1.02}
    ends = {"c": {"ratio_low": 0.9, "ratio_high": 1.13}, "d": {"ratio_low": 0.9, "ratio_high": 1.1}}
    rows = [
        cell("cn pinned", cost, application=work, **ends.get(work, {}))
        for work, cost in costs.items()
    ]
    rows.append(cell("vm pinned", 1.0, application="d"))
    screen = headline(content(*rows))["lead"]
    covered = [int(n) for n in re.findall(r"[Ii]n (\d) of 4 settings", screen)]
    (rest,) = re.findall(r"The other (\d) of 4 settings [^.]*, below\.", screen)
    assert sum(covered) + int(rest) == 4


def test_under_load_the_answer_is_about_latency() -> None:
    ends = {"ratio_low": 2.5, "ratio_high": 3.6}
    row = cell("cn pinned", 3.0, scenario="server", **ends)
    screen = headline(content(row, cell("vm pinned", 1.0)))
    assert "(application, scenario, size) choose KVM guest, pinned (vm pinned)" in screen["lead"]
    queued = next(row for row in screen["applications"] if "server" in row["subject"])
    assert queued["options"][0]["answer"] == "150% to 260% more"
    assert queued["measure"] == "latency"


def test_margin_and_answers_of_the_content_take_precedence() -> None:
    row = cell("cn pinned", 1.05)
    assert headline(content(row))["applications"][0]["options"][0]["answer"].endswith("more")
    assert headline(content(row, margin=0.1))["lead"].startswith("Choose container, pinned")
    assert headline(content(row), margin=0.1)["lead"].startswith("Choose container, pinned")
    for said, here in (("equivalent", "same"), ("differs", "more"), ("cannot tell", "unknown")):
        (found,) = headline(content(row | {"answer": said}))["applications"][0]["options"]
        assert found["cells"][0]["answer"] == here


def test_resolution_and_warnings_are_on_the_first_screen() -> None:
    row = cell("cn pinned", 1.0, unseen=0.4507, doubt=1)
    (shown,) = headline(content(row))["applications"][0]["options"][0]["cells"]
    assert shown["doubt"] == 1
    found = {"sentence": "as seen", "command": "virtbed sweep quick --replicates 9", "remedy": "r"}
    screen = headline(
        content(row, resolution=found, drift={"cells": [row | {"warning": "w"}]},
                unlike=[{"fact": "kernel"}], suspicion={"note": "Suspicion depends (9 of 10)."})
    )  # fmt: skip
    assert screen["sure"][2:] == [
        "as seen",
        "Up to 45% of instances could be slow for a reason of their own, and this sweep need not "
        "have seen one.",
    ]  # fmt: skip
    assert (screen["command"], screen["remedy"]) == ("virtbed sweep quick --replicates 9", "r")
    assert [warning["text"].split(" shows")[0] for warning in screen["warnings"]] == [
        "1 of 1 ratio",
        "1 of 1 ratio may be drift of the host in part.",
        "1 difference besides the platform between the cells that are compared: kernel.",
        "Suspicion depends (9 of 10).",
    ]


def test_a_platform_faster_than_bare_metal_may_be_chosen() -> None:
    screen = headline(content(cell("cn pinned", 0.8)))
    assert "no slower than pinned bare metal" in screen["lead"]
    assert screen["applications"][0]["options"][0]["answer"].endswith("% less than bare metal")
    assert span([cell("cn pinned", 0.8, 0.0) | {"answer": "less"}]) == "20.0% to 20.0%"


def test_a_clearly_slower_platform_is_not_offered_next_to_a_faster_one() -> None:
    screen = headline(content(cell("cn pinned", 0.8), cell("vm pinned", 1.015)))
    assert screen["lead"].startswith("Choose container, pinned (cn pinned): no slower than")
    near = headline(content(cell("cn pinned", 0.95, 0.04), cell("vm pinned", 0.985, 0.012)))
    assert "or KVM guest, pinned (vm pinned): at most 3% slower than" in near["lead"]


def queued(code: str, latency: float, **changes: Any) -> Json:
    """Return a cell of a server, whose ratio is of latency."""
    return cell(code, latency, scenario="server", **changes)


def test_a_platform_whose_requests_wait_is_not_chosen_for_serving_them_as_fast() -> None:
    screen = headline(content(queued("cn pinned", 3.0)))
    assert "costs least: 197% to 203% more" in screen["lead"]
    assert screen["applications"][0]["measure"] == "latency"
    assert any("queue included" in sentence for sentence in screen["sure"])


def test_the_first_screen_and_advice_agree_on_a_queue(folder: Folder) -> None:
    """A guest serves each request as fast as bare metal, and lets it wait; a container does not."""
    chance = np.random.default_rng(3)
    for replicate in range(1, 7):
        for platform, wait in (("bm", 5.0), ("cn", 5.0), ("vm", 60.0)):
            noise = float(np.exp(0.002 * chance.standard_normal()))
            suspect = {"steal_share": 0.2} if platform == "vm" and replicate > 3 else {}
            name = load(
                folder, "server", [wait * noise] * 20, platform=platform, replicate=replicate,
                e2e_ms=20.0 * noise,
            )  # fmt: skip
            folder.edit(
                f"trials/{name}/result.json", lambda r, new=suspect: r["confounders"].update(new)
            )
    sweep = read_sweep(folder.path)
    found = document(sweep)
    assert "hoose container, pinned (cn pinned)" in found["summary"]
    assert "KVM guest, pinned (vm pinned), 3.195 times bare metal's latency" in found["summary"]
    advice = advise(sweep, Question("image_classification", scenario="server"))
    assert {row["platform"] for row in advice["equivalent"]} == {"cn", "bm"}
    (row,) = found["without_suspects"]
    assert row["all_ratio"] == pytest.approx(3.2, rel=0.05)
    assert found["findings"] and "latency divided by pinned" in render(found)


def test_a_cell_with_invalid_trials_is_not_chosen() -> None:
    row, metal = cell("cn pinned", 1.0), cell("bm pinned", None)
    said = {"trials": [{**row, "usable": False}, {**row, "usable": True}]}
    lead = headline(content(row, loadgen=said))["lead"]
    assert lead == "This sweep supports no choice: LoadGen calls 1 of 5 trials INVALID."
    said = {"trials": [{**metal, "usable": False}]}
    lead = headline(content(row, loadgen=said))["lead"]
    assert "for bare metal, LoadGen calls 1 of" in lead


def test_ratios_to_bare_metal_with_lost_slow_trials_support_no_choice() -> None:
    row, metal = cell("cn pinned", 1.0), cell("bm pinned", None)
    late = [{"trial": trial(metal, 6), "message": "still running after 600 s"}]
    lead = headline(content(row, failed=late, counts={"failed": 1}))["lead"]
    assert lead.startswith("This sweep supports no choice: for bare metal, 1 of")


def test_results_that_cannot_be_trusted_count_as_lost() -> None:
    row = cell("cn pinned", 1.0)
    rejected = [{"file": f"trials/{trial(row, 6)}/result.json", "reason": "cut"}]
    lead = headline(content(row, rejected=rejected, counts={"rejected": 1}))["lead"]
    assert "1 of 6 trials left a result that cannot be trusted" in lead


def test_a_failure_of_unknown_scale_counts_for_both_scales() -> None:
    rows = [cell("cn pinned", 1.0, scale=scale) for scale in ("trained", "tiny")]
    failed: list[Json] = [{"trial": trial(rows[0], 6)}]
    screen = headline(content(*rows, failed=failed, counts={"failed": 1}))
    assert all(" failed" in a["choose"][0] for a in screen["applications"])
    failed[0]["cell"] = rows[1]
    screen = headline(content(*rows, failed=failed, counts={"failed": 1}))
    first, second = screen["applications"]
    assert " failed" not in first["choose"][0] and " failed" in second["choose"][0]


def test_equal_replicates_support_no_choice() -> None:
    assert answer(1.0, 1.0, 0.03) == answer(1.35, 1.35, 0.03) == "unknown"
    lead = headline(content(cell("cn pinned", 1.0, 0.0)))["lead"]
    assert lead == "This sweep supports no choice: replicates alike to the last digit."


def test_a_sweep_whose_trials_all_failed_is_reported_as_such() -> None:
    failed = [{"trial": "cn-pinned", "message": "m"}] * 6
    none = content(failed=failed, counts={"failed": 6}) | {"cells": []}
    screen = headline(none)
    assert screen["lead"] == "Nothing has been measured: 6 trials failed."
    assert screen["warnings"][0]["text"] == "6 trials failed, first cn-pinned."
    some = headline(content(failed=failed, counts={"failed": 6}))["warnings"][0]["text"]
    assert some.endswith("may be the faster ones.")


def test_lists_of_names_that_hold_commas_can_be_read() -> None:
    assert either(["a", "b"]) == "a or b"
    assert either(["a, x", "b, y", "c, z"]) == "a, x; b, y; or c, z"
    assert listed(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 others"


@pytest.mark.parametrize("true", [1.0, 1.02, 1.04, 1.2])
def test_a_cost_beyond_the_margin_is_rarely_called_not_measurable(true: float) -> None:
    """Simulated sweeps of five replicates: a wrong "choose" in at most 5%."""
    chance = np.random.default_rng(2112)
    wrong = chosen = 0
    for logs in chance.normal(np.log(true), 0.015, (1000, 5)):
        middle, half = logs.mean(), stats.t.ppf(0.975, 4) * logs.std(ddof=1) / 5**0.5
        ends = {
            "ratio_low": float(np.exp(middle - half)),
            "ratio_high": float(np.exp(middle + half)),
        }
        said = answer(ends["ratio_low"], ends["ratio_high"], 0.03)
        chosen += said == "same"
        wrong += said == "same" and true > 1.03
        wrong += said == "less" or (said == "more" and true == 1.0)
    assert wrong <= 50
    assert chosen > 300 or true > 1


def test_the_page_and_the_json_say_the_same(study: Any) -> None:
    found = document(read_sweep(study.path))
    screen, page = found["headline"], render(found)
    assert found["summary"] == screen["lead"]
    first = unescape(page[: page.index("<nav")])
    for sentence in (*screen["sure"], *(warning["text"] for warning in screen["warnings"])):
        assert sentence in first
    assert screen["command"] in first
    step = first.index("<strong>Next.</strong>")
    assert (
        step
        < first.index("<strong>How sure.</strong>")
        < first.index(screen["warnings"][0]["text"])
    )
    assert f"<code>{screen['command']}</code>" in first[step:]
    for application in screen["applications"]:
        assert all(sentence in first for sentence in application["choose"])
        for option in application["options"]:
            assert option["answer"] in first
            assert words.platform(option, LISTED) in first
            for row in option["cells"]:
                assert (
                    f"({words.ratio(row['ratio_low'])} to {words.ratio(row['ratio_high'])})"
                    in first
                )
    assert "cn pinned" in screen["lead"] and "container, pinned (" in screen["lead"]


def test_the_first_screen_claims_no_more_than_intervals_allow() -> None:
    chance = np.random.default_rng(16)
    codes = ["cn pinned", "cn vanilla", "vm pinned", "vm vanilla", "vmcn pinned"]
    for _ in range(300):
        rows = [
            cell(code, float(chance.choice([0.9, 1.0, 1.02, 1.1, 1.11, 1.5])),
                 None if chance.random() < 0.1 else float(chance.choice([0.005, 0.01, 0.05])),
                 cores=cores)
            for code in codes for cores in (1, 2) if chance.random() < 0.6
        ]  # fmt: skip
        failed = [{"trial": trial(row, 6)} for row in rows if chance.random() < 0.2]
        doubtful = [without(row, 1.0, 0.2) for row in rows if chance.random() < 0.2]
        found = content(
            *rows, failed=failed, without_suspects=doubtful, counts={"failed": len(failed)}
        )
        for application in headline(found)["applications"]:
            assert all(application["choose"])
            said = [row for option in application["options"] for row in option["cells"]]
            for choice in (choice for group in choices(said) for choice in group):
                place = [row for row in said if row["cores"] == choice.rows[0]["cores"]]
                assert_allowed(choice, place)


def assert_allowed(choice: Choice, place: list[Json]) -> None:
    """A choice says no more than the intervals of the cells of its place allow."""
    firm = [row for row in place if row["ratio_low"] is not None and not row["reservation"]]
    good = [row for row in firm if row["ratio_high"] <= 1.03 and row["answer"] != "unknown"]
    rest = [row for row in place if row not in choice.rows]
    assert (choice.kind == "nothing") == (not firm)
    assert (choice.kind == "good") == bool(good)
    if choice.kind == "good":
        assert set(map(words.code, choice.rows)) <= set(map(words.code, good))
        for row in good:  # what is left out is shown slower than what is shown faster
            assert row in choice.rows or any(
                one["answer"] == "less" and one["ratio_high"] < row["ratio_low"]
                for one in choice.rows
            )
    if choice.kind == "least":
        (least,) = choice.rows
        assert least in firm and least["ratio_low"] > 1
        assert all(row["ratio_low"] > least["ratio_high"] for row in rest)
    if choice.kind == "alike":
        assert all(row["ratio_low"] > 1 for row in choice.rows)
    if choice.kind == "unknown":
        assert not any(row["answer"] == "more" for row in choice.rows)
