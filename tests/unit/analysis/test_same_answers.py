"""Answers that do not match their digest are found by comparing results that share it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from virtbed_analysis.same_answers import changed

ANSWERS = {"a.png": "cup", "b.png": "cat"}


def result(answers: dict[str, str], of: dict[str, str] | None = None, **work: str) -> Any:
    """Return a result with some answers, and the digest `of` those or of others."""
    rows = sorted((of or answers).items())
    digest = "sha256:" + hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return {
        "application": {"name": "faces", "version": "1", "scale": "tiny"} | work,
        "answers": {
            "digest": digest,
            "by_input": [{"input": name, "answer": answer} for name, answer in answers.items()],
        },
    }


def test_results_that_match_their_digest_are_kept() -> None:
    other = {**ANSWERS, "a.png": "mug"}
    assert not [*changed({"1": result(ANSWERS), "2": result(ANSWERS), "3": result(other)})]


def test_an_answer_changed_under_its_digest_is_found_and_the_rest_are_not() -> None:
    forged = result({**ANSWERS, "a.png": "mug"}, of=ANSWERS)
    ((trial, why),) = changed({"1": result(ANSWERS), "2": forged, "3": result(ANSWERS)})
    assert trial == "2"
    assert "not those of its digest" in why and "2 other results" in why


def test_if_no_answers_match_the_digest_the_minority_is_found() -> None:
    """As of a harness that takes its digest in another way."""
    unknown = {"other": "answers"}
    trials = {str(n): result(ANSWERS, of=unknown) for n in range(3)}
    trials["3"] = result({**ANSWERS, "b.png": "dog"}, of=unknown)
    assert [trial for trial, _ in changed(trials)] == ["3"]


def test_other_work_is_not_compared() -> None:
    forged = result({**ANSWERS, "a.png": "mug"}, of=ANSWERS, version="2")
    assert not [*changed({"1": result(ANSWERS), "2": forged})]
