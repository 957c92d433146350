"""Tests of kernel lists and masks."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed_contract.kernel.cpus import allowed, format_cpu_list, parse_cpu_list


@given(st.sets(st.integers(0, 300)))
def test_lists_survive_the_round_trip(numbers: set[int]) -> None:
    assert set(parse_cpu_list(format_cpu_list(numbers))) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-2,5\n", (0, 1, 2, 5)), ("", ()), ("7", (7,)), ("3,1", (1, 3)), ("0-1\n\0", (0, 1))],
)
def test_parse(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3-1", "the range 1-3 needed"),
        ("0,a", "'a' found in '0,a', a number or a range such as 0-2 needed"),
        ("1-", "'1-' found"),
        ("-2", "'-2' found"),
    ],
)
def test_parse_refuses_invalid_lists(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_cpu_list(text)


@pytest.mark.parametrize(
    ("cpus", "text"),
    [([0], "0"), ([5, 0, 2, 1], "0-2,5"), ([4, 2, 0, 3, 4], "0,2-4"), ([], "")],
)
def test_format(cpus: list[int], text: str) -> None:
    assert format_cpu_list(cpus) == text


def test_a_thread_is_allowed_on_online_cpus_only() -> None:
    assert allowed() == allowed(os.getpid()) == format_cpu_list(os.sched_getaffinity(0))
    with pytest.raises(ProcessLookupError):
        allowed(2**22 + 1)


def test_a_list_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="numbers up to"):
        parse_cpu_list("0-99999999999")
