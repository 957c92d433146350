"""In-memory tree of files that a script printed, for the readers of live kernel files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import Path, PurePath
from typing import Optional, TypeVar, Union

Found = TypeVar("Found")
Parts = tuple[str, ...]


class Printed:
    """A path in the tree, with the part of `pathlib.Path` that this package's readers use.

    Paths cannot leave the root: absolute paths start at it, and files with ".." in their path are
    ignored. Reading a path that was not printed raises FileNotFoundError. Patterns cannot have
    "**".
    """

    __slots__ = ("_folders", "_texts", "parts")

    def __init__(self, files: Iterable[tuple[str, Optional[str]]] = ()) -> None:
        """Create the root of a tree.

        Args:
            files: Path and text of each file; None instead of a text makes a folder. If a path
                occurs twice, its last text counts.
        """
        self.parts: Parts = ()
        self._texts: dict[Parts, str] = {}
        self._folders: dict[Parts, dict[str, None]] = {(): {}}  # names in each folder, in order
        for name, text in files:
            path = _parts(name)
            if not path or ".." in path:
                continue
            if text is None:
                self._folders.setdefault(path, {})
            else:
                self._texts[path] = text
            for length in reversed(range(len(path))):
                self._folders.setdefault(path[:length], {})[path[length]] = None

    def _at(self, parts: Parts) -> Printed:
        path = Printed.__new__(Printed)
        path.parts, path._texts, path._folders = parts, self._texts, self._folders
        return path

    def __truediv__(self, name: Union[str, PurePath]) -> Printed:
        return self._at(self.parts + _parts(str(name)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Printed) and self._texts is other._texts and self.parts == other.parts
        )

    def __hash__(self) -> int:
        return hash(self.parts)

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        """The last part of the path; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def parents(self) -> list[Printed]:
        """The folders that contain the path, from the nearest up to the root."""
        return [self._at(self.parts[:length]) for length in reversed(range(len(self.parts)))]

    def is_dir(self) -> bool:
        """Return whether the path is a folder."""
        return self.parts in self._folders

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text of the file; both arguments are ignored, since it is already decoded."""
        return self._found(self._texts)

    def read_bytes(self) -> bytes:
        """Return the text of the file in UTF-8."""
        return self.read_text().encode()

    def iterdir(self) -> Iterator[Printed]:
        """Return the paths in the folder."""
        return (self._at((*self.parts, name)) for name in self._found(self._folders))

    def glob(self, pattern: str) -> Iterator[Printed]:
        """Return the paths below the folder that match a pattern."""
        paths = [self.parts]
        for part in _parts(pattern):
            fits = re.compile(translate(part)).match
            paths = [
                (*path, name)
                for path in paths
                for name in self._folders.get(path, ())
                if fits(name)
            ]
        return map(self._at, paths)

    def _found(self, among: dict[Parts, Found]) -> Found:
        try:
            return among[self.parts]
        except KeyError:
            raise FileNotFoundError(f"{self}: was not printed") from None


Place = Union[Path, Printed]
"""The root of a tree with /proc and /sys, or a path below it: live or printed."""


def _parts(name: str) -> Parts:
    return tuple(part for part in name.split("/") if part not in ("", "."))
