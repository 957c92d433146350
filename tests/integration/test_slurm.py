"""A plan run by a real Slurm: a job array, with tasks that are requeued and preempted."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, NOTHING, TIED, run, traces
from .test_interruption import results, start, until

INVENTORY = f"{REPOSITORY}/inventory/slurm"
# Slurm runs as root, without control groups, on this machine only. A requeued job waits until the
# credential of its previous run has expired (cred_expire).
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=1
KillWait=60
ReturnToService=2
MailProg=/bin/true
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n1 Default=YES State=UP PriorityTier=1 GraceTime=200
PartitionName=urgent Nodes=n1 State=UP PriorityTier=2
"""


def free_ports(number: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Cluster:
    """Slurm's daemons on loopback, with all their files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cpus = len(os.sched_getaffinity(0))
        self.environment = ENVIRONMENT | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        host = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=host, folder=self.folder, cpus=self.cpus, ports=free_ports(2))
        )
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        socket_file = self.folder / "munge.socket"
        files = (f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed"))
        self.start("munged", "--foreground", "--force", f"--socket={socket_file}", *files)
        until(socket_file.exists, 20)
        self.start("slurmctld", "-D")
        self.start("slurmd", "-D")
        until(
            lambda: self.call("sinfo", "--noheader", "--format=%T", ok=False).strip() == "idle", 60
        )

    def start(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.out").open("wb")
        self.daemons.append(
            subprocess.Popen(
                [*TIED, *command], env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )
        )  # fmt: skip

    def call(self, *command: str, ok: bool = True, **variables: str) -> str:
        done = subprocess.run(
            [*TIED, *command], cwd=REPOSITORY, env=self.environment | variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not ok, f"{command}: {done.stdout}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def queued(self) -> str:
        return self.call("squeue", "--noheader", "--format=%K %T %R")

    def down(self) -> None:
        self.call("scancel", "--user=root", ok=False)
        until(lambda: not self.call("squeue", "--noheader", ok=False).strip(), 90)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.up()
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.down()


@pytest.fixture
def plan(write_plan: Any) -> str:
    application = {"name": "null", "scale": "tiny", "samples": 20, "warmup": 1}
    path, _ = write_plan(
        "slurm", replicates=3, applications=[application],
        platforms={"bm": ["pinned"], "cn": ["pinned"]},
    )  # fmt: skip
    return str(path)


def planned(folder: Path) -> list[Any]:
    return list(json.loads((folder / "design.json").read_text())["trials"])


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_array_of_three_with_one_task_requeued_gives_the_whole_sweep(
    cluster: Cluster, plan: str, tmp_path: Path
) -> None:
    # The design without shards, for comparison; a sweep writes it before its first trial.
    whole = start("virtbed", "sweep", plan, f"--results={tmp_path / 'whole'}")
    until((design := tmp_path / "whole" / "test-slurm" / "design.json").exists)
    whole.send_signal(signal.SIGTERM)
    assert whole.communicate(timeout=120) and whole.returncode == 130

    shared = tmp_path / "shared"
    output = cluster.call(
        "virtbed", "slurm", plan, "--partition=main", "--tasks=3", f"--results={shared}",
        SBATCH_ARRAY_INX="1-9", SBATCH_NO_REQUEUE="1", SBATCH_PARTITION="urgent",
    )  # fmt: skip
    assert "SBATCH_ARRAY_INX, SBATCH_NO_REQUEUE found in the environment" in output
    job = output.partition("job ")[2].partition(":")[0]
    assert job.isdigit(), output

    def shard(number: int) -> Path | None:
        return next(shared.glob(f"test-slurm.shard-{number}-of-3.*"), None)

    until(lambda: bool((second := shard(2)) and len(results(second)) == 1), 240)
    cluster.call("scontrol", "requeue", f"{job}_2")
    second = shard(2)
    assert second
    before = results(second)
    into = shared / "test-slurm"
    run("virtbed", "merge", str(into), *map(str, shared.glob("test-slurm.shard-*")))
    until(lambda: not cluster.queued().strip(), 300)
    log = (shared / "test-slurm.slurm" / "task-2.log").read_text()
    assert "ending: releasing the running instance" in log, log
    assert "2 trials, 1 done before; 1 to go" in log and before.items() <= results(second).items()

    shards = [shard(number) for number in (1, 2, 3)]
    rows = [row for folder in shards if folder for row in planned(folder)]
    assert sorted(rows, key=lambda row: row["position"]) == planned(design.parent)
    merged = ["virtbed", "merge", str(into), *map(str, shards)]
    run(*merged)
    assert results(into).keys() == {row["id"] for row in planned(design.parent)}
    assert planned(into) == planned(design.parent)
    left = files(into)
    run(*merged)
    assert files(into) == left
    run("virtbed", "report", str(into))
    assert traces() == NOTHING


def test_a_preempted_task_ends_within_the_grace_time_and_continues(
    cluster: Cluster, plan: str, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    cluster.call("virtbed", "slurm", plan, "--tasks=1", f"--results={shared}")

    def shard() -> Path | None:
        return next(shared.glob("test-slurm.shard-1-of-1.*"), None)

    until(lambda: bool((one := shard()) and len(results(one)) == 1), 240)
    cluster.call("sbatch", "--partition=urgent", "--output=/dev/null", "--wrap=true")
    until(lambda: not cluster.queued().strip(), 400)
    log = (shared / "test-slurm.slurm" / "task-1.log").read_text()
    assert "ending: releasing the running instance" in log, log
    assert "preempted; the task continues when Slurm starts it again" in log, log
    one = shard()
    assert one and results(one).keys() == {row["id"] for row in planned(one)}
    assert traces() == NOTHING


def test_the_allocation_is_an_inventory(cluster: Cluster) -> None:
    listed = cluster.call(
        "salloc",
        "--quiet",
        "--exclusive",
        "--nodes=1",
        "ansible-inventory",
        f"-i{INVENTORY}",
        "--list",
    )
    found, _ = json.JSONDecoder().raw_decode(listed[listed.index("{") :])
    assert found["bench"]["hosts"] == ["n1"]
    # str(), because values from an inventory plugin are marked as not being templates.
    assert "127.0.0.1" in str(found["_meta"]["hostvars"]["n1"]["ansible_host"])


def test_a_part_of_a_node_is_refused(cluster: Cluster, plan: str, tmp_path: Path) -> None:
    output = cluster.call(
        "srun",
        "--quiet",
        "--ntasks=1",
        "virtbed",
        "sweep",
        plan,
        f"--results={tmp_path / 'r'}",
        ok=False,
    )
    assert f"1 of {cluster.cpus} CPUs of n1 granted to job" in output, output
    assert not (tmp_path / "r").exists()
