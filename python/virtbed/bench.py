"""One bench host: held by one sweep, examined, made quiet, cleared, and put back."""

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
from virtbed.logs import Logs
from virtbed.records import now
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.json_file import plain
from virtbed_contract.kernel.cpus import parse_cpu_list
from virtbed_contract.remedies import setup
from virtbed_contract.sweep import TIMES_EMULATED, HostReport, TuningRow

LOCAL = str(REPOSITORY / "inventory" / "local")
# What only lives while a sweep runs: the lock, and the keys of its guests.
RUN = scratch.RUN
_SHIPPED = {"bench": {"hosts": {"localhost": {"ansible_connection": "local"}}}}
LOCK_WAIT_S = 30
# After so long a playbook that examines, clears or restores a host counts as hung, and so does
# whatever a block does besides its trials.
HUNG_AFTER_S = 300.0
# Variables of playbooks that nobody else may set.
SET_BY_A_SWEEP = frozenset(
    f"virtbed_{name}"
    for name in (
        "bench", "run_dir", "incoming_dir", "tuned", "interrupts", "instance", "trials", "trial",
        "claim", "claim_s", "stores", "keep", "neighbours",
    )
)  # fmt: skip
_alone: list[int] = []  # this process, while it holds the controller's lock
_BLOCK = ("begin", "provision", "trials", "release")
_NO = {"", "false", "no", "off", "n", "f", "0", "none"}
# A block adds its guest to this group, which --limit must not leave out.
_GUESTS = "guest"


class BenchError(RuntimeError):
    """A host that is not as a sweep needs it; the message says what was found, and what to do."""


@dataclass
class Bench:
    """The one host of the group `bench`, as the inventories and a limit name it.

    Attributes:
        inventories: Paths, or lists of hosts with a comma.
        limit: A pattern that leaves one host of several, as --limit of ansible-playbook takes it.
        variables: Extra variables for every playbook.
        hung_after_s: Seconds after which a playbook counts as hung that does not run trials.
        logs: Where Ansible's logs are kept.
        name: Its name in the inventory, where it is one of several that a sweep measures at once;
            empty where there is no other.
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
        """Seconds that a playbook without trials may take: longer where the host is emulated."""
        return self.hung_after_s * self._times

    def examine(
        self,
        *,
        restore: bool,
        probe_kvm: bool = True,
        image: str = DEFAULT,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[HostReport, bool]:
        """Examine the host.

        Args:
            restore: Whether settings, daemons and CPUs that a killed sweep changed are put back
                before; CPUs that it left offline would be taken for another host.
            probe_kvm: Whether to boot the guest's kernel under KVM, to see.
            image: The image's variant that is to run, which says what the host needs.
            cancelled: Looked at every second; True ends the examination.

        Returns:
            The host's report, and whether anything was put back.

        Raises:
            BenchError: the host cannot be examined, there is none, or there are several.
        """
        asked = {
            "host_doctor_restore": restore,
            "host_doctor_probe_kvm": probe_kvm,
            "host_doctor_image": image,
        }
        ended, events = self.play("examine", {**asked, **self._claimed_for(3)}, cancelled)
        # Also where the examination then fails: another controller would wait for nobody.
        taken = any(isinstance(e, TaskOk) and e.action == "host_lock" for e in events)
        self._held = bool(self._claim) and taken
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
        """Return the names of the hosts in the group, as far as the limit leaves them.

        The inventory that ships is not asked: this machine is alone in it, and to ask takes Ansible
        a second.

        Raises:
            BenchError: the inventory cannot be read.
        """
        if self.inventories == (LOCAL,) and not self.limit and _is_as_shipped(Path(LOCAL)):
            return ("localhost",)
        return tuple(self._variables_of_hosts())

    def one_of(self, name: str) -> Bench:
        """Return one of several hosts, by its name in the inventory, with logs of its own."""
        return replace(self, limit=name, name=name, logs=Logs())

    def _variables_of_hosts(self) -> Mapping[str, Mapping[str, Any]]:
        if self._listed is None:
            try:
                self._listed = ansible.bench_variables(self.inventories, self.limit)
            except ansible.AnsibleError as error:
                raise BenchError(str(error)) from error
        return self._listed

    def require_root(self, why: str) -> None:
        """Raise BenchError if this process acts on this machine itself, and is not root's.

        On another host whoever logs in must be root there, or become root: its report tells.

        Args:
            why: What root is needed for, after "root (0) needed".
        """
        if os.geteuid() == 0:
            return
        hosts = self._variables_of_hosts().values()
        here = (host for host in hosts if host.get("ansible_connection") == "local")
        # In an inventory of INI `false` is a text.
        if any(str(host.get("ansible_become", "")).lower() in _NO for host in here):
            raise BenchError(f"user id {os.geteuid()} found, root (0) needed {why}; use sudo")

    def blocks(
        self,
        variables: Mapping[str, Any],
        turns: Sequence[Mapping[str, Any]],
        deadline: Deadline,
        cancelled: Callable[[], bool],
    ) -> Iterator[Event]:
        """Carry out blocks, one per turn, and give the events; see `ansible.play`."""
        limit = f"{self.limit},{_GUESTS}" if self.limit else None  # an IPv6 address has colons
        return ansible.play(
            "block", self._with(variables), self.inventories, deadline=deadline,
            logs=self.logs, limit=limit, parts=_BLOCK, turns=turns, cancelled=cancelled,
            host=self.name,
        )  # fmt: skip

    @contextmanager
    def claimed(self, what: str) -> Iterator[None]:
        """Have the host for a sweep, from its examination on: no other controller may take it.

        Args:
            what: What the sweep is, for whoever is refused meanwhile.
        """
        self._claim = str(host_lock.here(what, RUN, now()))
        try:
            yield
        finally:
            if self._held:  # nothing needed to be put back, or it could not be
                with suppress(BenchError):  # it ends by itself, too
                    self.play("free")
            self._claim, self._held = "", False

    def _claimed_for(self, times: int) -> dict[str, Any]:
        """Return what holds the host for as long as some playbooks without trials may take."""
        seconds = int(times * self.limit_s) + host_lock.SLACK_S
        return {"virtbed_claim_s": seconds} if self._claim else {}

    def claim_s(self, block_s: float) -> int:
        """Return for how many seconds a block is to hold the host: for what may follow, too."""
        return int(block_s + 2 * self.limit_s) + host_lock.SLACK_S

    @contextmanager
    def prepared(self, interrupts: str | None) -> Iterator[tuple[TuningRow, ...]]:
        """Tune the host for a sweep, if asked; whatever happens, put back what the sweep changed.

        Args:
            interrupts: The CPUs that interrupts are to come to, a kernel list; None tunes nothing.

        Yields:
            The settings, read back.

        Raises:
            BenchError: it cannot be tuned, or not be put back.
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
        """Release what a sweep that was cut off left on the host, whichever it was.

        Returns:
            Whether anything was left.

        Raises:
            BenchError: it cannot be released, or not in time.
        """
        return self._put_right(
            "clear",
            "the host could not be cleared of what a sweep may have left",
            f"{setup()}, which starts the engines, and call again; or else make teardown",
            cancelled,
        )

    def restore(self) -> bool:
        """Put back the settings, daemons and CPUs that a sweep changed.

        Returns:
            Whether any had been changed.

        Raises:
            BenchError: one does not take its old value, or not in time.
        """
        return self._put_right(
            "restore", "the host's settings could not be put back", "run virtbed restore"
        )

    def _put_right(
        self, playbook: str, wrong: str, remedy: str, cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Run a playbook once what is left of others has ended, lest that undo it again."""
        end_strays(self.name)
        ended, events = self.play(playbook, cancelled=cancelled)
        if ended.ok and playbook == "restore":  # which lets the host go
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
        """Run a playbook to its end; return that and the events before it."""
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
    """Return why a playbook did not end well; of several hosts, which one it was."""
    hosts = {event.host for event in events if isinstance(event, (TaskOk, TaskFailed))}
    failed = {event.host: event.message for event in events if isinstance(event, TaskFailed)}
    if len(hosts) < 2 or not failed:
        return ended.message
    return "; ".join(f"{host}: {message}" for host, message in failed.items())


@contextmanager
def alone(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold this controller's lock: what runs during a sweep would be measured along with it.

    Args:
        check: Called while a sweep that was just killed releases its instance; may raise.

    Raises:
        BenchError: another holds it for LOCK_WAIT_S seconds, or it cannot be held.
    """
    with _lock_file() as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                raise BenchError(
                    f"another sweep runs on this machine{_who(file.read(4096))}, and this would be "
                    f"measured along with it ({LOCK_WAIT_S} s waited); wait for its end, or end it "
                    "(Ctrl-C)"
                )
            check()
            time.sleep(0.5)
        file.truncate(0)
        file.write(str(host_lock.here(_command(), RUN, now())))
        file.flush()
        _alone.append(os.getpid())
        try:
            yield
        finally:
            _alone.pop()
            with suppress(OSError):  # the error that ended the sweep is reported
                file.truncate(0)


def _is_as_shipped(inventory: Path) -> bool:
    """Return whether an inventory has this machine alone."""
    try:
        others = {path.name for path in inventory.iterdir()} - {"hosts.yml", "group_vars"}
        return not others and yaml_file.read(inventory / "hosts.yml") == _SHIPPED
    except (OSError, yaml_file.YamlError):
        return False


def _command() -> str:
    """Return what this process was called for, without options, which may be long."""
    words = [word for word in sys.argv[1:3] if not word.startswith("-")]
    return plain(" ".join([Path(sys.argv[0]).name, *words]))[:200]


def _who(text: str) -> str:
    try:
        return f" ({host_lock.Claim.of(text).words})" if text.strip() else ""
    except host_lock.HostLockError:
        return ""


def _lock_file() -> IO[str]:
    """Open this controller's lock, in a folder that is its user's alone: keys lie there, too.

    Raises:
        BenchError: what is there is another's, as it may be in /tmp, or cannot be written.
    """
    try:
        scratch.require_own(RUN)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Whoever can open it can lock it, and keep every sweep out.
        return os.fdopen(os.open(RUN / "lock", flags, 0o600), "r+")
    except OSError as error:
        raise BenchError(
            f"the lock {RUN / 'lock'} cannot be held: {error}; a folder that this user can write "
            "is needed"
        ) from error


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def keys(sweep: str, keep: Callable[[], bool] = lambda: False, host: str = "") -> Iterator[Path]:
    """Give a sweep a folder for the keys of its guests, and remove it unless it is to be kept.

    Args:
        sweep: Name of the sweep.
        keep: Asked at the end.
        host: The one of several hosts whose guests they are: each has its own, and the folders
            around them are left to whoever calls `forget_keys`.
    """
    folder = RUN / "keys" / sweep
    if host:
        folder = folder / file_name(host)
        shutil.rmtree(folder, ignore_errors=True)  # there is none, or it cannot be made
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
    """Return a name of a file or folder that stands for a host."""
    said = quote(host, safe="")
    return said if not said.startswith(".") else f"%2E{said[1:]}"


def forget_keys() -> None:
    """Remove the keys of sweeps that were killed, and of guests kept for inspection."""
    shutil.rmtree(RUN / "keys", ignore_errors=True)  # there are none, or another error is reported


def forget_killed() -> None:
    """Remove keys and temporary files of commands that were killed; a folder of another's is left.

    Raises:
        OSError: the folder is another's, as it may be in /tmp.
    """
    if os.path.lexists(RUN):
        scratch.require_own(RUN)
        forget_keys()
        scratch.remove_abandoned()


@contextmanager
def affinity_restored() -> Iterator[Callable[[str], None]]:
    """Give what keeps this process, and what it starts, to some CPUs (a kernel list).

    In the end it may run where it could before, if it was kept to any: a sweep may measure several
    hosts at once, and this process is on one of them at most.
    """
    before = os.sched_getaffinity(0)
    kept: list[str] = []

    def keep_to(cpus: str) -> None:
        kept.append(cpus)
        _move(parse_cpu_list(cpus))

    try:
        yield keep_to
    finally:
        if kept:
            _move(before)


def _move(cpus: Iterable[int]) -> None:
    """Keep every thread of this process to some CPUs: the bar and the playbook have their own."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def end_strays(host: str = "") -> None:
    """End what is left of playbooks that were cut off, of one host of several or of any.

    Only while this process is `alone`: without the lock, what runs may be another's sweep.

    Raises:
        BenchError: something of them does not end.
    """
    if os.getpid() not in _alone:
        return
    left = ansible.end_strays(host)
    scratch.remove_abandoned()
    if left:
        raise BenchError(f"processes {left} of a playbook that was cut off do not end; kill them")
