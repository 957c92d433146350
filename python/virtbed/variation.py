"""The values of the factors of each instance: all combinations, or one factor varied at a time.

Pure: a plan, an instance, the properties of its enclosure and what the host lacks in; values out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import product

from virtbed.plan import Plan
from virtbed_contract.documents import Instance, RoleProperties
from virtbed_contract.factors import FACTORS, Factor, default_of, of_grain

Values = dict[str, str]
Why = tuple[str, str]
"""Why a cell cannot run, and the remedy."""


def combinations(
    plan: Plan, grain: str, instance: Instance, enclosure: RoleProperties, emulated: bool
) -> Iterator[Values]:
    """Yield the combinations of values that an instance runs with, for the factors of one grain.

    With `explain: true` a combination has at most one value that is not the default (a star around
    the reference, not the product). Then factors of the CPU quota are varied in cells with a quota,
    all others in the platform's reference cell: the pinned one, if the plan has it. If an instance
    already varies a factor, its trials vary none.

    Args:
        plan: The plan.
        grain: "instance" or "trial".
        instance: The instance; for the grain "trial" with its `factors`.
        enclosure: The properties of its enclosure.
        emulated: Whether it is an emulated guest.
    """
    factors = of_grain(grain)
    taken = any(value != default_of(name) for name, value in instance.factors.items())
    several = {
        factor.name: [factor.default]
        if plan.explain and (taken or _elsewhere(plan, factor, instance))
        else _values(plan, factor, instance, enclosure, emulated)
        for factor in factors
    }
    for values in product(*several.values()):
        combination = dict(zip(several, values, strict=True))
        if not plan.explain or sum(combination[f.name] != f.default for f in factors) <= 1:
            yield combination


def _elsewhere(plan: Plan, factor: Factor, instance: Instance) -> bool:
    """Return whether `explain` varies a factor in another cell of the platform than this one."""
    modes = plan.platforms[instance.platform]
    reference = "pinned" if "pinned" in modes else modes[0]
    return factor.varied_by != "quotas" and instance.mode != reference


def _values(
    plan: Plan, factor: Factor, instance: Instance, enclosure: RoleProperties, emulated: bool
) -> list[str]:
    """Return those of the plan's values of a factor that the instance can have."""
    can = {
        "all": True,
        "enclosures": factor.name in enclosure.varies,
        "quotas": factor.name in enclosure.varies and instance.quota_cpus is not None,
        "linux": not instance.private_kernel,
    }[factor.varied_by]
    can = can and (factor.emulated or not emulated)
    if not can or (factor.own_kernel and not instance.own_kernel):
        return [factor.default]
    own = enclosure.varies.get(factor.name)
    return [v for v in plan.values(factor) if own is None or v == factor.default or v in own]


def offered(
    instance: Instance, enclosure: RoleProperties, lacking: Collection[Collection[str]]
) -> Why | None:
    """Return why this host's enclosure cannot provide an instance's factors; None if it can.

    Args:
        instance: The instance, with its `factors`.
        enclosure: The properties of its enclosure.
        lacking: (role, factor, value) of what the host cannot provide, from its report.
    """
    role = f"enclosure_{instance.enclosure}"
    for factor in FACTORS:
        value = instance.factors.get(factor.name, factor.default)
        command = enclosure.varies.get(factor.name, {}).get(value)
        if not command:
            continue
        if instance.own_kernel:  # the guest's image has the engine's defaults only
            return (
                f"{factor.name} {value}: in a guest {instance.enclosure} has its defaults only",
                f"vary {factor.plan_key} on platforms of the machine metal",
            )
        if [role, factor.name, value] in [list(row) for row in lacking]:
            return (
                f"{factor.name} {value}: this host's {instance.enclosure} does not offer it "
                f"({' '.join(command)} fails)",
                f"install or configure it, or leave it out of {factor.plan_key}",
            )
    return None


def unvaried(plan: Plan, enclosures: Mapping[str, RoleProperties]) -> str | None:
    """Return a message if none of a plan's platforms can have one of its values; else None.

    Args:
        plan: The plan.
        enclosures: The properties of the enclosure of each platform of the checkout, by platform.
    """
    for factor in FACTORS:
        if factor.varied_by not in ("enclosures", "quotas"):
            continue
        for value in plan.values(factor):
            able = [n for n, own in enclosures.items() if value in own.varies.get(factor.name, {})]
            suitable = [n for n in able if n in plan.platforms]
            if factor.varied_by == "quotas":
                suitable = [n for n in suitable if _has_quota(plan, n, enclosures[n])]
            if value != factor.default and not suitable:
                suffix = " in a mode with a CPU quota" if factor.varied_by == "quotas" else ""
                return (
                    f"{factor.plan_key}: {value} found, which none of the plan's platforms can "
                    f"have{suffix}; name one of {', '.join(able) or 'none'} among platforms{suffix}"
                )
    return None


def _has_quota(plan: Plan, platform: str, enclosure: RoleProperties) -> bool:
    """Return whether the plan has a platform in a mode that limits CPUs by a quota."""
    return any(enclosure.limits[mode] == "quota" for mode in plan.platforms[platform])
