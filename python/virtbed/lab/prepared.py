"""Start servers in seconds, from snapshots of servers that were prepared before."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from virtbed.lab import FOLDER
from virtbed.lab.image import Image, Say, alone
from virtbed.lab.server import Server, start
from virtbed.lab.shape import Accelerator, Shape


@dataclass(frozen=True)
class Preparation:
    """The preparation of a server before its snapshot is taken.

    Attributes:
        key: Identifies the preparation: a digest of its sources.
        do: Prepares a server.
    """

    key: str = "booted"
    do: Callable[[Server], None] = lambda server: None


BOOTED = Preparation()


def snapshot_key(
    image: str, shape: Shape, preparation: str, accelerator: Accelerator, qemu: str
) -> str:
    """Return the key of a snapshot, 16 hexadecimal digits, from everything that it depends on.

    Args:
        image: Digest of the image.
        shape: The hardware; a snapshot only starts on the same.
        preparation: Key of the server's preparation.
        accelerator: QEMU's accelerator.
        qemu: QEMU's version; another version may not read the snapshot.
    """
    whole = [image, shape.hardware(accelerator), preparation, accelerator, qemu]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]


def start_prepared(
    name: str, image: Image, shape: Shape, say: Say, *, tied: bool,
    accelerator: Accelerator = "tcg", preparation: Preparation = BOOTED, lab: Path = FOLDER,
) -> Server:  # fmt: skip
    """Start a server from a snapshot; if there is none, first boot and prepare one, and save it.

    Args:
        name: Name of the server.
        image: Its image.
        shape: Its hardware.
        say: Called with a line per step.
        tied: Whether it is killed when the thread that started it ends.
        accelerator: QEMU's accelerator.
        preparation: The preparation before the snapshot.
        lab: Folder of the lab.

    Raises:
        LabError: it does not start, or cannot be prepared.
    """
    key = snapshot_key(image.digest, shape, preparation.key, accelerator, _qemu())
    snapshot = lab / "snapshots" / f"{key}.qcow2"
    with alone(snapshot.with_name(f".{key}.lock")):
        if not snapshot.exists():
            say(f"no snapshot {key} found: making one, which takes minutes, once")
            server = start(name, image, shape, say, tied=tied, accelerator=accelerator, lab=lab)
            try:
                preparation.do(server)
                server.save(snapshot)
            except BaseException as error:
                server.keep_console(str(error))
                server.remove()
                raise
    return start(
        name, image, shape, say, tied=tied, accelerator=accelerator, snapshot=snapshot, lab=lab
    )


def _qemu() -> str:
    """Return QEMU's version."""
    done = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[0]
