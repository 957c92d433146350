"""Build the images of servers: once per recipe, named by its digest, published by a rename."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtbed.lab import FOLDER, LabError
from virtbed.lab.recipe import USER, Recipe

Say = Callable[[str], None]
_NEEDED = {"mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs", "ssh-keygen": "openssh-client"}


@dataclass(frozen=True)
class Image:
    """A complete image.

    Attributes:
        folder: Its folder.
        digest: Digest of its recipe.
    """

    folder: Path
    digest: str

    @property
    def disk(self) -> Path:
        """The disk; servers use overlays of it."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """The kernel, which QEMU boots directly."""
        return self.folder / "vmlinuz"

    @property
    def ramdisk(self) -> Path:
        """The initial ramdisk."""
        return self.folder / "initrd.img"

    @property
    def key(self) -> Path:
        """The private SSH key for root and USER."""
        return self.folder / "key"

    @property
    def host_key(self) -> str:
        """The public host key: its type and its text."""
        return " ".join((self.folder / "host_key.pub").read_text(encoding="utf-8").split()[:2])


def find(recipe: Recipe, folder: Path = FOLDER) -> Image | None:
    """Return the image of a recipe, or None if it is not built."""
    digest = recipe.digest()
    place = folder / "images" / digest
    return Image(place, digest) if place.is_dir() else None


def build(recipe: Recipe, say: Say, folder: Path = FOLDER) -> Image:
    """Return the image of a recipe, and build it first if it does not exist (minutes).

    Args:
        recipe: The recipe.
        say: Called with a line per step.
        folder: Folder of the lab.

    Raises:
        LabError: it cannot be built.
    """
    images = folder / "images"
    with alone(images / f".{recipe.digest()}.lock"):
        existing = find(recipe, folder)
        if existing:
            return existing
        _require()
        building = images / f".building-{recipe.digest()}"
        shutil.rmtree(building, ignore_errors=True)  # left by a killed build
        building.mkdir()
        try:
            _fill(recipe, building, say)
            building.rename(images / recipe.digest())
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return Image(images / recipe.digest(), recipe.digest())


def _require() -> None:
    """Raise LabError unless this process is root, and has the programs of a build."""
    if os.geteuid() != 0:
        raise LabError(
            f"user id {os.geteuid()} found, root (0) needed to build a server's image; use sudo"
        )
    require_programs(_NEEDED, "to build a server's image")


def require_programs(needed: Mapping[str, str], why: str) -> None:
    """Raise LabError unless programs are installed.

    Args:
        needed: Debian package by program.
        why: What they are needed for, for the message.
    """
    if missing := [package for name, package in needed.items() if not shutil.which(name)]:
        raise LabError(
            f"no {', '.join(missing)} found, needed {why}; run apt install {' '.join(missing)}"
        )


def _fill(recipe: Recipe, building: Path, say: Say) -> None:
    """Build the files of an image in a folder."""
    tree = building / "tree"
    say(f"bootstrapping {recipe.suite} with {len(recipe.packages)} packages (minutes)")
    run_program(*recipe.command(str(tree)))
    for name, content in recipe.files.items():
        path = tree / name
        path.unlink(missing_ok=True)  # resolv.conf may be a link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (tree / "etc/sudoers.d" / USER).chmod(0o440)
    (tree / "etc/machine-id").write_text("", encoding="utf-8")
    _keys(building, tree)
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd.img", "initrd.img-*")):
        shutil.copy(next((tree / "boot").glob(pattern)), building / name)
    say("making its disk")
    run_program(
        "mkfs.ext4", "-q", "-F", "-L", "lab", "-E", "lazy_itable_init=1,lazy_journal_init=1",
        "-d", str(tree), str(building / "disk.raw"), recipe.disk,
    )  # fmt: skip
    shutil.rmtree(tree)


def _keys(building: Path, tree: Path) -> None:
    """Make the key for logging in, and the server's host key, so that it is known in advance."""
    for name in ("key", "host_key"):
        run_program(
            "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"virtbed-lab-{name}",
            "-f", str(building / name),
        )  # fmt: skip
    for end in ("", ".pub"):
        shutil.copy(building / f"host_key{end}", tree / f"etc/ssh/ssh_host_ed25519_key{end}")
    (building / "host_key").unlink()
    for home in (tree / "root", tree / "home" / USER):
        owner = home.stat()
        (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(building / "key.pub", home / ".ssh/authorized_keys")
        for path, mode in ((home / ".ssh", 0o700), (home / ".ssh/authorized_keys", 0o600)):
            path.chmod(mode)
            os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock while something is made once; other processes wait for it.

    Args:
        lock: The lock's file, which is made with its folder if it does not exist.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_program(*command: str) -> None:
    """Run a program on this machine.

    Raises:
        LabError: it fails; the message has the last lines of its stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.strip()][-5:]
        raise LabError(f"{command[0]} ended with {done.returncode}: {'; '.join(errors)}")
