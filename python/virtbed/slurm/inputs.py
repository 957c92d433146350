"""Variables that Slurm's programs take options from, and which of them the programs may see.

Such a variable overrides the options in a batch script. A user's default that changes what a task
gets (its node, its shard, its requeue) would make other jobs than those that were checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_PROGRAMS = ("SBATCH_", "SCONTROL_", "SINFO_", "SQUEUE_")
_OTHERS = frozenset({"SLURM_CLUSTERS", "SLURM_HINT"})
# What selects nodes and charges users, but does not change what a task gets of its node.
_HARMLESS = frozenset(
    f"SBATCH_{name}"
    for name in (
        "ACCTG_FREQ", "CONSTRAINT", "DEBUG", "DELAY_BOOT", "EXPORT", "GET_USER_ENV", "GRES",
        "IGNORE_PBS", "NETWORK", "PROFILE", "QOS", "RESERVATION", "WCKEY",
    )
)  # fmt: skip
OWN = {"partition": "SBATCH_PARTITION", "time": "SBATCH_TIMELIMIT", "account": "SBATCH_ACCOUNT"}
"""The variables that are the defaults of options of `virtbed slurm`, by option."""


def passed(environment: Mapping[str, str], options: Sequence[str] = ()) -> dict[str, str]:
    """Return an environment for Slurm's programs, without variables that change what they do.

    Args:
        environment: The user's environment.
        options: Options of sbatch, `--name` or `--name=value`, that a variable must not override.
    """
    names = {option.removeprefix("--").partition("=")[0] for option in options}
    return {
        name: value
        for name, value in environment.items()
        if name not in _OTHERS
        and (
            not name.startswith(_PROGRAMS)
            or (name in _HARMLESS and not any(_option(name).startswith(one) for one in names))
        )
    }


def left_out(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that would have changed the job, in alphabetical order."""
    kept = passed(environment)
    return sorted(
        name
        for name in environment
        if name not in kept
        and (name in _OTHERS or name.startswith("SBATCH_"))
        and name not in OWN.values()
    )


def _option(variable: str) -> str:
    """Return the name of the option that one of the harmless variables stands for.

    Example:
        >>> _option("SBATCH_GET_USER_ENV")
        'get-user-env'
    """
    return variable.removeprefix("SBATCH_").replace("_", "-").lower()
