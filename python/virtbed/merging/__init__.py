"""Joining results folders of one sweep, such as its shards, into one (`virtbed merge`)."""

from virtbed.merging.joining import Merged, merge
from virtbed.merging.sources import MergeError

__all__ = ["MergeError", "Merged", "merge"]
