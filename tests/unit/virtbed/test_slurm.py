"""Submission of job arrays, and checks of granted nodes, with stubs of Slurm's programs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from virtbed.ansible import AnsibleError, bench_variables
from virtbed.bench import Bench
from virtbed.checkout import REPOSITORY
from virtbed.cli import app
from virtbed.plan import Plan, load_plan, plan_path
from virtbed.slurm import SlurmError, allocation, check_granted, submission
from virtbed.slurm.allocation import allocated, per_node
from virtbed.slurm.job import SET, Job, seconds_of, words_of

SLURM = str(REPOSITORY / "inventory" / "slurm")
STUB = """#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >> {calls}
case "$(basename "$0") $*" in
{cases}
*) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""
NODE = "NodeName={name} Arch=x86_64 CPUAlloc=0 CPUTot={cpus} NodeAddr={address} OS=Linux 6.1"


class Slurm:
    """Stubs of Slurm's programs on PATH; `answer` sets what each one prints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.calls.touch()
        self.answers: dict[str, str] = {}
        self.answer("scontrol show hostnames *", "n1\nn2")
        self.answer("scontrol --oneliner show job 12", "JobId=12 JobState=RUNNING Reason=None")
        # The last task of an array has the array's number as its own, which shows all tasks.
        self.answer("scontrol --oneliner show job 9_3", "JobId=9 JobState=RUNNING ArrayTaskId=3")
        self.answer(
            "scontrol --oneliner show job 9",
            "JobId=9 JobState=RUNNING ArrayTaskId=3\nJobId=10 JobState=COMPLETED ArrayTaskId=1",
        )
        for number, cpus in ((1, 8), (2, 8)):
            line = NODE.format(name=f"n{number}", cpus=cpus, address=f"10.0.0.{number}")
            self.answer(f"scontrol --oneliner show node n{number}", line)
        self.answer(
            "scontrol --oneliner show partition",
            "PartitionName=main OverSubscribe=NO\nPartitionName=all OverSubscribe=FORCE:4",
        )
        self.answer("scontrol --oneliner show job 7_2", "JobId=9 PreemptTime=None StartTime=x")
        self.answer("scontrol requeue *", "")
        self.answer("srun *", "")
        self.answer("sinfo *--partition=main*", "8\n64")
        self.answer("sbatch *", "77")
        self.answer("squeue *--name=virtbed-quick*", "")

    def answer(self, call: str, printed: str, status: int = 0) -> None:
        body = f"printf '%s\\n' {shlex.quote(printed)}; exit {status}"
        self.answers[call.replace(" ", "\\ ")] = body
        cases = "\n".join(f"{pattern}) {body} ;;" for pattern, body in self.answers.items())
        for program in ("scontrol", "sinfo", "sbatch", "squeue", "srun"):
            path = self.folder / program
            path.write_text(STUB.format(calls=shlex.quote(str(self.calls)), cases=cases))
            path.chmod(0o755)

    def environment_of(self, *programs: str) -> None:
        """Let programs write down the variables of Slurm that they see."""
        for program in programs:
            path = self.folder / program
            line = f"env | grep -E '^(SBATCH|SQUEUE|SLURM)_' > {shlex.quote(str(path))}.env"
            path.write_text(path.read_text().replace("#!/bin/sh", f"#!/bin/sh\n{line}", 1))

    def environment(self, program: str) -> dict[str, str]:
        lines = (self.folder / f"{program}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def called(self, program: str) -> list[str]:
        lines = self.calls.read_text().splitlines()
        return [line.removeprefix(f"{program} ") for line in lines if line.startswith(program)]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Slurm(folder)


@pytest.fixture
def job_of_two(monkeypatch: pytest.MonkeyPatch, slurm: Slurm) -> None:
    """Set the environment of a job on two nodes, on the first of them."""
    for name, value in (
        ("JOB_ID", "12"), ("JOB_NODELIST", "n[1-2]"), ("JOB_CPUS_PER_NODE", "8(x2)"),
    ):  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, ["slurm", *map(str, words)], env={"COLUMNS": "400"})


THIS_MACHINE = {"localhost": {"ansible_connection": "local"}}


@pytest.fixture
def submit(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Call the command, with a fake inventory, since reading a real one takes a second."""
    monkeypatch.setattr(submission, "bench_variables", lambda *_: THIS_MACHINE)

    def called(*words: Any) -> tuple[int, str]:
        result = call("quick", f"--results={tmp_path / 'results'}", *words)
        return result.exit_code, result.output

    return called


# Submission.


def options(script: str) -> list[str]:
    """Return the options in a script, all of which come before its first command."""
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
    return [line.removeprefix("#SBATCH ") for line in lines[:first] if "#SBATCH" in line]


def test_a_plan_is_an_array_of_whole_nodes(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    status, output = submit(
        "--partition=main", "--tasks=3", "--nodes=2", "--time=4:00:00", "--account=us",
        "--option=--constraint=epyc&ib", "--option=--exclude=n[7-9]",
    )  # fmt: skip
    assert status == 0, output
    folder = tmp_path / "results"
    words = " ".join(output.split())  # the path may be on a line of its own
    assert "job 77: 3 tasks, one node each, at most 2 at once" in words
    assert f"their output is in {folder}/quick.slurm" in words
    assert f"virtbed merge {folder}/quick {folder}/quick.shard-*-of-3.*" in output
    path = folder / "quick.slurm" / "job.sh"
    assert slurm.called("sbatch") == [f"--parsable {path}"]
    assert options(path.read_text()) == [
        "--job-name=virtbed-quick", "--array=1-3%2", "--nodes=1", "--ntasks=1", "--exclusive",
        "--mem=0", "--mincpus=2", "--requeue", "--open-mode=append", "--signal=B:USR1@300",
        f'--output="{folder}/quick.slurm/task-%a.log"', "--partition=main", "--time=4:00:00",
        "--account=us", '--constraint="epyc&ib"', '--exclude="n[7-9]"',
    ]  # fmt: skip
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_by_default_there_is_one_task_per_replicate(
    submit: Callable[..., tuple[int, str]],
) -> None:
    assert "--array=1-5\n" in submit("--dry-run")[1]
    assert "--array=1-7\n" in submit("--dry-run", "--replicates=7")[1]


def test_a_dry_run_submits_nothing_and_needs_no_slurm(
    submit: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status, output = submit("--tasks=3", "--dry-run")
    assert status == 0 and output.startswith("#!/bin/bash\n#SBATCH --job-name=virtbed-quick\n")
    needed = tmp_path / "results" / "quick.slurm"
    assert f"virtbed: {needed} must exist before the script is submitted" in output
    assert not (tmp_path / "results").exists()


def test_a_task_calls_the_sweep_with_the_same_options(
    submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    plan = tmp_path / "mine.yml"
    plan.write_text((REPOSITORY / "plans/quick.yml").read_text())
    output = call(
        plan, "--tasks=2", "--replicates=4", "--dry-run", f"--results={tmp_path / 'a b'}",
        "--extra-vars=virtbed_state_dir=/x y",
    ).output  # fmt: skip
    (line,) = (line for line in output.splitlines() if " sweep " in line and line.endswith(" &"))
    words = shlex.split(line.removesuffix(" &"))
    assert words[0] == str(Path(sys.executable).with_name("virtbed"))
    assert words[1:] == [
        "sweep", str(plan), f"--inventory={REPOSITORY}/inventory/local",
        "--extra-vars=virtbed_state_dir=/x y", "--replicates=4", f"--results={tmp_path / 'a b'}",
        "--shard", "${SLURM_ARRAY_TASK_ID}/2",
    ]  # fmt: skip
    assert f'#SBATCH --output="{tmp_path}/a b/quick.slurm/task-%a.log"' in output


BAD: dict[str, tuple[list[str], str]] = {
    "no task": (["--tasks=0"], "0 shards of 5 replicates found, from 1 to 5 needed"),
    "too many tasks": (["--tasks=6"], "6 shards of 5 replicates found, from 1 to 5 needed"),
    "no node": (["--nodes=0"], "--nodes 0 found, at least 1 needed"),
    "no partition": (["--partition=gone"], "no partition gone found; there are: main, all"),
    "a shared one": (["--partition=all"], "partition all has OverSubscribe=FORCE:4"),
    "two lines": (["--partition=a\n#SBATCH --uid=0"], "found, a name needed"),
    "a long time": (["--time=soon"], "--time 'soon' found, minutes, hours:minutes:seconds"),
    "a short time": (["--time=10"], "--time 10 found, at least 15 minutes needed"),
    "a bare option": (["--option=constraint=x"], "one of sbatch as --name or --name=value "),
    "a line": (["--option=--comment=a\nrm -rf x"], "one of sbatch as --name or --name=value"),
    "not whole": (["--option=--oversubscribe"], "option --oversubscribe found: virtbed slurm sets"),
    "a beginning": (["--option=--oversub"], "option --oversub found: virtbed slurm sets that"),
    "a second option": (['--option=--comment=" --array=1-9'], 'without " and \\'),
    "less memory": (["--option=--mem-per-cpu=1"], "option --mem-per-cpu found: virtbed slurm"),
    "no time at all": (["--option=--time=1"], "option --time found: virtbed slurm sets that"),
    "waiting": (["--option=--wait"], "option --wait found: virtbed slurm sets that"),
    "elsewhere": (["--option=--clust=x"], "option --clust found: virtbed slurm sets that"),
    "another array": (["--option=--array=1-9"], "option --array found: virtbed slurm sets that"),
    "several lines": (["--account=a b"], "--account 'a b' found, a name needed"),
    "too many replicates": (["--replicates=1000"], "less than or equal to 999"),
}


@pytest.mark.parametrize("what", BAD)
def test_invalid_options_are_refused_and_nothing_is_submitted(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], what: str
) -> None:
    words, expected = BAD[what]
    status, output = submit(*words)
    assert status == 2 and expected in output
    assert slurm.called("sbatch") == []


def test_variables_that_would_change_the_job_do_not_reach_sbatch_and_are_named(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = (
        "SBATCH_ARRAY_INX", "SBATCH_CONTAINER", "SBATCH_ERROR", "SBATCH_EXCLUSIVE",
        "SBATCH_HINT", "SBATCH_MEM_PER_CPU", "SBATCH_NO_REQUEUE", "SBATCH_REQUEUE",
        "SBATCH_SIGNAL", "SBATCH_THREADS_PER_CORE", "SBATCH_UNKNOWN", "SBATCH_WAIT",
        "SLURM_CLUSTERS", "SLURM_HINT",
    )  # fmt: skip
    for name in (*changing, "SBATCH_CONSTRAINT", "SBATCH_QOS", "SBATCH_EXPORT", "SQUEUE_STATES"):
        monkeypatch.setenv(name, "value")
    slurm.environment_of("sbatch", "squeue")
    status, output = submit("--option=--constr=epyc")
    named = f"{', '.join(changing)} found in the environment, not passed to sbatch"
    assert status == 0 and named in " ".join(output.split())
    assert slurm.environment("sbatch") == {"SBATCH_QOS": "value", "SBATCH_EXPORT": "value"}
    assert "SQUEUE_STATES" not in slurm.environment("squeue")
    for name in changing:
        monkeypatch.delenv(name)
    assert "found in the environment" not in submit("--option=--constr=epyc")[1]


def test_variables_of_options_that_the_command_has_are_their_defaults(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PARTITION", "main"), ("TIMELIMIT", "2:00:00"), ("ACCOUNT", "us")):
        monkeypatch.setenv(f"SBATCH_{name}", value)
    slurm.environment_of("sbatch")
    status, output = submit()
    assert status == 0 and "found in the environment" not in output
    assert slurm.environment("sbatch") == {}
    own = ["--partition=main", "--time=2:00:00", "--account=us"]
    assert options(submit("--dry-run")[1])[-3:] == own
    assert "--partition=big" in options(submit("--dry-run", "--partition=big")[1])
    monkeypatch.setenv("SBATCH_PARTITION", "all")
    status, output = submit()
    assert status == 2 and "partition all has OverSubscribe=FORCE:4" in output
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    assert "--time 1 found, at least 15 minutes needed" in submit("--partition=main")[1]


@pytest.mark.parametrize("mode", ["SUSPEND", "GANG,SUSPEND"])
def test_a_partition_whose_jobs_are_suspended_is_refused(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], mode: str
) -> None:
    line = "PartitionName=main OverSubscribe=NO PreemptMode="
    slurm.answer("scontrol --oneliner show partition", f"{line}{mode}")
    status, output = submit("--partition=main")
    assert status == 2 and f"partition main has PreemptMode={mode}" in output
    slurm.answer("scontrol --oneliner show partition", f"{line}REQUEUE")
    assert submit("--partition=main")[0] == 0


@pytest.mark.parametrize("words", [["--partition=main"], ["--partition=big,main"], []])
def test_nodes_too_small_for_the_plan_are_named(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], words: list[str]
) -> None:
    slurm.answer(
        "scontrol --oneliner show partition",
        "PartitionName=big OverSubscribe=NO\nPartitionName=main Default=YES OverSubscribe=NO",
    )
    slurm.answer("sinfo *--partition=big*", "64")
    slurm.answer("sinfo *--partition=main*", "1\n1")
    status, output = submit(*words)
    assert status == 2 and slurm.called("sbatch") == []
    assert "partition main has nodes of at most 1 CPUs, 2 needed by the largest size" in output
    assert submit("--partition=big")[0] == 0


@pytest.mark.parametrize("words", [[], ["--partition=main"]])
def test_without_sbatch_the_missing_program_is_named(
    submit: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, words: list[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    status, output = submit(*words)
    assert status == 2 and "no sbatch found on PATH" in output and "slurm-client" in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("printed", "status", "why"),
    [("sbatch: error: invalid account", 1, "invalid account"), ("", 0, "the number of a job")],
)
def test_a_rejection_by_slurm_is_reported(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], printed: str, status: int, why: str
) -> None:
    slurm.answer("sbatch *", printed, status)
    ended, output = submit()
    assert ended == 2 and why in output


def test_a_queued_sweep_is_not_submitted_again(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    own = f"{tmp_path}/results/quick.slurm/job.sh"
    slurm.answer("squeue *--name=virtbed-quick*", f"7 /elsewhere/quick.slurm/job.sh\n8 {own}")
    status, output = submit()
    assert status == 2 and slurm.called("sbatch") == []
    assert f"job 8 carries quick out into {tmp_path}/results already" in output
    slurm.answer("squeue *--name=virtbed-quick*", "7 /elsewhere/quick.slurm/job.sh")
    assert submit()[0] == 0


def test_without_root_the_message_names_what_is_still_possible(
    slurm: Slurm, submit: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, output = submit()
    assert status == 2 and slurm.called("sbatch") == []
    assert "user id 1000 found, root (0) needed on every node" in output
    assert (
        "rootless Podman and QEMU's user sessions are not supported" in output
        and "--dry-run" in output
    )
    status, output = submit("--dry-run")  # for an administrator
    assert status == 0 and "#SBATCH --exclusive" in output


def test_an_inventory_of_another_machine_is_refused(slurm: Slurm, tmp_path: Path) -> None:
    done = call("quick", f"--results={tmp_path}", f"--inventory={REPOSITORY}/inventory/example")
    output = done.output
    assert done.exit_code == 2 and slurm.called("sbatch") == []
    assert "bench01 found in the group bench, one host with ansible_connection: local" in output


def test_a_precision_is_reported_as_not_applied_to_shards(
    submit: Callable[..., tuple[int, str]],
) -> None:
    output = call("study", "--tasks=3", "--dry-run").output
    assert "precision 0.014 is not applied to shards: each of the 30 replicates" in output


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("1:30:00", 5400), ("1-12", 129600), ("1-12:30", 131400),
     ("2-0:0:5", 172805), ("UNLIMITED", None), ("infinite", None)],
)  # fmt: skip
def test_a_time_limit_is_parsed_as_by_sbatch(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1:2:3:4", "1-", "-5", "4h", "1:-2", "1 2", "0x10"])
def test_an_invalid_time_limit_is_refused(text: str) -> None:
    with pytest.raises(SlurmError, match="found, minutes"):
        seconds_of(text)


# The batch script, run with a stub in place of virtbed.


class Task:
    """The batch script, run by a shell as by Slurm."""

    def __init__(self, slurm: Slurm, folder: Path, plan: Plan) -> None:
        self.slurm, self.folder = slurm, folder
        self.results = folder / "all results"
        (folder / "bin").mkdir()
        words = words_of("quick", None, ["x,"], None, [], self.results)
        self.job = Job(plan, words, self.results, 3)

    def step(self) -> None:
        """Let srun carry out its command."""
        stub = self.slurm.folder / "srun"
        stub.write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
        stub.chmod(0o755)

    def wait_until_ready(self) -> None:
        """Wait until the stub of virtbed handles signals."""
        ready = time.monotonic() + 10
        while not (self.results / "ready").exists() and time.monotonic() < ready:
            time.sleep(0.02)

    def pid_of_step(self) -> int:
        """Return the process that receives the signals for the step, once both are ready."""
        self.wait_until_ready()
        wanted = b"sleep infinity & wait"
        ready = time.monotonic() + 10
        while time.monotonic() < ready:
            for place in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    own = str(self.folder).encode() in (place / "environ").read_bytes()
                    sleeps = (place / "task" / place.name / "children").read_text().strip()
                    if own and sleeps and wanted in (place / "cmdline").read_bytes():
                        return int(place.name)
            time.sleep(0.02)
        raise AssertionError("no step")

    def start(
        self, body: str, monkeypatch: pytest.MonkeyPatch, line: str = "", instead: str = ""
    ) -> subprocess.Popen[str]:
        stub = self.folder / "bin" / "virtbed"
        stub.write_text(f"#!/bin/bash\n{body}")
        stub.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(stub.with_name("python")))
            script = self.folder / "job.sh"
            script.write_text(self.job.script().replace(f"\n{line}\n", f"\n{instead or line}\n"))
        environment = os.environ | {
            "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "R": str(self.results),
        }  # fmt: skip
        return subprocess.Popen(
            # A shell that is started with a signal ignored, as after `&`, cannot trap it.
            ["env", "--default-signal", "bash", script], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def signalled(self, started: subprocess.Popen[str], *numbers: int) -> tuple[int, str]:
        self.wait_until_ready()
        for number in numbers:
            started.send_signal(number)
        output, _ = started.communicate(timeout=20)
        return started.returncode, output


@pytest.fixture
def task(slurm: Slurm, tmp_path: Path) -> Task:
    return Task(slurm, tmp_path, load_plan(plan_path("quick")))


RESULT = 'f="$R/quick.shard-2-of-3.n1/trials/$1"; mkdir -p "$f"; touch "$f/result.json"'
WAITS = """result() { %s; }
trap 'sleep 0.3; echo released; exit 130' TERM
%s
touch "$R/ready"
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("status", [0, 1, 2, 4])
def test_a_task_has_the_exit_status_of_its_sweep(
    task: Task, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    started = task.start(f'echo "$@"; exit {status}', monkeypatch)
    output, _ = started.communicate(timeout=20)
    assert started.returncode == status
    words = f"sweep quick --inventory=x, --results={task.results} --shard 2/3"
    assert words in output.splitlines()
    assert task.slurm.called("scontrol") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_task_that_slurm_ends_waits_for_its_release_and_does_not_requeue_itself(
    task: Task, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    task.results.mkdir()
    started = task.start(WAITS % (RESULT, "result a"), monkeypatch)
    status, output = task.signalled(started, number, number)
    assert status == 130 and "released" in output
    assert task.slurm.called("scontrol") == []


def test_a_task_near_its_time_limit_is_requeued_if_a_trial_ended(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = task.results / "quick.shard-2-of-3.n0" / "trials" / "a"
    before.mkdir(parents=True)
    (before / "result.json").touch()
    started = task.start(WAITS % (RESULT, "result b"), monkeypatch)
    status, output = task.signalled(started, signal.SIGUSR1)
    assert status == 0 and "released" in output and "continues when Slurm starts it again" in output
    assert task.slurm.called("scontrol")[-1] == "requeue 7_2"


def test_a_task_without_an_ended_trial_is_not_requeued(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.results.mkdir()
    started = task.start(WAITS % (RESULT, ""), monkeypatch)
    status, output = task.signalled(started, signal.SIGUSR1)
    assert status == 130 and "no trial ended within the time limit" in output
    assert "requeue 7_2" not in task.slurm.called("scontrol")


@pytest.mark.parametrize("by_step", [True, False])
@pytest.mark.parametrize("ended", ["", "result b"])
def test_a_preempted_task_ends_within_the_grace_time_and_is_requeued(
    task: Task, monkeypatch: pytest.MonkeyPatch, by_step: bool, ended: str
) -> None:
    """Slurm signals the steps of a job; where send_user_signal is set, the shell."""
    task.slurm.answer(
        "scontrol --oneliner show job 7_2",
        "JobId=9 PreemptEligibleTime=2026-11-30T09:00:00 PreemptTime=2026-11-30T10:00:00 "
        "StartTime=2026-11-30T09:00:00",
    )
    task.results.mkdir()
    if by_step:
        task.step()
    started = task.start(WAITS % (RESULT, ended), monkeypatch)
    if by_step:
        os.kill(task.pid_of_step(), signal.SIGTERM)
    status, output = task.signalled(started, *([] if by_step else [signal.SIGUSR1]))
    assert status == 0 and "released" in output and "preempted; the task continues" in output
    assert task.slurm.called("scontrol")[-1] == "requeue 7_2"


def test_the_preemption_of_an_earlier_run_does_not_count(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.slurm.answer(
        "scontrol --oneliner show job 7_2",
        "JobId=9 PreemptTime=2026-11-30T10:00:00 StartTime=2026-11-30T11:00:00",
    )
    task.results.mkdir()
    started = task.start(WAITS % (RESULT, ""), monkeypatch)
    status, output = task.signalled(started, signal.SIGUSR1)
    assert status == 130 and "no trial ended within the time limit" in output
    assert "requeue 7_2" not in task.slurm.called("scontrol")


def test_a_step_that_a_user_ends_ends_the_task_for_good(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.results.mkdir()
    task.step()
    started = task.start(WAITS % (RESULT, "result a"), monkeypatch)
    os.kill(task.pid_of_step(), signal.SIGTERM)
    status, output = task.signalled(started)
    assert status == 130 and "released" in output
    assert "requeue 7_2" not in task.slurm.called("scontrol")


def test_a_task_that_is_cancelled_after_a_warning_is_not_requeued(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.results.mkdir()
    started = task.start(WAITS % (RESULT, "result a"), monkeypatch)
    status, _ = task.signalled(started, signal.SIGUSR1, signal.SIGTERM)
    assert status == 130 and task.slurm.called("scontrol") == []


def test_a_signal_before_the_shell_knows_its_child_ends_the_sweep(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.results.mkdir()
    line = "child=$!"
    started = task.start("exec sleep 20", monkeypatch, line, f'kill -TERM "$$"; {line}')
    output, _ = started.communicate(timeout=10)
    assert started.returncode == 143, output


def test_a_task_that_cannot_be_requeued_fails(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    task.slurm.answer("scontrol requeue *", "disabled", 1)
    task.results.mkdir()
    started = task.start(WAITS % (RESULT, "result a"), monkeypatch)
    assert task.signalled(started, signal.SIGUSR1)[0] == 130


# Granted nodes.


def test_abbreviated_numbers_of_cpus_are_parsed() -> None:
    assert per_node("8(x2),4,16(x3)") == [8, 8, 4, 16, 16, 16]
    for text in ("", "8(x", "a", "8(2)", "8,,4"):
        assert per_node(text) == []


@pytest.mark.usefixtures("job_of_two")
def test_the_nodes_of_a_job_are_its_bench_hosts() -> None:
    shared = {"virtbed_state_dir": "/var/lib/virtbed"}
    assert {name: dict(host) for name, host in bench_variables([SLURM]).items()} == {
        "n1": {"ansible_connection": "local", "virtbed_left_out": "", **shared},
        "n2": {"ansible_host": "10.0.0.2", "virtbed_left_out": "", **shared},
    }


@pytest.mark.parametrize(("counts", "left", "out"), [("8,4", "n1", "n2"), ("4,8", "n2", "n1")])
@pytest.mark.usefixtures("job_of_two")
def test_nodes_of_which_only_a_part_was_granted_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, counts: str, left: str, out: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", counts)
    bench = Bench((SLURM,))
    assert bench.hosts() == (left,)
    (line,) = bench.left_out()
    assert line.startswith(f"4 of 8 CPUs of {out} granted to job 12, the whole node needed")
    check_granted(plan, Bench((SLURM,), limit=left))


@pytest.mark.usefixtures("job_of_two")
def test_a_small_node_among_several_is_left_to_its_admission(
    monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    """The other nodes go on; the sweep sets the small one aside, with the reason."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    check_granted(plan, Bench((SLURM,)))
    with pytest.raises(SlurmError, match="1 in all; 2 needed by the largest size"):
        check_granted(plan, Bench((SLURM,), limit="n1"))


@pytest.mark.parametrize(
    ("unset", "counts", "why"),
    [
        (("SLURM_JOB_ID",), "8(x2)", "no SLURM_JOB_ID and SLURM_JOB_NODELIST found"),
        ((), "4,4", "4 of 8 CPUs of n2 granted to job 12, the whole node needed"),
        ((), "8", "the CPUs of 2 nodes (n[1-2]) needed"),
    ],
)
@pytest.mark.usefixtures("job_of_two")
def test_without_an_allocation_of_whole_nodes_the_inventory_is_refused(
    monkeypatch: pytest.MonkeyPatch, unset: tuple[str, ...], counts: str, why: str
) -> None:
    for name in unset:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", counts)
    with pytest.raises(AnsibleError) as error:
        bench_variables([SLURM])
    assert why in " ".join(str(error.value).split())


@pytest.mark.usefixtures("job_of_two")
def test_cpus_that_are_reserved_for_slurm_are_not_counted(slurm: Slurm) -> None:
    line = NODE.format(name="n1", cpus=10, address="n1") + " CPUEfctv=8"
    slurm.answer("scontrol --oneliner show node n1", line)
    assert [(n.granted, n.cpus) for n in allocated(os.environ)] == [(8, 8), (8, 8)]


@pytest.mark.usefixtures("slurm")
def test_outside_of_a_job_nothing_is_checked(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "bench_variables", lambda *_: pytest.fail("queried"))
    check_granted(plan, Bench())


GRANTED: dict[str, tuple[dict[str, str | None], int, str]] = {
    "whole": ({}, 8, ""),
    "a part": ({"SLURM_JOB_CPUS_PER_NODE": "4(x2)"}, 4, "4 of 8 CPUs of n1 granted to job 12"),
    "small": ({}, 1, "CPUs 0 of n1 granted to job 12, 1 in all; 2 needed by the largest size"),
    "elsewhere": ({"SLURMD_NODENAME": None}, 8, r"this machine is no node of Slurm's job 12 \(n1"),
    "other node": ({"SLURMD_NODENAME": "n5"}, 8, "this machine is no node of Slurm's job 12"),
    "a task": (
        {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3",
         "SLURM_JOB_CPUS_PER_NODE": "1(x2)"}, 8, "1 of 8 CPUs of n1 granted to job 9_3",
    ),
    "unknown": ({"SLURM_JOB_CPUS_PER_NODE": None}, 8, "SLURM_JOB_CPUS_PER_NODE None found"),
}  # fmt: skip


@pytest.mark.parametrize("what", GRANTED)
@pytest.mark.usefixtures("job_of_two")
def test_within_a_job_only_a_granted_whole_node_is_measured(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, what: str
) -> None:
    variables, cpus, why = GRANTED[what]
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr(allocation, "bench_variables", lambda *_: THIS_MACHINE)
    if not why:
        check_granted(plan, Bench())
        return
    with pytest.raises(SlurmError, match=why):
        check_granted(plan, Bench())


@pytest.mark.parametrize("state", ["TIMEOUT", "SUSPENDED"])
@pytest.mark.usefixtures("job_of_two")
def test_nodes_of_a_job_that_does_not_run_are_not_measured(slurm: Slurm, state: str) -> None:
    slurm.answer("scontrol --oneliner show job 12", f"JobId=12 JobState={state} Reason=None")
    with pytest.raises(SlurmError, match=f"job 12 is {state}, RUNNING needed"):
        allocated(os.environ)


@pytest.mark.usefixtures("job_of_two")
def test_a_sweep_is_refused_if_its_job_has_part_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "4(x2)")
    result = CliRunner().invoke(app, ["sweep", "quick", "--shard", "1/5"])
    assert result.exit_code == 2 and "the whole node needed" in result.output.replace("\n", " ")


def test_a_program_of_slurm_that_does_not_answer_is_named(
    slurm: Slurm, submit: Callable[..., tuple[int, str]]
) -> None:
    slurm.answer("scontrol --oneliner show partition", "Unable to contact slurm controller", 1)
    status, output = submit("--partition=main")
    assert status == 2 and "Unable to contact slurm controller" in output


def test_options_that_the_job_sets_are_not_accepted(plan: Plan) -> None:
    job = Job(plan, ("x",), Path("/r"), 2, 1, "p", "60", "a")
    own = {line.removeprefix("--").partition("=")[0] for line in options(job.script())}
    assert own <= SET


def test_options_and_paths_with_spaces_are_quoted(plan: Plan) -> None:
    job = Job(plan, ("x",), Path("/a #1/it's"), 2, options=("--comment=a --oversubscribe", "--x"))
    job.check()
    output = [words for line in options(job.script()) for words in shlex.split(line, comments=True)]
    assert output[-2:] == ["--comment=a --oversubscribe", "--x"]
    assert f"--output=/a #1/it's/{plan.name}.slurm/task-%a.log" in output


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b"])
def test_an_invalid_shard_is_refused_before_anything_is_made(text: str) -> None:
    result = CliRunner().invoke(app, ["sweep", "quick", "--shard", text])
    assert result.exit_code == 2 and "NUMBER/OF with a number from 1 to OF needed" in result.output
    result = CliRunner().invoke(app, ["sweep", "quick", "--shard", "1/6"])
    assert result.exit_code == 2 and "6 shards of 5 replicates found" in result.output
