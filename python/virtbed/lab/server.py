"""One server: a disposable disk, a QEMU process, and the ways to reach it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from virtbed.lab import FOLDER, LabError
from virtbed.lab.access import BECOME, INVENTORY, SSH_CONFIG, write_access
from virtbed.lab.image import Image, Say, require_programs, run_program
from virtbed.lab.qmp import Monitor
from virtbed.lab.shape import ADDRESS, Accelerator, Shape

BOOT_S = 600
"""After which a server that does not answer has failed; a busy machine takes minutes."""
SNAPSHOT = "ready"
NAME = r"[a-z0-9][a-z0-9-]{0,40}"
_NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "ssh": "openssh-client",
}  # fmt: skip
# Of the lab's folder; the last is of its tests.
_PARTS = ("servers", "images", "snapshots", "consoles", "bench")
_LOOK_S = 1.0
_END_S = 20


@dataclass(frozen=True)
class Server:
    """A server of the lab, running or not.

    Attributes:
        name: Its name, in the inventory too.
        folder: Where its disk, console log and inventories lie.
        port: Of ADDRESS, where its SSH is found.
        pid: Of its QEMU.
        image: Digest of its image.
        accelerator: What runs it.
        shape: Its hardware.
    """

    name: str
    folder: Path
    port: int
    pid: int
    image: str
    accelerator: Accelerator
    shape: Shape

    @property
    def inventory(self) -> Path:
        """Return the inventory that reaches it as root."""
        return self.folder / INVENTORY

    @property
    def become_inventory(self) -> Path:
        """Return the inventory that reaches it as a user who may become root."""
        return self.folder / BECOME

    @property
    def console(self) -> Path:
        """Return the log of its serial console."""
        return self.folder / "console.log"

    @property
    def running(self) -> bool:
        """Whether its QEMU runs, or is being started."""
        return _held(self.folder)

    def ssh(self, *command: str, user: str = "root") -> list[str]:
        """Return the command that runs another on it; a shell's, if there is none."""
        quoted = [shlex.join(command)] if command else []
        return ["ssh", "-F", str(self.folder / SSH_CONFIG), "-l", user, self.name, *quoted]

    def run(self, *command: str, timeout_s: float = 300, check: bool = True) -> str:
        """Return what a command prints on it, as root.

        Raises:
            LabError: it fails, or takes too long.
        """
        try:
            done = subprocess.run(
                self.ssh(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                check=False, timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {shlex.join(command)} took over {timeout_s} s") from error
        if check and done.returncode:
            raise LabError(
                f"{self.name}: {shlex.join(command)} ended with {done.returncode}: "
                f"{done.stderr.strip()[-1000:]}"
            )
        return done.stdout

    def shell(self, script: str, timeout_s: float = 300) -> str:
        """Return what a script of sh prints on it, as root; its first error ends it."""
        return self.run("sh", "-euc", script, timeout_s=timeout_s)

    def set_clock(self) -> None:
        """Set its clock, which stands where a snapshot was taken."""
        self.run("date", "--utc", f"--set=@{time.time():.3f}")

    def save(self, to: Path) -> None:
        """Keep its memory and its disk as a snapshot that servers start from, and end it."""
        self.run("sync")
        with Monitor(self.folder / "qmp") as monitor:
            monitor.ask("stop")
            monitor.human(f"savevm {SNAPSHOT}")
            with suppress(OSError):
                monitor.ask("quit")
        self._wait_for_end()
        to.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "disk.qcow2").rename(to)
        self.remove()

    def keep_console(self, why: str) -> Path:
        """Copy its console log out of its folder, which is removed with it; return the copy."""
        kept = self.folder.parent.parent / "consoles" / f"{self.name}-{int(time.time())}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        text = self.console.read_bytes() if self.console.exists() else b""
        kept.write_bytes(text + f"\n[kept because: {why}]\n".encode())
        return kept

    def remove(self) -> None:
        """End it, if it runs, and remove all that it has."""
        if self.running and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._wait_for_end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_for_end(self) -> None:
        with suppress(ChildProcessError):  # not this process's child: another one started it
            os.waitpid(self.pid, 0)
        end = time.monotonic() + _END_S
        while self.running:
            if time.monotonic() > end:
                raise LabError(f"{self.name}: QEMU (process {self.pid}) does not end; kill it")
            time.sleep(0.05)


def check_name(name: str) -> None:
    """Raise LabError for what names no server: it is a folder's, a host's and ssh's name."""
    if not re.fullmatch(NAME, name):
        raise LabError(
            f"server name {name[:80]!r} found, up to 41 of a-z, 0-9 and - needed, none of - first"
        )


def remove_all(lab: Path = FOLDER) -> None:
    """End all servers, and remove all that the lab made in its folder; what else is there stays.

    Raises:
        LabError: a server does not end.
    """
    for server in servers(lab):
        server.remove()
    for part in _PARTS:
        shutil.rmtree(lab / part, ignore_errors=True)
    with suppress(OSError):  # it was not there, or holds what is not the lab's
        lab.rmdir()


def load(folder: Path) -> Server | None:
    """Return the server of a folder; None if it has none, or one half made."""
    try:
        found: dict[str, Any] = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        return Server(**{**found, "folder": folder, "shape": Shape(**found["shape"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def servers(lab: Path = FOLDER) -> list[Server]:
    """Return the servers that run, by name; remove what is left of those that were killed."""
    found = []
    for folder in sorted((lab / "servers").glob("*")):
        if not _held(folder):
            shutil.rmtree(folder, ignore_errors=True)
        elif server := load(folder):
            found.append(server)
    return found


def start(
    name: str, image: Image, shape: Shape, say: Say, *, tied: bool,
    accelerator: Accelerator = "tcg", online: bool = True, snapshot: Path | None = None,
    lab: Path = FOLDER,
) -> Server:  # fmt: skip
    """Start a server and wait until it answers by SSH and has booted.

    Args:
        name: Its name; no other server may have it.
        image: Its image.
        shape: Its hardware.
        say: Called with what is waited for.
        tied: Whether it is killed when the thread that started it ends, however that ends.
        accelerator: What runs it.
        online: Whether it reaches the network beyond this machine.
        snapshot: A disk that `Server.save` kept; it is started from there instead of booting.
        lab: The lab's folder.

    Raises:
        LabError: the name is none or taken, QEMU is missing or ends, or the server does not answer
            in time.
    """
    check_name(name)
    require_programs(_NEEDED, "to run a server")
    folder = lab / "servers" / name
    if folder.exists() and not _held(folder):
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise LabError(
            f"a server {name} found, none of that name needed; choose another name, or run "
            f"virtbed lab down {name}"
        ) from None
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = Server(name, folder, _free_port(), 0, image.digest, accelerator, shape)
        try:
            server = _launch(server, image, tied, online, snapshot, lock)
            _await(server, say, "resuming" if snapshot else "booting")
            if snapshot:
                server.set_clock()
            else:
                _booted(server, say)
        except BaseException as error:
            kept = server.keep_console(f"{type(error).__name__}: {error}")
            lock.close()  # else it counts as running
            server.remove()
            if isinstance(error, LabError):
                raise LabError(f"{error}; its console log is {kept}") from error
            raise
    return server


def _launch(
    server: Server, image: Image, tied: bool, online: bool, snapshot: Path | None, lock: IO[str]
) -> Server:
    folder, disk = server.folder, server.folder / "disk.qcow2"
    write_access(server.name, folder, server.port, image)
    if snapshot:
        run_program("cp", "--reflink=auto", "--sparse=always", str(snapshot), str(disk))
    else:
        run_program(
            "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(disk)
        )
    command = server.shape.command(
        image.kernel, image.ramdisk, folder, server.port, server.accelerator,
        SNAPSHOT if snapshot else "", online,
    )  # fmt: skip
    # QEMU keeps the lock open: while it is held, the server runs.
    with (folder / "qemu.log").open("w") as log:
        process = subprocess.Popen(
            [*(("setpriv", "--pdeathsig=KILL") if tied else ()), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock.fileno(),),
            start_new_session=not tied,
        )  # fmt: skip
    process.returncode = 0  # it outlives this object, which would complain
    server = Server(**{**vars(server), "pid": process.pid})
    kept = {**asdict(server), "folder": str(folder)}
    (folder / "server.json").write_text(json.dumps(kept), encoding="utf-8")
    return server


def _await(server: Server, say: Say, doing: str) -> None:
    """Wait until the server's SSH greets."""
    started = said_at = time.monotonic()
    while not _greets(server.port):
        _require_alive(server)
        now = time.monotonic()
        if now - started > BOOT_S:
            raise LabError(f"{server.name} does not answer by SSH for {BOOT_S} s")
        if now - said_at > 15:
            said_at = now
            say(f"{doing} {server.name}, {now - started:.0f} s: {_last_line(server.console)}")
        time.sleep(_LOOK_S)
    say(f"{server.name} answers after {time.monotonic() - started:.0f} s")


def _booted(server: Server, say: Say) -> None:
    """Wait until systemd has started all that it is to start."""
    state = server.run("systemctl", "is-system-running", "--wait", check=False, timeout_s=BOOT_S)
    if state.strip() != "running":
        failed = server.run("systemctl", "--failed", "--no-legend", "--plain", check=False)
        raise LabError(f"{server.name}: systemd is {state.strip()}, running needed: {failed}")
    say(f"{server.name} is {state.strip()}")


def _greets(port: int) -> bool:
    """Whether an SSH server greets: QEMU itself takes connections long before."""
    with suppress(OSError), socket.create_connection((ADDRESS, port), timeout=10) as found:
        return found.recv(4) == b"SSH-"
    return False


def _require_alive(server: Server) -> None:
    if os.waitpid(server.pid, os.WNOHANG)[0]:
        said = (server.folder / "qemu.log").read_text(encoding="utf-8", errors="replace")
        raise LabError(f"{server.name}: QEMU ended: {said.strip()[-1000:]}")


def _last_line(console: Path) -> str:
    with suppress(OSError):
        lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip()[:80] for line in reversed(lines) if line.strip()), "")
    return ""


def _held(folder: Path) -> bool:
    """Whether a process holds the lock of a server's folder."""
    try:
        with (folder / "lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((ADDRESS, 0))
        port: int = found.getsockname()[1]
        return port
