"""A plan carried out on its bench hosts, into results/<plan name>."""

from virtbed.sweep.interruption import Interrupted, Kept, SweepError
from virtbed.sweep.sweep import Sweep

__all__ = ["Interrupted", "Kept", "Sweep", "SweepError"]
