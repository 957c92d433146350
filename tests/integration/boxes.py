"""Bench hosts for tests and benchmarks: namespaces of this machine, reached over SSH, as root.

Each has its own name, machine-id, UUID, processes, note of the controller, home and state folder;
the image is this machine's. They share one kernel, so the times measured here mean nothing.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import yaml

STATE = Path("/var/lib/virtbed")
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


@contextmanager
def running(names: Sequence[str]) -> Iterator[dict[str, Box]]:
    """Start hosts; yield them by name, and remove them at the end."""
    folder = Path(mkdtemp(prefix="virtbed-hosts-"))
    folder.chmod(0o755)
    made = not RUN.exists()
    RUN.mkdir(mode=0o755, exist_ok=True)
    unnamed = not NUMBER.exists()
    NUMBER.touch()  # something to mount on
    found = {name: Box(name, folder, number) for number, name in enumerate(names, start=1)}
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


def inventory(boxes: Mapping[str, Box], folder: Path, **more: dict[str, Any]) -> str:
    """Write an inventory of the boxes and return its path; ``more`` changes or adds hosts."""
    hosts = {name: box.variables | more.get(name, {}) for name, box in boxes.items()}
    hosts |= {name: variables for name, variables in more.items() if name not in hosts}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"bench": {"hosts": hosts}}))
    return str(path)
