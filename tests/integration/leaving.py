"""Attempts to escape from an instance, made inside it while a sweep's trials run there."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Prints the attempts that succeeded, as a list. Runs as the measured user in a container, and as
# root in a guest.
SCRIPT = """
import ctypes, json, os, socket, stat, sys
port, marker, device = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
succeeded = []

def attempt(what, act):
    try:
        done = act()
    except OSError:
        return
    if done is not False:
        succeeded.append(what)

def query(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        request = "000101000001000000000000" "076578616d706c6503636f6d00" "00010001"
        client.sendto(bytes.fromhex(request), address)
        client.recv(512)

def routes():
    with open("/proc/net/route") as table:
        return any(line.split()[1] == "00000000" for line in list(table)[1:])

def passwords():
    with open("/etc/shadow") as lines:
        return any(line.split(":")[1][:1] not in "*!" or not line.split(":")[1] for line in lines)

def write(path):
    with open(path + "/left", "w"):
        return True

for address in ("10.0.2.2", "127.0.0.1", "172.17.0.1", "192.0.2.1"):
    attempt("connect to " + address, lambda: socket.create_connection((address, port), 2).close())
attempt("query a name server", lambda: query(("10.0.2.3", 53)))
attempt("find a default route", routes)
attempt("find an account without a locked password", passwords)
for path in (marker, "/proc/1/root" + marker):
    attempt("read the host's " + path, lambda: open(path).close())
if os.getuid() != 0:
    libc = ctypes.CDLL(None)
    for path in ("/", "/etc", "/usr", "/root", "/home", "/opt", "/run", "/var/tmp", "/dev", "/sys",
                 "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/proc/sys/kernel"):
        attempt("write to " + path, lambda: write(path))
    attempt("become root", lambda: os.setuid(0))
    attempt("make a device", lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, device))
    attempt("mount", lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
    attempt("make a namespace", lambda: libc.unshare(0x00020000) == 0)
    attempt("make a user namespace", lambda: libc.unshare(0x10000000) == 0)
    attempt("open a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
    with open("/tmp/inside", "w"):
        pass
print(json.dumps(succeeded))
"""


def into_container(name: str) -> list[str]:
    return ["docker", "exec", "--interactive", name]


def into_guest(sweep: str) -> list[str]:
    run = Path("/run/virtbed/keys") / sweep
    return [
        "ssh", "-p", "22022", "-i", str(run / "id_ed25519"), "-o", "BatchMode=yes",
        "-o", f"UserKnownHostsFile={run / 'known_hosts'}", "-o", "ConnectTimeout=60",
        "root@127.0.0.1",
    ]  # fmt: skip


@contextmanager
def tried(folder: Path, enter: list[str]) -> Iterator[Callable[[], list[str]]]:
    """Try to escape as soon as the instance can be entered.

    Args:
        folder: Folder for the script, its output and a file that only the host has.
        enter: argv prefix of a command in the instance.

    Yields:
        A function that returns the attempts that succeeded.
    """
    marker, script, written = (folder / name for name in ("marker", "leave.py", "written.json"))
    marker.write_text("the host's")
    script.write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # a guest sees it at 10.0.2.2
        port, device = listening.getsockname()[1], folder.stat().st_dev
        inside = shlex.join(["python3", "-", str(port), str(marker), str(device)])
        words = [*enter, inside] if enter[0] == "ssh" else [*enter, *shlex.split(inside)]
        command = f"{shlex.join(words)} < {shlex.quote(str(script))}"
        loop = f"until {command} > {shlex.quote(str(written))} 2>/dev/null; do sleep 0.3; done"
        process = subprocess.Popen(["bash", "-c", loop], start_new_session=True)
        try:
            yield lambda: json.loads(written.read_text())
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
