from __future__ import annotations

import signal

import pytest

from virtbed.sweep import Interrupted, interruption
from virtbed.sweep.interruption import Interruption


def test_signals_close_together_count_as_one_and_a_later_one_ends_the_release(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    wish = Interruption()
    wish.check()
    with wish.by_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # passed on by Ansible, from the same Ctrl-C
        assert (wish.wanted, wish.insisted) == (True, False)
        now[0] += 10
        signal.raise_signal(signal.SIGINT)
        assert wish.insisted
    assert capfd.readouterr().err.count("ending") == 2
    with pytest.raises(Interrupted, match="the next call continues"):
        wish.check()


def test_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption().by_signals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_one_signal_does_not_abort_the_release_after_an_error() -> None:
    wish = Interruption()
    with wish.by_signals():
        wish.end()
        signal.raise_signal(signal.SIGTERM)
        assert wish.wanted and not wish.insisted
