"""Real microVMs: booted and attested, and a change during a sweep is detected."""

from __future__ import annotations

from typing import Any

from .conftest import NOTHING, NULL, read, sweep_with_change, traces


def test_both_modes_are_attested_and_give_the_answers_of_bare_metal(attested: Any) -> None:
    found = attested("microvm")
    for result, evidence in found.values():
        reading = evidence["after"]["machine"]
        assert reading["machine_type"] == "microvm-machine"
        assert reading["accelerator"] == result["trial"]["accelerator"]
        assert result["environment"]["cpus_visible"] == 1
    _, evidence = found["pinned"]
    (thread,) = evidence["after"]["machine"]["vcpu_threads"]
    assert thread["cpus_allowed_list"] == evidence["asked"]["cpus"]
    assert set(evidence["after"]["machine"]["bound_nodes"]) == {evidence["asked"]["mems"]}


def test_a_vcpu_moved_during_the_sweep_fails_the_trial(write_plan: Any) -> None:
    plan, folder = write_plan("microvm-moved", **NULL, platforms={"microvm": ["pinned"]})
    qemu = (
        # The brackets keep pgrep from finding this command itself.
        "pgrep --full [g]uest=microvm.virtbed-microvm-pinned-c01-r01"
    )
    thread = (
        f"grep --files-with-matches ^CPU /proc/$({qemu})/task/*/comm | cut --delimiter=/ --fields=5"
    )
    # The guest runs only once its vCPUs are pinned.
    console = "/var/lib/virtbed/instances/microvm-pinned-c01-r01/qemu/console.log"
    change = f"grep --quiet Linux {console} && taskset --pid --cpu-list 0-1 $({thread})"
    done = sweep_with_change(plan, change)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "microvm-pinned-c01-null-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert "machine_microvm: vCPU 0" in message and "something moved it" in message
    assert traces() == NOTHING
