"""Cells and flat rows convert into each other."""

from __future__ import annotations

from virtbed_analysis.cells import (
    CELL,
    DEFAULTED,
    MATCHED,
    SUBJECT,
    Cell,
    cell_of,
    is_plain,
    key_of,
    rank,
)
from virtbed_contract.factors import FACTORS

from .conftest import DEFAULTS

ROW = DEFAULTS | {
    "platform": "cn", "mode": "vanilla", "cores": 2, "application": "faces", "scale": "tiny",
    "scenario": "offline", "weights": "seeded",
}  # fmt: skip


def test_every_factor_is_matched_or_defaulted() -> None:
    assert {f.name for f in (*MATCHED, *DEFAULTED)} == {f.name for f in FACTORS}
    assert not {*MATCHED} & {*DEFAULTED}
    assert {f.name for f in MATCHED} <= {*SUBJECT} and {f.name for f in DEFAULTED} <= {*CELL}


def test_a_cell_and_its_row_convert_into_each_other() -> None:
    cell = cell_of(ROW)
    plain = {name: ROW[name] for name in ROW if name not in {f.name for f in DEFAULTED}}
    assert cell.row() == plain
    assert cell_of(cell.row()) == cell
    assert (cell.value("cores"), cell.value("thread_policy")) == (2, "default")


def test_another_part_or_factor_makes_another_cell() -> None:
    cell = cell_of(ROW)
    other = cell.having(platform="bm", thread_policy="matched")
    assert (other.platform, other.value("thread_policy"), other.cores) == ("bm", "matched", 2)
    assert cell.having() == cell
    assert other.settings != cell.settings and cell.having(cores=4).subject == cell.subject


def test_a_row_is_plain_with_the_defaults_of_all_defaulted_factors() -> None:
    assert is_plain(ROW)
    assert not is_plain({**ROW, "variant": "twin"})
    assert is_plain({**ROW, "thread_policy": "matched"})
    assert key_of(ROW) != key_of({**ROW, "variant": "twin"})
    assert key_of(ROW, SUBJECT) == key_of({**ROW, "platform": "bm"}, SUBJECT)


def test_cells_are_listed_by_subject_and_then_by_size() -> None:
    cells = [cell_of(ROW | {"cores": cores, "thread_policy": policy})
             for policy in ("matched", "default") for cores in (4, 1)]  # fmt: skip
    listed = sorted(cells, key=rank)
    assert [(one.value("thread_policy"), one.cores) for one in listed] == [
        ("default", 1), ("default", 4), ("matched", 1), ("matched", 4),
    ]  # fmt: skip
    assert isinstance(listed[0], Cell)
