"""Compare two images by their bills of materials (packages) and their lists of files.

`virtbed image diff` prints the result. The images' trees are not needed: the three files that the
build writes next to a tree are enough.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, Json
from virtbed_contract.documents import image_name

MANIFEST, BILL, CONTENTS = "manifest.json", "sbom.cdx.json", "contents.jsonl.gz"
_MOST_BYTES = 2**28  # largest list of files that is read; a list of 50,000 files has 10 MB
_DAMAGED = (OSError, EOFError, zlib.error, ValueError, KeyError, AttributeError, TypeError)
Parts = dict[str, dict[str, Any]]
"""Properties of an image's packages by name, or of its files by path."""


class ImageError(RuntimeError):
    """An image does not exist, or cannot be compared."""


@dataclass(frozen=True)
class Listed:
    """The lists of an image's contents.

    Attributes:
        manifest: Digest, variant, suite, key, build time.
        packages: By "name (kind)": version, and hashes that distinguish builds of one version.
        files: By path: type, mode, owner, size, SHA-256, target.
    """

    manifest: Json
    packages: Parts
    files: Parts


@dataclass(frozen=True)
class Change:
    """A package or file that both images have, with different properties.

    Attributes:
        name: The package's name, or the file's path.
        of: The differing properties ("version", "mode", …), each with its values in the two images;
            None if an image lacks the property.
    """

    name: str
    of: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """The differences between the packages, or the files, of two images; sorted by name."""

    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.only_a or self.only_b or self.changed)


def folder_of(name: str, images_of_host: Callable[[], Path]) -> Path:
    """Return the folder of an image.

    Args:
        name: A folder; or the image's digest (`sha256:…`), its name (the first 16 digits), or a
            variant, whose current image is meant.
        images_of_host: Returns the folder of this host's images; called only if `name` is no
            folder.

    Raises:
        ImageError: there is no such image; the message lists the existing ones.
    """
    short = image_name(name) if name.startswith("sha256:") else name
    folder = _first(Path(name))
    if folder is None:
        images = images_of_host()
        folder = _first(images / short, images / f"current-{name}")
    if folder is None:
        existing = sorted(path.name for path in images.glob("*") if (path / MANIFEST).is_file())
        raise ImageError(
            f"no image {name[:200]} found, a folder with {MANIFEST}, {BILL} and {CONTENTS} needed, "
            f"or one of {images}: {', '.join(existing) or 'which has none'}"
        )
    return folder


def _first(*folders: Path) -> Path | None:
    """Return the first folder that is an image's; None if none is."""
    try:
        return next((folder for folder in folders if (folder / MANIFEST).is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def load(folder: Path) -> Listed:
    """Read the lists of an image's contents.

    Raises:
        ImageError: a file is missing or damaged, or belongs to another image.
    """
    try:
        manifest, bill = (json_file.read(folder / name) for name in (MANIFEST, BILL))
        digest = bill["metadata"]["component"]["version"]
        packages = _packages(bill)
    except DocumentError as error:
        raise ImageError(f"{folder}: {error}; {_REMEDY}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{folder / BILL}: no bill of an image found, {error} needed") from error
    if not isinstance(manifest.get("digest"), str) or digest != manifest["digest"]:
        raise ImageError(
            f"{folder}: digest {manifest.get('digest')} found in {MANIFEST} and {digest} in "
            f"{BILL}, the same needed; both files must belong to one image"
        )
    return Listed(manifest, packages, _files(folder / CONTENTS, digest))


_REMEDY = "an image of this version of virtbed has it: remove the image's folder, then make setup"


def _packages(bill: Json) -> Parts:
    """Return the packages of a bill of materials, by "name (kind)"."""
    packages = {}
    for part in bill["components"]:
        kind = str(part["purl"]).partition(":")[2].partition("/")[0]
        about = {
            entry["name"].partition(":")[2]: entry["value"] for entry in part.get("properties", [])
        }
        about.update(("sha256", entry["content"]) for entry in part.get("hashes", []))
        hashes = {key: about[key] for key in ("sha256", "record_sha256") if key in about}
        packages[f"{part['name']} ({kind})"] = {"version": part["version"], **hashes}
    return packages


def _files(path: Path, digest: str) -> Parts:
    """Return the files of an image's list, by path.

    Args:
        path: The list, compressed lines of JSON; the last line has the image's digest.
        digest: The digest that the list must have.
    """
    files: Parts = {}
    try:
        with gzip.open(path) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ImageError(f"{path}: more than {_MOST_BYTES >> 20} MiB found, no more are read")
        *lines, last = text.splitlines()
        end = json.loads(last)
        if end != {"digest": digest, "files": len(lines)}:
            raise ImageError(
                f"{path}: it ends with {str(end)[:200]}, digest {digest} and {len(lines)} files "
                "needed; it belongs to another image"
            )
        for line in lines:
            entry = json.loads(line)
            files[_rooted(entry.pop("path"))] = entry
    except FileNotFoundError as error:
        raise ImageError(f"no {path} found, an image's list of files needed; {_REMEDY}") from error
    except _DAMAGED as error:
        raise ImageError(f"{path}: damaged ({error}), a line of JSON per file needed") from error
    return files


def _rooted(path: str) -> str:
    """Return a path of a tar as an absolute one: "./etc/shadow" as "/etc/shadow", "." as "/"."""
    return "/" + path.removeprefix(".").lstrip("/")


def difference(a: Mapping[str, dict[str, Any]], b: Mapping[str, dict[str, Any]]) -> Difference:
    """Return the differences between the packages, or the files, of two images."""
    changed = []
    for name in sorted(a.keys() & b.keys()):
        keys = [key for key in {**a[name], **b[name]} if a[name].get(key) != b[name].get(key)]
        if keys:
            of = {key: (a[name].get(key), b[name].get(key)) for key in keys}
            changed.append(Change(name, of))
    return Difference(sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys()), changed)


def document(a: Listed, b: Listed) -> Json:
    """Return the document of `virtbed image diff --json`: all differences."""
    parts = {"packages": (a.packages, b.packages), "files": (a.files, b.files)}
    content: Json = {"same": same(a, b), "a": a.manifest, "b": b.manifest}
    for name, (left, right) in parts.items():
        differences = difference(left, right)
        content[name] = {
            "only_a": {each: left[each] for each in differences.only_a},
            "only_b": {each: right[each] for each in differences.only_b},
            "changed": {
                each.name: {what: list(two) for what, two in each.of.items()}
                for each in differences.changed
            },
        }
    return content


def same(a: Listed, b: Listed) -> bool:
    """Return whether two images have the same digest."""
    return bool(a.manifest["digest"] == b.manifest["digest"])
