"""Faults during a sweep fail a trial with the reason, and the next call finishes the sweep."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY
from virtbed.cli.console import CUT_SHORT
from virtbed_contract.limits import ROOMS

from ..commands import run
from ..integration.conftest import idles
from .conftest import NULL, end, results, start, until

pytestmark = pytest.mark.usefixtures("as_before")
# Long enough for a fault to happen during the trial; the application null is too short for that.
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
# Detected on the host, because a login into an emulated guest takes half a minute.
IN_TRIAL = (
    f"{VIRSH} domstate {GUEST} 2>&1 | grep -q running"
    " && tail -qn 3 /run/virtbed/plays/*/artifacts/*/stdout | grep -q 'TASK .*Run the application'"
)
IN_GUEST = (
    "ssh -p 22022 -i /run/virtbed/keys/*/id_ed25519 -o UserKnownHostsFile=/dev/null "
    "-o StrictHostKeyChecking=no root@127.0.0.1 "
)


@dataclass(frozen=True)
class Fault:
    """One fault: when it happens, what it is, and the message that it must cause."""

    platform: str
    when: str
    """A shell command; the fault happens once it succeeds."""
    what: str
    """A shell command that causes the fault."""
    reason: str
    """A regular expression that the sweep's output or a failure's message must match."""
    daemon: bool = False
    """Whether a daemon is dead afterwards; the set-up then starts it again."""


FAULTS = {
    "dockerd killed": Fault(
        "cn", idles("docker", CONTAINER), "pkill --signal KILL --exact dockerd", "ocker", True
    ),
    "containerd killed": Fault(
        "cn", idles("docker", CONTAINER), "pkill --signal KILL --exact containerd", ""
    ),
    "container removed": Fault(
        "cn",
        idles("docker", CONTAINER),
        f"docker rm --force {CONTAINER}",
        "is no longer there: something else removed it|something stopped or re|No such container",
    ),
    "workload killed in a container": Fault(
        "cn", MEASURES, f"{MEASURES} | xargs kill -9", "SIGKILL"
    ),
    "workload killed on bare metal": Fault(
        "bm", MEASURES, f"{MEASURES} | xargs kill -9", "SIGKILL"
    ),
    "QEMU killed while the guest boots": Fault(
        "vm", f"{VIRSH} domstate {GUEST} | grep running", "pkill -9 -f 'qemu.*virtbed-vm-'", ""
    ),
    "QEMU killed in a trial": Fault("vm", IN_TRIAL, "pkill -9 -f 'qemu.*virtbed-vm-'", ""),
    "guest panicked": Fault(
        "vm", IN_TRIAL, f"timeout 60 {IN_GUEST} 'echo c > /proc/sysrq-trigger'", ""
    ),
    "SSH cut": Fault("vm", IN_TRIAL, "pkill -9 -f 'ssh.*:22022|ssh.*-p 22022'", ""),
    "libvirtd killed": Fault("vm", IN_TRIAL, "pkill --signal KILL --exact libvirtd", "", True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_and_the_next_call_finishes(write_plan: Any, fault: Fault) -> None:
    platforms = {"bm": ["pinned"], fault.platform: ["pinned"]}
    plan, folder = write_plan("fault", **SLOW, platforms=platforms, timeout_s=240)
    watcher = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "bash", "-c",
         f"until {fault.when}; do sleep 0.2; done >/dev/null 2>&1; {fault.what}"],
        cwd=REPOSITORY,
    )  # fmt: skip
    try:
        output = end(start("virtbed", "sweep", plan))
        print(output)
        assert watcher.wait(10) is not None
    finally:
        watcher.kill()
        watcher.wait()
    failures = messages(folder)
    print(failures)
    if fault.daemon:
        run("ansible-playbook", "playbooks/testbed.yml", "-e", f"plan={plan}")
    assert len(results(folder)) < len(platforms) or fault.reason == ""
    assert re.search(fault.reason, output + failures)
    resumed(plan, folder, len(platforms))


def messages(folder: Path) -> str:
    return "\n".join(
        " ".join(json.loads(path.read_text())["message"].split())
        for path in folder.glob("trials/*/failure.json")
    )


def resumed(plan: str, folder: Path, trials: int) -> str:
    done = run("virtbed", "sweep", plan)
    assert len(results(folder)) == trials
    assert not list(folder.glob("trials/*/failure.json"))
    return done.stdout


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    """Mount a file system of the given size on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=711", "none", str(folder))
    try:
        yield
    finally:
        run("umount", "--lazy", str(folder))


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    run("bash", "-c", f"cat /dev/zero > {filler}", ok=False)
    return filler


def test_a_full_results_folder_ends_the_sweep_with_that_reason(
    write_plan: Any, null_image: None
) -> None:
    """The check before a block finds it, or a write fails."""
    plan, folder = write_plan(
        "full", **NULL, platforms={"bm": ["pinned"], "cn": ["pinned"]}, replicates=3
    )
    with small_disk(folder, ROOMS["results"].needed_mib + 64):
        sweep = start("virtbed", "sweep", plan)
        until(lambda: results(folder))
        filler = fill(folder)
        output = end(sweep)
        assert sweep.returncode == CUT_SHORT, output
        words = " ".join(output.split())
        assert os.strerror(errno.ENOSPC) in words or "(results), 256 MiB needed" in words, output
        filler.unlink()
        kept = results(folder)
        resumed(plan, folder, 6)
        assert kept.items() <= results(folder).items()


def test_a_full_disk_for_instances_ends_the_sweep_with_that_reason(write_plan: Any) -> None:
    """The state directory's file system has room; that of the instances in it has none."""
    plan, folder = write_plan("full", platforms={"bm": ["pinned"], "vm": ["pinned"]})
    with small_disk(Path("/var/lib/virtbed/instances"), 1):
        fill(Path("/var/lib/virtbed/instances"))
        sweep = start("virtbed", "sweep", plan)
        output = end(sweep)
        assert sweep.returncode == CUT_SHORT, output
        assert os.strerror(errno.ENOSPC) in " ".join(output.split()), output
    kept = results(folder)
    resumed(plan, folder, 2)
    assert kept.items() <= results(folder).items()


Spoil = Callable[[Path], None]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path: Path) -> None:
    """Change one time; the file stays valid JSON."""
    text, edited = re.subn(r'("infer_ns":\s*\[?\s*)(\d)', r"\g<1>1\2", path.read_text(), count=1)
    assert edited == 1
    json.loads(text)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "spoil", "repeated"),
    [
        pytest.param("ledger.sqlite", _cut, 0, id="ledger cut"),
        pytest.param("ledger.sqlite", Path.unlink, 0, id="ledger gone"),
        pytest.param("trials/*/result.json", _cut, 1, id="result cut"),
        pytest.param("trials/*/result.json", Path.unlink, 1, id="result gone"),
        pytest.param("trials/*/result.json", _edit, 1, id="result edited", marks=pytest.mark.quick),
        pytest.param("trials/*/evidence.json", Path.unlink, 1, id="evidence gone"),
    ],
)
def test_a_file_spoilt_between_two_calls_is_named_and_its_trial_repeated(
    write_plan: Any, name: str, spoil: Spoil, repeated: int
) -> None:
    plan, folder = write_plan("spoilt", replicates=2)
    run("virtbed", "sweep", plan)
    before = results(folder)
    spoilt = min(folder.glob(name))
    spoil(spoilt)
    output = resumed(plan, folder, 2)
    assert (spoilt.parent.name if repeated else "ledger") in output
    after = results(folder)
    assert len([trial for trial in after if after[trial] != before[trial]]) == repeated
