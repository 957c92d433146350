"""The GPU of a sweep: which one a plan means on a host, and what of it must not change."""

from __future__ import annotations

from typing import NoReturn

from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed_contract.codec import decode
from virtbed_contract.documents import InstanceGpu
from virtbed_contract.gpu_refusals import OF_MEMORY, GuestLimits, Refusal, for_memory
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
    own_kernels = {platforms.parts(name)[0].own_kernel for name in plan.platforms}
    if False in own_kernels and gpu.on_host:
        _refuse(gpu, "processes and containers", gpu.on_host, report.host)
    if True in own_kernels:
        # The doctor does not know how large the plan's guests are.
        here = decode(GuestLimits, report.facts["gpu_limits"], "gpu_limits")
        large = for_memory(gpu.address, gpu.window_mib, plan.memory_mib, here)
        memory = gpu.to_guest is not None and gpu.to_guest.kind in OF_MEMORY
        refusal = next(large, None) if memory or not gpu.to_guest else gpu.to_guest
        if refusal:
            _refuse(gpu, "guests", refusal, report.host)
    return gpu


def _refuse(gpu: Gpu, whose: str, refusal: Refusal, host: str) -> NoReturn:
    raise PlanError(f"{host}: {gpu.words} is not for {whose}: {refusal.reason}; {refusal.remedy}")


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
    state = report.facts["gpu_states"].get(gpu.address, {})
    return {
        "gpu": f"{gpu.name} {gpu.uuid or 'without a known UUID'} at {gpu.address}",
        "gpu driver": str(report.facts["gpu_driver"]),
        # Of a GPU that guests alone are to have, its host may tell none of these.
        **{f"gpu {what}": str(state.get(what)) for what in ("cuda", "ecc", "mig")},
    }
