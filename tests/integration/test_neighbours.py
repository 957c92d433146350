"""Real neighbours of a measured instance: they run on their CPUs, or the trial fails.

On two cores the neighbour of a 1-core instance has CPU 0, which is also the housekeeping CPU.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import NOTHING, read, run, sweep_with_change, traces
from .test_interruption import start, until

FOLDER = Path("/run/virtbed/neighbours")
# Moves or stops the neighbour's process once the measured one runs. Until then it fails, and is
# called again.
SCRIPT = """
import json, os, sys
from pathlib import Path
from virtbed_contract.kernel.processes import with_environment

def of(name):
    return with_environment(lambda v: v == f"VIRTBED_INSTANCE={name}".encode(), user=65532)

measured, act = sys.argv[1:]
(found,), (own,) = of(measured), of(measured + "-n1")
Path(sys.argv[0] + ".seen").write_text(json.dumps(sorted(os.sched_getaffinity(own))))
if act == "move":
    for task in os.listdir(f"/proc/{own}/task"):
        os.sched_setaffinity(int(task), {1})
elif act == "stop":
    os.kill(own, 19)
"""


def test_the_report_shows_how_much_a_neighbour_slows_bare_metal_and_a_container(
    write_plan: Any,
) -> None:
    plan, folder = write_plan(
        "neighbours", replicates=2, platforms={"bm": ["pinned"], "cn": ["pinned"]},
        neighbours=1, memory_mib=2048,
        applications=[{"name": "image_classification", "scale": "tiny", "samples": 40,
                       "warmup": 1}],
    )  # fmt: skip
    done = run("virtbed", "sweep", plan)
    assert traces() == NOTHING
    assert not FOLDER.exists()
    trials = {path.parent.name: path.parent for path in folder.glob("trials/*/result.json")}
    assert len(trials) == 2 * 2 * 2, done.stdout
    digests = set()
    for name, trial in trials.items():
        result, evidence = read(trial / "result.json"), read(trial / "evidence.json")
        digests.add(result["answers"]["digest"])
        assert evidence["attested"] is True
        assert result["environment"]["affinity"] == [1] == result["confounders"]["ran_on"]
        if "neighbours_1" not in name:
            assert result["neighbours"] == [] == evidence["after"]["neighbours"]
            continue
        (ran,) = result["neighbours"]
        assert (ran["cpus"], ran["housekeeping"]) == ("0", True)
        assert ran["requests"] > 5 and ran["busy_cpus"] > 0.3
        for moment in ("before", "after"):
            (own,) = evidence[moment]["neighbours"]
            assert own["instance"] == f"{evidence['asked']['id']}-n1"
            (process,) = own["processes"]
            assert (process["cpus_allowed_list"], process["ran_on"]) == ("0", [0])
    assert len(digests) == 1
    report = read(folder / "report.json")
    assert report["rejected"] == []
    rows = {row["platform"]: row for row in report["isolation"]}
    assert set(rows) == {"bm", "cn"}
    for row in rows.values():
        assert row["ratio_replicates"] == 2
        assert 0.8 < row["ratio"] < 3
        assert row["neighbours_cpus"].startswith("0 (same ")
        assert row["neighbours_cpus"].endswith("with housekeeping)")
    assert "as without." in " ".join(done.stdout.split())
    assert 'id="section-isolation"' in (folder / "report.html").read_text()
    shown = json.loads(run("virtbed", "isolation", str(folder), "--json").stdout)
    assert [row["platform"] for row in shown] == ["bm", "cn"]


@pytest.mark.parametrize(
    ("platform", "act", "reason"),
    [
        ("bm", "move", "-n1 may run on CPUs 1 and was found on 1, 0 needed"),
        ("cn", "stop", "-n1 answered no request"),
    ],
)
def test_a_neighbour_that_did_not_run_during_the_whole_trial_fails_it_with_the_reason(
    write_plan: Any, tmp_path: Path, platform: str, act: str, reason: str
) -> None:
    """With the application null for 4 s; longer to detect that the neighbour stopped answering."""
    plan, folder = write_plan(
        "stray", platforms={platform: ["pinned"]}, neighbours=1, memory_mib=1024,
        applications=[{"name": "null", "scale": "tiny", "warmup": 1,
                       "samples": 2400 if act == "stop" else 800}],
    )  # fmt: skip
    script = tmp_path / "act.py"
    script.write_text(SCRIPT)
    measured = f"{platform}-pinned-c01-neighbours_1-r01"
    done = sweep_with_change(plan, f"{sys.executable} {script} {measured} {act}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(script.with_name("act.py.seen").read_text()) == [0]
    trial = folder / "trials" / f"{platform}-pinned-c01-neighbours_1-null-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert reason in message, message
    evidence = read(trial / "evidence.json")
    assert evidence["attested"] is False and len(evidence["before"]["neighbours"]) == 1
    # The cell without neighbours is measured regardless.
    assert (folder / f"trials/{platform}-pinned-c01-null-r01/result.json").exists()
    assert traces() == NOTHING
    assert not FOLDER.exists()


def test_clear_removes_a_neighbour_that_a_killed_sweep_left(write_plan: Any) -> None:
    plan, _ = write_plan(
        "left", platforms={"cn": ["pinned"]}, neighbours=1, memory_mib=1024, seed=2113,
        applications=[{"name": "null", "scale": "tiny", "samples": 10_000, "warmup": 1}],
    )  # fmt: skip
    sweep = start("virtbed", "sweep", plan)
    until(lambda: FOLDER.exists() and any(FOLDER.glob("*/out")))
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.communicate()
    assert traces()["processes"]
    run("virtbed", "clear")
    assert traces() == NOTHING
    assert not FOLDER.exists()
