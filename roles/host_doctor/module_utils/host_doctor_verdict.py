"""Verdicts on platforms: whether a host can run each, what it lacks, and what to do about it.

Pure functions: facts in, verdicts out. A platform needs what every platform needs, and what its
roles on the host need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ansible.module_utils.host_doctor_gpu import gpu_verdict, gpu_verdicts
from ansible.module_utils.virtbed_contract.codec import decode
from ansible.module_utils.virtbed_contract.documents import Platform, RoleProperties
from ansible.module_utils.virtbed_contract.gpus import Gpu
from ansible.module_utils.virtbed_contract.identifiers import HOST_REPORT
from ansible.module_utils.virtbed_contract.limits import TMP, DiskFree
from ansible.module_utils.virtbed_contract.remedies import setup
from ansible.module_utils.virtbed_contract.sweep import HostReport, PlatformVerdict, TuningRow

Facts = Mapping[str, Any]
# One thing that is missing: (reason, remedy).
Lack = tuple[str, str]

USABLE = ("available", "emulated")
_MENDS = ", which "  # between a remedy's command and what it does


@dataclass(frozen=True)
class House:
    """The platforms and the properties of their roles, from the lookup virtbed_platforms."""

    entries: Mapping[str, Platform]
    host_roles: Mapping[str, Sequence[str]]
    roles: Mapping[str, RoleProperties]

    def on_host(self, platform: str) -> list[RoleProperties]:
        """Return the properties of the roles that a platform needs on the bench host."""
        return [self.roles[name] for name in self.host_roles[platform]]


def accelerator(facts: Facts, house: House) -> Literal["kvm", "tcg"] | None:
    """Return "kvm" if KVM boots guests, "tcg" if guests can only be emulated, None if no guests."""
    guests = (role for role in house.roles.values() if role.own_kernel)
    if any(all(facts["engines"][name]["installed"] for name in role.engines) for role in guests):
        return "kvm" if facts["kvm"]["usable"] else "tcg"
    return None


def common_lacks(facts: Facts) -> list[Lack]:
    """Return what the host lacks for any platform."""
    disk, memory = facts["disk"], facts["memory_mib"]
    lacks = []
    if not facts["is_root"]:
        lacks.append(("not running as root", "run as root, or with become"))
    if disk["free_mib"] < disk["needed_mib"]:
        lacks.append(
            (
                f"{disk['free_mib']} MiB free for {disk['path']}, {disk['needed_mib']} MiB needed",
                "free some, or set virtbed_state_dir to a larger file system",
            )
        )
    lacks += _no_room(facts, "tmp", TMP)
    if memory["available"] < memory["needed"]:
        lacks.append(
            (
                f"{memory['available']} MiB of memory available, {memory['needed']} MiB needed",
                "stop other programs, or use a larger host",
            )
        )
    if facts["hwloc"]["xml"] is None:
        problem = f"{facts['hwloc']['problem']}: hwloc reports which CPUs share cores and caches"
        lacks.append((problem, f"{setup()}{_MENDS}installs hwloc (Debian: hwloc-nox)"))
    if facts["image"]["digest"] is None:
        name = facts["image"]["variant"]
        remedy = f"{setup()}{_MENDS}builds the image (PLAN: one with `image: {name}`)"
        lacks.append((f"the image {name} is not built yet", remedy))
    return lacks


def _no_room(facts: Facts, kind: str, path: str) -> list[Lack]:
    """Return the lack of space on one of the disks that a sweep writes to, if there is one."""
    disks = (decode(DiskFree, disk, "disks") for disk in facts.get("disks", ()))
    lacks = (disk.lack.partition("; ") for disk in disks if (disk.kind, disk.path) == (kind, path))
    return [(reason, remedy) for reason, _, remedy in lacks if reason]


def role_lacks(facts: Facts, role: RoleProperties) -> list[Lack]:
    """Return what the host lacks for a role: engines, their services, disk space, controllers."""
    lacks = []
    for key in role.engines:
        engine = facts["engines"][key]
        name = engine["name"]
        if not engine["installed"]:
            lacks.append((f"no {name} installed", f"{setup()}{_MENDS}installs {name}"))
        elif not engine["running"]:
            lacks.append((f"{name} does not answer", f"{setup()}{_MENDS}starts {name}"))
    lacks += _no_room(facts, "store", role.store)
    missing = sorted(set(role.controllers) - set(facts["cgroup"]["controllers"]))
    if missing:
        names = ", ".join(missing)
        lacks.append((f"no cgroup controller {names}", "mount it, or enable it at boot"))
    return lacks


def _good(facts: Facts, roles: Iterable[RoleProperties]) -> str:
    """Return the reason that a platform without its own kernel is available: CPUs or engines."""
    engines = [facts["engines"][key] for role in roles for key in role.engines]
    if not engines:
        return f"{len(facts['cpu']['allowed'])} CPUs, root"
    names = [f"{engine['name']} {engine['version']}" for engine in engines]
    return ", ".join([*names, f"cgroup v{facts['cgroup']['version']}"])


def _guest_verdict(platform: str, facts: Facts) -> PlatformVerdict:
    kvm = facts["kvm"]
    if kvm["usable"]:
        return PlatformVerdict(platform, "available", kvm["detail"], "")
    if kvm["probe"] == "not-run":
        remedy = "let the boot probe run, to learn whether KVM is usable"
    elif kvm["device"]:
        remedy = (
            "enable nested virtualization in the hypervisor below this host, or use a host"
            " with VT-x or AMD-V of its own"
        )
    else:
        remedy = (
            "enable VT-x or AMD-V in the firmware (or nested virtualization in the hypervisor"
            " below) and load kvm_intel or kvm_amd, or use a host that has it"
        )
    return PlatformVerdict(platform, "emulated", f"KVM is not usable: {kvm['detail']}", remedy)


def _remedies(lacks: Iterable[Lack]) -> str:
    """Return the remedies as one text, each command once with everything that it does."""
    does: dict[str, dict[str, None]] = {}
    for _, remedy in lacks:
        command, _, what = remedy.partition(_MENDS)
        does.setdefault(command, {}).update({what: None} if what else {})
    return "; ".join(
        f"{command}{_MENDS}{' and '.join(effects)}" if effects else command
        for command, effects in does.items()
    )


def verdict(platform: str, facts: Facts, house: House) -> PlatformVerdict:
    """Return the verdict on one platform: if the host cannot run it, everything that it lacks."""
    roles = house.on_host(platform)
    lacks = common_lacks(facts) + [lack for role in roles for lack in role_lacks(facts, role)]
    if lacks:
        reason = "; ".join(reason for reason, _ in lacks)
        return PlatformVerdict(platform, "unavailable", reason, _remedies(lacks))
    if any(role.own_kernel for role in roles):
        row = _guest_verdict(platform, facts)
    else:
        row = PlatformVerdict(platform, "available", _good(facts, roles), "")
    return _on_emulator(row, facts["below"]["name"]) if facts["below"]["emulated"] else row


def _on_emulator(row: PlatformVerdict, emulator: str) -> PlatformVerdict:
    """Return the verdict for an emulated host: the platform works there, its times do not count."""
    return PlatformVerdict(
        row.platform,
        "emulated",
        f"the host is itself emulated ({emulator}), so its times are no figures; {row.reason}",
        "measure on hardware; here plans show that they work",
    )


def report(host: str, facts: Facts, house: House, tuning: Sequence[TuningRow] = ()) -> HostReport:
    """Return the report on a host; its `ok` is true if every platform can run, emulated or not."""
    rows = [verdict(platform, facts, house) for platform in house.entries]
    gpus = [decode(Gpu, gpu, "gpu") for gpu in facts["gpu"]]
    return HostReport(
        schema=HOST_REPORT,
        host=host,
        ok=all(row.status in USABLE for row in rows),
        facts=dict(facts),
        platforms=(*rows, gpu_verdict(gpus)),
        gpus=gpu_verdicts(gpus, house.entries, house.roles),
        accelerator=accelerator(facts, house),
        tuning=tuple(tuning),
        emulated=facts["below"]["emulated"],
    )
