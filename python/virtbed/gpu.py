"""The GPU of a sweep: the one that a plan selects on a host, and its identity."""

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
    """Return the GPU that a plan's cells use; None if none uses one.

    Raises:
        PlanError: the host has no GPU, or has several and the plan does not name one, or one of
            the plan's platforms cannot use it.
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
        # The host's report does not consider the memory of the plan's guests, so check it now.
        limits = decode(GuestLimits, report.facts["gpu_limits"], "gpu_limits")
        refusals = for_memory(gpu.address, gpu.window_mib, plan.memory_mib, limits)
        memory = gpu.to_guest is not None and gpu.to_guest.kind in OF_MEMORY
        refusal = next(refusals, None) if memory or not gpu.to_guest else gpu.to_guest
        if refusal:
            _refuse(gpu, "guests", refusal, report.host)
    return gpu


def _refuse(gpu: Gpu, whose: str, refusal: Refusal, host: str) -> NoReturn:
    raise PlanError(
        f"{host}: {gpu.words} cannot be used by {whose}: {refusal.reason}; {refusal.remedy}"
    )


def instance_gpu(gpu: Gpu, report: HostReport) -> InstanceGpu:
    """Return a GPU as the document for instances: its functions, device nodes and libraries."""
    return InstanceGpu(
        uuid=gpu.uuid,
        functions=(gpu.address, *gpu.along),
        window_mib=gpu.window_mib,
        nodes=gpu.device_nodes,
        libraries=dict(report.facts["gpu_libraries"]),
    )


def identity(gpu: Gpu, report: HostReport) -> dict[str, str]:
    """Return the properties of a GPU that must stay the same for the whole sweep, by name."""
    state = report.facts["gpu_states"].get(gpu.address, {})
    return {
        "gpu": f"{gpu.name} {gpu.uuid or 'without a known UUID'} at {gpu.address}",
        "gpu driver": str(report.facts["gpu_driver"]),
        # If only guests use the GPU, the host may report none of these.
        **{f"gpu {what}": str(state.get(what)) for what in ("cuda", "ecc", "mig")},
    }
