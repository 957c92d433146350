"""The sentences on a verdict's limits: its margin, what would change it, what it cannot show."""

from __future__ import annotations

import math

from virtbed_analysis import words
from virtbed_analysis.answers import Case, Verdict, deciding, weighing
from virtbed_analysis.engine import Effect
from virtbed_contract.sweep import MOST_REPLICATES


def margin(verdict: Verdict) -> str:
    """Return which effects count for the claim, in words."""
    limit, side = verdict.limit, verdict.finding.side
    if side == "apart":
        return f"Effects above {limit:.3f} or below {1 / limit:.3f} count."
    if verdict.finding.rule == "falls":
        return f"A step above {limit:.3f} counts as a fall, one below {1 / limit:.3f} as a rise."
    return f"Effects {side} {limit:.3f} count."


def would_change(verdict: Verdict, unit: str = "replicate") -> str:
    """Return what would change the answer.

    Args:
        verdict: The verdict.
        unit: The unit of its effects: "replicate" or "input".
    """
    most, rule = deciding(verdict), verdict.finding.rule
    if most is None:
        return f"A test needs {verdict.finding.needs}."
    about, where = most.effect.about, _where(verdict)
    if verdict.answer == "supported":
        if rule == "falls":
            return (
                f"It would no longer be supported if a step of a curve rose, or none were {where}."
            )
        if rule == "everywhere":
            return (
                f"It would no longer be supported if one case were not {where}; the nearest is "
                f"{about}."
            )
        rest = sum(case.side == "for" for case in weighing(verdict)) - 1
        others = f", nor any of the {rest} others that support it" if rest else ""
        return f"It would no longer be supported if {about} were not {where}{others}."
    if verdict.answer == "refuted":
        if rule in ("somewhere", "stops"):
            return f"One case {where} would support it; the nearest is {about}."
        return f"It would be open again if {about}, which refutes it, had another result."
    return _to_decide(verdict, most, unit)


def _where(verdict: Verdict) -> str:
    if verdict.finding.side == "apart":
        return f"above {verdict.limit:.3f} or below {1 / verdict.limit:.3f}"
    return f"{verdict.finding.side} {verdict.limit:.3f}"


def _to_decide(verdict: Verdict, most: Case, unit: str) -> str:
    effect = most.effect
    if most.no_spread:
        return f"{effect.about} needs {unit}s that differ, as measured times do."
    half = half_width(effect)
    if half is None:
        return f"{effect.about} needs more than {words.count(effect.n, unit)} for an interval."
    away = min(abs(math.log(effect.value / limit)) for limit in _limits(verdict))
    needed = math.ceil(effect.n * (half / away) ** 2) if away else math.inf
    if needed > MOST_REPLICATES:
        return (
            f"{effect.about} is so close to the limit that more than {MOST_REPLICATES} {unit}s "
            "would be needed."
        )
    return (
        f"About {max(needed, effect.n + 1)} {unit}s instead of {effect.n}, with the same noise, "
        f"would decide {effect.about} if its value stays the same."
    )


def _limits(verdict: Verdict) -> tuple[float, ...]:
    both = verdict.finding.side == "apart" or verdict.finding.rule == "falls"
    return (verdict.limit, 1 / verdict.limit) if both else (verdict.limit,)


def not_seen(verdict: Verdict, unit: str = "replicate") -> str:
    """Return the effects that these measurements could not have distinguished from none."""
    most = deciding(verdict)
    if most is None:
        return "Everything: no measured cell is about this finding."
    half = half_width(most.effect)
    if half is None:
        return "Without an interval, no effect of any size could be distinguished from noise."
    blind = sum(case.effect.low is None for case in verdict.cases)
    have = f"{words.count(blind, 'effect')} {'has' if blind == 1 else 'have'}"
    also = f" {have} no interval and could show nothing." if blind else ""
    return (
        f"Effects within {math.expm1(half):.1%} of the limit, which could not be distinguished "
        f"from it ({most.effect.about}, {words.count(most.effect.n, unit)}).{also}"
    )


def half_width(effect: Effect) -> float | None:
    """Return half the width of an effect's interval, as a logarithm; None without one."""
    if effect.low is None or effect.high is None:
        return None
    return math.log(effect.high / effect.low) / 2
