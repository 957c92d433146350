"""What differs between two images: by their bills of packages and their lists of files."""

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
_MOST_BYTES = 2**28  # of a list; one of 50,000 files has 10 MB
_DAMAGED = (OSError, EOFError, zlib.error, ValueError, KeyError, AttributeError, TypeError)
Parts = dict[str, dict[str, Any]]
"""What an image has, by name or path."""


class ImageError(RuntimeError):
    """An image is not there, or cannot be compared."""


@dataclass(frozen=True)
class Listed:
    """What is known of an image without its tree.

    Attributes:
        manifest: Digest, variant, suite, key, when it was built.
        packages: By kind and name: version, and what tells the bytes of one version apart.
        files: By path: type, mode, owner, size, SHA-256, target.
    """

    manifest: Json
    packages: Parts
    files: Parts


@dataclass(frozen=True)
class Change:
    """What is in both images, and not alike.

    Attributes:
        name: A package's, or a file's path.
        of: What differs: "version", "mode", …, and what it is in each image; None for nothing.
    """

    name: str
    of: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """How the packages, or the files, of two images differ: sorted by name."""

    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.only_a or self.only_b or self.changed)


def folder_of(name: str, images_of_host: Callable[[], Path]) -> Path:
    """Return the folder of an image that is named by its path, digest, name or variant.

    Args:
        name: A folder, `sha256:…` or the 16 digits that name the folder, or a variant, of which the
            current image is meant.
        images_of_host: Tells where this host keeps its images; asked only if no folder is named.

    Raises:
        ImageError: there is none.
    """
    short = image_name(name) if name.startswith("sha256:") else name
    found = _first(Path(name))
    if found is None:
        images = images_of_host()
        found = _first(images / short, images / f"current-{name}")
    if found is None:
        there = sorted(path.name for path in images.glob("*") if (path / MANIFEST).is_file())
        raise ImageError(
            f"no image {name[:200]} found, a folder with {MANIFEST}, {BILL} and {CONTENTS} needed, "
            f"or one of {images}: {', '.join(there) or 'which has none'}"
        )
    return found


def _first(*places: Path) -> Path | None:
    """Return the first that is an image's folder."""
    try:
        return next((place for place in places if (place / MANIFEST).is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def load(folder: Path) -> Listed:
    """Read what is known of an image.

    Raises:
        ImageError: something is missing or damaged.
    """
    try:
        manifest, bill = (json_file.read(folder / name) for name in (MANIFEST, BILL))
        whose = bill["metadata"]["component"]["version"]
        packages = _packages(bill)
    except DocumentError as error:
        raise ImageError(f"{folder}: {error}; {_REMEDY}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{folder / BILL}: no bill of an image found, {error} needed") from error
    if not isinstance(manifest.get("digest"), str) or whose != manifest["digest"]:
        raise ImageError(
            f"{folder}: digest {manifest.get('digest')} found in {MANIFEST} and {whose} in {BILL}, "
            "one needed; both must be of one image"
        )
    return Listed(manifest, packages, _files(folder / CONTENTS, whose))


_REMEDY = "an image of this version of virtbed has it: remove the image's folder, then make setup"


def _packages(bill: Json) -> Parts:
    found = {}
    for part in bill["components"]:
        kind = str(part["purl"]).partition(":")[2].partition("/")[0]
        about = {
            entry["name"].partition(":")[2]: entry["value"] for entry in part.get("properties", [])
        }
        about.update(("sha256", entry["content"]) for entry in part.get("hashes", []))
        hashes = {key: about[key] for key in ("sha256", "record_sha256") if key in about}
        found[f"{part['name']} ({kind})"] = {"version": part["version"], **hashes}
    return found


def _files(path: Path, digest: str) -> Parts:
    found: Parts = {}
    try:
        with gzip.open(path) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ImageError(f"{path}: over {_MOST_BYTES >> 20} MiB found, at most that needed")
        *lines, last = text.splitlines()
        end = json.loads(last)
        if end != {"digest": digest, "files": len(lines)}:
            raise ImageError(
                f"{path}: it ends with {str(end)[:200]}, digest {digest} and {len(lines)} files "
                "needed; it is another image's"
            )
        for line in lines:
            entry = json.loads(line)
            found[_rooted(entry.pop("path"))] = entry
    except FileNotFoundError as error:
        raise ImageError(f"no {path} found, an image's list of files needed; {_REMEDY}") from error
    except _DAMAGED as error:
        raise ImageError(f"{path}: damaged ({error}), a line of JSON per file needed") from error
    return found


def _rooted(path: str) -> str:
    """Return a tar's "./etc/shadow" as "/etc/shadow", and "." as "/"."""
    return "/" + path.removeprefix(".").lstrip("/")


def difference(a: Mapping[str, dict[str, Any]], b: Mapping[str, dict[str, Any]]) -> Difference:
    """Return how two parts differ."""
    changed = []
    for name in sorted(a.keys() & b.keys()):
        keys = [key for key in {**a[name], **b[name]} if a[name].get(key) != b[name].get(key)]
        if keys:
            of = {key: (a[name].get(key), b[name].get(key)) for key in keys}
            changed.append(Change(name, of))
    return Difference(sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys()), changed)


def document(a: Listed, b: Listed) -> Json:
    """Return all that differs, for machines."""
    parts = {"packages": (a.packages, b.packages), "files": (a.files, b.files)}
    found: Json = {"same": same(a, b), "a": a.manifest, "b": b.manifest}
    for name, (left, right) in parts.items():
        how = difference(left, right)
        found[name] = {
            "only_a": {each: left[each] for each in how.only_a},
            "only_b": {each: right[each] for each in how.only_b},
            "changed": {
                each.name: {what: list(two) for what, two in each.of.items()}
                for each in how.changed
            },
        }
    return found


def same(a: Listed, b: Listed) -> bool:
    """Return whether two are one image."""
    return bool(a.manifest["digest"] == b.manifest["digest"])
