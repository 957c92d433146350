"""One bench host: claim, examine, tune, clear and restore it, and run playbooks on it.

Also the locks, keys and CPU affinity of the controller's own machine while a sweep runs. Used by
the commands and by `virtbed.sweep`. It does not decide what runs: see `virtbed.design`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from virtbed import ansible, host_lock, scratch, yaml_file
from virtbed.ansible import Deadline
from virtbed.checkout import REPOSITORY
from virtbed.events import Ended, Event, TaskFailed, TaskOk
from virtbed.image import DEFAULT
from virtbed.lease import Holder
from virtbed.logs import Logs
from virtbed.records import now
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.json_file import plain
from virtbed_contract.kernel.cpus import parse_cpu_list
from virtbed_contract.remedies import setup
from virtbed_contract.sweep import TIMES_EMULATED, HostReport, TuningRow

LOCAL = str(REPOSITORY / "inventory" / "local")
# Folder of files that exist only while a sweep runs: the lock, and the SSH keys of its guests.
RUN = scratch.RUN
_SHIPPED = {"bench": {"hosts": {"localhost": {"ansible_connection": "local"}}}}
LOCK_WAIT_S = 30
HOLD_WAIT_S = 5  # another host's task of the same playbook takes milliseconds
# Default limit for playbooks that examine, clear or restore a host, and for everything that a block
# does besides its trials. What takes longer counts as hung, and is ended.
HUNG_AFTER_S = 300.0
# Variables of playbooks that a sweep sets itself; --extra-vars must not contain them.
SET_BY_A_SWEEP = frozenset(
    f"virtbed_{name}"
    for name in (
        "bench", "run_dir", "incoming_dir", "tuned", "interrupts", "instance", "trials", "trial",
        "claim", "claim_s", "stores", "keep", "neighbours",
    )
)  # fmt: skip
_alone: list[int] = []  # the id of this process, while it holds the controller's lock
_BLOCK = ("begin", "provision", "trials", "release")
_NO = {"", "false", "no", "off", "n", "f", "0", "none"}
WITHOUT_ROOT = (
    "every platform needs it, bare metal too, and rootless Podman and QEMU's user sessions are not "
    "supported. Use sudo, or an inventory with ansible_become: true where sudo asks for no "
    "password. Without root remain: measuring hosts over SSH on which you can become root; "
    "virtbed slurm --dry-run, whose script an administrator can submit; virtbed status, and the "
    "commands that read results, such as merge, report, advise, compare and export"
)
"""The message to a user without root; follows the purpose for which root is needed."""
LEFT_OUT = "virtbed_left_out"
"""Inventory variable that says, in lines, why hosts of an inventory's source are not in `bench`."""
# A block adds its guest to this group, so --limit must include it.
_GUESTS = "guest"


class BenchError(RuntimeError):
    """A host cannot be used for a sweep; the message says what was found, and what to do."""


@dataclass
class Bench:
    """The bench host that inventories and a limit select from the group `bench`.

    Attributes:
        inventories: Paths, or lists of host names with a comma.
        limit: A pattern that selects one of several hosts, as for ansible-playbook --limit.
        variables: Extra variables for every playbook.
        hung_after_s: Seconds after which a playbook that runs no trials counts as hung.
        logs: Where Ansible's logs are kept.
        name: The host's name in the inventory, if a sweep measures several hosts at once; empty
            if this is the only one.
    """

    inventories: tuple[str, ...] = (LOCAL,)
    limit: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    hung_after_s: float = HUNG_AFTER_S
    logs: Logs = field(default_factory=Logs)
    name: str = ""
    _times: int = field(default=1, init=False)
    _claim: str = field(default="", init=False)
    _held: bool = field(default=False, init=False)
    _listed: Mapping[str, Mapping[str, Any]] | None = field(default=None, init=False)

    @property
    def limit_s(self) -> float:
        """Seconds that a playbook without trials may take; longer on an emulated host."""
        return self.hung_after_s * self._times

    def examine(
        self,
        *,
        restore: bool,
        probe_kvm: bool = True,
        image: str = DEFAULT,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[HostReport, bool]:
        """Examine the host with the role host_doctor.

        Args:
            restore: Whether to restore first the settings, daemons and CPUs that a killed sweep
                changed. Without it, a host with CPUs left offline looks like another host.
            probe_kvm: Whether to find out by booting the guest's kernel whether KVM works.
            image: Variant of the image that is to run; it determines what the host needs.
            cancelled: Checked every second; True ends the examination.

        Returns:
            The host's report, and whether anything was restored.

        Raises:
            BenchError: the host cannot be examined, or the inventory has no host or several.
        """
        variables = {
            "host_doctor_restore": restore,
            "host_doctor_probe_kvm": probe_kvm,
            "host_doctor_image": image,
        }
        ended, events = self.play("examine", {**variables, **self._claimed_for(3)}, cancelled)
        # Note the claim even if the examination fails afterwards: it must be released, or another
        # controller would wait for a sweep that does not exist.
        locked = any(isinstance(e, TaskOk) and e.action == "host_lock" for e in events)
        self._held = bool(self._claim) and locked
        hosts = sorted({e.host for e in events if isinstance(e, (TaskOk, TaskFailed))})
        if len(hosts) > 1:
            raise BenchError(
                f"hosts {' and '.join(hosts)} found in the group bench, one needed here; choose "
                "one with --limit"
            )
        if ended.ok and not hosts:
            where = f" that match --limit {self.limit}" if self.limit else ""
            raise BenchError(
                f"no hosts{where} found in the group bench of {', '.join(self.inventories)}, one "
                "needed"
            )
        done = [event for event in events if isinstance(event, TaskOk)]
        reports = [event.result["report"] for event in done if event.action == "host_doctor"]
        if not ended.ok or not reports:
            raise BenchError(f"the host could not be examined: {ended.message or 'no report'}")
        if self.limit:
            self.limit = hosts[0]
        try:
            report = decode(HostReport, reports[-1], "the host's report")
        except DocumentError as error:
            raise BenchError(f"the host could not be examined: {error}") from error
        self._times = TIMES_EMULATED if report.emulated else 1
        return report, any(event.result.get("changed") for event in done)

    def hosts(self) -> tuple[str, ...]:
        """Return the names of the hosts in the group `bench` that match the limit.

        For the inventory that ships this is this machine, without running ansible-inventory, which
        takes a second.

        Raises:
            BenchError: the inventory cannot be read.
        """
        if self.inventories == (LOCAL,) and not self.limit and _is_as_shipped(Path(LOCAL)):
            return ("localhost",)
        return tuple(self._variables_of_hosts())

    def left_out(self) -> list[str]:
        """Return why hosts of the inventory's source are not in the group `bench`, in lines.

        Raises:
            BenchError: the inventory cannot be read.
        """
        self.hosts()
        listed = (self._listed or {}).values()  # nothing for the inventory that ships
        texts = {str(host.get(LEFT_OUT, "")): None for host in listed}
        return [line for text in texts for line in text.splitlines()]

    def one_of(self, name: str) -> Bench:
        """Return one of several hosts by its name in the inventory, with its own logs."""
        return replace(self, limit=name, name=name, logs=Logs())

    def _variables_of_hosts(self) -> Mapping[str, Mapping[str, Any]]:
        """Return each host's inventory variables by its name; ansible-inventory runs once."""
        if self._listed is None:
            try:
                self._listed = ansible.bench_variables(self.inventories, self.limit)
            except ansible.AnsibleError as error:
                raise BenchError(str(error)) from error
        return self._listed

    def require_root(self, why: str) -> None:
        """Raise BenchError if a host is this machine, and this process is not root.

        On other hosts the user that Ansible logs in as must be root, or become root; the host's
        report shows whether it is.

        Args:
            why: The purpose that root is needed for; follows "root (0) needed" in the message.
        """
        if os.geteuid() == 0:
            return
        hosts = self._variables_of_hosts().values()
        local = (host for host in hosts if host.get("ansible_connection") == "local")
        # An inventory in INI format gives `false` as a text.
        if any(str(host.get("ansible_become", "")).lower() in _NO for host in local):
            raise BenchError(f"user id {os.geteuid()} found, root (0) needed {why}: {WITHOUT_ROOT}")

    def blocks(
        self,
        variables: Mapping[str, Any],
        turns: Sequence[Mapping[str, Any]],
        deadline: Deadline,
        cancelled: Callable[[], bool],
    ) -> Iterator[Event]:
        """Carry out blocks, one per turn, and yield their events.

        Args:
            variables: Extra variables for all blocks.
            turns: The variables of each block.
            deadline: When the playbook counts as hung; the caller renews it.
            cancelled: Checked every second; True ends the playbook.
        """
        # A comma, not a colon: an IPv6 address contains colons.
        limit = f"{self.limit},{_GUESTS}" if self.limit else None
        return ansible.play(
            "block", self._with(variables), self.inventories, deadline=deadline,
            logs=self.logs, limit=limit, parts=_BLOCK, turns=turns, cancelled=cancelled,
            host=self.name,
        )  # fmt: skip

    @contextmanager
    def claimed(self, what: str) -> Iterator[None]:
        """Claim the host for a sweep, from its next examination on; release it at the end.

        Meanwhile other controllers are refused; see `virtbed.host_lock`.

        Args:
            what: Description of the sweep, for the message to refused controllers.
        """
        self._claim = str(host_lock.here(what, RUN, now()))
        try:
            yield
        finally:
            if self._held:  # `restore` releases the claim, but did not run or failed
                with suppress(BenchError):  # the claim also expires by itself
                    self.play("free")
            self._claim, self._held = "", False

    def _claimed_for(self, times: int) -> dict[str, Any]:
        """Return the variable that claims the host for as long as `times` playbooks may take."""
        seconds = int(times * self.limit_s) + host_lock.SLACK_S
        return {"virtbed_claim_s": seconds} if self._claim else {}

    def renew(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Renew the claim on a host that waits for others; each block renews it by itself.

        Args:
            cancelled: Checked every second; True ends the attempt.

        Raises:
            BenchError: another controller has taken the host, or it cannot be reached.
        """
        ended, _ = self.play("renew", self._claimed_for(3), cancelled)
        if not ended.ok and not cancelled():
            raise BenchError(f"the claim on the host could not be renewed: {ended.message}")

    def claim_s(self, block_s: float) -> int:
        """Return the seconds that a block's claim must last: for the block and what follows it.

        Args:
            block_s: Seconds that the block itself may take.
        """
        return int(block_s + 2 * self.limit_s) + host_lock.SLACK_S

    @contextmanager
    def prepared(self, interrupts: str | None) -> Iterator[tuple[TuningRow, ...]]:
        """Tune the host for a sweep if required; restore it at the end, whatever happens.

        Args:
            interrupts: The CPUs that are to receive interrupts, as a kernel list; None tunes
                nothing.

        Yields:
            The settings after tuning, read back from the host.

        Raises:
            BenchError: the host cannot be tuned, or cannot be restored.
        """
        try:
            yield () if interrupts is None else self._tune(interrupts)
        finally:
            self.restore()

    def _tune(self, interrupts: str) -> tuple[TuningRow, ...]:
        ended, events = self.play("tune", {"virtbed_interrupts": interrupts})
        if not ended.ok:
            raise BenchError(f"the host could not be tuned: {ended.message}")
        results = [e.result for e in events if isinstance(e, TaskOk) and e.action == "host_tuning"]
        try:
            return tuple(
                decode(TuningRow, row, "the host's settings")
                for result in results
                for row in result["settings"]
            )
        except DocumentError as error:
            raise BenchError(f"the host could not be tuned: {error}") from error

    def clear(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Remove all instances that interrupted sweeps left on the host.

        Returns:
            Whether there were any.

        Raises:
            BenchError: one cannot be removed, or not within the time limit.
        """
        return self._put_right(
            "clear",
            "the host could not be cleared of what a sweep may have left",
            f"{setup()}, which starts the engines, and call again; or else make teardown",
            cancelled,
        )

    def restore(self) -> bool:
        """Restore the settings, daemons and CPUs that a sweep changed.

        Returns:
            Whether any had been changed.

        Raises:
            BenchError: one does not take its old value, or not within the time limit.
        """
        return self._put_right(
            "restore", "the host's settings could not be restored", "run virtbed restore"
        )

    def _put_right(
        self, playbook: str, wrong: str, remedy: str, cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Run a playbook that cleans up; return whether it changed anything.

        Leftover processes of earlier playbooks are ended first, because they could undo its work.
        """
        end_strays(self.name)
        ended, events = self.play(playbook, cancelled=cancelled)
        if ended.ok and playbook == "restore":  # it also releases the claim
            self._held = False
        if not ended.ok:
            raise BenchError(f"{wrong}: {_of_each(ended, events)}; {remedy}")
        return any(isinstance(e, TaskOk) and bool(e.result.get("changed")) for e in events)

    def _with(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        claim = {"virtbed_claim": self._claim} if self._claim else {}
        return {**self.variables, **variables, **claim}

    def play(
        self,
        playbook: str,
        variables: Mapping[str, Any] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[Ended, list[Event]]:
        """Run a playbook to its end.

        Args:
            playbook: Its name in playbooks/, without .yml.
            variables: Extra variables, added to those of the host.
            cancelled: Checked every second; True ends the playbook.

        Returns:
            The last event, which says how it ended, and the events before it.

        Raises:
            BenchError: the files that Ansible needs cannot be written.
        """
        try:
            *events, ended = ansible.play(
                playbook, self._with(variables or {}), self.inventories,
                deadline=Deadline(self.limit_s), logs=self.logs,
                limit=self.limit, cancelled=cancelled, host=self.name,
            )  # fmt: skip
        except OSError as error:
            raise BenchError(f"the playbook {playbook} could not be run: {error}") from error
        assert isinstance(ended, Ended)
        if ended.status == "hung":
            end_strays(self.name)
        return ended, events


def _of_each(ended: Ended, events: Iterable[Event]) -> str:
    """Return why a playbook failed; if it ran on several hosts, with the reason of each."""
    hosts = {event.host for event in events if isinstance(event, (TaskOk, TaskFailed))}
    failed = {event.host: event.message for event in events if isinstance(event, TaskFailed)}
    if len(hosts) < 2 or not failed:
        return ended.message
    return "; ".join(f"{host}: {message}" for host, message in failed.items())


@contextmanager
def alone(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of this machine's controllers, so that no sweep disturbs another.

    Two sweeps, or a sweep and an examination, would take CPU time from each other's trials. A
    set-up or teardown (`hold`) would change the image and instances.

    Args:
        check: Called every half second while another process holds the lock, such as a killed
            sweep that still releases its instance. It may raise to stop waiting.

    Raises:
        BenchError: another process holds it for LOCK_WAIT_S seconds, or it cannot be opened.
    """
    with _lock_file() as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(file) or _holder(file):
            if time.monotonic() > deadline:
                raise BenchError(
                    f"another command of virtbed runs on this machine{_who(file)}, and the two "
                    f"would disturb each other ({LOCK_WAIT_S} s waited); wait for its end, or end "
                    "it (Ctrl-C)"
                )
            fcntl.flock(file, fcntl.LOCK_UN)
            check()
            time.sleep(0.5)
        _note(file, host_lock.here(_command(), RUN, now()))
        _alone.append(os.getpid())
        try:
            yield
        finally:
            _alone.pop()
            with suppress(OSError):  # the error that ended the sweep is reported
                file.truncate(0)


def hold(what: str, pid: int) -> host_lock.Claim:
    """Keep sweeps of this machine's controllers from starting until another process ends.

    An ansible-playbook has no process that could hold a lock for it. So the lock's text names it,
    which `alone` respects as long as that process runs. Calls for several hosts of one playbook
    hold it once.

    Args:
        what: Description of what the process does.
        pid: The process.

    Raises:
        BenchError: another process holds the lock, or it cannot be opened.
    """
    claim = host_lock.here(what, RUN, now(), pid)
    with _lock_file() as file:
        deadline = time.monotonic() + HOLD_WAIT_S
        while not _locked(file) or (_holder(file) or claim).pid != pid:
            if time.monotonic() > deadline:
                raise BenchError(
                    f"another command of virtbed runs on this machine{_who(file)}, and would lose "
                    "its image and instances; wait for its end, or end it (Ctrl-C)"
                )
            fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(0.1)
        claim = _holder(file) or claim
        _note(file, claim)
    return claim


def _is_as_shipped(inventory: Path) -> bool:
    """Return whether an inventory is unchanged: it has this machine and nothing else."""
    try:
        others = {path.name for path in inventory.iterdir()} - {"hosts.yml", "group_vars"}
        return not others and yaml_file.read(inventory / "hosts.yml") == _SHIPPED
    except (OSError, yaml_file.YamlError):
        return False


def _command() -> str:
    """Return the command line of this process without options, which may be long."""
    words = [word for word in sys.argv[1:3] if not word.startswith("-")]
    return plain(" ".join([Path(sys.argv[0]).name, *words]))[:200]


def _who(file: IO[str]) -> str:
    """Return who holds the lock, in parentheses, from the lock file's text; empty if unknown."""
    claim = _noted(file)
    return f" ({claim.words})" if claim else ""


def _noted(file: IO[str]) -> host_lock.Claim | None:
    file.seek(0)
    try:
        return host_lock.Claim.of(file.read(4096))
    except host_lock.HostLockError:
        return None


def _holder(file: IO[str]) -> host_lock.Claim | None:
    """Return the claim in the lock file's text if its process still runs and is not this one."""
    claim = _noted(file)
    if claim is None or claim.pid == os.getpid():
        return None
    holder = Holder(os.uname().nodename, claim.pid, claim.boot, claim.started)
    return None if holder.gone() else claim


def _note(file: IO[str], claim: host_lock.Claim) -> None:
    file.seek(0)
    file.truncate(0)
    file.write(str(claim))
    file.flush()


def _lock_file() -> IO[str]:
    """Open the lock file of this machine's controllers.

    Its folder must belong to this user alone, because SSH keys are stored there, too.

    Raises:
        BenchError: the folder belongs to another user (possible in /tmp), or is not writable.
    """
    try:
        scratch.require_own(RUN)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Mode 0600: any user who can open the file can lock it, and so block every sweep.
        return os.fdopen(os.open(RUN / "lock", flags, 0o600), "r+")
    except OSError as error:
        raise BenchError(
            f"the lock {RUN / 'lock'} cannot be held: {error}; a folder that this user can write "
            "is needed"
        ) from error


def _locked(file: IO[str]) -> bool:
    """Try to lock a file without waiting; return whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def keys(sweep: str, keep: Callable[[], bool] = lambda: False, host: str = "") -> Iterator[Path]:
    """Make a folder for the SSH keys of a sweep's guests, and remove it at the end.

    Args:
        sweep: Name of the sweep.
        keep: Called at the end; True keeps the folder, for guests that are kept for inspection.
        host: Name of the host whose guests the keys are for, if the sweep has several hosts. Each
            host has its own folder; the caller removes the folders around them (`forget_keys`).
    """
    folder = RUN / "keys" / sweep
    if host:
        folder = folder / file_name(host)
        shutil.rmtree(folder, ignore_errors=True)  # if this fails, mkdir reports why
    else:
        forget_keys()
    folder.parent.mkdir(parents=True, exist_ok=bool(host), mode=0o700)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        if not keep() and host:
            shutil.rmtree(folder, ignore_errors=True)  # the error that ended the sweep is reported
        elif not keep():
            forget_keys()


def file_name(host: str) -> str:
    """Return a host's name encoded as the name of a file or folder (percent-encoding)."""
    name = quote(host, safe="")
    return name if not name.startswith(".") else f"%2E{name[1:]}"


def forget_keys() -> None:
    """Remove the keys of killed sweeps, and of guests that were kept for inspection."""
    shutil.rmtree(RUN / "keys", ignore_errors=True)  # the folder may be missing


def forget_killed() -> None:
    """Remove the keys and temporary files of killed commands.

    Raises:
        OSError: the folder belongs to another user (possible in /tmp); it is not changed.
    """
    if os.path.lexists(RUN):
        scratch.require_own(RUN)
        forget_keys()
        scratch.remove_abandoned()


@contextmanager
def affinity_restored() -> Iterator[Callable[[str], None]]:
    """Yield a function that binds this process and its children to CPUs; undo that at the end.

    The function takes a kernel list of CPUs. The affinity is only restored if it was called: of
    several hosts that a sweep measures, at most one is this machine.
    """
    before = os.sched_getaffinity(0)
    bound: list[str] = []

    def keep_to(cpus: str) -> None:
        bound.append(cpus)
        _move(parse_cpu_list(cpus))

    try:
        yield keep_to
    finally:
        if bound:
            _move(before)


def _move(cpus: Iterable[int]) -> None:
    """Bind every thread of this process: the progress bar and the playbook have their own."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def end_strays(host: str = "") -> None:
    """Kill leftover processes of interrupted playbooks, and remove their temporary files.

    It does nothing unless this process holds the lock (`alone`): without the lock, the processes
    may belong to another sweep.

    Args:
        host: The host whose playbooks are meant, if a sweep has several; empty for all.

    Raises:
        BenchError: a process does not end.
    """
    if os.getpid() not in _alone:
        return
    remaining = ansible.end_strays(host)
    scratch.remove_abandoned()
    if remaining:
        raise BenchError(
            f"processes {remaining} of a playbook that was cut off do not end; kill them"
        )
