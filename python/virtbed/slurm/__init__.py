"""Sweeps on nodes that Slurm allocates: as a job array of shards, or within an allocation.

`virtbed slurm` submits the array, and each of its tasks calls `virtbed sweep --shard`. Slurm only
allocates nodes; it has no part in placing or measuring instances.
"""

from virtbed.slurm.allocation import check_granted
from virtbed.slurm.asking import SlurmError

__all__ = ["SlurmError", "check_granted"]
