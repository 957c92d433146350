"""A bench host in a box over SSH: set up by the playbook, examined, measured, and torn down."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from virtbed.lab.recipe import Suite
from virtbed.lab.server import Server
from virtbed_contract.kernel.cpus import parse_cpu_list

from ..commands import run
from .benches import BEFORE, HARDWARE, STATE, WORDS, bench_host, facts, read
from .conftest import OUTCOME
from .sweeps import WritePlan, failures, traces, watched
from .sweeps import write_plan as write_plan

Sweep = Callable[..., Path]
RecordOutcomes = Callable[[Path, str, Mapping[str, Iterable[str]], str], dict[str, str]]
MODES = ("vanilla", "pinned")


@pytest.fixture
def sweep(write_plan: WritePlan) -> Sweep:
    """Return a function that sweeps a plan of the application null on a server.

    It returns the results folder, which is removed after the test.
    """

    def carry_out(name: str, inventory: Path, ok: bool | None = True, **changes: Any) -> Path:
        plan, folder = write_plan(name, **changes)
        done = run("virtbed", "sweep", plan, "--inventory", str(inventory), ok=False)
        output = done.stdout + done.stderr
        wanted = (0, 1) if ok is None else (0,) if ok else (1,)
        assert done.returncode in wanted, f"{output}\n{failures(folder)}"
        return folder

    return carry_out


@pytest.fixture
def record_outcomes(record_property: Callable[[str, object], None]) -> RecordOutcomes:
    """Return a function that records each platform's outcome for the table at the end.

    It returns the reasons of the platforms that were not attested.
    """

    def record(
        folder: Path, host: str, platforms: Mapping[str, Iterable[str]], took: str
    ) -> dict[str, str]:
        failed = {}
        for platform, mode in ((name, mode) for name, modes in platforms.items() for mode in modes):
            stem = f"{platform}-{mode}-"
            trial = next(folder.glob(f"trials/{stem}*"), folder / "trials" / stem)
            try:
                outcome = f"attested, accelerator {attested(trial, platform)}, {took}"
            except (AssertionError, OSError) as error:
                failure = trial / "failure.json"
                reason = read(failure)["message"] if failure.exists() else f"no result: {error}"
                failed[f"{platform} {mode}"] = reason
                outcome = f"not attested {took}: {' '.join(reason.split())[:300]}"
            record_property(OUTCOME, (host, platform, mode, outcome))
        return failed

    return record


def doctor(inventory: Path) -> Any:
    done = run("virtbed", "doctor", "--json", "--inventory", str(inventory), ok=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_doctor_reports_an_emulated_host_as_such_for_root_and_with_become(
    server: Callable[..., Server],
) -> None:
    lab = bench_host(server, "bookworm")
    for inventory in (lab.inventory, lab.become_inventory):
        report = doctor(inventory)
        assert report["emulated"] and report["facts"]["below"]["name"] == "QEMU TCG"
        assert report["facts"]["is_root"]
        assert report["facts"]["cgroup"]["version"] == 2
        assert report["facts"]["init"] == "systemd"
        assert report["facts"]["nodes_with_cpus"] == report["facts"]["nodes_allowed"] == [0, 1]
        assert report["facts"]["hwloc"]["problem"] is None
        assert report["facts"]["cpu"]["online"] == [0, 1]


# Platforms that share a sweep, because each sweep takes minutes in addition to its trials.
TOGETHER = {"containers": ("cn", "podman", "gvisor"), "guests": ("vm", "vmcn", "microvm")}


@pytest.mark.full
@pytest.mark.parametrize("together", list(TOGETHER))
@pytest.mark.parametrize("suite", list(HARDWARE))
def test_platforms_are_attested_in_both_modes(
    server: Callable[..., Server],
    sweep: Sweep,
    record_outcomes: RecordOutcomes,
    suite: Suite,
    together: str,
) -> None:
    """Each instance is provisioned, read back before, inside and after its trial, and released."""
    lab = bench_host(server, suite)
    platforms = {"bm": ["pinned"], **{name: list(MODES) for name in TOGETHER[together]}}
    began = time.monotonic()
    folder = sweep(f"{suite}-{together}", lab.inventory, ok=None, platforms=platforms)
    took = f"in a sweep of {time.monotonic() - began:.0f} s"
    assert record_outcomes(folder, WORDS[suite], platforms, took) == {}
    assert read(folder / "report.json")["cells"] == []
    assert traces(lab) == ""


@pytest.mark.full
def test_a_guest_on_one_core_has_its_threads_and_the_kernel_of_the_host(
    server: Callable[..., Server], sweep: Sweep, record_outcomes: RecordOutcomes
) -> None:
    """Instances with two CPUs get both threads of one core, and share it with nothing else.

    Under KVM, a guest runs the host's kernel build, and its CPUs have the host's topology.
    """
    lab = bench_host(server, "trixie")
    platforms = {name: ["pinned"] for name in ("bm", "cn", "vm")}
    folder = sweep(
        "siblings", lab.inventory, ok=None, platforms=platforms, cores=[2],
        guest_kernel=["host"], guest_topology=["host"],
    )  # fmt: skip
    assert record_outcomes(folder, f"{WORDS['trixie']}, 2 CPUs", platforms, "") == {}
    for trial in folder.glob("trials/*"):
        planned = read(trial / "evidence.json")["asked"]
        cpus, others = (set(parse_cpu_list(planned[n])) for n in ("cpus", "housekeeping"))
        assert len(cpus) == 2 and len({cpu // 2 for cpu in cpus}) == 1 and others
        assert not {cpu // 2 for cpu in cpus} & {cpu // 2 for cpu in others}
    (guest,) = folder.glob("trials/vm-*")
    evidence = read(guest / "evidence.json")
    planned, machine = evidence["asked"], evidence["after"]["machine"]
    assert planned["accelerator"] == "kvm"
    assert machine["guest"]["kernel"] == machine["host"]["kernel"]
    assert machine["guest"]["kernel"]["release"] == planned["kernel"]["release"]
    assert machine["kernel"].startswith(f"{STATE}/kernels/{planned['kernel']['release']}-")
    assert machine["guest"]["shape"] == machine["host"]["shape"]
    assert machine["topology"]["cache"] == "passthrough"
    assert evidence["inside"]["kernel"] == planned["kernel"]["release"]
    assert traces(lab) == ""


def attested(trial: Path, platform: str) -> str:
    """Return a trial's accelerator; fail unless it was attested and is marked as emulated."""
    result, evidence = (read(trial / f"{kind}.json") for kind in ("result", "evidence"))
    assert evidence["attested"] and evidence["asked"]["host_emulated"]
    assert result["trial"]["emulated"]
    # Not read inside, since gVisor shows its processes no control groups of the host.
    assert read(trial.parents[1] / "doctor.json")["facts"]["cgroup"]["version"] == 2
    # Hardware virtualization that is itself emulated appears as KVM to a guest.
    accelerator: str = result["trial"]["accelerator"]
    assert accelerator == ("kvm" if "vm" in platform else "none")
    return accelerator


# By instance: the command with which sabotage.sh changes it, and the text that its failure needs.
SABOTAGE: dict[str, dict[str, tuple[str, str]]] = {
    "containers": {
        "cn-pinned-c01-r01": ("docker update --cpuset-cpus=0 $id", "'cpuset': '0'"),
        "cn-vanilla-c01-r01": ("docker update --cpu-quota=150000 $id", "'quota_cpus': 1.5"),
        "cn-pinned-c01-r02": (
            "systemctl set-property --runtime $scope CPUQuota=90%", "'quota_cpus': 0.9",
        ),
        "cn-vanilla-c01-r02": (
            "systemctl set-property --runtime $scope AllowedCPUs=0", "'cpuset': '0'",
        ),
    },
    "guests": {
        "vm-pinned-c01-r01": (
            "systemctl set-property --runtime $scope CPUQuota=90%", "a quota of 0.9 CPUs found",
        ),
        "vm-pinned-c01-r02": ("virsh vcpupin virtbed-$1 0 0-1", "is pinned to 0-1"),
    },
}  # fmt: skip
DONE = "/run/sabotaged-"


@pytest.mark.full
@pytest.mark.parametrize("kind", list(SABOTAGE))
def test_an_instance_changed_during_the_sweep_fails_its_trial(
    server: Callable[..., Server], sweep: Sweep, kind: str
) -> None:
    lab = bench_host(server, "bookworm")
    changes = SABOTAGE[kind]
    platforms: dict[str, list[str]] = {}
    for platform, mode in sorted({tuple(name.split("-")[:2]) for name in changes}):
        platforms.setdefault(platform, []).append(mode)
    with watched(lab, "sabotage.sh", {name: change for name, (change, _) in changes.items()}):
        folder = sweep(
            f"sabotage-{kind}", lab.inventory, ok=False, platforms=platforms, replicates=2
        )
    done = lab.shell(f"ls -d {DONE}*").split()
    assert {*done} == {DONE + name for name in changes}
    found = {name: sabotaged(folder, name) for name in changes}
    assert {n: found[n] for n, (_, reason) in changes.items() if reason not in found[n]} == {}
    assert traces(lab) == ""


def sabotaged(folder: Path, instance: str) -> str:
    """Return why the trial of an instance failed; the reason must be a mismatch of attestation."""
    stem, replicate = instance.rsplit("-", 1)
    trial = folder / "trials" / f"{stem}-null-{replicate}"
    if (trial / "result.json").exists() or not (trial / "failure.json").exists():
        return "no failure"
    message: str = read(trial / "failure.json")["message"]
    return (
        " ".join(message.split()) if read(trial / "evidence.json")["mismatches"] else "no mismatch"
    )


@pytest.mark.full
def test_reloads_of_systemd_do_not_change_instances(
    server: Callable[..., Server], sweep: Sweep, record_outcomes: RecordOutcomes
) -> None:
    lab = bench_host(server, "bookworm")
    platforms = {"cn": MODES, "podman": MODES, "gvisor": ["pinned"]}
    again = "while sleep 5; do systemctl daemon-reload; done"
    with subprocess.Popen(lab.ssh("bash", "-c", again)) as reloading:
        try:
            folder = sweep("reload", lab.inventory, ok=None, platforms=platforms)
            assert reloading.poll() is None
        finally:
            reloading.kill()
    assert record_outcomes(folder, "Debian 12, systemd reloaded", platforms, "") == {}


# Facts that change with time or with a login, not because of virtbed.
_TIME = re.compile(
    r"(file|group|limit|mount|unit|unit-file) \S*("
    r"/root/|/run/(user|libvirt|docker|containerd|sshd|log|lock)|"
    r"/var/(log|cache|tmp|lib/(apt|dpkg|systemd|private))|session-|user-0|user@0|apt-daily)"
)
# Facts that engines leave, which were installed here before virtbed and start for the first time:
# docs/concepts/host.md lists them after its table of what each command removes.
_ENGINES = re.compile(
    r"(file|content) .*/(etc/(cni|docker|libvirt)|run/(containers|libpod)|"
    r"var/lib/(containerd|containers|docker|libvirt))(/| |$)|"
    r"(group|unit) \S*(machine\.slice|systemd-machined\.service)|link docker0|module |"
    r"sysctl (net\.|fs\.quota)"
)


def test_a_bench_host_from_its_set_up_to_its_teardown(
    server: Callable[..., Server], sweep: Sweep, record_outcomes: RecordOutcomes
) -> None:
    """Bare metal, a container and a guest are attested, and teardown restores the host."""
    lab = bench_host(server, "bookworm")
    noted = json.loads(lab.run("cat", f"{STATE}/host.json"))
    assert [name for name, ran in noted["daemon"].items() if ran] == []
    platforms = {name: ["pinned"] for name in ("bm", "cn", "vm")}
    began = time.monotonic()
    folder = sweep("quick", lab.inventory, ok=None, platforms=platforms)
    took = f"in a sweep of {time.monotonic() - began:.0f} s"
    assert record_outcomes(folder, WORDS["bookworm"], platforms, took) == {}
    run("ansible-playbook", "-i", str(lab.inventory), "playbooks/teardown.yml")
    before = {fact for fact in lab.run("cat", BEFORE).splitlines() if STATE not in fact}
    after = facts(lab)
    changed = before ^ after
    assert sorted(f for f in changed if not (_TIME.match(f) or _ENGINES.match(f))) == []
