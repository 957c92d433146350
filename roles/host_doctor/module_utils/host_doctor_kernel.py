"""The host's running kernel for guests to boot: its file and modules, or what is missing.

Takes the root of a file system, as the facts do, and changes nothing. Standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.virtbed_contract.kernel.files import read

FILES = ("boot/vmlinuz-{}", "usr/lib/modules/{}/vmlinuz", "lib/modules/{}/vmlinuz")
CONFIGS = ("boot/config-{}", "usr/lib/modules/{}/config", "lib/modules/{}/config")
FOLDERS = ("usr/lib/modules/{}", "lib/modules/{}")
INSTALLED = "boot the host with a kernel that its distribution installed"
# Linux's x86 boot protocol: the magic number, and the version string's offset, counted from 512.
MARK, MARK_AT, VERSION_AT, VERSION_FROM = b"HdrS", 0x202, 0x20E, 0x200
HEAD_BYTES = 2**17
MOST_BUILD = 64  # characters: the kernel cuts `uname -v` there


def host_kernel(root: Path, drivers: Iterable[str]) -> dict[str, Any]:
    """Return {kernel, missing, problem, remedy} of the running kernel.

    `kernel` is the contract's HostKernel as JSON, or None, and then `problem` is the reason.
    `missing` lists the `drivers` that the kernel has neither built in nor as modules.
    """
    try:
        return _found(root, drivers)
    except PermissionError as error:  # as of Ubuntu's kernels, and files on an EFI partition
        file = Path(str(error.filename))
        named = f"/{file.relative_to(root)}" if file.is_relative_to(root) else str(file)
        return _none(f"{named} cannot be read: {error.strerror}", "examine the host as root")


def _found(root: Path, drivers: Iterable[str]) -> dict[str, Any]:
    release = read(root / "proc/sys/kernel/osrelease") or ""
    version = read(root / "proc/sys/kernel/version") or ""
    file = _first(root, FILES, release)
    if file is None:
        files = ", ".join("/" + name.format(release) for name in FILES[:2])
        return _none(f"the file of the kernel that runs, {release}, is not found ({files})")
    stated = _version(file)
    path = f"/{file.relative_to(root)}"
    if stated is None:
        return _none(f"{path} is no x86 kernel that can be booted directly")
    if (stated.split(" ")[0], _build(stated)) != (release, version[:MOST_BUILD].strip()):
        return _none(
            f"{path} is of {stated.split(' ')[0]} {_build(stated)}, and the host runs {release} "
            f"{version}",
            "reboot the host, so that it runs what is installed",
        )
    modules = _first(root, [f"{folder}/modules.dep" for folder in FOLDERS], release)
    if modules is None:
        return _none(f"no /lib/modules/{release}/modules.dep is found: {release} has no modules")
    config = _first(root, CONFIGS, release)
    if config is None:
        return _none(f"no /boot/config-{release} is found, which lists what {release} can unpack")
    folder = modules.parent
    known = _names(folder / "modules.dep") | _names(folder / "modules.builtin")
    kernel = {
        "release": release,
        "version": version,
        "file": path,
        "digest": "sha256:" + _sha256(file),
        "modules": f"/{folder.relative_to(root)}",
        "config": f"/{config.relative_to(root)}",
    }
    missing = [name for name in drivers if name not in known]
    return {"kernel": kernel, "missing": missing, "problem": None, "remedy": ""}


def _none(problem: str, remedy: str = INSTALLED) -> dict[str, Any]:
    return {"kernel": None, "missing": [], "problem": problem, "remedy": remedy}


def _first(root: Path, names: Iterable[str], release: str) -> Path | None:
    if not release or "/" in release:
        return None
    paths = (root / name.format(release) for name in names)
    return next((path for path in paths if path.is_file() and path.stat().st_size), None)


def _version(file: Path) -> str | None:
    """Return the version string in a kernel's file: "6.1.0-48-amd64 (builder) #1 SMP ..."."""
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    if head[MARK_AT : MARK_AT + len(MARK)] != MARK:
        return None
    at = int.from_bytes(head[VERSION_AT : VERSION_AT + 2], "little") + VERSION_FROM
    return head[at:].split(b"\0")[0].decode(errors="replace") or None


def _build(stated: str) -> str:
    """Return the build in a kernel's version string, in the form of `uname -v`."""
    match = re.search(r"\) (#.*)", stated)
    return match.group(1)[:MOST_BUILD].strip() if match else ""


def _names(file: Path) -> set[str]:
    """Return the names in a kernel's list of modules, with underscores for hyphens."""
    lines = (read(file) or "").splitlines()
    files = (line.split(":")[0].rsplit("/", 1)[-1] for line in lines)
    return {name.split(".ko")[0].replace("-", "_") for name in files}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
