"""Servers that start from a snapshot of one that was prepared before, in seconds."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from virtbed.lab import FOLDER
from virtbed.lab.image import Image, Say
from virtbed.lab.server import Server, start
from virtbed.lab.shape import Accelerator, Shape


@dataclass(frozen=True)
class Preparation:
    """What is done to a server before its snapshot is taken.

    Attributes:
        key: Changes whenever something else is done: a digest of its sources.
        do: Does it.
    """

    key: str = "booted"
    do: Callable[[Server], None] = lambda server: None


BOOTED = Preparation()


def snapshot_key(
    image: str, shape: Shape, preparation: str, accelerator: Accelerator, qemu: str
) -> str:
    """Return 16 hexadecimal digits that change with whatever makes a snapshot another one.

    Args:
        image: Digest of the image.
        shape: The hardware, which must be the same for a snapshot to start.
        preparation: Key of what was done to the server.
        accelerator: What runs it.
        qemu: QEMU's version: another one may not read the snapshot.
    """
    whole = [image, shape.hardware(accelerator), preparation, accelerator, qemu]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]


def start_prepared(
    name: str, image: Image, shape: Shape, say: Say, *, tied: bool,
    accelerator: Accelerator = "tcg", preparation: Preparation = BOOTED, lab: Path = FOLDER,
) -> Server:  # fmt: skip
    """Start a server from a snapshot; if there is none, boot one, prepare it and keep that first.

    Args:
        name: Its name.
        image: Its image.
        shape: Its hardware.
        say: Called with what is waited for.
        tied: Whether it is killed when the thread that started it ends.
        accelerator: What runs it.
        preparation: What is done before the snapshot.
        lab: The lab's folder.

    Raises:
        LabError: it does not start, or cannot be prepared.
    """
    key = snapshot_key(image.digest, shape, preparation.key, accelerator, _qemu())
    snapshot = lab / "snapshots" / f"{key}.qcow2"
    if not snapshot.exists():
        say(f"no snapshot {key} found: one is made, which takes minutes, once")
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
    done = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[0]
