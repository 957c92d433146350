"""Who measures a bench host: a note on the host itself, for controllers may be several machines.

It names its controller, and holds for a time that each block renews, in seconds of the host's own
uptime: no clock that is set moves it. It ends with that time, with the host's boot, with the
controller's process where that is seen from the host, and when the same controller comes again:
there only one process at a time holds the controller's own lock.
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
"""Where root keeps on a host what lives while a sweep runs."""
NAME = "sweep"
SLACK_S = 60
GUARD_S = 20
"""How long whoever writes the note waits for another that does; a write takes milliseconds."""
_TAKEN = 3
_TRIES = 5
# POSIX sh; $1 is the folder. A note is two lines: the claim, and until when in which boot.
_READ = f"""\
uname -n; cat /proc/sys/kernel/random/boot_id
read -r up rest < /proc/uptime; echo "${{up%%.*}}"
cat "$1/{NAME}" 2>/dev/null || :
"""
# Nobody else may open the guard: whoever can, can lock it. The note is for all to read.
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
# $2 is the new claim, $3 the seconds, $4 the note that it replaces.
_TAKE = f"""\
{_GUARDED}[ "$(cat "$1/{NAME}" 2>/dev/null)" = "$4" ] || exit {_TAKEN}
{_WRITE}"""
# $2 is the claim; $3 the seconds. Gone, it is written again.
_MINE = f"""\
{_GUARDED}first=; [ ! -e "$1/{NAME}" ] || read -r first < "$1/{NAME}"
"""
_RENEW = f"""\
{_MINE}[ -z "$first" ] || [ "$first" = "$2" ] || {{ printf '%s\\n' "$first"; exit {_TAKEN}; }}
{_WRITE}"""
# $4 and on are folders.
_BEGIN = f"""\
cat /proc/sys/kernel/random/boot_id
[ -z "$2" ] || {{ {_RENEW}}} || exit
exec 9>&-
shift 3
{limits.SCRIPT}"""
_FREE = f"""\
{_MINE}[ "$first" != "$2" ] || rm -f "$1/{NAME}"
"""

Execute = Callable[[str], Mapping[str, object]]
"""Runs a command of the host's shell; gives rc, stdout and stderr."""


class HostLockError(RuntimeError):
    """Another controller has the host, or the note cannot be read or written."""


@dataclass(frozen=True)
class Claim:
    """A controller that measures a host.

    Attributes:
        host: Name of the controller's machine.
        boot: That machine's boot id.
        folder: The folder of the controller's own lock: one per user.
        pid: Number of its process.
        started: When that started, in the kernel's ticks since boot.
        what: What it carries out.
        since: Since when, UTC.
    """

    host: str
    boot: str
    folder: str
    pid: int
    started: str
    what: str
    since: str

    def __str__(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def words(self) -> str:
        """Who that is: "process 12 on ctl01 (virtbed sweep quick) since …"."""
        return f"process {self.pid} on {self.host} ({self.what}) since {self.since}"

    @classmethod
    def of(cls, line: str) -> Claim:
        """Read a line that `str` gave.

        Raises:
            HostLockError: it is none.
        """
        try:
            found = json_file.parse(line, "it")
            claim = cls(**found)
            if type(claim.pid) is not int or not all(
                isinstance(v, str) for k, v in found.items() if k != "pid"
            ):
                raise TypeError("a number of a process and texts needed")
        except (DocumentError, TypeError) as error:
            raise HostLockError(f"{line[:200]!r} found, a claim needed: {error}") from error
        return claim


@dataclass(frozen=True)
class Seen:
    """A host's note as it is read, and what tells whether it still holds."""

    name: str
    boot: str
    uptime: int
    note: str

    @classmethod
    def read(cls, execute: Execute, folder: str = FOLDER) -> Seen:
        """Read it on the host.

        Raises:
            HostLockError: the host tells something else.
        """
        answer = execute(_command(_READ, folder))
        _check(answer, folder)
        lines = str(answer["stdout"]).splitlines()
        try:
            return cls(lines[0], lines[1], int(lines[2]), "\n".join(lines[3:]))
        except (IndexError, ValueError) as error:
            raise HostLockError(f"{lines[:3]} found, name, boot id and uptime needed") from error

    def claim(self, folder: str = FOLDER) -> tuple[Claim, int] | None:
        """Return who holds the host, and for how many seconds more; None if nobody does.

        Raises:
            HostLockError: the note cannot be read, and so nobody knows.
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
        """Return whether the controller is a process of this very host."""
        return (claim.host, claim.boot) == (self.name, self.boot)


def here(what: str, folder: Path, since: str) -> Claim:
    """Return this process's claim."""
    from virtbed.lease import Holder

    me = Holder.here()
    return Claim(me.host, me.boot, str(folder), me.pid, me.started, what, since)


def held_by(execute: Execute, seen: Seen, mine: Claim | None, folder: str = FOLDER) -> str:
    """Return who else has a host and how to break that, in words; empty if nobody else does.

    Args:
        execute: Runs a command on the host.
        seen: What was read there.
        mine: The claim of whoever asks.
        folder: Where the note lies.
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
        f"{seen.name} is being measured by {claim.words}, for {left} s more unless that is "
        "renewed; wait for its end, or end it (Ctrl-C); if it is gone, remove "
        f"{folder}/{NAME} on {seen.name}"
    )


def gone(execute: Execute, claim: Claim) -> bool:
    """Return whether a process of the host itself has ended."""
    answer = execute(f"cat /proc/{claim.pid}/stat")
    try:
        return answer["rc"] != 0 or str(Stat.parse(str(answer["stdout"])).started) != claim.started
    except (IndexError, ValueError):
        return True


def take(execute: Execute, claim: str, seconds: int, folder: str = FOLDER) -> None:
    """Take a host for some seconds.

    Raises:
        HostLockError: another controller has it, or it cannot be taken.
    """
    for _ in range(_TRIES):
        seen = Seen.read(execute, folder)
        if who := held_by(execute, seen, Claim.of(claim), folder):
            raise HostLockError(who)
        answer = execute(_command(_TAKE, folder, claim, seconds, seen.note))
        if answer["rc"] != _TAKEN:  # else another was faster
            _check(answer, folder)
            return
    raise HostLockError(f"{folder}/{NAME} on {seen.name} changes all the time; call again")


def check_free(execute: Execute, claim: str, folder: str = FOLDER) -> None:
    """Raise HostLockError if a controller has a host that is not the claim's own."""
    seen = Seen.read(execute, folder)
    if who := held_by(execute, seen, Claim.of(claim) if claim else None, folder):
        raise HostLockError(who)


def begin(
    execute: Execute, claim: str, seconds: int, paths: Sequence[str] = (), folder: str = FOLDER
) -> list[str]:
    """Hold a host for so many seconds from now, and ask what a block needs to know, at once.

    Args:
        execute: Runs a command on the host.
        claim: The claim; empty for a host that is not held.
        seconds: For how long.
        paths: Folders whose file systems are looked at.
        folder: Where the note lies.

    Returns:
        The host's boot id, then what `limits.SCRIPT` prints of the folders.

    Raises:
        HostLockError: another controller has taken the host, or the note cannot be written.
    """
    answer = execute(_command(_BEGIN, folder, claim, seconds, *paths))
    lines = str(answer["stdout"]).strip().splitlines()
    if answer["rc"] == _TAKEN:
        raise HostLockError(f"the host was taken by {Claim.of(lines[-1]).words}: it is not ours")
    _check(answer, folder)
    return lines


def free(execute: Execute, claim: str, folder: str = FOLDER) -> None:
    """Let a host go, if the claim has it."""
    _check(execute(_command(_FREE, folder, claim)), folder)


def _command(script: str, *words: object) -> str:
    return shlex.join(["sh", "-c", script, "sh", *map(str, words)])


def _check(answer: Mapping[str, object], folder: str) -> None:
    if answer["rc"] != 0:
        said = str(answer["stderr"] or answer["stdout"]).strip()[-500:]
        raise HostLockError(
            f"{folder}/{NAME} cannot be read or written: {said or 'no reason given'}; root is "
            f"needed on the host (ansible_become), with space left in {folder}"
        )
