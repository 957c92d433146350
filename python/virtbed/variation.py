"""Which values of the factors each instance runs with: all combinations, or one varied at a time.

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
"""Why a cell cannot run, and what would change that."""


def combinations(
    plan: Plan, grain: str, instance: Instance, enclosure: RoleProperties, emulated: bool
) -> Iterator[Values]:
    """Give every combination of the values of the factors of one grain that an instance runs with.

    Where a plan explains, each has at most one value that is no default: a star around the
    reference, not the product. Factors of the CPU quota are varied in cells that have one, all
    others in the cell of the platform that none has: its pinned one, if the plan has that. An
    instance that varies a factor already varies none of its trials.

    Args:
        plan: The plan.
        grain: "instance" or "trial".
        instance: Its `factors` are those of the instance, where `grain` is "trial".
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
        found = dict(zip(several, values, strict=True))
        if not plan.explain or sum(found[f.name] != f.default for f in factors) <= 1:
            yield found


def _elsewhere(plan: Plan, factor: Factor, instance: Instance) -> bool:
    """Return whether another cell of the platform is the one in which a factor is varied."""
    modes = plan.platforms[instance.platform]
    reference = "pinned" if "pinned" in modes else modes[0]
    return factor.varied_by != "quotas" and instance.mode != reference


def _values(
    plan: Plan, factor: Factor, instance: Instance, enclosure: RoleProperties, emulated: bool
) -> list[str]:
    """Return the values of a factor that the plan lists and the instance can have."""
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
    """Return why this host has not what an instance's factors ask of its enclosure; None if it has.

    Args:
        instance: With `factors`.
        enclosure: The properties of its enclosure.
        lacking: Role, factor and value of what the host does not offer, as its report has it.
    """
    role = f"enclosure_{instance.enclosure}"
    for factor in FACTORS:
        value = instance.factors.get(factor.name, factor.default)
        command = enclosure.varies.get(factor.name, {}).get(value)
        if not command:
            continue
        if instance.own_kernel:  # whose image has the engine's own alone
            return (
                f"{factor.name} {value}: in a guest {instance.enclosure} has its defaults only",
                f"vary {factor.plan_key} on metal",
            )
        if [role, factor.name, value] in [list(row) for row in lacking]:
            return (
                f"{factor.name} {value}: this host's {instance.enclosure} does not offer it "
                f"({' '.join(command)} fails)",
                f"install or configure it, or leave it out of {factor.plan_key}",
            )
    return None


def unvaried(plan: Plan, enclosures: Mapping[str, RoleProperties]) -> str | None:
    """Return which value of a plan's no platform of its can have; None if each has one.

    Args:
        plan: The plan.
        enclosures: The properties of the enclosure of each platform that there is.
    """
    for factor in FACTORS:
        if factor.varied_by not in ("enclosures", "quotas"):
            continue
        for value in plan.values(factor):
            able = [n for n, own in enclosures.items() if value in own.varies.get(factor.name, {})]
            here = [n for n in able if n in plan.platforms]
            if factor.varied_by == "quotas":
                here = [n for n in here if _has_quota(plan, n, enclosures[n])]
            if value != factor.default and not here:
                suffix = " in a mode with a CPU quota" if factor.varied_by == "quotas" else ""
                return (
                    f"{factor.plan_key}: {value} found, which none of the plan's platforms can "
                    f"have{suffix}; name one of {', '.join(able) or 'none'} among platforms{suffix}"
                )
    return None


def _has_quota(plan: Plan, platform: str, enclosure: RoleProperties) -> bool:
    return any(enclosure.limits[mode] == "quota" for mode in plan.platforms[platform])
