"""No six consecutive lines are repeated in controller, contract, roles, playbooks and workloads."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = ("contract", "python", "workloads/virtbed_workloads", "roles", "playbooks")
SUFFIXES = {".py", ".yml", ".j2"}
LINES = 6

Place = tuple[Path, int]


def significant(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file, with their numbers, that may not be repeated.

    Imports, comments, blank lines, lone punctuation and the ends of signatures are left out.
    """
    kept = []
    importing = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = " ".join(line.split())
        importing = importing or (text.startswith("from ") and text.endswith("("))
        free = text.startswith(("#", "import ", "from ", ")")) or not any(map(str.isalnum, text))
        if not free and not importing:
            kept.append((number, text))
        importing = importing and not text.startswith(")")
    return kept


def runs(path: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield every run of `LINES` lines of a file, with the number of its first line."""
    lines = significant(path)
    for start in range(len(lines) - LINES + 1):
        window = lines[start : start + LINES]
        yield tuple(text for _, text in window), window[0][0]


def repeated(files: list[Path]) -> list[tuple[Place, Place]]:
    """Return the pairs of places (file, line) whose runs are equal."""
    places: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for path in files:
        for text, line in runs(path):
            places[text].append((path, line))
    return [pair for found in places.values() for pair in pairwise(found)]


def sources(root: Path = REPOSITORY) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *PLACES], cwd=root, capture_output=True, check=True
    )
    paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    # Each role has its own argument specs, because Ansible cannot include those of another role.
    return [
        path
        for path in paths
        if path.suffix in SUFFIXES and path.is_file() and path.name != "argument_specs.yml"
    ]


def test_no_six_lines_are_repeated() -> None:
    files = sources()
    assert len(files) > 100
    shown = [
        f"{a.relative_to(REPOSITORY)}:{first} and {b.relative_to(REPOSITORY)}:{second}"
        for (a, first), (b, second) in repeated(files)
    ]
    assert shown == []


@pytest.mark.parametrize("suffix", [".py", ".yml"])
def test_a_copy_is_found(tmp_path: Path, suffix: str) -> None:
    body = "\n".join(f"line_{n}: value" for n in range(LINES))
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    one.write_text(f"first: here\n{body}\n")
    two.write_text(f"# a comment\n\n    {body}\nlast: here\n")
    assert repeated([one, two]) == [((one, 2), (two, 3))]
