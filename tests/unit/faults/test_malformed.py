"""Malformed plans, results, evidence, designs, archives, inventories: read, or refused clearly.

`make test` tries a few; `make faults` sets VIRTBED_FAULTS, the total number of tries.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtbed import ansible
from virtbed.ansible import AnsibleError, bench_variables
from virtbed.checkout import REPOSITORY
from virtbed.design import design
from virtbed.placement import PlacementError
from virtbed.plan import PlanError, load_plan
from virtbed.render.evidence import AttestError, explain
from virtbed_analysis import AnalysisError, crate, figures, members
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_analysis.trust import trusted

from ..analysis.test_hostile_files import HOSTILE, changed, lay, places
from ..virtbed.conftest import PLATFORMS, report

TRIES = int(os.environ.get("VIRTBED_FAULTS", "200"))
MOST_S = 10.0
MOST_MIB = 1024
SHARES = {"plan": 0.35, "files": 0.29, "archive": 0.25, "inventory": 0.1, "report": 0.01}
Json = dict[str, Any]


def tries(what: str) -> settings:
    return settings(
        max_examples=max(1, round(SHARES[what] * TRIES)),
        deadline=None,
        database=None,
        derandomize=TRIES <= 200,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if the block takes too much CPU time or memory."""
    started = time.process_time()
    yield
    assert time.process_time() - started < MOST_S
    # The peak includes everything that the process did before.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_MIB * 1024


def assert_clear(error: Exception) -> None:
    """Fail if a message is empty, very long, or contains control characters."""
    text = str(error)
    assert 0 < len(text) < 20_000
    assert all(c.isprintable() or c in "\n\t" for c in text), ascii(text)


# Pieces that break a text of YAML or JSON.
PIECES = [
    "[" * 200, "{" * 200, "&a [*a]", "*a", "&a", "!!python/name:os.system", "!x", "2024-01-01",
    "1:30", "0x10", "9" * 5000, "-9" * 20, "1e999", ".nan", "<<: *a", "? ", "- ", ": ", "\t", "\n",
    "\x00", "\x1b[2J", "\u202e", '"\\ud800"', "'", '"', "---", "...", "%YAML 9", "|", ">", "#",
    "\ufeff", "é", "\U0001f600", "NaN", "Infinity", "null", "true", '"a": 1,', "x" * 3000,
    "{{ 7 * 7 }}", "$(id)", "../../etc/passwd", "[red]", "<script>",
]  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return a text with some parts cut, doubled, overwritten or inserted."""
    text = whole
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(text) - 1)))
        end = draw(st.integers(at, min(len(text), at + 200)))
        how = draw(st.sampled_from(["cut", "short", "double", "flip", "piece"]))
        if how == "cut":
            text = text[:at] + text[end:]
        elif how == "short":
            text = text[:at]
        elif how == "double":
            text = text[:end] + text[at:]
        elif how == "flip":
            text = text[:at] + draw(st.binary(min_size=1, max_size=4)) + text[at + 1 :]
        else:
            text = text[:at] + draw(st.sampled_from(PIECES)).encode() + text[at:]
    return text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50)
    | st.sampled_from([v for v in HOSTILE if not isinstance(v, (dict, list))]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
PLANS = sorted((REPOSITORY / "plans").glob("*.yml"))


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda content: {})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@tries("plan")
@given(data=st.data())
def test_a_malformed_plan_is_refused_clearly_or_placed(place: Path, data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(PLANS)).read_bytes()
    path = place / "plan.yml"
    path.write_bytes(data.draw(spoilt(original)))
    with bounded():
        try:
            plan = load_plan(path, list(PLATFORMS.entries))
            plan.digest()
            design(plan, report(cpus=8), PLATFORMS)
        except (PlanError, PlacementError) as error:
            assert_clear(error)


@pytest.fixture(scope="module")
def written(place: Path) -> Path:
    return lay(place / "quick").path


@tries("files")
@given(data=st.data())
def test_a_malformed_file_of_a_results_folder_is_left_out_with_a_reason_or_read(
    written: Path, data: st.DataObject
) -> None:
    names = sorted(str(p.relative_to(written)) for p in written.rglob("*.json"))
    path = written / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    try:
        if data.draw(st.booleans()):
            path.write_bytes(data.draw(spoilt(whole)))
        else:
            document = json.loads(whole)
            at = data.draw(st.sampled_from(sorted(places(document), key=str)))
            path.write_text(json.dumps(changed(document, at, data.draw(VALUES))))
        with bounded():
            found = trusted(written)
            for row in found.rejected:
                assert_clear(ValueError(row.reason))
            try:
                explain(path)
            except AttestError as error:
                assert_clear(error)
    finally:
        path.write_bytes(whole)


@tries("report")
@given(data=st.data())
def test_a_report_of_malformed_files_is_refused_clearly_or_made(
    written: Path, data: st.DataObject
) -> None:
    names = sorted(str(p.relative_to(written)) for p in written.rglob("*.json"))
    path = written / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    try:
        path.write_bytes(data.draw(spoilt(whole)))
        with bounded():
            try:
                page = render(document(read_sweep(written)))
            except AnalysisError as error:
                assert_clear(error)
            else:
                assert "<script>" not in page and "\x1b" not in page
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def packed(place: Path) -> bytes:
    """Return a small archive; only its members are checked, its report is not made again."""
    path = place / "whole.zip"
    content = {f"quick/{name}": name.encode() * 50 for name in ("report.json", "a/b", "plan.yml")}
    sums = {"manifest-sha256.txt": b"".join(crate_line(n, c) for n, c in content.items())}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in {**content, **sums}.items():
            file.writestr(name, text)
    return path.read_bytes()


def crate_line(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


@tries("archive")
@given(data=st.data())
def test_a_malformed_archive_is_refused_clearly_or_unpacked_within_its_folder(
    place: Path, packed: bytes, data: st.DataObject
) -> None:
    path, inside = place / "broken.zip", place / "inside"
    path.write_bytes(data.draw(spoilt(packed)))
    with bounded():
        try:
            with members.opened(path) as file:
                wrong = list(members.faults(path, file))
                if not wrong and crate.MANIFEST in file.namelist():
                    wrong = list(crate._unlike(file))
                for line in wrong:
                    assert_clear(ValueError(line))
                if not wrong:
                    for info in file.infolist():
                        (inside / info.filename).unlink(missing_ok=True)
                        members.unpack(file, info, inside)
        except AnalysisError as error:
            assert_clear(error)
        except members.UNREADABLE as error:  # which verify reports as "cannot be unpacked"
            assert_clear(error if str(error) else ValueError(type(error).__name__))


INVENTORY = json.dumps(
    {
        "_meta": {"hostvars": {"h": {"virtbed_state_dir": "/var/lib/x"}}},
        "all": {"children": ["bench", "ungrouped"]},
        "bench": {"hosts": ["h"], "children": ["more"]},
        "more": {"hosts": ["h", "i"], "children": ["bench"]},
    }
).encode()


@tries("inventory")
@given(data=st.data())
def test_a_malformed_inventory_is_refused_clearly_or_read(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        printed = data.draw(spoilt(INVENTORY)).decode(errors="replace")
    else:
        document = json.loads(INVENTORY)
        at = data.draw(st.sampled_from(sorted(places(document), key=str)))
        printed = json.dumps(changed(document, at, data.draw(VALUES)))
    with bounded(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ansible, "_printed", lambda *_: printed)
        try:
            bench_variables(["inventory"])
        except AnsibleError as error:
            assert_clear(error)


def test_groups_that_contain_each_other_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ansible, "_printed", lambda *_: INVENTORY.decode())
    assert bench_variables(["x"]) == {"h": {"virtbed_state_dir": "/var/lib/x"}, "i": {}}
