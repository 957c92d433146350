"""The claim of a controller on a bench host: a note in a file on the host itself.

Sweeps, set-up and teardown take it, so that they exclude each other.

The note is on the host because controllers can run on several machines. It names its controller,
and is valid until a point in the host's own uptime, which no change of a clock moves; each block
renews it, and so does the controller while the host waits for others. A claim ends when that time
has passed, when the host boots, when the controller's process has ended (if that process runs on
the host itself), and when the same controller claims the host again: only one process at a time
holds a controller's own lock (`virtbed.bench.alone`).

The playbooks' module host_lock calls `take`, `begin` and `free`; `virtbed status` only reads.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from virtbed_contract import json_file, limits
from virtbed_contract.codec import DocumentError
from virtbed_contract.kernel.processes import Stat

FOLDER = "/run/virtbed"
"""Root's folder on a host for files that exist only while a sweep runs."""
NAME = "sweep"
SLACK_S = 60
GUARD_S = 20
"""Seconds that a writer of the note waits for another writer; a write takes milliseconds."""
_TAKEN = 3
_TRIES = 5
# Scripts in POSIX sh; $1 is the folder. A note has two lines: the claim; and the uptime until which
# it is valid, with the id of the boot that the uptime belongs to.
_READ = f"""\
uname -n; cat /proc/sys/kernel/random/boot_id
read -r up rest < /proc/uptime; echo "${{up%%.*}}"
cat "$1/{NAME}" 2>/dev/null || :
"""
# Only root may open the guard, since a user who can open it can lock it. All users may read the
# note.
_GUARDED = f"""\
umask 077
[ -d "$1" ] || mkdir -m 711 -p "$1" || exit
exec 9> "$1/guard" || exit
flock -w {GUARD_S} 9 || {{
  echo "$1/guard is locked by another process for {GUARD_S} s" >&2; exit 1
}}
umask 022
"""
_WRITE = f"""\
read -r up rest < /proc/uptime
printf '%s\\n%s %s\\n' "$2" $((${{up%%.*}} + $3)) "$(cat /proc/sys/kernel/random/boot_id)" \
> "$1/.{NAME}.new" && mv -f "$1/.{NAME}.new" "$1/{NAME}"
"""
# $2 is the new claim, $3 its seconds, $4 the note that it replaces.
_TAKE = f"""\
{_GUARDED}[ "$(cat "$1/{NAME}" 2>/dev/null)" = "$4" ] || exit {_TAKEN}
{_WRITE}"""
# $2 is the claim, $3 its seconds. A note that is missing is written again.
_MINE = f"""\
{_GUARDED}first=; [ ! -e "$1/{NAME}" ] || read -r first < "$1/{NAME}"
"""
_RENEW = f"""\
{_MINE}[ -z "$first" ] || [ "$first" = "$2" ] || {{ printf '%s\\n' "$first"; exit {_TAKEN}; }}
{_WRITE}"""
# $4 and the following are folders.
_BEGIN = f"""\
cat /proc/sys/kernel/random/boot_id
[ -z "$2" ] || {{ {_RENEW}}} || exit
exec 9>&-
shift 3
{limits.SCRIPT}"""
_FREE = f"""\
[ -e "$1/{NAME}" ] || exit 0
{_MINE}[ "$first" != "$2" ] || rm -f "$1/{NAME}"
"""

Execute = Callable[[str], Mapping[str, object]]
"""Runs a shell command on the host; returns a mapping with rc, stdout and stderr."""


class HostLockError(RuntimeError):
    """Another controller has claimed the host, or the note cannot be read or written."""


@dataclass(frozen=True)
class Claim:
    """The controller that has claimed a host.

    Attributes:
        host: Name of the controller's machine.
        boot: That machine's boot id.
        folder: The folder of the controller's own lock; each user has one.
        pid: Number of its process.
        started: When the process started, in the kernel's ticks since boot.
        what: Description of what it does, such as "virtbed sweep quick" or "set-up".
        since: When it claimed the host, in UTC.
    """

    host: str
    boot: str
    folder: str
    pid: int
    started: str
    what: str
    since: str

    def __str__(self) -> str:
        """Return the claim as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def words(self) -> str:
        """The controller in words: "process 12 on ctl01 (virtbed sweep quick) since …"."""
        return f"process {self.pid} on {self.host} ({self.what}) since {self.since}"

    @classmethod
    def of(cls, line: str) -> Claim:
        """Parse a claim's line of JSON.

        Raises:
            HostLockError: the line is no claim.
        """
        try:
            fields = json_file.parse(line, "it")
            claim = cls(**fields)
            if type(claim.pid) is not int or not all(
                isinstance(v, str) for k, v in fields.items() if k != "pid"
            ):
                raise TypeError("a number of a process and texts needed")
        except (DocumentError, TypeError) as error:
            raise HostLockError(f"{line[:200]!r} found, a claim needed: {error}") from error
        return claim


@dataclass(frozen=True)
class Seen:
    """A host's note, and the facts that decide whether it is still valid.

    Attributes:
        name: The host's own name.
        boot: Its boot id.
        uptime: Its uptime in seconds.
        note: The text of the note; empty if there is none.
    """

    name: str
    boot: str
    uptime: int
    note: str

    @classmethod
    def read(cls, execute: Execute, folder: str = FOLDER) -> Seen:
        """Read the note and these facts on the host.

        Raises:
            HostLockError: the command failed, or printed something else.
        """
        answer = execute(_command(_READ, folder))
        _check(answer, folder)
        lines = str(answer["stdout"]).splitlines()
        try:
            return cls(lines[0], lines[1], int(lines[2]), "\n".join(lines[3:]))
        except (IndexError, ValueError) as error:
            raise HostLockError(f"{lines[:3]} found, name, boot id and uptime needed") from error

    def claim(self, folder: str = FOLDER) -> tuple[Claim, int] | None:
        """Return the valid claim and the seconds until it ends; None if there is none.

        Raises:
            HostLockError: the note cannot be parsed, so that its claim is unknown.
        """
        if not self.note:
            return None
        head, _, tail = self.note.partition("\n")
        expires, _, boot = tail.partition(" ")
        if boot != self.boot and boot:
            return None
        try:
            left = int(expires) - self.uptime
            claim = Claim.of(head)
        except (ValueError, HostLockError) as error:
            raise HostLockError(
                f"{folder}/{NAME}: {error}; if no sweep runs on {self.name}, remove that file there"
            ) from error
        return (claim, left) if left > 0 else None

    def same_kernel(self, claim: Claim) -> bool:
        """Return whether the controller is a process of this host itself."""
        return (claim.host, claim.boot) == (self.name, self.boot)


def here(what: str, folder: Path, since: str, pid: int | None = None) -> Claim:
    """Return the claim of a process on this machine.

    Args:
        what: Description of what it does.
        folder: The folder of this controller's own lock.
        since: The present time, in UTC.
        pid: The process; None for this one.
    """
    from virtbed.lease import Holder

    me = Holder.here(pid=pid)
    return Claim(me.host, me.boot, str(folder), me.pid, me.started, what, since)


def held_by(execute: Execute, seen: Seen, mine: Claim | None, folder: str = FOLDER) -> str:
    """Return a message about another controller that has a host; empty if there is none.

    Args:
        execute: Runs a command on the host.
        seen: The host's note.
        mine: The claim of the caller, which does not count as another; None if it has none.
        folder: The folder of the note.
    """
    held = seen.claim(folder)
    if held is None:
        return ""
    claim, left = held
    if mine and (claim.host, claim.boot, claim.folder) == (mine.host, mine.boot, mine.folder):
        return ""
    if seen.same_kernel(claim) and gone(execute, claim):
        return ""
    return (
        f"{seen.name} is in use by {claim.words}, for {left} s more unless it renews its "
        "claim; wait for its end, or end it (Ctrl-C); if that process is gone, remove "
        f"{folder}/{NAME} on {seen.name}"
    )


def gone(execute: Execute, claim: Claim) -> bool:
    """Return whether a controller has ended whose process runs on the host itself."""
    answer = execute(f"cat /proc/{claim.pid}/stat")
    try:
        return answer["rc"] != 0 or str(Stat.parse(str(answer["stdout"])).started) != claim.started
    except (IndexError, ValueError):
        return True


def take(execute: Execute, claim: str, seconds: int, folder: str = FOLDER) -> None:
    """Claim a host.

    Args:
        execute: Runs a command on the host.
        claim: The claim, as one line of JSON.
        seconds: How long it is to be valid from now on.
        folder: The folder of the note.

    Raises:
        HostLockError: another controller has the host, or the note cannot be written.
    """
    for _ in range(_TRIES):
        seen = Seen.read(execute, folder)
        if who := held_by(execute, seen, Claim.of(claim), folder):
            raise HostLockError(who)
        answer = execute(_command(_TAKE, folder, claim, seconds, seen.note))
        if answer["rc"] != _TAKEN:  # otherwise another controller was faster
            _check(answer, folder)
            return
    raise HostLockError(f"{folder}/{NAME} on {seen.name} changes all the time; call again")


def check_free(execute: Execute, claim: str, folder: str = FOLDER) -> None:
    """Raise HostLockError if a controller other than the claim's own has claimed a host.

    Args:
        execute: Runs a command on the host.
        claim: The caller's claim as one line of JSON; empty if it has none.
        folder: The folder of the note.
    """
    seen = Seen.read(execute, folder)
    if who := held_by(execute, seen, Claim.of(claim) if claim else None, folder):
        raise HostLockError(who)


def begin(
    execute: Execute, claim: str, seconds: int, paths: Sequence[str] = (), folder: str = FOLDER
) -> list[str]:
    """Renew the claim on a host, and read what a block needs to know, in one command.

    Args:
        execute: Runs a command on the host.
        claim: The claim, as one line of JSON; empty for a host that is not claimed.
        seconds: How long the claim is to be valid from now on.
        paths: Folders whose file systems are examined.
        folder: The folder of the note.

    Returns:
        The host's boot id, then the lines that `limits.SCRIPT` prints about the folders.

    Raises:
        HostLockError: another controller has claimed the host, or the note cannot be written.
    """
    answer = execute(_command(_BEGIN, folder, claim, seconds, *paths))
    lines = str(answer["stdout"]).strip().splitlines()
    if answer["rc"] == _TAKEN:
        raise HostLockError(
            f"the host was taken by {Claim.of(lines[-1]).words}; this sweep has lost it: "
            "call again when that one has ended"
        )
    _check(answer, folder)
    return lines


def free(execute: Execute, claim: str, folder: str = FOLDER) -> None:
    """Remove the note from a host, if it is this claim's."""
    _check(execute(_command(_FREE, folder, claim)), folder)


def _command(script: str, *words: object) -> str:
    return shlex.join(["sh", "-c", script, "sh", *map(str, words)])


def _check(answer: Mapping[str, object], folder: str) -> None:
    if answer["rc"] != 0:
        reason = str(answer["stderr"] or answer["stdout"]).strip()[-500:]
        raise HostLockError(
            f"{folder}/{NAME} cannot be read or written: {reason or 'no reason given'}; root is "
            f"needed on the host (ansible_become), with space left in {folder}"
        )
