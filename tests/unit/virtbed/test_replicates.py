"""Assignment of replicates to hosts."""

from __future__ import annotations

import threading

import pytest

from virtbed.sweep.replicates import Replicates


def never() -> bool:
    return False


def test_a_host_gets_its_own_replicates_first_then_new_ones_then_abandoned_ones() -> None:
    made = Replicates(range(1, 6), {4: "a", 5: "gone", 2: "b"})
    for host in ("a", "b"):
        made.enter(host)
    taken = []
    while len(taken) < 4:
        number, before = made.take("a", never) or (0, "")
        taken.append((number, before))
        with made.held(number):
            pass
    # Its own ones, new ones, and those of an absent host; never those of b, which takes part.
    assert taken == [(4, "a"), (1, ""), (3, ""), (5, "gone")]
    assert made.left == [2] and made.take("b", never) == (2, "b")


def test_a_returned_replicate_goes_to_a_waiting_host_once_its_host_has_left() -> None:
    made = Replicates([1], {})
    for host in ("a", "b"):
        made.enter(host)
    assert made.take("a", never) == (1, "")
    found: list[tuple[int, str] | None] = []
    waits = threading.Thread(target=lambda: found.append(made.take("b", never)), daemon=True)
    waits.start()
    with pytest.raises(ValueError), made.held(1):
        raise ValueError
    assert not found  # its host may continue it
    made.leave("a")
    waits.join(10)
    assert found == [(1, "a")]
    with made.held(1):
        pass
    assert made.left == [] and made.take("a", never) is None


def test_waiting_ends_without_replicates_or_on_request() -> None:
    made = Replicates([1], {})
    assert made.take("a", never)
    assert made.take("b", lambda: True) is None
    assert made.wait(0.01, never) and not made.wait(60, lambda: True)
    with made.held(1):
        pass
    assert not made.wait(60, never)


def test_a_wait_for_a_replicate_can_have_a_limit() -> None:
    made = Replicates([1], {})
    made.enter("a")
    with made.held((made.take("a", never, 0.0) or (0, ""))[0]):  # a free one is taken at once
        assert made.take("b", never, 0.0) is None
        assert made.take("b", never, 0.01) is None and made.left == [1]
