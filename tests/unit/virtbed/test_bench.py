from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from virtbed import ansible
from virtbed.bench import Bench
from virtbed.events import Ended, Event, TaskOk
from virtbed_contract.codec import encode

from .conftest import report


@pytest.mark.parametrize(("emulated", "limit_s"), [(False, 60.0), (True, 360.0)])
def test_an_emulated_host_gets_longer_for_its_playbooks(
    monkeypatch: pytest.MonkeyPatch, emulated: bool, limit_s: float
) -> None:
    limits: list[float] = []

    def play(playbook: str, *_: Any, deadline: ansible.Deadline, **__: Any) -> Iterator[Event]:
        limits.append(deadline.limit_s)
        said = {"report": encode(replace(report(), emulated=emulated))}
        yield TaskOk("bench", "host_doctor", said)
        yield Ended("successful", "")

    monkeypatch.setattr(ansible, "play", play)
    bench = Bench(hung_after_s=60)
    for _ in range(2):  # however often it is examined
        bench.examine(restore=False)
    bench.play("clear")
    assert limits == [60, limit_s, limit_s]
