"""Counts in words."""

import pytest

from virtbed_contract.counts import count


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 CPUs"), (1, "1 CPU"), (1.0, "1 CPU"), (1.5, "1.5 CPUs"), (2000000, "2000000 CPUs")],
)
def test_only_one_is_singular(number: float, words: str) -> None:
    assert count(number, "CPU") == words
