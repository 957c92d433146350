"""Slurm hands nodes out, and virtbed measures them: a job array of shards, or an allocation."""

from virtbed.slurm.allocation import check_granted
from virtbed.slurm.asking import SlurmError

__all__ = ["SlurmError", "check_granted"]
