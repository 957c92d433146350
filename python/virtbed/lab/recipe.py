"""What a server's image is made of, as data, and the digest that names the image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

Suite = Literal["bookworm", "trixie"]
USER = "lab"
"""May become root by sudo, without a password."""

# What Debian's installer leaves on a server: an init, a network, SSH, Python for Ansible.
_SERVER = (
    "apparmor", "ca-certificates", "dbus", "e2fsprogs", "initramfs-tools", "iproute2", "kmod",
    "libpam-systemd", "linux-image-amd64", "openssh-server", "pciutils", "procps", "python3",
    "python3-apt", "sudo", "systemd-sysv", "udev", "util-linux", "zstd",
)  # fmt: skip
# What the roles would install: minutes on an emulated server.
_ENGINES = (
    "bubblewrap", "crun", "docker.io", "hwloc-nox", "libvirt-clients", "libvirt-daemon-system",
    "libvirt-daemon-system-systemd", "mmdebstrap", "numactl", "openssh-client", "podman",
    "python3-libvirt", "python3-lxml", "qemu-system-x86", "qemu-utils", "runc", "runsc",
)  # fmt: skip
_OF_SUITE: dict[str, tuple[str, ...]] = {
    "bookworm": (),
    "trixie": ("docker-cli",),  # a package of its own there
}
# They would wake up in the middle of a test, or hold the boot up.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "fstrim.timer", "man-db.timer", "systemd-networkd-wait-online.service",
)  # fmt: skip
# Started when they are asked for, by socket or by a set-up: each costs seconds of an emulated boot.
_DISABLED = (
    "containerd.service", "docker.service", "docker.socket", "libvirt-guests.service",
    "libvirtd.service", "podman.service", "podman.socket", "podman-auto-update.service",
    "podman-auto-update.timer", "e2scrub_reap.service",
    "podman-restart.service",
)  # fmt: skip
# Of the initial ramdisk: what finds the disk. With all modules a boot takes 40 seconds longer.
_RAMDISK = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
_FILES: dict[str, str] = {
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 lab\n",
    "etc/fstab": "/dev/vda / ext4 noatime,discard 0 1\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",  # QEMU's user network answers there
    "etc/systemd/network/10-lab.network": "[Match]\nDriver=virtio_net\n[Network]\nDHCP=ipv4\n",
    f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
    # Looking up the name of whoever connects would wait for a name server.
    "etc/ssh/sshd_config.d/lab.conf": "UseDNS no\nPermitRootLogin prohibit-password\n",
}
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")


@dataclass(frozen=True)
class Recipe:
    """A server's image.

    Attributes:
        suite: Debian's.
        engines: Whether it has the packages that virtbed's roles would install.
        disk: Size of the disk; it is sparse.
    """

    suite: Suite = "bookworm"
    engines: bool = True
    disk: str = "24G"

    @property
    def packages(self) -> tuple[str, ...]:
        """Return every package that is named, sorted."""
        engines = (*_ENGINES, *_OF_SUITE[self.suite]) if self.engines else ()
        return tuple(sorted({*_SERVER, *engines}))

    def command(self, tree: str) -> tuple[str, ...]:
        """Return the command that makes the tree.

        Args:
            tree: A folder that does not exist yet.
        """
        masked, disabled = " ".join(_MASKED), " ".join(_DISABLED)
        key = '"$1/etc/ssh/ssh_host_"*'
        hooks = (
            # Before the kernel is installed, whose ramdisk is then made once, and small.
            'essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" '
            '"$1/usr/share/initramfs-tools/modules.d"',
            "essential-hook=printf 'MODULES=list\\nCOMPRESS=zstd\\n' "
            '> "$1/etc/initramfs-tools/conf.d/lab"',
            f"essential-hook=printf '%s\\n' {' '.join(_RAMDISK)} "
            '> "$1/usr/share/initramfs-tools/modules.d/lab"',
            f'customize-hook=chroot "$1" useradd --create-home --shell /bin/bash {USER}',
            'customize-hook=chroot "$1" systemctl enable systemd-networkd ssh',
            f'customize-hook=chroot "$1" systemctl mask {masked}',
            # One that a suite lacks is no error.
            f'customize-hook=for unit in {disabled}; do chroot "$1" systemctl disable "$unit" '
            "2>/dev/null || true; done",
            f"customize-hook=rm -f {key}",
        )
        return (
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
            f"--include={','.join(self.packages)}", "--aptopt=APT::Install-Recommends \"false\"",
            "--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED),
            *(f"--{hook}" for hook in hooks), self.suite, tree,
        )  # fmt: skip

    @property
    def files(self) -> dict[str, str]:
        """Return the files that are written into the tree, path to content."""
        return dict(_FILES)

    def digest(self) -> str:
        """Return 16 hexadecimal digits that change with whatever changes the image."""
        whole = {"recipe": asdict(self), "command": self.command("TREE"), "files": self.files}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
