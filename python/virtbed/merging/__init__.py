"""Results folders of one sweep, such as its shards, joined into one."""

from virtbed.merging.joining import Merged, merge
from virtbed.merging.sources import MergeError

__all__ = ["MergeError", "Merged", "merge"]
