"""The GPU of a sweep: which one a plan means on a host, and what of it must not change."""

from __future__ import annotations

from collections.abc import Collection

from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed_contract.codec import decode
from virtbed_contract.documents import InstanceGpu
from virtbed_contract.gpus import Gpu, GpuError, choose
from virtbed_contract.sweep import HostReport


def gpu_of(plan: Plan, report: HostReport, platforms: Platforms) -> Gpu | None:
    """Return the GPU that a plan's cells are to have; None if none has one.

    Raises:
        PlanError: the host has none, or several and none is named, or one of the plan's platforms
            cannot have it.
    """
    if not plan.asks_for_gpu:
        return None
    try:
        gpu = choose([decode(Gpu, found, "gpu") for found in report.facts["gpu"]], plan.gpu)
    except GpuError as error:
        raise PlanError(f"{report.host}: {error}") from error
    guests = {platforms.parts(name)[0].own_kernel for name in plan.platforms}
    _check(gpu, guests, report.host)
    return gpu


def _check(gpu: Gpu, guests: Collection[bool], host: str) -> None:
    for own_kernel, refusal in ((False, gpu.on_host), (True, gpu.to_guest)):
        if own_kernel in guests and refusal:
            whose = "guests" if own_kernel else "processes and containers"
            raise PlanError(
                f"{host}: {gpu.words} is not for {whose}: {refusal.reason}; {refusal.remedy}"
            )


def instance_gpu(gpu: Gpu, report: HostReport) -> InstanceGpu:
    """Return what instances are given of a GPU."""
    return InstanceGpu(
        uuid=gpu.uuid,
        functions=(gpu.address, *gpu.along),
        window_mib=gpu.window_mib,
        nodes=gpu.device_nodes,
        libraries=dict(report.facts["gpu_libraries"]),
    )


def identity(gpu: Gpu, report: HostReport) -> dict[str, str]:
    """Return what of a sweep's GPU must be the same as long as the sweep lasts."""
    return {
        "gpu": f"{gpu.name} {gpu.uuid or 'without a known UUID'} at {gpu.address}",
        "gpu driver": str(report.facts["gpu_driver"]),
    }
