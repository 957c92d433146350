"""The application that computes nothing, and each of its faults on request."""

from __future__ import annotations

import pytest

from virtbed_workloads import null
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.null import Null


@pytest.fixture(autouse=True)
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null, "INFER_S", 0)
    monkeypatch.delenv("VIRTBED_NULL", raising=False)


def loaded() -> Null:
    application = Null()
    assert application.load().weights == "none"  # so the analysis does not use its times
    return application


def served(application: Null, name: str) -> int:
    features = application.preprocess(application.inputs()[name])
    return application.postprocess(application.infer(features))


def test_null_counts_letters_correctly() -> None:
    application = loaded()
    for name in application.inputs():
        answer = served(application, name)
        assert application.describe(answer) == name
        assert application.check(name, answer).right


def test_null_answers_wrongly_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTBED_NULL", "wrong")
    application = loaded()
    assert not application.check("one", served(application, "one")).right


def test_null_changes_its_answer_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTBED_NULL", "fickle")
    application = loaded()
    answers = [served(application, "one") for _ in range(9)]
    assert set(answers[:8]) == {1} and answers[8] == 2


def test_null_fails_to_load_or_has_a_broken_request_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIRTBED_NULL", "fails")
    with pytest.raises(ApplicationError, match="VIRTBED_NULL=fails found"):
        Null().load()
    monkeypatch.setenv("VIRTBED_NULL", "broken")
    application = loaded()
    with pytest.raises(ApplicationError, match="UTF-8 needed"):
        served(application, "three")


def test_null_prints_past_python_on_request(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIRTBED_NULL", "noisy")
    served(loaded(), "one")
    assert capfd.readouterr().out == "a library's banner\n"
