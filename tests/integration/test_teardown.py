"""Teardown removes every trace of instances, whatever left them, and lists what stays."""

from __future__ import annotations

import grp
import stat
from pathlib import Path
from typing import Any

from .conftest import NOTHING, read, run, traces

STATE = Path("/var/lib/virtbed")
DOMAIN = """<domain type='qemu'><name>virtbed-left-over</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""


def test_teardown_removes_leftovers_and_keeps_the_image_on_request(tmp_path: Path) -> None:
    images = run("docker", "image", "ls", "--quiet", "virtbed/rootfs").stdout.split()
    assert images
    run(
        "docker", "run", "--detach", "--name=virtbed-left-over", "--label=virtbed=left-over",
        "--network=none", images[0], "sleep", "infinity",
    )  # fmt: skip
    xml = tmp_path / "domain.xml"
    xml.write_text(DOMAIN)
    run("virsh", "-c", "qemu:///system", "define", str(xml))
    run("virsh", "-c", "qemu:///system", "start", "virtbed-left-over")
    overlay = Path("/var/lib/virtbed/instances/left-over/overlay.qcow2")
    overlay.parent.mkdir(parents=True)
    overlay.write_text("x")
    found = traces()
    assert found["containers"] and found["domains"] and found["overlays"]

    done = run("ansible-playbook", "playbooks/teardown.yml", "-e", '{"teardown_keep_image": true}')
    assert traces() == NOTHING
    assert run("docker", "image", "ls", "--quiet", "virtbed/rootfs").stdout.split() == images
    assert Path("/var/lib/virtbed/images/current-cpu/manifest.json").exists()
    assert "the packages that the package manager installed" in " ".join(done.stdout.split())


def test_teardown_removes_everything_and_restores_the_host() -> None:
    """The last of all tests, because `make testbed` must make again what it removes.

    It runs twice: the second time only the engines are left, which teardown starts to query them.
    """
    before = read(STATE / "host.json")
    devices = [read(note) for note in STATE.glob("machine_*.json")]  # group and mode of /dev/kvm
    for _ in range(2):
        done = run("ansible-playbook", "playbooks/teardown.yml")
        assert "overlay, mount, key and image. Kept:" in " ".join(done.stdout.split())
        assert_as_before(before, devices)


def assert_as_before(before: Any, devices: list[Any]) -> None:
    assert not STATE.exists()
    assert not Path("/run/virtbed").exists()
    assert list(Path("/var/log/libvirt/qemu").glob("virtbed-*")) == []
    assert "virtbed" not in Path("/proc/mounts").read_text()
    for daemon, ran in before["daemon"].items():
        found = run("pgrep", "--runstates=D,I,R,S,T", "--exact", daemon, ok=False)
        assert (found.returncode == 0) == ran, daemon
    for path, existed in before["path"].items():  # settings of engines, and their directories
        assert Path(path).exists() == existed, path
    for device in devices:
        now = Path("/dev/kvm").stat()
        assert grp.getgrgid(now.st_gid).gr_name == device["group"]
        assert stat.S_IMODE(now.st_mode) == int(device["mode"], 8)
