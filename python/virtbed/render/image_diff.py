"""Terminal output of `virtbed image diff`: the differences between two images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from virtbed.image_diff import Change, Difference, Listed, Parts, difference, same
from virtbed.render.table import Table

MOST_ROWS = 40
"""Rows per table; further ones are only counted."""


def image_words(label: str, image: Listed) -> str:
    """Return the line about one image: its digest, variant, suite and build time."""
    about = image.manifest
    parts = (about.get("variant"), about.get("suite"), f"built {about.get('built_at')}")
    return f"{label} {about['digest']}: {', '.join(map(str, parts))}"


def verdict(a: Listed, b: Listed) -> str:
    """Return the sentence that says whether two images are the same, or how they differ."""
    if same(a, b):
        return "one image: the digests are the same"
    packages, files = difference(a.packages, b.packages), difference(a.files, b.files)
    if not files:
        return (
            "two digests, but no file differs: the tar files differ, in the order of files or in "
            "the version of tar; build one of the images again"
        )
    return f"two images. Packages: {_numbers(packages)}. Files: {_numbers(files)}."


def _numbers(found: Difference) -> str:
    counts = (
        (len(found.changed), "changed"),
        (len(found.only_a), "only in a"),
        (len(found.only_b), "only in b"),
    )
    return ", ".join(f"{count} {words}" for count, words in counts if count) or "alike"


def tables(a: Listed, b: Listed) -> Iterator[Table | str]:
    """Yield a table of the packages that differ, and one of the files.

    After a table that was cut comes the number of the other rows.
    """
    parts = (
        ("package", "Packages", a.packages, b.packages),
        ("file", "Files", a.files, b.files),
    )
    for heading, title, left, right in parts:
        differences = difference(left, right)
        rows = [(change.name, _words(change)) for change in differences.changed]
        sides = (("a", differences.only_a, left), ("b", differences.only_b, right))
        for side, names, where in sides:
            rows += _only(side, names, where)
        if not rows:
            continue
        table = Table(title)
        table.add_column(heading, measured=True)
        table.add_column("difference", measured=True)
        for name, words in sorted(rows)[:MOST_ROWS]:
            table.add_row(name, words)
        yield table
        if len(rows) > MOST_ROWS:
            yield f"and {len(rows) - MOST_ROWS} more; --json prints all of them"


def _only(side: str, names: Sequence[str], where: Parts) -> list[tuple[str, str]]:
    """Return one row per package or file that only one image has.

    A folder is one row, with the number of its contents.
    """
    within: dict[str, int] = {}
    among = set(names)
    for name in names:
        top = name
        for parent in map(str, PurePosixPath(name).parents) if name.startswith("/") else ():
            if parent in among:
                top = parent
        within[top] = within.get(top, -1) + 1
    rows = []
    for name, count in within.items():
        version = where[name].get("version")
        more = f", with {count} in it" if count else ""
        rows.append((name, f"only in {side}{more}" + (f": {version}" if version else "")))
    return rows


def _words(change: Change) -> str:
    """Return how a package or file has changed, in words."""
    of = dict(change.of)
    parts = []
    if "version" in of:
        parts.append("{} -> {}".format(*of.pop("version")))
        of = {}  # another version has other bytes, too
    size, digest = of.pop("size", None), of.pop("sha256", None)
    if digest and "type" not in of:
        sizes = ", {} -> {} bytes".format(*size) if size else ", of the same size"
        is_file = change.name.startswith("/")
        parts.append(f"content{sizes}" if is_file else "other bytes of the same version")
    if of.pop("record_sha256", None):
        parts.append("other files of the same version")
    if of.pop("attributes", None):
        parts.append("extended attributes")
    parts += [f"{name} {_or_none(a)} -> {_or_none(b)}" for name, (a, b) in of.items()]
    return "; ".join(parts)


def _or_none(value: Any) -> str:
    return "none" if value is None else str(value)
