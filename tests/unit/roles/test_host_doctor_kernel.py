"""Whether guests could boot the kernel that a made-up host runs, and why not."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

from virtbed_contract.codec import decode
from virtbed_contract.documents import HostKernel

from .conftest import REPOSITORY

# Ansible puts a role's module_utils next to its own when it ships a module; so do we.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_doctor/module_utils"))

from ansible.module_utils.host_doctor_kernel import (  # noqa: E402 - after the line above
    host_kernel,
)

RELEASE = "6.1.0-1-amd64"
BUILD = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.172-1 (2026-05-15)"
DRIVERS = ["ext4", "virtio_blk", "virtio_mmio"]


def image(release: str = RELEASE, build: str = BUILD, mark: bytes = b"HdrS") -> bytes:
    """Return the head of a kernel's file, as Linux's x86 boot protocol has it."""
    head = bytearray(0x3000)
    head[0x202:0x206] = mark
    head[0x20E:0x210] = (0x2000).to_bytes(2, "little")
    said = f"{release} (builder@example.org) {build}".encode() + b"\0rest"
    head[0x2200 : 0x2200 + len(said)] = said
    return bytes(head)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    lists = f"lib/modules/{RELEASE}"
    files: dict[str, Any] = {
        "proc/sys/kernel/osrelease": RELEASE,
        "proc/sys/kernel/version": BUILD,
        f"boot/config-{RELEASE}": "CONFIG_X86=y",
        f"{lists}/modules.dep": "kernel/drivers/block/virtio_blk.ko.xz: kernel/x.ko\n"
        "kernel/drivers/virtio/virtio-mmio.ko:",
        f"{lists}/modules.builtin": "kernel/fs/ext4/ext4.ko",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / f"boot/vmlinuz-{RELEASE}").write_bytes(image())
    return tmp_path


def test_a_kernel_with_its_file_and_modules_is_found(host: Path) -> None:
    found = host_kernel(host, DRIVERS)
    assert (found["problem"], found["missing"]) == (None, [])
    assert decode(HostKernel, found["kernel"]) == HostKernel(
        release=RELEASE,
        version=BUILD,
        file=f"/boot/vmlinuz-{RELEASE}",
        digest="sha256:" + hashlib.sha256(image()).hexdigest(),
        modules=f"/lib/modules/{RELEASE}",
        config=f"/boot/config-{RELEASE}",
    )


def test_a_file_that_may_not_be_read_is_not_said_to_be_no_kernel(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ubuntu's are root's alone."""

    real = Path.open

    def refused(path: Path, *args: Any, **named: Any) -> Any:
        if path.name.startswith("vmlinuz"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **named)

    monkeypatch.setattr(Path, "open", refused)
    found = host_kernel(host, DRIVERS)
    assert found["problem"] == f"/boot/vmlinuz-{RELEASE} cannot be read: Permission denied"
    assert found["remedy"] == "examine the host as root"

    def hidden(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_file", hidden)
    assert host_kernel(host, DRIVERS)["remedy"] == "examine the host as root"


def test_a_kernel_next_to_its_modules_is_found(host: Path) -> None:
    """As Fedora and Arch have it."""
    folder = host / "usr/lib/modules" / RELEASE
    folder.mkdir(parents=True)
    for old, new in (("vmlinuz", "vmlinuz"), ("config", "config")):
        (host / f"boot/{old}-{RELEASE}").rename(folder / new)
    found = host_kernel(host, DRIVERS)["kernel"]
    assert found["file"] == f"/usr/lib/modules/{RELEASE}/vmlinuz"
    assert found["config"] == f"/usr/lib/modules/{RELEASE}/config"


def test_drivers_that_are_neither_built_in_nor_modules_are_missing(host: Path) -> None:
    (host / f"lib/modules/{RELEASE}/modules.builtin").unlink()
    assert host_kernel(host, [*DRIVERS, "virtio_pci"])["missing"] == ["ext4", "virtio_pci"]


def test_a_host_that_was_not_rebooted_says_so(host: Path) -> None:
    """The same release, rebuilt: a security update keeps the name."""
    newer = BUILD.replace("6.1.172-1", "6.1.180-1")
    (host / f"boot/vmlinuz-{RELEASE}").write_bytes(image(build=newer))
    found = host_kernel(host, DRIVERS)
    assert found["kernel"] is None
    assert newer in found["problem"] and BUILD in found["problem"]
    assert "reboot" in found["remedy"]


def test_a_build_is_compared_as_far_as_the_kernel_tells_it(host: Path) -> None:
    long = "#31-Ubuntu SMP PREEMPT_DYNAMIC Sat Apr 20 00:40:06 UTC 2024 and more"
    (host / f"boot/vmlinuz-{RELEASE}").write_bytes(image(build=long))
    (host / "proc/sys/kernel/version").write_text(long[:64] + "\n")
    assert host_kernel(host, DRIVERS)["problem"] is None


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (f"boot/vmlinuz-{RELEASE}", f"the kernel that runs, {RELEASE}, is not found (/boot/"),
        (f"boot/config-{RELEASE}", f"no /boot/config-{RELEASE} is found"),
        (f"lib/modules/{RELEASE}/modules.dep", f"{RELEASE} has no modules"),
        ("proc/sys/kernel/osrelease", "is not found"),
    ],
)
def test_what_is_missing_is_named(host: Path, gone: str, message: str) -> None:
    (host / gone).unlink()
    found = host_kernel(host, DRIVERS)
    assert found["kernel"] is None
    assert message in found["problem"]
    assert "distribution" in found["remedy"]


@pytest.mark.parametrize("content", [image(mark=b"none"), b"", b"MZ", image()[:0x210]])
def test_what_is_no_kernel_is_not_booted(host: Path, content: bytes) -> None:
    (host / f"boot/vmlinuz-{RELEASE}").write_bytes(content)
    assert host_kernel(host, DRIVERS)["kernel"] is None


def test_this_machines_own_kernel_is_judged() -> None:
    found = host_kernel(Path("/"), DRIVERS)
    assert (found["kernel"] is None) == bool(found["problem"])
