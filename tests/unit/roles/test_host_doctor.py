"""Verdicts of host_doctor on made-up hosts, platforms and roles."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest

from virtbed.platforms import Platforms, load_platforms
from virtbed_contract.codec import decode, encode
from virtbed_contract.documents import Engine, Platform, RoleProperties
from virtbed_contract.gpu_refusals import Refusal
from virtbed_contract.gpus import Gpu
from virtbed_contract.sweep import HostReport, PlatformVerdict, TuningRow

from .conftest import REPOSITORY, module

# Ansible ships a role's module_utils next to its own: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_doctor/module_utils"))

from ansible.module_utils import host_doctor_verdict as verdict  # noqa: E402 - after the line above


def role(*engines: str, **properties: Any) -> RoleProperties:
    """Return the properties of a role that needs these engines."""
    needed = {name: Engine(name.title(), ((name,),), (name, "version")) for name in engines}
    return RoleProperties(limits={}, trial_s={}, engines=needed, **properties)


@pytest.fixture(scope="module")
def house() -> verdict.House:
    """Two machines with kernels of their own, one without, and an enclosure with many needs."""
    pairs = {
        "plain": ("bare", "open"),
        "jailed": ("bare", "jail"),
        "big": ("big", "open"),
        "bigjailed": ("big", "jail"),
        "small": ("small", "open"),
    }
    platforms = Platforms(
        {
            name: Platform(name, machine, enclosure, name, "", "#000000", "o")
            for name, (machine, enclosure) in pairs.items()
        },
        {
            "bare": role(),
            "big": role("manager", "emulator", own_kernel=True),
            "small": role("emulator", own_kernel=True),
        },
        {"open": role(), "jail": role("jailer", controllers=("cpu", "cpuset", "memory"))},
    )
    host_roles = {name: platforms.host_roles(name) for name in pairs}
    return verdict.House(platforms.entries, host_roles, platforms.roles)


H200 = Gpu(
    address="0000:01:00.0", name="H200", uuid="GPU-1", driver="nvidia", nodes=(1,), along=(),
    parts=(), device_nodes=(), window_mib=256 * 1024, on_host=None, to_guest=None,
)  # fmt: skip
ALL = {"plain", "jailed", "big", "bigjailed", "small"}


def engine(name: str) -> dict[str, Any]:
    return {"name": name.title(), "installed": True, "running": True, "version": "1.2"}


@pytest.fixture
def good() -> dict[str, Any]:
    """The facts of a server that can run every platform."""
    return {
        "is_root": True,
        "cpu": {"allowed": [0, 1]},
        "hwloc": {"xml": "<topology/>", "problem": None},
        "memory_mib": {"available": 8000, "needed": 6144},
        "disk": {"path": "/v", "free_mib": 9000, "needed_mib": 5120},
        "cgroup": {"version": 2, "controllers": ["cpu", "cpuset", "memory", "pids"]},
        "engines": {name: engine(name) for name in ("manager", "emulator", "jailer")},
        "kvm": {"device": True, "usable": True, "probe": "booted", "detail": "booted in 1 s"},
        "gpu": [encode(H200)],
        "iommu": True,
        "below": {"name": None, "emulated": False},
        "image": {"variant": "cpu", "digest": "sha256:01"},
    }


def reported(facts: dict[str, Any], house: verdict.House, tuning: Any = ()) -> HostReport:
    """Return the report, after a round trip through JSON."""
    document = encode(verdict.report("bench01", facts, house, tuning))
    report = decode(HostReport, json.loads(json.dumps(document)))
    assert encode(report) == document
    assert (report.schema, report.host, report.facts) == ("virtbed.doctor/2", "bench01", facts)
    return report


def rows(report: HostReport) -> Mapping[str, PlatformVerdict]:
    return {row.platform: row for row in report.platforms}


def test_a_good_host_can_run_every_platform(good: dict[str, Any], house: verdict.House) -> None:
    report = reported(good, house)
    assert report.ok and report.accelerator == "kvm" and report.tuning == ()
    assert {name: (row.status, row.reason) for name, row in rows(report).items()} == {
        "plain": ("available", "2 CPUs, root"),
        "jailed": ("available", "Jailer 1.2, cgroup v2"),
        "big": ("available", "booted in 1 s"),
        "bigjailed": ("available", "booted in 1 s"),
        "small": ("available", "booted in 1 s"),
        "gpu": ("available", "H200 at 0000:01:00.0, near node 1"),
    }
    assert not any(row.remedy for row in report.platforms)


def test_every_platform_of_platforms_yml_has_a_row(good: dict[str, Any]) -> None:
    shipped = load_platforms()
    host_roles = {name: shipped.host_roles(name) for name in shipped.entries}
    engines = {
        key: each.name for part in shipped.roles.values() for key, each in part.engines.items()
    }
    good["engines"] = {key: engine(key) | {"name": name} for key, name in engines.items()}
    report = reported(good, verdict.House(shipped.entries, host_roles, shipped.roles))
    assert [row.platform for row in report.platforms] == [*shipped.entries, "gpu"]
    assert report.ok and {row.status for row in report.platforms} == {"available"}


def test_the_report_has_the_tuning_rows_unchanged(
    good: dict[str, Any], house: verdict.House
) -> None:
    tuning = (
        TuningRow("swappiness", True, "60", "1", "why"),
        TuningRow("turbo", False, None, "0", ""),
    )
    assert reported(good, house, tuning).tuning == tuning


@pytest.mark.parametrize(
    ("path", "change", "hit", "word", "remedy"),
    [
        ("engines jailer installed", False, {"jailed"}, "no Jailer installed", "make setup"),
        ("engines jailer running", False, {"jailed"}, "Jailer does not answer", "make setup"),
        ("engines manager installed", False, {"big", "bigjailed"}, "no Manager", "make setup"),
        ("engines manager running", False, {"big", "bigjailed"}, "Manager does not", "make setup"),
        ("engines emulator installed", False, {"big", "bigjailed", "small"}, "no Emulator", "make"),
        (
            "cgroup controllers",
            ["cpu", "memory"],
            {"jailed"},
            "no cgroup controller cpuset",
            "boot",
        ),
        ("cgroup controllers", [], {"jailed"}, "controller cpu, cpuset, memory", "boot"),
        ("disk free_mib", 5119, ALL, "5119 MiB free for /v, 5120 MiB needed", "virtbed_state_dir"),
        ("memory_mib available", 1, ALL, "1 MiB of memory available, 6144 MiB", "larger host"),
        ("hwloc xml", None, ALL, "hwloc reports which CPUs share cores and caches", "hwloc-nox"),
        ("image digest", None, ALL, "not built", "builds the image (PLAN: one with `image: cpu`)"),
        ("is_root", False, ALL, "not running as root", "become"),
    ],
)
def test_a_missing_part_makes_only_the_platforms_that_need_it_unavailable(
    good: dict[str, Any],
    house: verdict.House,
    path: str,
    change: Any,
    hit: set[str],
    word: str,
    remedy: str,
) -> None:
    bad = copy.deepcopy(good)
    *parts, last = path.split()
    place = bad
    for part in parts:
        place = place[part]
    place[last] = change
    report = reported(bad, house)
    assert {name for name, row in rows(report).items() if row.status == "unavailable"} == hit
    assert not report.ok
    assert all(word in rows(report)[name].reason for name in hit)
    assert all(remedy in rows(report)[name].remedy for name in hit)


def test_every_missing_part_is_named_and_each_remedy_once(
    good: dict[str, Any], house: verdict.House
) -> None:
    good["is_root"] = False
    good["cgroup"]["controllers"] = ["cpu", "memory"]
    for name in ("manager", "emulator", "jailer"):
        good["engines"][name]["installed"] = False
    report = reported(good, house)
    assert rows(report)["jailed"].reason == (
        "not running as root; no Jailer installed; no cgroup controller cpuset"
    )
    assert rows(report)["big"].reason == (
        "not running as root; no Manager installed; no Emulator installed"
    )
    assert rows(report)["big"].remedy.count("make setup PLAN=…") == 1
    good["image"]["digest"] = None
    assert rows(reported(good, house))["big"].remedy == (
        "run as root, or with become; run make setup PLAN=…, which builds the image (PLAN: one "
        "with `image: cpu`) and installs Manager and installs Emulator"
    )


@pytest.mark.parametrize(
    ("kvm", "remedy"),
    [
        ({"device": True, "probe": "hung"}, "nested"),
        ({"device": False, "probe": "failed"}, "firmware"),
        ({"device": True, "probe": "not-run"}, "let the boot probe run"),
    ],
)
def test_without_usable_kvm_guests_are_emulated(
    good: dict[str, Any], house: verdict.House, kvm: dict[str, Any], remedy: str
) -> None:
    good["kvm"] = {"usable": False, "detail": "silent for 20 s", **kvm}
    report = reported(good, house)
    emulated = {name: row for name, row in rows(report).items() if row.status == "emulated"}
    assert set(emulated) == {"big", "bigjailed", "small"}
    assert all("silent for 20 s" in row.reason for row in emulated.values())
    assert all(remedy in row.remedy for row in emulated.values())
    assert report.ok and report.accelerator == "tcg"


@pytest.mark.parametrize(("missing", "accelerator"), [("manager", "kvm"), ("emulator", None)])
def test_the_accelerator_is_known_if_one_machine_can_start_guests(
    good: dict[str, Any], house: verdict.House, missing: str, accelerator: str | None
) -> None:
    good["engines"][missing]["installed"] = False
    assert reported(good, house).accelerator == accelerator


def test_an_emulated_host_has_only_emulated_platforms(
    good: dict[str, Any], house: verdict.House
) -> None:
    real = reported(good, house)
    assert not real.emulated
    good["below"] = {"name": "QEMU TCG", "emulated": True}
    report = reported(good, house)
    assert report.emulated and report.ok and report.accelerator == "kvm"
    works = [row for row in report.platforms if row.platform != "gpu"]
    assert {row.status for row in works} == {"emulated"}
    assert all("itself emulated (QEMU TCG)" in row.reason for row in works)
    assert all(rows(real)[row.platform].reason in row.reason for row in works)
    assert all(row.remedy for row in works)
    # A platform that a real host cannot run is also unavailable on an emulated one.
    good["engines"]["manager"]["installed"] = False
    assert rows(reported(good, house))["big"].status == "unavailable"


NO_IOMMU = Refusal("iommu", "no IOMMU", "turn VT-d on")
NO_DRIVER = Refusal("driver", "no driver is bound", "install it")
ON_SCREEN = Refusal("display", "it drives the display", "take another")


@pytest.mark.parametrize(
    ("on_host", "to_guest", "status", "reason", "remedy"),
    [
        (None, NO_IOMMU, "available",
         "H200 at 0000:01:00.0, near node 1 (not for guests: no IOMMU)", "turn VT-d on"),
        (NO_DRIVER, None, "unavailable",
         "H200 at 0000:01:00.0, near node 1 (not for the host: no driver is bound)", "install it"),
        (NO_DRIVER, NO_IOMMU, "unavailable", "H200 at 0000:01:00.0, near node 1 (not for the host: "
         "no driver is bound; not for guests: no IOMMU)", "install it; turn VT-d on"),
        (ON_SCREEN, ON_SCREEN, "unavailable",
         "H200 at 0000:01:00.0, near node 1: it drives the display", "take another"),
    ],
)  # fmt: skip
def test_the_gpu_verdict_names_why_host_or_guests_cannot_use_it(
    good: dict[str, Any], house: verdict.House, on_host: Refusal | None,
    to_guest: Refusal | None, status: str, reason: str, remedy: str,
) -> None:  # fmt: skip
    good["gpu"] = [encode(replace(H200, on_host=on_host, to_guest=to_guest))]
    row = rows(reported(good, house))["gpu"]
    assert (row.status, row.reason, row.remedy) == (status, reason, remedy)


def test_one_usable_gpu_of_two_is_enough(good: dict[str, Any], house: verdict.House) -> None:
    other = replace(H200, address="0000:02:00.0", nodes=(), on_host=ON_SCREEN, to_guest=ON_SCREEN)
    good["gpu"].append(encode(other))
    report = reported(good, able(house, "bare", "open"))
    row = rows(report)["gpu"]
    assert row.status == "available" and "H200 at 0000:02:00.0: it drives" in row.reason
    assert with_gpu(report)["plain"].reason == "H200 at 0000:01:00.0, near node 1".partition(",")[0]


def test_a_host_without_a_gpu_can_run_every_platform(
    good: dict[str, Any], house: verdict.House
) -> None:
    good["gpu"] = []
    report = reported(good, house)
    assert "PCI bus" in rows(report)["gpu"].reason and report.ok
    assert rows(report)["gpu"].remedy.startswith("keep to the processor cpu (docs/tutorial/gpu")
    assert {row.reason for row in report.gpus} == {"no NVIDIA GPU on the PCI bus"}


def able(house: verdict.House, *names: str) -> verdict.House:
    """Return the house with only the named machines and enclosures able to use a GPU."""
    roles = {
        name: replace(role, gpu=name.partition("_")[2] in names)
        for name, role in house.roles.items()
    }
    return replace(house, roles=roles)


def with_gpu(report: HostReport) -> dict[str, PlatformVerdict]:
    return {row.platform: row for row in report.gpus}


def test_each_platform_names_the_first_thing_that_it_lacks_for_a_gpu(
    good: dict[str, Any], house: verdict.House
) -> None:
    verdicts = with_gpu(reported(good, able(house, "bare", "big", "open")))
    assert {name: row.status for name, row in verdicts.items()} == {
        "plain": "available", "jailed": "unavailable", "big": "available",
        "bigjailed": "unavailable", "small": "unavailable",
    }  # fmt: skip
    assert verdicts["jailed"].reason.startswith("the enclosure jail cannot pass a GPU on: virtbed ")
    assert verdicts["small"].reason.startswith("the machine small cannot pass a GPU on: virtbed ")
    good["gpu"] = [encode(replace(H200, on_host=NO_DRIVER, to_guest=NO_IOMMU))]
    verdicts = with_gpu(reported(good, able(house, "bare", "big", "open")))
    assert (verdicts["plain"].reason, verdicts["big"].reason) == ("no driver is bound", "no IOMMU")
    assert verdicts["big"].remedy == "turn VT-d on"
    # The lack is virtbed's, so no change of the host would help.
    assert verdicts["jailed"].reason.startswith("the enclosure jail cannot pass a GPU on: virtbed ")
    assert verdicts["bigjailed"].remedy.startswith("keep to the processor cpu")


def test_no_role_supports_a_gpu_yet(good: dict[str, Any]) -> None:
    shipped = load_platforms()
    assert [name for name, part in shipped.roles.items() if part.gpu] == []


class Ended(Exception):
    """The module's result; raised instead of ending the interpreter."""


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, good: dict[str, Any]) -> ModuleType:
    """The module, which finds a good host and raises `Ended`."""
    loaded = module("host_doctor", "host_doctor")

    def end(self: Any, **result: Any) -> None:
        raise Ended(result)

    monkeypatch.setattr(loaded.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(loaded.AnsibleModule, "fail_json", end)
    monkeypatch.setattr(loaded, "gather", lambda root, options, house: good)
    return loaded


def ended(doctor: ModuleType, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> Any:
    """Return the module's result for these options."""
    from ansible.module_utils import basic
    from ansible.module_utils.testing import patch_module_args

    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", None)
    with patch_module_args(options), pytest.raises(Ended) as raised:
        doctor.main()
    return raised.value.args[0]


def test_the_module_reads_platforms_and_roles_from_its_options(
    doctor: ModuleType, monkeypatch: pytest.MonkeyPatch, house: verdict.House
) -> None:
    row = {"name": "swappiness", "available": False, "value": None, "wanted": "1", "reason": "",
           "exempt": []}  # fmt: skip
    due = "2026-08-05T22:00:00Z"
    waking = {"name": "fstrim.timer", "next": due, "stopped": True, "reason": "runs"}
    options = {
        "state_dir": "/nowhere",
        "platforms": encode(house.entries),
        "host_roles": encode(house.host_roles),
        "roles": encode(house.roles),
        "tuning": [row],
        "waking": [waking],
        "waking_unknown": "why",
        "image": "null",
        "images": {"null": {"words": "w", "build_s": 1, "key": "k"}},
    }
    result = ended(doctor, monkeypatch, options)
    report = decode(HostReport, result["report"])
    assert set(rows(report)) == ALL | {"gpu"} and report.ok and not result["changed"]
    assert encode(report.tuning) == [row]
    assert encode(report.waking) == [waking] and report.waking_unknown == "why"
    options["roles"]["machine_big"]["color"] = "red"
    result = ended(doctor, monkeypatch, options)["msg"]
    assert "machine_big.color: unknown key" in result


@pytest.mark.parametrize(("emulated", "deadline_s"), [(False, 20), (True, 120)])
def test_deadlines_of_guests_and_engines_are_longer_on_an_emulated_host(
    monkeypatch: pytest.MonkeyPatch, house: verdict.House, emulated: bool, deadline_s: int
) -> None:
    loaded = module("host_doctor", "host_doctor")
    deadlines: list[int] = []
    below = {"name": "QEMU TCG" if emulated else None, "emulated": emulated}
    monkeypatch.setattr(loaded, "below_facts", lambda root: below)
    monkeypatch.setattr(loaded, "kvm_facts", lambda *arguments: deadlines.append(arguments[-1]))
    monkeypatch.setattr(loaded, "engine_facts", lambda _, times: deadlines.append(20 * times))
    options = {
        "state_dir": "/nowhere", "image": "null",
        "images": {"null": {"words": "w", "build_s": 1, "key": "k"}},
        "probe_kvm": True, "kvm_deadline_s": 20, "needed_disk_mib": 1, "needed_memory_mib": 1,
    }  # fmt: skip
    assert loaded.gather(Path("/"), options, house)["below"] == below
    assert deadlines == [deadline_s, deadline_s]
