"""Folders for temporary files: one per user, and in it one per process.

A killed process removes nothing. So each process's folder is named after the process, and the next
command removes the folders whose process has ended.
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
    """Return this user's folder for files that live until the next boot at most.

    /run/virtbed for root; other users, who can control remote hosts, have one in their runtime
    directory or in /tmp.
    """
    user = os.geteuid()
    if user == 0:
        return Path("/run/virtbed")
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or "")
    # In /tmp another user could create this folder first; `require_own` refuses it then.
    parent = own if own.is_absolute() and own.is_dir() else Path(tempfile.gettempdir())
    return parent / f"virtbed-{user}"


RUN = run_dir()


def require_own(folder: Path) -> None:
    """Create a folder that only this user can write, because SSH keys are stored in it.

    Raises:
        OSError: it cannot be created; or it exists, and belongs to another user or can be written
            by others (possible in /tmp).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{folder} of user id {found.st_uid}, {stat.filemode(found.st_mode)}, found; a folder "
            f"of user id {os.geteuid()} that no other user can write needed; remove it, or set "
            "XDG_RUNTIME_DIR to a folder of your own"
        )


@contextmanager
def own_folder() -> Iterator[Path]:
    """Create a private temporary folder for this process, and remove it at the end.

    Folders of processes that have ended are removed first.

    Raises:
        OSError: the folder cannot be created.
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
    """Remove the folders of processes that have ended, unless their children still run."""
    for folder in (RUN / "plays").glob("*"):
        if not _owned(folder.name) and not _used(folder):
            shutil.rmtree(folder, ignore_errors=True)  # another command may remove it, too


def _owned(name: str) -> bool:
    """Return whether the process that a folder is named after is still running."""
    match = _NAME.fullmatch(name)
    owner = processes.stat(int(match["pid"])) if match else None
    return owner is not None and match is not None and owner.started == int(match["started"])


def _used(folder: Path) -> bool:
    """Return whether a process uses the folder for its temporary files (TMPDIR)."""
    inside = f"TMPDIR={folder}/".encode()
    users = processes.with_environment(
        lambda variable: variable.startswith(inside), user=os.geteuid()
    )
    return bool(users)
