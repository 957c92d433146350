"""Carrying a plan out on its bench hosts, into the folder results/<plan name>.

`Sweep` is the entry point. `virtbed.cli` calls it; the analysis only reads the folder.
"""

from virtbed.sweep.interruption import Interrupted, Kept, SweepError
from virtbed.sweep.sweep import Sweep

__all__ = ["Interrupted", "Kept", "Sweep", "SweepError"]
