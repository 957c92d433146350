"""Knows how files are written whole, and how a table that a user gives is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from virtbed_analysis.errors import AnalysisError


def read_csv(path: Path, needed: Iterable[str], hint: str = "") -> pl.DataFrame:
    """Return a CSV file's rows as text; `hint` ends the message if a needed column is missing.

    Raises:
        AnalysisError: the file cannot be read, or lacks a column.
    """
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AnalysisError(f"{path}: cannot be read as CSV: {error}") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        found = ", ".join(table.columns)
        raise AnalysisError(f"{path}: columns {found} found, {', '.join(missing)} needed too{hint}")
    return table


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file under another name; then give it its own, synced to disk.

    Whatever happens, the name holds the old content or the whole new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
