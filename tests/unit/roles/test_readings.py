"""Action plugins that read without a Python interpreter, run by ansible-playbook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.kernel import moments, readings, settings

from .conftest import REPOSITORY

CPU = str(min(os.sched_getaffinity(0)))


def play(
    folder: Path, task: dict[str, Any], kept: str = "kept.reading"
) -> subprocess.CompletedProcess[str]:
    """Run one task, and write its result to the file ``kept``."""
    tell = {
        "content": f"{{{{ {kept} | to_json }}}}",
        "dest": str(folder / "kept"),
        "mode": "0644",
    }
    tasks = [
        {"name": "Read", **task, "register": "kept"},
        {"name": "Tell", "ansible.builtin.copy": tell},
    ]
    playbook = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([playbook]))
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml"],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_process_started_by_the_prefix_is_read(tmp_path: Path) -> None:
    done = play(tmp_path, {"process_reading": {"argv": ["taskset", "--cpu-list", CPU]}})
    assert done.returncode == 0, done.stdout
    reading = json.loads((tmp_path / "kept").read_text())
    assert reading == readings.process(Path("/")) | {"cpus_allowed_list": CPU}


# A fake client of an engine, which reports this test's process as the container's.
CLIENT = """#!/bin/sh
case "$*" in
  "run x 2") echo 0123456789ab ;;
  "run "*) echo "no such image: $2" >&2; exit 125 ;;
  "container inspect --format {{.State.Pid}} {{.Image}} {{.OCIRuntime}} c")
    echo PID sha256:9 runc ;;
  "image inspect --format {{json .RootFS.Layers}} sha256:9") echo '["sha256:0"]' ;;
  *) exit 9 ;;
esac
"""


def started(folder: Path, image: str, pid: int) -> subprocess.CompletedProcess[str]:
    """Start a container with the fake client."""
    client = folder / "client"
    client.write_text(CLIENT.replace("PID ", f"{pid} "))
    client.chmod(0o755)
    task = {
        "client": str(client), "name": "c", "command": [str(client), "run", image, 2],
        "also": {"runtime": "OCIRuntime"},
    }  # fmt: skip
    return play(folder, {"container_started": task}, "kept.container")


def test_a_started_container_has_its_process_and_layers(tmp_path: Path) -> None:
    done = started(tmp_path, "x", os.getpid())
    assert done.returncode == 0, done.stdout
    now = readings.enclosed(Path("/"), os.getpid())
    assert now is not None
    assert json.loads((tmp_path / "kept").read_text()) == {
        "container": "c", "pid": os.getpid(), "started": now["started"], "runtime": "runc",
        "layers": ["sha256:0"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("image", "pid", "message"),
    [
        ("gone", os.getpid(), "container_started: c: no such image: gone"),
        ("x", 0, "container_started: c has ended already, a running one needed"),
        # No such process can exist: process ids are below 2^22.
        ("x", 2**22, "container_started: c has ended already, a running one needed"),
    ],
    ids=["without an image", "ended", "gone"],
)
def test_a_container_that_does_not_run_is_an_error(
    tmp_path: Path, image: str, pid: int, message: str
) -> None:
    done = started(tmp_path, image, pid)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_the_error_of_a_failing_prefix_is_quoted(tmp_path: Path) -> None:
    done = play(
        tmp_path, {"process_reading": {"argv": ["sh", "-c", "echo no such thing >&2; exit 7"]}}
    )
    assert done.returncode != 0
    assert "process_reading: exit status 7: no such thing" in done.stdout + done.stderr


def test_a_containers_reading_includes_the_engines_report(tmp_path: Path) -> None:
    pid = os.getpid()
    now = readings.enclosed(Path("/"), pid)
    assert now is not None
    report = {"container": "c", "pid": pid, "started": now["started"], "layers": ["sha256:0"]}
    done = play(tmp_path, {"process_reading": {"container": report}})
    assert done.returncode == 0, done.stdout
    reading = json.loads((tmp_path / "kept").read_text())
    assert reading.pop("throttled_periods") >= now.pop("throttled_periods")
    assert reading == report | now


def test_another_process_with_the_containers_pid_is_refused(tmp_path: Path) -> None:
    report = {"container": "c", "pid": os.getpid(), "started": 1, "layers": []}
    done = play(tmp_path, {"process_reading": {"container": report}})
    assert done.returncode != 0
    assert f"process {os.getpid()} of c has ended" in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/sys/devices/system/cpu/online").exists(), reason="no list of CPUs")
def test_a_machines_cpus_settings_and_counters_are_read(tmp_path: Path) -> None:
    done = play(tmp_path, {"machine_reading": {"cpus": CPU}}, "kept")
    assert done.returncode == 0, done.stdout
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    printed = json.loads((tmp_path / "kept").read_text())
    assert printed["reading"] == {"cpus_online": online}
    bench = printed["bench"]
    assert bench["settings"] == settings.kernel(Path("/")) | {
        "preemption": bench["settings"]["preemption"]  # which only root may read
    }
    assert bench["cpus"] == CPU
    assert (
        bench["interrupts"].keys() <= moments.counters(Path("/"), [int(CPU)])["interrupts"].keys()
    )
