"""The batch script of a plan's job array: each task carries one shard out, on one whole node."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from virtbed.checkout import REPOSITORY
from virtbed.plan import Plan
from virtbed.slurm.asking import SlurmError

END_S = 300
"""A task is ended this many seconds before its time limit, to release its instance and requeue."""
INTERRUPTED = (130, 143)
"""Exit statuses of a `virtbed sweep` that was interrupted: after restoring its host, and by a TERM
before it started anything."""
LEAST_S = 900
"""The shortest time limit, in seconds: with less, a task would end right after its examination."""
# The options of sbatch that the job sets itself, or for which `virtbed slurm` has an own option.
SET = frozenset(
    {
        "account", "array", "chdir", "clusters", "container", "cpus-per-task", "error",
        "exclusive", "job-name", "mem", "mem-per-cpu", "mem-per-gpu", "mincpus", "nodes",
        "no-requeue", "ntasks", "ntasks-per-node", "open-mode", "output", "oversubscribe",
        "parsable", "partition", "requeue", "share", "signal", "test-only", "time", "wait", "wrap",
    }
)  # fmt: skip
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)(=[^\n\r\"\\\\]*)?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.,:@%+-]+", re.ASCII)
_TIME = re.compile(
    r"(?:(?P<days>[0-9]+)-(?P<dh>[0-9]+)(?::(?P<dm>[0-9]+)(?::(?P<ds>[0-9]+))?)?"
    r"|(?P<h>[0-9]+):(?P<hm>[0-9]+):(?P<hs>[0-9]+)|(?P<m>[0-9]+)(?::(?P<s>[0-9]+))?)",
    re.ASCII,
)
_UNLIMITED = {"infinite", "unlimited"}

# The shell keeps running to handle signals: it passes them on to its child as TERM, and waits for
# it. They have different origins, and differ in who requeues the task:
#   USR1  Slurm's warning before the time limit (or, where a site sets send_user_signal, before a
#         preemption): the script requeues the task.
#   USR2  The step started by srun received TERM. At the start of a preemption's GraceTime, Slurm
#         signals only steps, and the shell not before the end. The script requeues the task.
#   TERM  scancel, scontrol requeue, the end of GraceTime: Slurm requeues the task, or must not.
_SCRIPT = """\
set -u
export PATH
task="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
results=({pattern})
before=${{#results[@]}}
child= late= asked= ended=
end() {{ [ -z "$child" ] || kill -TERM "$child"; }}
trap 'late=yes; end' USR1
trap 'asked=yes; end' USR2
trap 'ended=yes; end' TERM INT HUP
srun --quiet --nodes=1 --ntasks=1 /bin/sh -c \
  'trap "kill -USR2 $0 \\$!; exit" TERM; sleep infinity & wait' "$$" < /dev/null &
{command} &
child=$!
[ -z "$late$asked$ended" ] || end
while kill -0 "$child" 2> /dev/null; do
  wait "$child"
done
wait "$child"
status=$?
if [ -z "$ended" ] && [ -n "$late$asked" ] && {{ {interrupted}; }}; then
  results=({pattern})
  job=$(SLURM_TIME_FORMAT=standard scontrol --oneliner show job "$task")
  preempted=${{job#* PreemptTime=}} started=${{job#* StartTime=}}
  # A time of preemption may be left from before a requeue.
  if [[ "$preempted" == [0-9]* && ! "$preempted" < "${{started%% *}}" ]]; then
    echo "virtbed: preempted; the task continues when Slurm starts it again"
    scontrol requeue "$task" && exit 0
  elif [ -n "$late" ] && [ "${{#results[@]}}" -gt "$before" ]; then
    echo "virtbed: the time limit is near; the task continues when Slurm starts it again"
    scontrol requeue "$task" && exit 0
  elif [ -n "$late" ]; then
    echo "virtbed: no trial ended within the time limit, a longer --time needed" >&2
  fi
fi
exit "$status"
"""


@dataclass(frozen=True)
class Job:
    """A job array for a plan.

    Attributes:
        plan: The plan.
        words: The arguments of `virtbed sweep` for this plan: its name or path, and options.
        results: The folder of all results, on a file system that every node shares.
        tasks: The number of shards, one per task.
        nodes: The most tasks that run at the same time; None for no limit.
        partition: Slurm's partition; None for Slurm's default.
        time: The time limit per task, in a format of sbatch; None for the partition's own.
        account: The account that is charged; None for the user's default.
        options: Further options of sbatch, `--name` or `--name=value`.
    """

    plan: Plan
    words: tuple[str, ...]
    results: Path
    tasks: int
    nodes: int | None = None
    partition: str | None = None
    time: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the script and of the tasks' logs."""
        return self.results / f"{self.plan.name}.slurm"

    def check(self) -> None:
        """Raise SlurmError if an option is invalid, or one that the job must set itself."""
        for name, value in (("partition", self.partition), ("account", self.account)):
            if value is not None and not _WORD.fullmatch(value):
                raise SlurmError(f"--{name} {value[:80]!r} found, a name needed")
        if self.nodes is not None and self.nodes < 1:
            raise SlurmError(f"--nodes {self.nodes} found, at least 1 needed")
        seconds = None if self.time is None else seconds_of(self.time)
        if seconds is not None and seconds < LEAST_S:
            raise SlurmError(
                f"--time {self.time} found, at least {LEAST_S // 60} minutes needed: a task "
                f"examines its host first, and is ended {END_S // 60} minutes before its limit to "
                "restore the node"
            )
        for option in self.options:
            match = _OPTION.fullmatch(option)
            if match is None:
                raise SlurmError(
                    f"option {option[:80]!r} found, one of sbatch as --name or --name=value "
                    'needed, without " and \\'
                )
            # sbatch accepts abbreviated names.
            if any(name.startswith(match[1]) for name in SET):
                raise SlurmError(
                    f"option --{match[1]} found: virtbed slurm sets that, to get whole nodes and "
                    "to continue after a requeue, or has an option of its own for it; leave it out"
                )

    def script(self) -> str:
        """Return the batch script."""
        shard = "${SLURM_ARRAY_TASK_ID}"
        command = [str(Path(sys.executable).with_name("virtbed")), "sweep", *self.words]
        begin = shlex.quote(f"{self.results}/{self.plan.name}.shard-")
        place = f"{begin}{shard}{shlex.quote(f'-of-{self.tasks}.')}*/trials/*/result.json"
        return "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH {option}" for option in self._options()),
                f"# Written by virtbed slurm; task I is virtbed sweep … --shard I/{self.tasks}.",
                "shopt -s nullglob",
                f"cd {shlex.quote(str(REPOSITORY))} || exit",
                _SCRIPT.format(
                    pattern=place,
                    command=f'{shlex.join(command)} --shard "{shard}/{self.tasks}"',
                    interrupted=" || ".join(f'[ "$status" -eq {n} ]' for n in INTERRUPTED),
                ),
            ]
        )

    def _options(self) -> Iterator[str]:
        """Yield the options of sbatch, one per ``#SBATCH`` line."""
        at_once = f"%{self.nodes}" if self.nodes is not None else ""
        yield f"--job-name=virtbed-{self.plan.name}"
        yield f"--array=1-{self.tasks}{at_once}"
        yield from ("--nodes=1", "--ntasks=1", "--exclusive", "--mem=0")
        yield f"--mincpus={max(self.plan.cores)}"
        yield from ("--requeue", "--open-mode=append", f"--signal=B:USR1@{END_S}")
        yield f"--output={_in_a_line(self.folder, 'task-%a.log')}"
        for name in ("partition", "time", "account"):
            if (value := getattr(self, name)) is not None:
                yield f"--{name}={value}"
        yield from map(_quoted, self.options)


def _quoted(option: str) -> str:
    """Return an option for an ``#SBATCH`` line, its value in quotes since it may have spaces."""
    name, equals, value = option.partition("=")
    return f'{name}="{value}"' if equals else name


def _in_a_line(folder: Path, name: str) -> str:
    """Return a path for an ``#SBATCH`` line, where %, # and spaces have meanings.

    Args:
        folder: The folder, whose % are escaped.
        name: The file's name in it, in which sbatch replaces patterns such as %a.

    Raises:
        SlurmError: The folder has a character that cannot be written in such a line.
    """
    text = f"{str(folder).replace('%', '%%')}/{name}"
    if any(c in text for c in '\n\r"\\'):
        raise SlurmError(
            f'results folder {text[:200]!r} found, one without ", \\ and line breaks needed; '
            "choose another with --results"
        )
    return f'"{text}"'


def seconds_of(time: str) -> int | None:
    """Return a time limit of sbatch in seconds; None for an unlimited one.

    Raises:
        SlurmError: It is no time limit.

    Example:
        >>> seconds_of("90"), seconds_of("1:30:00"), seconds_of("1-12")
        (5400, 5400, 129600)
    """
    if time.lower() in _UNLIMITED:
        return None
    match = _TIME.fullmatch(time)
    if match is None:
        raise SlurmError(
            f"--time {time[:80]!r} found, minutes, hours:minutes:seconds or days-hours needed, "
            "such as 4:00:00"
        )
    found = {name: int(value or 0) for name, value in match.groupdict().items()}
    minutes = found["days"] * 1440 + (found["dh"] + found["h"]) * 60
    minutes += found["dm"] + found["hm"] + found["m"]
    return minutes * 60 + found["ds"] + found["hs"] + found["s"]


def words_of(
    plan: str, replicates: int | None, inventories: Sequence[str], limit: str | None,
    variables: Sequence[str], results: Path,
) -> tuple[str, ...]:  # fmt: skip
    """Return the arguments of `virtbed sweep` that carry out the same plan on a node.

    Paths become absolute, since a task starts in another folder. The arguments are those of
    `virtbed slurm`.
    """
    path = Path(plan)
    named = str(path.resolve()) if path.suffix in {".yml", ".yaml"} and path.is_file() else plan
    paths = (i if "," in i else str(Path(i).resolve()) for i in inventories)
    return (
        named,
        *(f"--inventory={inventory}" for inventory in paths),
        *([f"--limit={limit}"] if limit else []),
        *(f"--extra-vars={value}" for value in variables),
        *([f"--replicates={replicates}"] if replicates is not None else []),
        f"--results={results}",
    )
