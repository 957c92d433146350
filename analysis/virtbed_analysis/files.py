"""Reading of CSV tables from users, and writing of whole files.

The writers come from `virtbed_contract.kernel.files`; they replace a file atomically.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from virtbed_analysis.errors import AnalysisError
from virtbed_contract.kernel.files import write_text as write_text
from virtbed_contract.kernel.files import write_whole as write_whole

MOST_BYTES = 64 * 2**20
"""The largest accepted CSV table; the published data has 20 KB."""


def read_csv(path: Path, needed: Iterable[str], hint: str = "") -> pl.DataFrame:
    """Read a CSV file, all columns as text, with unprintable characters replaced.

    Args:
        path: The file.
        needed: The columns that it must have.
        hint: Added to the message if a column is missing.

    Raises:
        AnalysisError: the file cannot be read, or lacks a column.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise AnalysisError(
                f"{path}: {status.st_size} bytes found, a file of at most {MOST_BYTES} needed"
            )
        table = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AnalysisError(f"{path}: cannot be read as CSV: {error}") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        found = ", ".join(table.columns)
        raise AnalysisError(f"{path}: columns {found} found, {', '.join(missing)} needed too{hint}")
    # Control characters would reach the user's terminal: \p{C} has all that are not printable.
    return table.with_columns(pl.all().str.replace_all(r"\p{C}", "\ufffd"))
