"""Servers in a box: bench hosts that QEMU emulates, for tests and for trying virtbed out.

Their kernel, systemd, libvirt, Docker and KVM are Debian's own; only their speed is not. Nothing
that is timed there is a result.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("VIRTBED_LAB") or "/var/cache/virtbed-lab").absolute()
"""Images, snapshots, servers and consoles; the variable VIRTBED_LAB names another folder.

A cache, and outside of what a teardown removes: to make it again takes half an hour.
"""


class LabError(RuntimeError):
    """A server that cannot be made, started or reached; the message says what to do."""
