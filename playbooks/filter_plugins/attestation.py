"""What an application and a guest's kernel saw, against what they were to see, as filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from virtbed_contract.attestation import mismatches
from virtbed_contract.codec import decode
from virtbed_contract.confinement import confinement_mismatches, quota_of
from virtbed_contract.documents import Instance, TrialRequest
from virtbed_contract.guest import guest_mismatches as mismatches_of_guest
from virtbed_contract.neighbours import neighbour_mismatches as mismatches_of_neighbours


def trial_mismatches(
    saw: Mapping[str, Any],
    instance: Mapping[str, Any],
    trial: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> list[str]:
    """Return the differences, a sentence each.

    Args:
        saw: The result of trial_run.
        instance: ``virtbed_instance``.
        trial: ``virtbed_trial``.
        machine: The reading of the machine before the trial.
    """
    asked = decode(Instance, dict(instance)), decode(TrialRequest, dict(trial))
    return mismatches(*asked, saw, machine.get("host_transparent_hugepage"))


def guest_mismatches(machine: Mapping[str, Any], instance: Mapping[str, Any]) -> list[str]:
    """Return the differences between a guest and what was asked for, a sentence each.

    Args:
        machine: The reading of its machine, with what the kernels of guest and host said.
        instance: ``virtbed_instance``.
    """
    return mismatches_of_guest(decode(Instance, dict(instance)), machine)


def neighbour_mismatches(
    found: Sequence[Mapping[str, Any]],
    instance: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return where neighbours did not run as they were to, a sentence each.

    Args:
        found: A reading of each.
        instance: ``virtbed_instance``, the measured one.
        before: The readings before the trial; none where `found` are those.
    """
    return mismatches_of_neighbours(decode(Instance, dict(instance)), found, before)


def confinement(reading: Mapping[str, Any], instance: Mapping[str, Any]) -> list[str]:
    """Return what a container has not of what a plan varies, a sentence each.

    Args:
        reading: The reading of its enclosure.
        instance: ``virtbed_instance``.
    """
    return confinement_mismatches(decode(Instance, dict(instance)), reading)


def quota(instance: Mapping[str, Any]) -> dict[str, int]:
    """Return ``quota_us``, ``period_us`` and ``burst_us`` of an instance's quota; none without."""
    found = quota_of(decode(Instance, dict(instance)))
    return dataclasses.asdict(found) if found else {}


class FilterModule:
    """The filters of this file, as Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by name."""
        return {
            "trial_mismatches": trial_mismatches,
            "guest_mismatches": guest_mismatches,
            "virtbed_neighbour_mismatches": neighbour_mismatches,
            "virtbed_confinement": confinement,
            "virtbed_quota": quota,
        }
