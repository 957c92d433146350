"""Bench hosts of the lab, set up by the playbook for the image variant null."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY
from virtbed.image import image_key
from virtbed.lab import FOLDER
from virtbed.lab.image import Image, alone, build
from virtbed.lab.prepared import Preparation
from virtbed.lab.recipe import Recipe, Suite
from virtbed.lab.server import Server

from ..commands import run
from .conftest import say

HARDWARE: dict[Suite, dict[str, Any]] = {
    # Each node has memory for a guest of 1 GiB and its emulator.
    "bookworm": {"sockets": 2, "cores": 1, "nodes": 2, "memory_mib": 4096},
    # One socket only: with two, a server hung on two busy cores, with all its CPUs in the kernel
    # and interrupts off.
    "trixie": {"sockets": 1, "cores": 2, "threads": 2, "memory_mib": 3072},
}
"""Hardware of the bench host of each Debian release."""
WORDS: dict[Suite, str] = {
    "bookworm": "Debian 12, two nodes", "trixie": "Debian 13, two threads per core",
}  # fmt: skip
"""Description of each bench host."""
STATE = "/var/lib/virtbed"
BEFORE = "/root/before-virtbed"
"""File on a bench host with the output of `facts` before its set-up."""
_SOURCES = (
    "platforms.yml", "playbooks/testbed.yml", "roles/host_packages/*/*.yml",
    "roles/*/tasks/engine.yml", "roles/*/tasks/image.yml", "roles/*/meta/virtbed.yml",
)  # fmt: skip
_HERE = Path(__file__).parent
# $1 is a server's image, $2 the source folder, $3 the destination in the image. The mount ends with
# its namespace.
_FILL = """
mkdir "$1/mount"
mount -o loop "$1/disk.raw" "$1/mount"
install -d -m 0711 "$1/mount$3"
cp --archive --sparse=always "$2/images" "$1/mount$3"
umount "$1/mount"
rmdir "$1/mount"
"""
# A guest that never runs, so that its interrupt controller is never enabled. KVM patches its own
# code when the first such controller appears and when the last is gone. TCG (QEMU 7.2) may keep the
# breakpoint that is there while a CPU patches, if another CPU executes the code at that time: a
# server with more CPUs than this machine crashed. All CPUs in one thread are too slow for guests.
_STOPPED_GUEST = (
    "systemd-run --quiet --unit=stopped-guest qemu-system-x86_64 -accel kvm -S -m 16 -nodefaults "
    "-no-user-config -display none"
)


def facts(server: Server) -> set[str]:
    """Return the facts about a server, one per line of inventory.sh's output."""
    script = (_HERE / "inventory.sh").read_text(encoding="utf-8")
    return set(server.run("sh", "-c", script, timeout_s=600).splitlines())


def bench_image(recipe: Recipe) -> Image:
    """Return a server's image with the image null in its state folder; build both here if missing.

    On a server, the build would take half an hour, and a copy over SSH four minutes.
    """
    with alone(FOLDER / "images/.bench.lock"):
        return _bench_image(recipe, FOLDER / "bench")


def _bench_image(recipe: Recipe, local_state: Path) -> Image:
    """Return what `bench_image` does; a process that has its lock calls it."""
    say("building the image null on this machine if it does not exist (minutes)")
    options = ("-i", "inventory/local", "-e", "plan=functional")
    state = ("-e", f"virtbed_state_dir={local_state}")
    run("ansible-playbook", *options, *state, "playbooks/image.yml")
    plain = build(recipe, say)
    digest = f"{plain.digest}-{image_key('null')[:16]}"
    place = plain.folder.with_name(digest)
    if not place.is_dir():
        say("copying the image null into the server's disk")
        building = place.with_name(f".building-{digest}")
        run("rm", "-rf", str(building))
        run("cp", "--archive", "--sparse=always", str(plain.folder), str(building))
        run("unshare", "--mount", "sh", "-euc", _FILL, "sh", str(building), str(local_state), STATE)
        building.rename(place)
    return Image(place, digest)


def set_up(server: Server) -> None:
    """Set a server up for the image null, which its disk already contains."""
    server.shell(_STOPPED_GUEST)
    before = "\n".join(sorted(facts(server)))
    subprocess.run(server.ssh("sh", "-c", f"cat > {BEFORE}"), input=before, text=True, check=True)
    say(f"setting {server.name} up (a quarter of an hour)")
    run("make", "setup", "PLAN=functional", f"INVENTORY={server.inventory}")


def sources() -> str:
    """Return a digest of the sources of the set-up; changed sources need a new bench host."""
    whole = hashlib.sha256(image_key("null").encode())
    for path in sorted({Path(__file__), *(p for name in _SOURCES for p in REPOSITORY.glob(name))}):
        whole.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def bench_host(server: Callable[..., Server], suite: Suite) -> Server:
    """Start the bench host of a Debian release, from its snapshot; set it up first if missing.

    Args:
        server: The fixture of this name.
        suite: The release.
    """
    preparation = Preparation(key=f"set up by {sources()}", do=set_up)
    return server(bench_image(Recipe(suite)), preparation, **HARDWARE[suite])


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
