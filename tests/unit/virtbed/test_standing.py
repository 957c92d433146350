"""Damaged, changed or lost results and ledgers are reported, and no valid result is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from virtbed import ansible, records
from virtbed import bench as benches
from virtbed.bench import Bench
from virtbed.events import Ended
from virtbed.lease import Holder, LeaseError, locked
from virtbed.ledger import Ledger, LedgerError
from virtbed.plan import Plan
from virtbed.progress import Progress
from virtbed.sweep import Sweep, SweepError
from virtbed_contract.documents import TrialRequest

from .conftest import PLATFORMS, small
from .test_sweep import Host, failed, good, without_filter

CELL = "cn-pinned-c01-image_classification-r02"
Run = Callable[..., Sweep]
Json = dict[str, Any]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harness_document: Json) -> Host:
    made = Host()
    made.trial = good(harness_document)
    monkeypatch.setattr(ansible, "play", made.play)
    monkeypatch.setattr(benches, "end_strays", lambda *_: None)
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def run(tmp_path: Path, plan: Plan, host: Host, output: io.StringIO) -> Run:
    """Carry the sweep out, or continue it; earlier calls and output are discarded."""

    usual = small(plan)

    def made(plan: Plan = usual) -> Sweep:
        host.blocks.clear()
        output.seek(0)
        output.truncate()
        progress = Progress(Console(file=output, width=400), PLATFORMS.trial_s)
        results = tmp_path / "results"
        sweep = Sweep(plan, progress, Bench(hung_after_s=60), results, platforms=PLATFORMS)
        sweep.run()
        return sweep

    return made


def edit(name: str, change: Callable[[Json], object]) -> Callable[[Path], object]:
    def edited(folder: Path) -> None:
        path = folder / name
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return edited


def truncated(folder: Path) -> None:
    os.truncate(folder / "result.json", 100)


def of_another(folder: Path) -> None:
    shutil.copy(folder.with_name(CELL.replace("r02", "r01")) / "result.json", folder)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "torn": (truncated, "result.json was changed"),
    "edited": (edit("result.json", lambda r: r["samples"][0].update(e2e_ns=1)), "was changed"),
    "evidence edited": (edit("evidence.json", lambda e: e.update(mismatches=["x"])), "was changed"),
    "missing": (lambda folder: (folder / "result.json").unlink(), "no result.json found"),
    "no evidence": (lambda folder: (folder / "evidence.json").unlink(), "no evidence.json found"),
    "no folder": (shutil.rmtree, "no result.json found"),
    "another's": (of_another, "result.json was changed"),
    "a folder": (
        lambda folder: [(folder / "result.json").unlink(), (folder / "result.json").mkdir()],
        "result.json cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_result_that_was_changed_after_it_was_written_is_named_and_repeated(
    run: Run, host: Host, output: io.StringIO, damage: str
) -> None:
    folder = run().folder
    spoil, why = DAMAGES[damage]
    trial = folder / "trials" / CELL
    spoil(trial)
    left = sorted(path.name for path in trial.iterdir()) if trial.exists() else []
    again = run()
    assert host.blocks == ["cn-pinned-c01-r02"] and again.failed == []
    assert f"{CELL} is repeated: " in output.getvalue() and why in output.getvalue()
    assert json.loads((trial / "result.json").read_text())["trial"]["attempt"] == 2
    aside = folder / "aside" / f"{CELL}-1"
    assert (sorted(path.name for path in aside.iterdir()) if left else []) == left
    assert run().failed == [] and host.blocks == []


def test_without_the_ledger_valid_results_are_kept_and_others_repeated(
    run: Run, host: Host, output: io.StringIO
) -> None:
    folder = run().folder
    kept = {p: p.read_bytes() for p in folder.glob("trials/*/*.json") if p.parent.name != CELL}
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    truncated(folder / "trials" / CELL)
    run()
    assert host.blocks == ["cn-pinned-c01-r02"]
    assert output.getvalue().count("was not in the ledger: it is kept") == 5
    assert f"{CELL} is repeated: result.json is not JSON" in output.getvalue()
    assert {path: path.read_bytes() for path in kept} == kept
    assert run().failed == [] and host.blocks == []


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b"\xff" * 5000), lambda path: os.truncate(path, 5000)],
)
def test_a_damaged_ledger_is_reported_and_rebuilt(
    run: Run, host: Host, output: io.StringIO, damage: Callable[[Path], object]
) -> None:
    folder = run().folder
    damage(folder / "ledger.sqlite")
    run()
    assert host.blocks == []
    assert "the ledger is damaged: " in output.getvalue()
    assert "rebuilt from the results" in output.getvalue()


RELABELLED = [
    ("plan_digest", "sha256:" + "0" * 64),
    ("image_digest", "sha256:" + "1" * 64),
    ("host", "another"),
    ("replicate", 3),
    ("cores", 2),
]


@pytest.mark.parametrize(("label", "value"), RELABELLED)
def test_without_the_ledger_a_result_of_another_plan_image_or_host_is_repeated(
    run: Run, host: Host, output: io.StringIO, label: str, value: object
) -> None:
    folder = run().folder
    (folder / "ledger.sqlite").unlink()
    edit("result.json", lambda r: r["trial"].update({label: value}))(folder / "trials" / CELL)
    run()
    assert host.blocks == ["cn-pinned-c01-r02"]
    assert f"result.json: {label} {value!r} found, " in output.getvalue()


@pytest.mark.parametrize("ledger", [True, False])
def test_a_result_that_the_report_would_leave_out_is_repeated(
    run: Run, host: Host, output: io.StringIO, harness_document: Json,
    monkeypatch: pytest.MonkeyPatch, *, ledger: bool,
) -> None:  # fmt: skip
    """An earlier version may have recorded it, and marked its trial as done."""

    def first(request: TrialRequest, incoming: Path) -> Any:
        change = without_filter if request.id == CELL else lambda *_: None
        return good(harness_document, change)(request, incoming)

    fine, host.trial = host.trial, first
    with monkeypatch.context() as earlier:
        earlier.setattr(records, "check_trust", lambda *_: None)
        folder = run().folder
    if not ledger:
        (folder / "ledger.sqlite").unlink()
    host.trial = fine
    run()
    assert host.blocks == ["cn-pinned-c01-r02"]
    assert f"{CELL} is repeated: result.json: the report would leave it out: " in output.getvalue()
    assert "the container has none" in output.getvalue()
    assert (folder / "aside" / f"{CELL}-1" / "result.json").exists()
    assert run().failed == [] and host.blocks == []


@pytest.mark.parametrize("left", ["all", "no doctor.json", "results alone"])
def test_without_the_ledger_the_sweep_is_identified_by_its_other_files(
    run: Run, host: Host, plan: Plan, left: str
) -> None:
    folder = run().folder
    before = {path: path.read_bytes() for path in folder.glob("trials/*/*.json")}
    (folder / "ledger.sqlite").unlink()
    if left != "all":
        (folder / "doctor.json").unlink()
    if left == "results alone":
        (folder / "design.json").unlink()
    with pytest.raises(LedgerError, match=r"was started with plan sha256:.*must not mix"):
        run(small(plan).model_copy(update={"seed": 7}))
    if left != "results alone":
        with pytest.raises(LedgerError, match="has 6 trials, now 4 are requested"):
            run(small(plan).model_copy(update={"replicates": 2}))
    if left == "all":
        host.report.facts["kernel"] = "9.9"
        with pytest.raises(LedgerError, match=r"was started with kernel 6.1.0, now it is 9.9"):
            run()
        host.report = replace(host.report, host="other")
        with pytest.raises(LedgerError, match="was started with host bench, now it is other"):
            run()
    assert {path: path.read_bytes() for path in folder.glob("trials/*/*.json")} == before


def test_a_folder_with_results_of_an_unknown_sweep_is_refused(run: Run) -> None:
    folder = run().folder
    for name in ("ledger.sqlite", "doctor.json", "design.json"):
        (folder / name).unlink()
    for path in folder.glob("trials/*/result.json"):
        path.write_text("{}")
    with pytest.raises(SweepError, match=r"no ledger, design.json or readable result, one of"):
        run()


def test_a_result_that_a_kill_kept_from_the_ledger_is_adopted(
    run: Run, host: Host, monkeypatch: pytest.MonkeyPatch, output: io.StringIO
) -> None:
    close, killed = Ledger.close, [CELL]

    def cut_off(self: Ledger, trial: str, *rest: Any, **more: Any) -> None:
        if trial in killed:
            killed.clear()
            raise LedgerError("killed")
        close(self, trial, *rest, **more)

    monkeypatch.setattr(Ledger, "close", cut_off)
    with pytest.raises(LedgerError, match="killed"):
        run()
    run()
    assert "cn-pinned-c01-r02" not in host.blocks
    assert f"{CELL}: its result is valid" in output.getvalue()


def test_only_attempts_that_started_are_counted(run: Run, host: Host, plan: Plan) -> None:
    applications = [{"name": name, "samples": 6} for name in ("image_classification", "null")]
    two = Plan.model_validate(small(plan).model_dump() | {"applications": applications})
    fine = host.trial
    host.trial = failed("no")
    host.answers["provision"] = lambda: Ended("failed", "the port is taken")
    folder = run(two).folder
    first, second = two_of_block(folder, "cn-pinned-c01-r02")
    assert (first["attempt"], second["attempt"]) == (1, 0)  # the second was not started
    del host.answers["provision"]
    run(two)
    assert [f["attempt"] for f in two_of_block(folder, "cn-pinned-c01-r02")] == [2, 1]
    host.trial = fine
    run(two)
    results = sorted(folder.glob("trials/cn-pinned-c01-*-r02/result.json"))
    assert sorted(json.loads(p.read_text())["trial"]["attempt"] for p in results) == [2, 3]


def test_a_playbook_that_never_reached_a_block_is_no_attempt(
    run: Run, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = host.play

    def down(playbook: str, *rest: Any, **more: Any) -> Any:
        if playbook == "block":
            yield Ended("failed", "Docker is down")
        else:
            yield from play(playbook, *rest, **more)

    monkeypatch.setattr(ansible, "play", down)
    folder = run().folder
    failures = [json.loads(p.read_text()) for p in folder.glob("trials/*/failure.json")]
    assert {(f["attempt"], f["message"]) for f in failures} == {(0, "Docker is down")}


def two_of_block(folder: Path, block: str) -> list[Json]:
    """Return the failures of a block's two trials, in the planned order."""
    size, _, replicate = block.rpartition("-")
    paths = folder.glob(f"trials/{size}-*-{replicate}/failure.json")
    design = json.loads((folder / "design.json").read_text())
    order = {trial["id"]: trial["position"] for trial in design["trials"]}
    return sorted((json.loads(p.read_text()) for p in paths), key=lambda f: order[f["id"]])


def test_two_controllers_of_one_folder_are_refused(run: Run, host: Host) -> None:
    def second(request: TrialRequest, incoming: Path) -> Any:
        reported = pytest.raises(LeaseError, match="is being carried out by another process")
        with reported, locked(incoming.parent):
            pass
        with Ledger(incoming.parent / "ledger.sqlite") as ledger:
            assert ledger.counts()["leased"] >= 1
            with pytest.raises(LeaseError, match="is being carried out by process"):
                ledger.take(replace(Holder.here(), host="elsewhere"), 2e9)
        return fine(request, incoming)

    fine, host.trial = host.trial, second
    assert run().failed == []
    with Ledger(run().folder / "ledger.sqlite") as ledger:
        assert ledger.counts() == {"done": 6}
        ledger.take(replace(Holder.here(), host="elsewhere"), 4e9)
    with pytest.raises(LeaseError, match="on elsewhere, whose lease ends in"):
        run()


def test_a_folder_that_cannot_be_written_is_reported_and_no_result_is_lost(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    folder = run().folder
    truncated(folder / "trials" / CELL)
    (folder / "aside").write_text("in the way")
    with pytest.raises(SweepError, match=r"results cannot be written: .*aside"):
        run()
    assert (folder / "trials" / CELL / "result.json").exists()
    (folder / "aside").unlink()
    run()
    assert host.blocks == ["cn-pinned-c01-r02"]


def test_without_the_ledger_earlier_results_count_as_attempts(run: Run, host: Host) -> None:
    folder = run().folder
    aside = folder / "earlier" / "3" / CELL
    aside.parent.mkdir(parents=True)
    (folder / "trials" / CELL).rename(aside)  # killed before it was measured again
    (folder / "ledger.sqlite").unlink()
    run()
    result = json.loads((folder / "trials" / CELL / "result.json").read_text())
    assert result["trial"]["attempt"] == 4  # not that of the earlier result


@pytest.mark.parametrize("trials", [5, True, "x", {"id": 1}, [1], None])
def test_without_the_ledger_a_design_without_a_list_of_trials_is_no_crash(
    run: Run, host: Host, trials: object
) -> None:
    folder = run().folder
    (folder / "ledger.sqlite").unlink()
    edit("design.json", lambda d: d.update(trials=trials))(folder)
    assert run().failed == [] and host.blocks == []


@pytest.mark.parametrize(("emulated", "times"), [(False, 1), (True, 6)])
def test_on_an_emulated_host_a_block_may_start_slowly_and_the_lease_outlasts_a_clearance(
    run: Run, host: Host, plan: Plan, emulated: bool, times: int
) -> None:
    leases: list[float] = []

    def leased(request: TrialRequest, incoming: Path) -> Any:
        with Ledger(incoming.parent / "ledger.sqlite") as ledger:
            ((expires,),) = ledger._rows("SELECT expires FROM holder")
        leases.append(expires - time.time())
        return fine(request, incoming)

    fine, host.trial = host.trial, leased
    host.report = replace(host.report, emulated=emulated)
    run(small(plan).model_copy(update={"timeout_s": 1}))
    assert dict(host.limits)["block"] == 60 * times
    # The block without its trial and, if it hangs, the clearance after it.
    assert leases and all(2 * 60 * times < lease_s < 2 * 60 * times + 100 for lease_s in leases)


@pytest.mark.parametrize("name", ["cpus", "mems", "housekeeping", "allowed"])
def test_without_ledger_and_design_a_result_of_another_placement_is_repeated(
    run: Run, host: Host, output: io.StringIO, name: str
) -> None:
    folder = run().folder
    for lost in ("ledger.sqlite", "design.json"):  # each of them would name the placement
        (folder / lost).unlink()
    edit("evidence.json", lambda e: e["asked"].update({name: "7"}))(folder / "trials" / CELL)
    run()
    assert host.blocks == ["cn-pinned-c01-r02"]
    assert f"evidence.json: {name} '7' found, " in output.getvalue()
