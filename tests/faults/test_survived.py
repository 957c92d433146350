"""What breaks beneath a sweep fails a trial with its own reason, and the next call mends it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..commands import run
from ..integration.conftest import idles
from .conftest import NULL, end, results, start, until

pytestmark = pytest.mark.usefixtures("as_before")
# Long enough to be met by a fault, which an application that computes nothing is not.
SLOW: dict[str, Any] = {
    "applications": [
        {"name": "image_classification", "scale": "tiny", "samples": 500, "warmup": 1}
    ],
    "emulated": {"scale": "tiny", "samples": 30, "warmup": 1},
}
CONTAINER = "virtbed-cn-pinned-c01-r01"
GUEST = "virtbed-vm-pinned-c01-r01"
VIRSH = "virsh -c qemu:///system"
MEASURES = "pgrep -f '[v]irtbed_workloads image_'"
IN_GUEST = (
    "ssh -p 22022 -i /run/virtbed/*/id_ed25519 -o UserKnownHostsFile=/dev/null "
    "-o StrictHostKeyChecking=no root@127.0.0.1 "
)


@dataclass(frozen=True)
class Fault:
    """One fault: what is done once a command succeeds, and what the sweep says of it."""

    platform: str
    when: str
    what: str
    said: str
    daemon: bool = False
    """Whether a daemon is dead afterwards, which set-up starts again."""


FAULTS = {
    "dockerd killed": Fault(
        "cn", idles("docker", CONTAINER), "pkill --signal KILL --exact dockerd", "ocker", True
    ),
    "containerd killed": Fault(
        "cn", idles("docker", CONTAINER), "pkill --signal KILL --exact containerd", ""
    ),
    "container removed": Fault(
        "cn", idles("docker", CONTAINER), f"docker rm --force {CONTAINER}", "No such container"
    ),
    "workload killed in a container": Fault("cn", MEASURES, f"{MEASURES} | xargs kill -9", "9"),
    "workload killed on bare metal": Fault("bm", MEASURES, f"{MEASURES} | xargs kill -9", "9"),
    "QEMU killed while the guest boots": Fault(
        "vm", f"{VIRSH} domstate {GUEST} | grep running", "pkill -9 -f 'qemu.*virtbed-vm-'", ""
    ),
    "QEMU killed in a trial": Fault(
        "vm", f"{IN_GUEST} {MEASURES}", "pkill -9 -f 'qemu.*virtbed-vm-'", ""
    ),
    "guest panicked": Fault(
        "vm", f"{IN_GUEST} {MEASURES}", f"timeout 5 {IN_GUEST} 'echo c > /proc/sysrq-trigger'", ""
    ),
    "SSH cut": Fault("vm", f"{IN_GUEST} {MEASURES}", "pkill -9 -f 'ssh.*:22022|ssh.*-p 22022'", ""),
    "libvirtd killed": Fault(
        "vm", f"{IN_GUEST} {MEASURES}", "pkill --signal KILL --exact libvirtd", "", True
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_and_the_next_call_goes_on(write_plan: Any, fault: Fault) -> None:
    platforms = {"bm": ["pinned"], fault.platform: ["pinned"]}
    plan, folder = write_plan("fault", **SLOW, platforms=platforms, timeout_s=240)
    watcher = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "bash", "-c",
         f"until {fault.when}; do sleep 0.2; done >/dev/null 2>&1; {fault.what}"],
    )  # fmt: skip
    try:
        said = end(start("virtbed", "sweep", plan))
        assert watcher.wait(10) is not None
    finally:
        watcher.kill()
        watcher.wait()
    failures = told(folder)
    print(f"{said}\n{failures}")
    if fault.daemon:
        run("ansible-playbook", "playbooks/testbed.yml", "-e", f"plan={plan}")
    assert len(results(folder)) < 2 or fault.said == ""
    assert fault.said in said + failures
    resumed(plan, folder, 2)


def told(folder: Path) -> str:
    return "\n".join(
        " ".join(json.loads(path.read_text())["message"].split())
        for path in folder.glob("trials/*/failure.json")
    )


def resumed(plan: str, folder: Path, trials: int) -> str:
    done = run("virtbed", "sweep", plan)
    assert len(results(folder)) == trials
    assert not list(folder.glob("trials/*/failure.json"))
    return done.stdout


@pytest.mark.parametrize("place", ["results", "state"])
def test_a_disk_that_fills_up_ends_the_sweep_with_that_reason(write_plan: Any, place: str) -> None:
    plan, folder = write_plan(
        "full", **NULL, platforms={"bm": ["pinned"], "cn": ["pinned"]}, replicates=3
    )
    full = {"results": folder, "state": Path("/var/lib/virtbed/instances")}[place]
    full.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=2m", "none", str(full))
    try:
        sweep = start("virtbed", "sweep", plan)
        until(lambda: results(folder))
        run("bash", "-c", f"cat /dev/zero > {full}/filler", ok=False)
        said = end(sweep)
        assert sweep.returncode != 0, said
        assert "No space left on device" in said or "disk" in said, said
        (full / "filler").unlink()
        kept = results(folder)
        resumed(plan, folder, 6)
        assert kept.items() <= results(folder).items()
    finally:
        run("umount", "--lazy", str(full))


Spoil = Callable[[Path], None]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"infer_ns": ', '"infer_ns": 1', 1))


@pytest.mark.parametrize(
    ("name", "spoil", "repeated"),
    [
        ("ledger.sqlite", _cut, 0),
        ("ledger.sqlite", Path.unlink, 0),
        ("trials/bm-pinned-c01-null-r01/result.json", _cut, 1),
        ("trials/bm-pinned-c01-null-r01/result.json", Path.unlink, 1),
        ("trials/bm-pinned-c01-null-r01/result.json", _edit, 1),
        ("trials/bm-pinned-c01-null-r01/evidence.json", Path.unlink, 1),
    ],
    ids=[
        "ledger cut",
        "ledger gone",
        "result cut",
        "result gone",
        "result edited",
        "evidence gone",
    ],
)
def test_what_is_spoilt_between_two_calls_is_named_and_repeated(
    write_plan: Any, name: str, spoil: Spoil, repeated: int
) -> None:
    plan, folder = write_plan("spoilt", **NULL, replicates=2)
    run("virtbed", "sweep", plan)
    before = results(folder)
    spoil(folder / name)
    said = resumed(plan, folder, 2)
    assert Path(name).parent.name in said or "ledger" in said
    after = results(folder)
    assert len([trial for trial in after if after[trial] != before[trial]]) == repeated
