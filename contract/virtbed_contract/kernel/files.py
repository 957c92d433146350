"""Small kernel files read, and files written so that a crash leaves the old or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Optional, Union

from .printed import Place


def read(path: Place) -> Optional[str]:
    """Return the text of a kernel file without NULs and white space around it.

    Returns:
        None where the file does not exist or may not be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def chosen(text: Optional[str]) -> Optional[str]:
    """Return the bracketed word of a kernel choice: "always [madvise] never" gives "madvise".

    Returns:
        None for None, and for a text without brackets.
    """
    return (text or "").partition("[")[2].partition("]")[0] or None


def fields(text: Optional[str]) -> dict[str, str]:
    """Return the first value per key of a text of "key: value" lines; {} for None."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file at once: whatever happens, `path` holds the old content or the whole new one.

    Args:
        path: The file; its folder must exist.
        write: Called with the path of a temporary file in the same folder, which it writes. That
            file is then synced to disk and renamed, and the folder synced.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def write_text(path: Path, text: Union[str, Iterable[str]], mode: int = 0o644) -> None:
    """Replace a text file at once: see `write_whole`.

    Args:
        path: The file; its folder must exist.
        text: The content, whole or in parts, of which one at a time is in memory.
        mode: The file's permissions.
    """

    def write(temporary: Path) -> None:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            os.fchmod(opened, mode)  # whatever the umask
            file.writelines([text] if isinstance(text, str) else text)

    write_whole(path, write)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
