"""A sweep on three hosts over SSH, one of which is killed.

The hosts are namespaces of this machine. Each has its own name, machine-id, UUID, processes, note
of the controller, home and state folder; the image is this machine's. They share one kernel, so the
times measured here mean nothing.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import pytest
import yaml

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, run

STATE = Path("/var/lib/virtbed")
NAMES = ("box01", "box02", "box03")
NUMBER = Path("/etc/machine-id")
RUN = Path("/run/sshd")  # sshd's directory for privilege separation
# $1 is the host's name, $2 its folder, $3 the state folder. The mounts end with the namespace.
BOX = """
set -e
hostname "$1"
mkdir -p /run/virtbed "$2/state/images" "$2/home"
mount --bind "$2/machine-id" /etc/machine-id
product=/sys/class/dmi/id/product_uuid
[ ! -e $product ] || mount --bind "$2/product_uuid" $product
mount -t tmpfs -o mode=711 tmpfs /run/virtbed
mount --bind "$3/images" "$2/state/images"
# An own home: start-up files of root's shell here are not a bench host's, and can leave a lock.
mount --bind "$2/home" "$(getent passwd 0 | cut -d: -f6)"
exec /usr/sbin/sshd -D -e -f "$2/sshd_config"
"""


class Box:
    """One host, which can be killed and started again."""

    def __init__(self, name: str, folder: Path, number: int) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        for key in ("host", "user"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)]
            subprocess.run(made, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        (self.folder / "machine-id").write_text(f"{number:032x}\n")
        (self.folder / "product_uuid").write_text(f"{uuid4()}\n")
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        known = f"-o UserKnownHostsFile={self.folder}/known_hosts -o ControlPersist=5s"
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "user"),
            "ansible_ssh_common_args": known,
            "virtbed_state_dir": str(self.folder / "state"),
        }

    def start(self) -> None:
        """Start the host, and wait until its SSH server listens."""
        apart = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *apart, "sh", "-c", BOX, "sh", self.name,
             str(self.folder), str(STATE)],
            stderr=(self.folder / "log").open("ab"),
        )  # fmt: skip
        for _ in range(100):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """Kill the host with all its processes."""
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def boxes() -> Iterator[dict[str, Box]]:
    folder = Path(mkdtemp(prefix="virtbed-hosts-"))
    folder.chmod(0o755)
    made = not RUN.exists()
    RUN.mkdir(mode=0o755, exist_ok=True)
    unnamed = not NUMBER.exists()
    NUMBER.touch()  # something to mount on
    found = {name: Box(name, folder, number) for number, name in enumerate(NAMES, start=1)}
    try:
        for box in found.values():
            box.start()
        yield found
    finally:
        for box in found.values():
            box.kill()
        shutil.rmtree(folder)
        if made:
            RUN.rmdir()
        if unnamed:
            NUMBER.unlink()


def inventory(boxes: dict[str, Box], folder: Path, **more: dict[str, Any]) -> str:
    """Write an inventory of the boxes and return its path; ``more`` changes or adds hosts."""
    hosts = {name: box.variables | more.get(name, {}) for name, box in boxes.items()}
    hosts |= {name: variables for name, variables in more.items() if name not in hosts}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"bench": {"hosts": hosts}}))
    return str(path)


def heads(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["trial"] for path in folder.glob("trials/*/result.json")]


def until(what: Callable[[], bool], sweep: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if what():
            return
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("the condition was not met within two minutes")


def test_three_hosts_share_a_sweep_and_one_that_is_killed_loses_nothing(
    boxes: dict[str, Box], write_plan: Any, tmp_path: Path
) -> None:
    plan, folder = write_plan(
        "fleet", replicates=9,
        applications=[{"name": "null", "scale": "tiny", "samples": 2, "warmup": 1}],
    )  # fmt: skip
    # Two more names: a second one for box01, and one for box02 with a wrong host key.
    wrong = tmp_path / "known_hosts"
    wrong.write_text((boxes["box03"].folder / "known_hosts").read_text().replace(
        f":{boxes['box03'].port} ", f":{boxes['box02'].port} "))  # fmt: skip
    where = inventory(
        boxes, tmp_path, twin=boxes["box01"].variables,
        forged=boxes["box02"].variables | {"ansible_ssh_common_args":
            f"-o UserKnownHostsFile={wrong} -o StrictHostKeyChecking=yes -o ControlPath=none"},
    )  # fmt: skip
    sweep = subprocess.Popen(
        ["setpriv", "--pdeathsig=TERM", "virtbed", "sweep", plan, "--inventory", where,
         "--hung-after", "180"],
        cwd=REPOSITORY, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: {trial["host"] for trial in heads(folder)} == {*NAMES}, sweep)
        boxes["box02"].kill()
        output, _ = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, output
    assert "box02 is set aside" in output and "box02 was set aside, and other hosts" in output
    assert "twin (box01) is set aside: it is the same machine as box01" in output
    assert "forged is set aside" in output and "Host key verification failed" in output
    trials = heads(folder)
    assert sorted(trial["replicate"] for trial in trials) == list(range(1, 10))  # each once
    assert {trial["host"] for trial in trials} >= {"box01", "box03"}
    reports = {path.stem for path in folder.glob("doctor/*.json")}
    assert reports == {*NAMES}
    # After its restart, nothing is left on the host, and nothing is left to do.
    boxes["box02"].start()
    status = run("virtbed", "status", plan, "--inventory", inventory(boxes, tmp_path), ok=False)
    assert "box02 is set aside" in status.stdout and status.returncode == 0, status.stdout
    before = {path: path.read_bytes() for path in folder.glob("trials/*/result.json")}
    again = run("virtbed", "sweep", plan, "--inventory", inventory(boxes, tmp_path))
    assert "9 done before; 0 to go" in again.stdout
    assert {p: p.read_bytes() for p in folder.glob("trials/*/result.json")} == before
    for box in boxes.values():
        assert not list((box.folder / "state").glob("instances/*"))
