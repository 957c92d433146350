"""Real gVisor: attested from the host in both modes, and a change during a sweep is detected."""

from __future__ import annotations

from typing import Any

from .conftest import NOTHING, read, sweep_with_change, traces


def test_both_modes_are_attested_and_give_the_answers_of_bare_metal(attested: Any) -> None:
    found = attested("gvisor")
    result, evidence = found["vanilla"]
    assert evidence["before"]["enclosure"]["quota_cpus"] == 1.0
    # Its kernel hides the quota, so the application gets it from the launcher.
    assert result["environment"]["cgroup"]["quota_cpus"] is None
    assert result["environment"]["threads"]["usable_cores"] == 1
    result, evidence = found["pinned"]
    reading = evidence["after"]["enclosure"]
    assert reading["cpuset"] == reading["cpus_allowed_list"] == evidence["asked"]["cpus"]
    assert reading["serves_rootfs"] and reading["seccomp"] == "filter"
    assert result["environment"]["cpus_allowed_list"] == "0"  # numbered from 0 inside
    # Its kernel does not count steal, so the share is unknown, not 0.
    assert result["confounders"]["steal_share"] is None
    assert any("does not count the time of its CPUs" in text for text in result["warnings"])


def test_a_sandbox_changed_during_the_sweep_fails_the_trial(write_plan: Any) -> None:
    plan, folder = write_plan("gvisor-moved", platforms={"gvisor": ["pinned"]})
    # In the hierarchy of v1 or v2; not before runsc has set the CPUs, which would undo the change.
    files = "/sys/fs/cgroup/{cpuset/,}gvisor.virtbed-gvisor-pinned-c01-r01/cpuset.cpus"
    change = f'file=$(grep -lsx 1 {files}); test -n "$file" && echo 0-1 >$file'
    done = sweep_with_change(plan, change)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "gvisor-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert "something changed the sandbox's control group" in message
    assert traces() == NOTHING


def test_a_trial_that_times_out_leaves_no_process_in_the_sandbox(write_plan: Any) -> None:
    """The host does not see the processes inside, so the role ends them."""
    application = {"name": "image_classification", "scale": "tiny", "samples": 2000}
    plan, folder = write_plan(
        "gvisor-late", platforms={"gvisor": ["pinned"]}, applications=[application], timeout_s=8
    )
    done = sweep_with_change(plan, "true")
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "gvisor-pinned-c01-image_classification-r01"
    assert "still running after 8 s" in read(trial / "failure.json")["message"]
    assert traces() == NOTHING
