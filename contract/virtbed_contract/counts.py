"""Counts in words, with the right plural."""

from __future__ import annotations


def count(number: float, thing: str) -> str:
    """Return a number with its thing: "1 core", "2 cores"; a fraction as "1.5 CPUs".

    Args:
        number: How many.
        thing: One of them, whose plural ends with "s".

    Example:
        >>> count(1, "CPU"), count(1.0, "CPU"), count(0, "trial")
        ('1 CPU', '1 CPU', '0 trials')
    """
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {thing}{'' if number == 1 else 's'}"
