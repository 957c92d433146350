"""A bench host over SSH: set up by the playbook, examined, measured, and torn down."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.lab.recipe import Recipe, Suite
from virtbed.lab.server import Server

from ..commands import run
from .benches import BEFORE, HARDWARE, STATE, bench_image, facts, prepared, read
from .conftest import TABLE

Sweep = Callable[..., Path]
WORDS: dict[Suite, str] = {"bookworm": "Debian 12", "trixie": "Debian 13"}
# Of a trial: how long the whole of its block may take before the test says that it hangs.
_PLAN: dict[str, Any] = {
    "image": "null",
    "replicates": 1,
    "applications": [{"name": "null", "scale": "tiny", "samples": 2, "warmup": 1}],
    "platforms": {"bm": ["pinned"]},
    "cores": [1],
    "memory_mib": 1024,
    "emulated": {"scale": "tiny", "samples": 2, "warmup": 1},
}


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """Sweep a plan of the application null on a server; return its results, removed afterwards."""
    made: list[Path] = []

    def carry_out(name: str, inventory: Path, ok: bool = True, **changes: Any) -> Path:
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump({"name": f"test-lab-{name}", **_PLAN, **changes}))
        folder = REPOSITORY / "results" / f"test-lab-{name}"
        run("rm", "-rf", str(folder))
        made.append(folder)
        done = run("virtbed", "sweep", str(path), "--inventory", str(inventory), ok=False)
        said = done.stdout + done.stderr
        assert done.returncode == (0 if ok else 1), f"{said}\n{told_by(folder)}"
        return folder

    yield carry_out
    for folder in made:
        run("rm", "-rf", str(folder))


def told_by(folder: Path) -> str:
    """Return what the failed trials of a sweep tell."""
    paths = sorted(folder.glob("trials/*/failure.json"))
    return "\n".join(f"{path.parent.name}: {read(path)['message']}" for path in paths)


def traces(server: Server) -> str:
    """Return what an instance left on a bench host; nothing if all is well."""
    return server.shell(
        "docker ps --all --quiet --filter label=virtbed; podman ps --all --quiet; "
        "virsh -c qemu:///system list --all --name | grep virtbed || true; "
        f"ls {STATE}/instances 2>/dev/null || true; "
        "find /sys/fs/cgroup -name '*virtbed-*'; grep virtbed /proc/mounts || true"
    ).strip()


def doctor(inventory: Path) -> Any:
    done = run("virtbed", "doctor", "--json", "--inventory", str(inventory), ok=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout)


def test_an_emulated_host_is_called_so_as_root_and_with_become(
    server: Callable[..., Server],
) -> None:
    lab = server(**HARDWARE)
    for inventory in (lab.inventory, lab.become_inventory):
        report = doctor(inventory)
        assert report["emulated"] and report["facts"]["below"]["name"] == "QEMU TCG"
        assert report["facts"]["is_root"]
        assert report["facts"]["cgroup"]["version"] == 2
        assert report["facts"]["init"] == "systemd"
        assert report["facts"]["nodes_with_cpus"] == report["facts"]["nodes_allowed"] == [0, 1]
        assert report["facts"]["hwloc"]["problem"] is None
        assert sorted(report["facts"]["cpu"]["parts"]) == ["0", "1"]


@pytest.mark.full
@pytest.mark.parametrize("platform", ["cn", "podman", "gvisor", "vm", "vmcn", "microvm"])
@pytest.mark.parametrize("suite", list(WORDS))
def test_a_platform_is_attested_in_both_modes(
    server: Callable[..., Server], sweep: Sweep, suite: Suite, platform: str
) -> None:
    """In full: made, read back before, inside and after, and gone again; beside bare metal."""
    lab = server(bench_image(Recipe(suite)), prepared(), **HARDWARE)
    began = time.monotonic()
    rows = {
        (platform_of, mode): f"{platform_of}-{mode}-c01-null-r01"
        for platform_of, mode in (("bm", "pinned"), (platform, "vanilla"), (platform, "pinned"))
    }
    for platform_of, mode in rows:
        TABLE[WORDS[suite], platform_of, mode] = "not attested: the sweep ended before"
    try:
        platforms = {"bm": ["pinned"], platform: ["vanilla", "pinned"]}
        folder = sweep(f"{suite}-{platform}", lab.inventory, platforms=platforms)
    except AssertionError as error:
        for platform_of, mode in rows:
            TABLE[WORDS[suite], platform_of, mode] = f"not attested: {str(error)[-300:]}"
        raise
    took = time.monotonic() - began
    for (platform_of, mode), name in rows.items():
        result, evidence = (
            read(folder / "trials" / name / f"{kind}.json") for kind in ("result", "evidence")
        )
        assert evidence["attested"] and evidence["asked"]["host_emulated"]
        assert result["trial"]["emulated"]
        group = result["environment"]["cgroup"]
        assert group["version"] == 2
        accelerator = result["trial"]["accelerator"]
        # Emulated hardware virtualization is KVM to whoever uses it.
        assert accelerator == ("kvm" if "vm" in platform_of else "none")
        TABLE[WORDS[suite], platform_of, mode] = (
            f"attested, accelerator {accelerator}, the sweep of {platform} {took:.0f} s"
        )
    assert read(folder / "report.json")["cells"] == []
    assert traces(lab) == ""


@pytest.mark.full
def test_a_guest_runs_the_hosts_kernel_with_the_hosts_topology(
    server: Callable[..., Server], sweep: Sweep
) -> None:
    """Under KVM: the very build that the host runs, and what the host says of the guest's CPUs."""
    lab = server(bench_image(Recipe("bookworm")), prepared(), **HARDWARE)
    folder = sweep(
        "host-kernel", lab.inventory, platforms={"bm": ["pinned"], "vm": ["pinned"]},
        guest_kernel=["host"], guest_topology=["host"],
    )  # fmt: skip
    name = "vm-pinned-c01-host_kernel-host_topology-null-r01"
    evidence = read(folder / "trials" / name / "evidence.json")
    asked, machine = evidence["asked"], evidence["after"]["machine"]
    assert evidence["attested"] and asked["accelerator"] == "kvm"
    assert machine["guest"]["kernel"] == machine["host"]["kernel"]
    assert machine["guest"]["kernel"]["release"] == asked["kernel"]["release"]
    assert machine["kernel"].startswith(f"{STATE}/kernels/{asked['kernel']['release']}-")
    assert machine["guest"]["shape"] == machine["host"]["shape"]
    assert machine["topology"]["cache"] == "passthrough"
    assert evidence["inside"]["kernel"] == asked["kernel"]["release"]
    assert traces(lab) == ""


PID = "$(docker container inspect --format '{{.State.Pid}}' NAME)"
IDLES = f"grep -qx sleep /proc/{PID}/comm"
SCOPE = "docker-$(docker container inspect --format '{{.Id}}' NAME).scope"
GUEST = "$(systemctl list-units --plain --no-legend 'machine-qemu*' | cut -d ' ' -f 1)"


@pytest.mark.full
@pytest.mark.parametrize(
    ("platform", "mode", "change", "said"),
    [
        ("cn", "pinned", f"{IDLES} && docker update --cpuset-cpus=0 NAME", "'cpuset': '0'"),
        ("cn", "vanilla", f"{IDLES} && docker update --cpu-quota=150000 NAME", "'quota_cpus': 1.5"),
        (
            "cn", "pinned",
            f"{IDLES} && systemctl set-property --runtime {SCOPE} CPUQuota=90%",
            "'quota_cpus': 0.9",
        ),
        (
            "cn", "pinned",
            f"{IDLES} && systemctl set-property --runtime {SCOPE} AllowedCPUs=0",
            "'cpuset': '0'",
        ),
        (
            "vm", "pinned",
            f"test -n \"{GUEST}\" && systemctl set-property --runtime {GUEST} CPUQuota=90%",
            "a quota of 0.9 CPUs found",
        ),
        ("vm", "pinned", "virsh -c qemu:///system vcpupin NAME 0 0-1", "is pinned to 0-1"),
    ],
)  # fmt: skip
def test_what_is_changed_behind_our_back_fails_the_trial(
    server: Callable[..., Server], sweep: Sweep, platform: str, mode: str, change: str, said: str
) -> None:
    lab = server(bench_image(Recipe()), prepared(), **HARDWARE)
    name = f"virtbed-{platform}-{mode}-c01-r01"
    once = change.replace("NAME", name)
    watch = (
        f"for i in $(seq 3000); do {{ {once}; }} >/dev/null 2>&1 && exit; sleep 0.3; done; exit 1"
    )
    with subprocess.Popen(lab.ssh("bash", "-c", watch)) as watcher:
        try:
            folder = sweep("sabotage", lab.inventory, ok=False, platforms={platform: [mode]})
            assert watcher.wait(30) == 0
        finally:
            watcher.kill()
    trial = folder / "trials" / f"{platform}-{mode}-c01-null-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert said in message
    assert read(trial / "evidence.json")["mismatches"]
    assert traces(lab) == ""


@pytest.mark.full
def test_a_reload_of_systemd_moves_nothing(server: Callable[..., Server], sweep: Sweep) -> None:
    lab = server(bench_image(Recipe()), prepared(), **HARDWARE)
    again = "while sleep 5; do systemctl daemon-reload; done"
    with subprocess.Popen(lab.ssh("bash", "-c", again)) as reloading:
        try:
            folder = sweep("reload", lab.inventory, platforms={"cn": ["vanilla", "pinned"]})
            assert reloading.poll() is None
        finally:
            reloading.kill()
    for mode in ("vanilla", "pinned"):
        assert read(folder / f"trials/cn-{mode}-c01-null-r01/evidence.json")["attested"]


# What differs after a teardown by the passing of time, and by whoever logs in.
_TIME = re.compile(
    r"(file|group|limit|mount|unit) \S*(/root/|/run/(user|libvirt|docker|containerd|sshd|log|lock)|"
    r"/var/(log|cache|tmp|lib/(apt|dpkg|systemd|private))|session-|user-0|user@0|apt-daily)"
)


@pytest.mark.full
def test_teardown_leaves_what_the_readme_says(server: Callable[..., Server], sweep: Sweep) -> None:
    lab = server(bench_image(Recipe()), prepared(), **HARDWARE)
    sweep("before-teardown", lab.inventory, platforms={"cn": ["pinned"]})
    run("ansible-playbook", "-i", str(lab.inventory), "playbooks/teardown.yml")
    before = {fact for fact in lab.run("cat", BEFORE).splitlines() if STATE not in fact}
    after = facts(lab)
    assert sorted(f for f in before ^ after if not _TIME.match(f)) == []
