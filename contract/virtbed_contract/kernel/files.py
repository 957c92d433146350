"""Reading of small kernel files, and atomic writing of files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Optional, Union

from .printed import Place


def read(path: Place) -> Optional[str]:
    """Return the text of a kernel file without surrounding NULs and white space.

    Returns:
        The text; None if the file does not exist or may not be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def chosen(text: Optional[str]) -> Optional[str]:
    """Return the chosen word of a kernel setting, which has brackets.

    Returns:
        The word; None for None, and for a text without brackets.

    >>> chosen("always [madvise] never")
    'madvise'
    """
    return (text or "").partition("[")[2].partition("]")[0] or None


def fields(text: Optional[str]) -> dict[str, str]:
    """Return the first value of each key in a text of "key: value" lines; {} for None."""
    values: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    return values


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file atomically: after a crash it has the old content or all of the new content.

    Args:
        path: The file; its folder must exist.
        write: Function that writes a temporary file in the same folder, whose path it gets. That
            file is then synced to disk and renamed, and the folder is synced.

    Raises:
        OSError: The file cannot be written, or it is a device, a FIFO or a folder.
    """
    # A rename would replace /dev/null, too.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file, one needed", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def write_text(path: Path, text: Union[str, Iterable[str]], mode: int = 0o644) -> None:
    """Replace a text file atomically: see `write_whole`.

    Args:
        path: The file; its folder must exist.
        text: The content, or an iterable of its parts, which are written one at a time.
        mode: Permissions of the file.
    """

    def write(temporary: Path) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.writelines([text] if isinstance(text, str) else text)

    write_whole(path, write)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
