"""Filters for the roles that start a process: the options that give it a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from virtbed_contract import cdi
from virtbed_contract.codec import decode
from virtbed_contract.documents import InstanceGpu


def spelled_out(instance: Mapping[str, Any]) -> list[str]:
    """Return the options of an engine that reads no CDI document; none without a GPU."""
    gpu = _gpu_of(instance)
    return cdi.spelled_out(gpu) if gpu else []


def named(instance: Mapping[str, Any]) -> list[str]:
    """Return the options of an engine that reads the CDI document; none without a GPU."""
    return cdi.named() if _gpu_of(instance) else []


def entered(instance: Mapping[str, Any]) -> list[str]:
    """Return the options of Bubblewrap, which enters the tree on metal; none without a GPU."""
    gpu = _gpu_of(instance)
    return cdi.entered(gpu) if gpu else []


def document(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the CDI document of an instance that has a GPU."""
    return cdi.document(decode(InstanceGpu, instance["gpu"], "gpu"))


def _gpu_of(instance: Mapping[str, Any]) -> InstanceGpu | None:
    """Return an instance's GPU; None for a guest, whose containers use the guest's own GPU."""
    gpu = instance.get("gpu")
    return decode(InstanceGpu, gpu, "gpu") if gpu and not instance["own_kernel"] else None


class FilterModule:
    """The filters by the names that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return each filter by its name."""
        return {
            "virtbed_gpu_spelled_out": spelled_out,
            "virtbed_gpu_named": named,
            "virtbed_gpu_entered": entered,
            "virtbed_gpu_document": document,
        }
