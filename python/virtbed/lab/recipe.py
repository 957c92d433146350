"""The recipe of a server's image: packages, files and settings as data, and its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

Suite = Literal["bookworm", "trixie"]
USER = "lab"
"""A user that may use sudo without a password."""

# Packages that Debian's installer puts on a server: init, network, SSH, and Python for Ansible.
_SERVER = (
    "apparmor", "ca-certificates", "dbus", "e2fsprogs", "initramfs-tools", "iproute2", "kmod",
    "libpam-systemd", "linux-image-amd64", "openssh-server", "pciutils", "procps", "python3",
    "python3-apt", "sudo", "systemd-sysv", "udev", "util-linux", "zstd",
)  # fmt: skip
# Packages that virtbed's roles would install, which takes minutes on an emulated server.
_ENGINES = (
    "bubblewrap", "crun", "docker.io", "hwloc-nox", "libvirt-clients", "libvirt-daemon-system",
    "libvirt-daemon-system-systemd", "mmdebstrap", "numactl", "openssh-client", "podman",
    "python3-libvirt", "python3-lxml", "qemu-system-x86", "qemu-utils", "runc", "runsc",
)  # fmt: skip
_OF_SUITE: dict[str, tuple[str, ...]] = {
    "bookworm": (),
    "trixie": ("docker-cli",),  # a separate package there
}
# Units that would wake up in the middle of a test, or delay the boot.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "fstrim.timer", "man-db.timer", "systemd-networkd-wait-online.service",
)  # fmt: skip
# Units that are not started at boot, where each costs seconds under emulation; roles start them.
_DISABLED = (
    "containerd.service", "docker.service", "docker.socket", "libvirt-guests.service",
    "libvirtd.service", "podman.service", "podman.socket", "podman-auto-update.service",
    "podman-auto-update.timer", "e2scrub_reap.service",
    "podman-restart.service",
)  # fmt: skip
# Modules of the initial ramdisk that are needed for the disk. With all modules a boot takes 40 s
# longer.
_RAMDISK = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
_FILES: dict[str, str] = {
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 lab\n",
    "etc/fstab": "/dev/vda / ext4 noatime,discard 0 1\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",  # QEMU's user network answers there
    "etc/systemd/network/10-lab.network": "[Match]\nDriver=virtio_net\n[Network]\nDHCP=ipv4\n",
    f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
    # Without UseDNS no, sshd would wait for a name server to look up each client.
    "etc/ssh/sshd_config.d/lab.conf": "UseDNS no\nPermitRootLogin prohibit-password\n",
}
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")


@dataclass(frozen=True)
class Recipe:
    """The recipe of a server's image.

    Attributes:
        suite: Debian's suite.
        engines: Whether the image has the packages that virtbed's roles would install.
        disk: Size of the disk, which is sparse.
    """

    suite: Suite = "bookworm"
    engines: bool = True
    disk: str = "24G"

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages of the image, sorted, without their dependencies."""
        engines = (*_ENGINES, *_OF_SUITE[self.suite]) if self.engines else ()
        return tuple(sorted({*_SERVER, *engines}))

    def command(self, tree: str) -> tuple[str, ...]:
        """Return the mmdebstrap command that makes the image's tree.

        Args:
            tree: A folder that does not exist yet.
        """
        masked, disabled = " ".join(_MASKED), " ".join(_DISABLED)
        key = '"$1/etc/ssh/ssh_host_"*'
        hooks = (
            # Before the kernel is installed, so that its ramdisk is small and made only once.
            'essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" '
            '"$1/usr/share/initramfs-tools/modules.d"',
            "essential-hook=printf 'MODULES=list\\nCOMPRESS=zstd\\n' "
            '> "$1/etc/initramfs-tools/conf.d/lab"',
            f"essential-hook=printf '%s\\n' {' '.join(_RAMDISK)} "
            '> "$1/usr/share/initramfs-tools/modules.d/lab"',
            f'customize-hook=chroot "$1" useradd --create-home --shell /bin/bash {USER}',
            'customize-hook=chroot "$1" systemctl enable systemd-networkd ssh',
            f'customize-hook=chroot "$1" systemctl mask {masked}',
            # A unit that the suite does not have is no error.
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
        """The files that are written into the tree: contents by path."""
        return dict(_FILES)

    def digest(self) -> str:
        """Return the digest of the recipe, 16 hexadecimal digits."""
        whole = {"recipe": asdict(self), "command": self.command("TREE"), "files": self.files}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
