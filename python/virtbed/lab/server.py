"""A server of the lab: start, reach, save and remove it (a QEMU process with a disposable disk)."""

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
"""Seconds that a server may take to boot and answer; on a busy machine it takes minutes."""
SNAPSHOT = "ready"
NAME = r"[a-z0-9][a-z0-9-]{0,40}"
_NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "ssh": "openssh-client",
}  # fmt: skip
# Subfolders of the lab's folder; tests/lab makes the last one.
_PARTS = ("servers", "images", "snapshots", "consoles", "bench")
_LOOK_S = 1.0
_END_S = 20


@dataclass(frozen=True)
class Server:
    """A server of the lab, running or not.

    Attributes:
        name: Its name, also in its inventory.
        folder: Folder of its disk, console log and inventories.
        port: Port of its SSH on ADDRESS.
        pid: Process id of its QEMU.
        image: Digest of its image.
        accelerator: QEMU's accelerator.
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
        """The inventory that logs in as root."""
        return self.folder / INVENTORY

    @property
    def become_inventory(self) -> Path:
        """The inventory that logs in as a user and becomes root by sudo."""
        return self.folder / BECOME

    @property
    def console(self) -> Path:
        """The log of its serial console."""
        return self.folder / "console.log"

    @property
    def running(self) -> bool:
        """Whether its QEMU runs, or is being started."""
        return _held(self.folder)

    def ssh(self, *command: str, user: str = "root") -> list[str]:
        """Return the ssh command that runs a command on the server; without one, a shell."""
        quoted = [shlex.join(command)] if command else []
        return ["ssh", "-F", str(self.folder / SSH_CONFIG), "-l", user, self.name, *quoted]

    def run(self, *command: str, timeout_s: float = 300, check: bool = True) -> str:
        """Run a command on the server as root; return its output.

        Args:
            *command: The command and its arguments.
            timeout_s: Seconds that it may take.
            check: Whether a failure of the command is an error.

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
        """Run a shell script (sh -eu) on the server as root; return its output."""
        return self.run("sh", "-euc", script, timeout_s=timeout_s)

    def set_clock(self) -> None:
        """Set its clock, which still has the time of the snapshot."""
        self.run("date", "--utc", f"--set=@{time.time():.3f}")

    def set_hostname(self) -> None:
        """Give it its name as hostname, by which sweeps distinguish hosts."""
        self.shell(
            f"echo {self.name} > /etc/hostname; hostname {self.name}; "
            f"echo 127.0.1.1 {self.name} >> /etc/hosts"
        )

    def save(self, to: Path) -> None:
        """Save its memory and disk as a snapshot that other servers start from, and end it."""
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
        """Copy its console log to a folder that is kept when the server is removed.

        Args:
            why: Why the log is kept; appended to it.

        Returns:
            The copy.
        """
        kept = self.folder.parent.parent / "consoles" / f"{self.name}-{int(time.time())}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        text = self.console.read_bytes() if self.console.exists() else b""
        kept.write_bytes(text + f"\n[kept because: {why}]\n".encode())
        return kept

    def remove(self) -> None:
        """End the server if it runs, and remove its folder."""
        if self.running and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._wait_for_end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_for_end(self) -> None:
        """Wait until its QEMU has ended."""
        with suppress(ChildProcessError):  # another process started it
            os.waitpid(self.pid, 0)
        end = time.monotonic() + _END_S
        while self.running:
            if time.monotonic() > end:
                raise LabError(f"{self.name}: QEMU (process {self.pid}) does not end; kill it")
            time.sleep(0.05)


def check_name(name: str) -> None:
    """Raise LabError unless a name can be that of a folder, a host and a host of ssh."""
    if not re.fullmatch(NAME, name):
        raise LabError(
            f"server name {name[:80]!r} found, up to 41 characters a-z, 0-9 and - needed, not "
            "starting with -"
        )


def remove_all(lab: Path = FOLDER) -> None:
    """End all servers, and remove the lab's files from its folder; other files there are kept.

    Raises:
        LabError: a server does not end.
    """
    for server in servers(lab):
        server.remove()
    for part in _PARTS:
        shutil.rmtree(lab / part, ignore_errors=True)
    with suppress(OSError):  # it does not exist, or has other files
        lab.rmdir()


def load(folder: Path) -> Server | None:
    """Return the server of a folder; None if it has none, or one that is not completely set up."""
    try:
        stored: dict[str, Any] = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        return Server(**{**stored, "folder": folder, "shape": Shape(**stored["shape"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def servers(lab: Path = FOLDER) -> list[Server]:
    """Return the running servers in order of their names; remove the folders of killed ones."""
    running = []
    for folder in sorted((lab / "servers").glob("*")):
        if not _held(folder):
            shutil.rmtree(folder, ignore_errors=True)
        elif server := load(folder):
            running.append(server)
    return running


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
        say: Called with a line per step.
        tied: Whether it is killed when the thread that started it ends, for any reason.
        accelerator: QEMU's accelerator.
        online: Whether it can reach the network beyond this machine.
        snapshot: A disk that `Server.save` wrote, to start from instead of booting.
        lab: Folder of the lab.

    Raises:
        LabError: the name is invalid or taken, QEMU is missing or ends, or the server does not
            answer within BOOT_S seconds.
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
            f"a server with the name {name} exists already; choose another name, or run virtbed "
            f"lab down {name}"
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
                server.set_hostname()
        except BaseException as error:
            kept = server.keep_console(f"{type(error).__name__}: {error}")
            lock.close()  # otherwise the server counts as running
            server.remove()
            if isinstance(error, LabError):
                raise LabError(f"{error}; its console log is {kept}") from error
            raise
    return server


def _launch(
    server: Server, image: Image, tied: bool, online: bool, snapshot: Path | None,
    lock: IO[str],
) -> Server:  # fmt: skip
    """Start the QEMU of a server; return the server with its process id."""
    folder, own = server.folder, server.folder / "disk.qcow2"
    write_access(server.name, folder, server.port, image)
    if snapshot:
        run_program("cp", "--reflink=auto", "--sparse=always", str(snapshot), str(own))
    else:
        base = ("-F", "raw", "-b", str(image.disk))
        run_program("qemu-img", "create", "-q", "-f", "qcow2", *base, str(own))
    command = server.shape.command(
        image.kernel, image.ramdisk, folder, server.port, server.accelerator,
        SNAPSHOT if snapshot else "", online,
    )  # fmt: skip
    # QEMU inherits the open lock file, so the lock is held as long as the server runs.
    with (folder / "qemu.log").open("w") as log:
        process = subprocess.Popen(
            [*(("setpriv", "--pdeathsig=KILL") if tied else ()), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock.fileno(),),
            start_new_session=not tied,
        )  # fmt: skip
    process.returncode = 0  # QEMU outlives this object, which would warn about that
    server = Server(**{**vars(server), "pid": process.pid})
    kept = {**asdict(server), "folder": str(folder)}
    (folder / "server.json").write_text(json.dumps(kept), encoding="utf-8")
    return server


def _await(server: Server, say: Say, doing: str) -> None:
    """Wait until the server's SSH answers.

    Args:
        server: The server.
        say: Called every 15 s with the last line of the console.
        doing: What the server does: "booting" or "resuming".
    """
    started = reported = time.monotonic()
    while not _greets(server.port):
        _require_alive(server)
        now = time.monotonic()
        if now - started > BOOT_S:
            raise LabError(f"{server.name} does not answer by SSH for {BOOT_S} s")
        if now - reported > 15:
            reported = now
            say(f"{doing} {server.name}, {now - started:.0f} s: {_last_line(server.console)}")
        time.sleep(_LOOK_S)
    say(f"{server.name} answers after {time.monotonic() - started:.0f} s")


def _booted(server: Server, say: Say) -> None:
    """Wait until systemd has finished the boot; raise LabError if a unit failed."""
    state = server.run("systemctl", "is-system-running", "--wait", check=False, timeout_s=BOOT_S)
    if state.strip() != "running":
        failed = server.run("systemctl", "--failed", "--no-legend", "--plain", check=False)
        raise LabError(f"{server.name}: systemd is {state.strip()}, running needed: {failed}")
    say(f"{server.name} is {state.strip()}")


def _greets(port: int) -> bool:
    """Return whether an SSH server answers: QEMU itself accepts connections long before."""
    with suppress(OSError), socket.create_connection((ADDRESS, port), timeout=10) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def _require_alive(server: Server) -> None:
    """Raise LabError if the server's QEMU has ended."""
    if os.waitpid(server.pid, os.WNOHANG)[0]:
        output = (server.folder / "qemu.log").read_text(encoding="utf-8", errors="replace")
        raise LabError(f"{server.name}: QEMU ended: {output.strip()[-1000:]}")


def _last_line(console: Path) -> str:
    """Return the last line of a console log, at most 80 characters of it."""
    with suppress(OSError):
        lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip()[:80] for line in reversed(lines) if line.strip()), "")
    return ""


def _held(folder: Path) -> bool:
    """Return whether a process holds the lock of a server's folder."""
    try:
        with (folder / "lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        port: int = free.getsockname()[1]
        return port
