"""The running kernel of made-up hosts: whether guests could boot it, and if not, why."""

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

# Ansible ships a role's module_utils next to its own: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_doctor/module_utils"))

from ansible.module_utils.host_doctor_kernel import (  # noqa: E402 - after the line above
    host_kernel,
)

RELEASE = "6.1.0-1-amd64"
BUILD = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.172-1 (2026-05-15)"
DRIVERS = ["ext4", "virtio_blk", "virtio_mmio"]


def image(release: str = RELEASE, build: str = BUILD, mark: bytes = b"HdrS") -> bytes:
    """Return the head of a kernel's file in the format of Linux's x86 boot protocol."""
    head = bytearray(0x3000)
    head[0x202:0x206] = mark
    head[0x20E:0x210] = (0x2000).to_bytes(2, "little")
    version = f"{release} (builder@example.org) {build}".encode() + b"\0rest"
    head[0x2200 : 0x2200 + len(version)] = version
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
    facts = host_kernel(host, DRIVERS)
    assert (facts["problem"], facts["missing"]) == (None, [])
    assert decode(HostKernel, facts["kernel"]) == HostKernel(
        release=RELEASE,
        version=BUILD,
        file=f"/boot/vmlinuz-{RELEASE}",
        digest="sha256:" + hashlib.sha256(image()).hexdigest(),
        modules=f"/lib/modules/{RELEASE}",
        config=f"/boot/config-{RELEASE}",
    )


def test_a_kernel_file_without_read_permission_is_reported_as_such(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ubuntu's kernel files are readable by root only."""

    real = Path.open

    def refused(path: Path, *args: Any, **named: Any) -> Any:
        if path.name.startswith("vmlinuz"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **named)

    monkeypatch.setattr(Path, "open", refused)
    facts = host_kernel(host, DRIVERS)
    assert facts["problem"] == f"/boot/vmlinuz-{RELEASE} cannot be read: Permission denied"
    assert facts["remedy"] == "examine the host as root"

    def hidden(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_file", hidden)
    assert host_kernel(host, DRIVERS)["remedy"] == "examine the host as root"


def test_a_kernel_next_to_its_modules_is_found(host: Path) -> None:
    """Fedora and Arch keep it there."""
    folder = host / "usr/lib/modules" / RELEASE
    folder.mkdir(parents=True)
    for old, new in (("vmlinuz", "vmlinuz"), ("config", "config")):
        (host / f"boot/{old}-{RELEASE}").rename(folder / new)
    facts = host_kernel(host, DRIVERS)["kernel"]
    assert facts["file"] == f"/usr/lib/modules/{RELEASE}/vmlinuz"
    assert facts["config"] == f"/usr/lib/modules/{RELEASE}/config"


def test_drivers_that_are_neither_built_in_nor_modules_are_missing(host: Path) -> None:
    (host / f"lib/modules/{RELEASE}/modules.builtin").unlink()
    assert host_kernel(host, [*DRIVERS, "virtio_pci"])["missing"] == ["ext4", "virtio_pci"]


def test_an_updated_kernel_file_needs_a_reboot(host: Path) -> None:
    """A security update is a new build with the same release name."""
    newer = BUILD.replace("6.1.172-1", "6.1.180-1")
    (host / f"boot/vmlinuz-{RELEASE}").write_bytes(image(build=newer))
    facts = host_kernel(host, DRIVERS)
    assert facts["kernel"] is None
    assert newer in facts["problem"] and BUILD in facts["problem"]
    assert "reboot" in facts["remedy"]


def test_builds_are_compared_up_to_the_kernels_64_characters(host: Path) -> None:
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
def test_a_missing_file_is_named(host: Path, gone: str, message: str) -> None:
    (host / gone).unlink()
    facts = host_kernel(host, DRIVERS)
    assert facts["kernel"] is None
    assert message in facts["problem"]
    assert "distribution" in facts["remedy"]


@pytest.mark.parametrize("content", [image(mark=b"none"), b"", b"MZ", image()[:0x210]])
def test_a_file_that_is_not_a_kernel_is_refused(host: Path, content: bytes) -> None:
    (host / f"boot/vmlinuz-{RELEASE}").write_bytes(content)
    assert host_kernel(host, DRIVERS)["kernel"] is None


def test_this_machines_kernel_is_either_usable_or_has_a_problem() -> None:
    facts = host_kernel(Path("/"), DRIVERS)
    assert (facts["kernel"] is None) == bool(facts["problem"])
