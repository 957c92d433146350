"""Requests that cannot be fulfilled are refused with one clear message and leave nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, NOTHING, TOOLS, read, run, traces


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicatez": 1}, "unknown key; did you mean replicates?"),
        ({"cores": [4096]}, "4096 cores requested"),
        ({"applications": [{"name": "nonesuch"}]}, "'nonesuch' at scale 'trained' does not exist"),
    ],
)
def test_a_bad_plan_is_refused(write_plan: Any, changes: dict[str, Any], message: str) -> None:
    plan, folder = write_plan("bad", **changes)
    for command in ("plan", "sweep"):
        done = run("virtbed", command, plan, ok=False)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not folder.exists()
    assert traces() == NOTHING


def test_an_unknown_plan_is_refused_with_the_known_ones() -> None:
    for playbook in ("sweep.yml", "playbooks/testbed.yml"):
        done = run("ansible-playbook", playbook, "-e", "plan=nonesuch", ok=False)
        assert done.returncode != 0
        shown = done.stdout + done.stderr
        assert "no plan 'nonesuch' found; give the path of a .yml file, or one of: " in shown
        assert "Gathering Facts" not in shown  # no host was asked


def test_a_user_other_than_root_is_refused(write_plan: Any) -> None:
    plan, folder = write_plan("user")
    script = (
        "import os, sys; from virtbed.cli import main; os.geteuid = lambda: 1000;"
        "sys.argv = ['virtbed', 'sweep', sys.argv[1]]; main()"
    )
    done = run(sys.executable, "-c", script, plan, ok=False)
    assert done.returncode == 2
    assert "user id 1000 found, root (0) needed" in done.stderr
    assert not folder.exists()


def test_a_port_in_use_fails_the_trial_and_is_named(write_plan: Any) -> None:
    plan, folder = write_plan("port", platforms={"vm": ["pinned"]})
    with socket.create_server(("127.0.0.1", 22022)):
        done = run("virtbed", "sweep", plan, ok=False)
    assert done.returncode == 1
    failure = read(folder / "trials" / "vm-pinned-c01-image_classification-r01" / "failure.json")
    assert failure["stage"] == "provision"
    assert "127.0.0.1:22022 is taken by another program" in failure["message"]
    assert traces() == NOTHING


def test_a_daemon_that_does_not_run_is_named_before_anything_starts(write_plan: Any) -> None:
    plan, folder = write_plan("down", platforms={"bm": ["pinned"], "cn": ["pinned"]})
    (daemon,) = run("pgrep", "--exact", "dockerd").stdout.split()
    socket_path = Path("/run/docker.sock")
    hidden = socket_path.rename("/run/docker.sock.hidden")
    try:
        done = run("virtbed", "sweep", plan, ok=False)
    finally:
        hidden.rename(socket_path)
    assert done.returncode == 2
    assert "cn is unavailable" in done.stderr
    assert not folder.exists()
    assert run("pgrep", "--exact", "dockerd").stdout.split() == [daemon]


def test_a_full_disk_is_reported_before_anything_is_created(tmp_path: Path) -> None:
    run("mount", "-t", "tmpfs", "-o", "size=64m", "none", str(tmp_path))
    try:
        variables = f"virtbed_state_dir={tmp_path}/state"
        done = run("ansible-playbook", "playbooks/testbed.yml", "-e", variables, ok=False)
        assert done.returncode != 0
        assert "20480 MiB needed" in " ".join(done.stdout.split())
        assert list(tmp_path.iterdir()) == []
    finally:
        run("umount", str(tmp_path))


def test_a_second_sweep_at_the_same_time_is_refused(write_plan: Any) -> None:
    plan, folder = write_plan("twice")
    lock = Path("/run/virtbed/lock")
    lock.parent.mkdir(exist_ok=True)
    holder = subprocess.Popen(["flock", "--no-fork", lock, "sleep", "600"])
    try:
        done = run("virtbed", "sweep", plan, ok=False)
    finally:
        holder.kill()
        holder.wait()
    assert done.returncode == 2
    assert "another command of virtbed runs on this machine" in done.stderr
    assert not folder.exists()


def test_an_image_without_a_manifest_counts_as_no_image(tmp_path: Path) -> None:
    """The doctor reports no image for a state directory whose image was built halfway."""
    (tmp_path / "images" / "0123456789abcdef" / "rootfs").mkdir(parents=True)
    (tmp_path / "images" / "current-cpu").symlink_to("0123456789abcdef")
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        json.dumps(
            {
                "bench": {"hosts": {"localhost": {"ansible_connection": "local"}}},
                "all": {"vars": {"virtbed_state_dir": str(tmp_path)}},
            }
        )
    )
    done = run("virtbed", "doctor", "--json", "--inventory", str(inventory), ok=False)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["facts"]["image"]["digest"] is None
    verdicts = {row["platform"]: row for row in report["platforms"]}
    assert verdicts["bm"]["status"] == "unavailable"
    assert "make setup PLAN=" in verdicts["bm"]["remedy"]


def test_the_doctor_reports_four_platforms_as_usable_here() -> None:
    done = run("virtbed", "doctor", "--json")
    report = json.loads(done.stdout)
    status = {row["platform"]: row["status"] for row in report["platforms"]}
    assert status["bm"] == status["cn"] == "available"
    assert status["vm"] == status["vmcn"]
    assert status["vm"] in {"available", "emulated"}
    # KVM is usable only if a guest booted, regardless of /dev/kvm.
    assert (status["vm"] == "available") == (report["facts"]["kvm"]["probe"] == "booted")


def test_a_second_set_up_changes_nothing() -> None:
    done = run("ansible-playbook", "playbooks/testbed.yml")
    assert "changed=0" in done.stdout
    assert "Bootstrap the Debian tree" not in done.stdout


def test_every_command_has_help() -> None:
    for command in ([], ["plan"], ["sweep"], ["doctor"], ["report"], ["schema"]):
        done = subprocess.run(
            [TOOLS / "virtbed", *command, "--help"], cwd=REPOSITORY, env=ENVIRONMENT | os.environ,
            text=True, capture_output=True, check=True,
        )  # fmt: skip
        assert "Usage" in done.stdout
