"""Files that a script printed, read as those of a live kernel are: no disk is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import Path, PurePath
from typing import Optional, TypeVar, Union

Found = TypeVar("Found")
Parts = tuple[str, ...]


class Printed:
    """A path of such files: as much of `pathlib.Path` as the readers in this package use.

    It stays below its root: an absolute path is taken from there, and no file's path has "..".
    What is no file, or no folder, is not found. Patterns have no "**".
    """

    __slots__ = ("_folders", "_texts", "parts")

    def __init__(self, files: Iterable[tuple[str, Optional[str]]] = ()) -> None:
        """Make the root.

        Args:
            files: Path and text of each; no text makes it a folder. The last of a path counts.
        """
        self.parts: Parts = ()
        self._texts: dict[Parts, str] = {}
        self._folders: dict[Parts, dict[str, None]] = {(): {}}  # the names in each
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
        """The last part."""
        return self.parts[-1] if self.parts else ""

    @property
    def parents(self) -> list[Printed]:
        """The folders around it, from its own up to the root."""
        return [self._at(self.parts[:length]) for length in reversed(range(len(self.parts)))]

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.parts in self._folders

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the file's text; what was printed has been decoded already."""
        return self._found(self._texts)

    def read_bytes(self) -> bytes:
        """Return the file's text in UTF-8."""
        return self.read_text().encode()

    def iterdir(self) -> Iterator[Printed]:
        """Give what is in the folder."""
        return (self._at((*self.parts, name)) for name in self._found(self._folders))

    def glob(self, pattern: str) -> Iterator[Printed]:
        """Give what matches a pattern below the folder."""
        found = [self.parts]
        for part in _parts(pattern):
            fits = re.compile(translate(part)).match
            found = [
                (*path, name)
                for path in found
                for name in self._folders.get(path, ())
                if fits(name)
            ]
        return map(self._at, found)

    def _found(self, among: dict[Parts, Found]) -> Found:
        try:
            return among[self.parts]
        except KeyError:
            raise FileNotFoundError(f"{self}: was not printed") from None


Place = Union[Path, Printed]
"""A root of /proc and /sys, or what is below it: live, or printed."""


def _parts(name: str) -> Parts:
    return tuple(part for part in name.split("/") if part not in ("", "."))
