"""The folder that lives as long as a boot, and in it what lives no longer than its process.

A process that is killed removes nothing. So each folder is named after the process that made it,
and the next command removes those whose process is gone.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtbed_contract.kernel import processes

_NAME = re.compile(r"(?P<pid>\d+)-(?P<started>\d+)-\w+")


def run_dir() -> Path:
    """Return root's folder, or the user's own: a controller of remote hosts need not be root."""
    user = os.geteuid()
    if user == 0:
        return Path("/run/virtbed")
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or "")
    # A name that anybody can take in /tmp; `require_own` refuses what others made.
    there = own if own.is_absolute() and own.is_dir() else Path(tempfile.gettempdir())
    return there / f"virtbed-{user}"


RUN = run_dir()


def require_own(folder: Path) -> None:
    """Make a folder that is this user's alone to write, if it is not there: keys lie in it.

    Raises:
        OSError: it is another's or others write to it, as it may be in /tmp, or it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{folder} of user id {found.st_uid}, {stat.filemode(found.st_mode)}, found; a folder "
            f"of user id {os.geteuid()} that nobody else can write needed; remove it, or set "
            "XDG_RUNTIME_DIR to a folder of your own"
        )


@contextmanager
def own_folder() -> Iterator[Path]:
    """Give a folder that only this user reads, and remove it; first those of killed processes.

    Raises:
        OSError: it cannot be made.
    """
    require_own(RUN)
    parent = RUN / "plays"
    parent.mkdir(exist_ok=True, mode=0o700)
    remove_abandoned()
    me = processes.stat()
    assert me, "this process has no /proc/self/stat"
    with tempfile.TemporaryDirectory(
        dir=parent, prefix=f"{os.getpid()}-{me.started}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def remove_abandoned() -> None:
    """Remove the folders of processes that are gone, unless something they started lives on."""
    for folder in (RUN / "plays").glob("*"):
        if not _owned(folder.name) and not _used(folder):
            shutil.rmtree(folder, ignore_errors=True)  # another command may remove it as well


def _owned(name: str) -> bool:
    match = _NAME.fullmatch(name)
    owner = processes.stat(int(match["pid"])) if match else None
    return owner is not None and match is not None and owner.started == int(match["started"])


def _used(folder: Path) -> bool:
    """Return whether a process has its temporary files there: it would put the next elsewhere."""
    inside = f"TMPDIR={folder}/".encode()
    found = processes.with_environment(
        lambda variable: variable.startswith(inside), user=os.geteuid()
    )
    return bool(found)
