"""Filters that compare what was read of a trial, guest, neighbour or container with the request.

The comparisons themselves are in the contract. Each filter returns a sentence per difference.
"""

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
    """Return the differences between a trial and its request, one sentence per difference.

    Args:
        saw: What the application read, the result of trial_run.
        instance: ``virtbed_instance``.
        trial: ``virtbed_trial``.
        machine: The reading of the machine before the trial.
    """
    requested = decode(Instance, dict(instance)), decode(TrialRequest, dict(trial))
    return mismatches(*requested, saw, machine.get("host_transparent_hugepage"))


def guest_mismatches(machine: Mapping[str, Any], instance: Mapping[str, Any]) -> list[str]:
    """Return the differences between a guest and its request, one sentence per difference.

    Args:
        machine: The reading of its machine, with the readings of the guest's and host's kernels.
        instance: ``virtbed_instance``.
    """
    return mismatches_of_guest(decode(Instance, dict(instance)), machine)


def neighbour_mismatches(
    found: Sequence[Mapping[str, Any]],
    instance: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return the differences between neighbours and their request, one sentence per difference.

    Args:
        found: One reading per neighbour.
        instance: ``virtbed_instance``, the measured one.
        before: The readings before the trial; empty if `found` are those.
    """
    return mismatches_of_neighbours(decode(Instance, dict(instance)), found, before)


def confinement(reading: Mapping[str, Any], instance: Mapping[str, Any]) -> list[str]:
    """Return the factors' values that a container lacks, one sentence per difference.

    Args:
        reading: The reading of its enclosure.
        instance: ``virtbed_instance``.
    """
    return confinement_mismatches(decode(Instance, dict(instance)), reading)


def quota(instance: Mapping[str, Any]) -> dict[str, int]:
    """Return ``quota_us``, ``period_us`` and ``burst_us`` of an instance; empty without a quota."""
    requested = quota_of(decode(Instance, dict(instance)))
    return dataclasses.asdict(requested) if requested else {}


class FilterModule:
    """The filters by the names that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return {
            "trial_mismatches": trial_mismatches,
            "guest_mismatches": guest_mismatches,
            "virtbed_neighbour_mismatches": neighbour_mismatches,
            "virtbed_confinement": confinement,
            "virtbed_quota": quota,
        }
