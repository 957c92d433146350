"""The lab: bench hosts in a box, which QEMU emulates, to test and to try virtbed.

They run Debian's own kernel, systemd, libvirt, Docker and KVM, but slowly. Times measured on them
are not results. `virtbed lab` and tests/lab use this package.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("VIRTBED_LAB") or "/var/cache/virtbed-lab").absolute()
"""Folder of images, snapshots, servers and console logs; VIRTBED_LAB sets another one.

It is a cache that `make teardown` does not remove, because building it again takes half an hour.
"""


class LabError(RuntimeError):
    """A server cannot be built, started or reached; the message says what to do."""
