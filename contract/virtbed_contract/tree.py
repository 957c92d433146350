"""Command line that runs a program in an image's tree with Bubblewrap.

Bubblewrap uses a mount namespace that ends with the process, so no mount can be left on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

_WRITABLE = ("/tmp", "/dev/shm")  # nosec B108 # file systems of the process's own


def enter(
    rootfs: str,
    writable: bool = False,
    network: bool = True,
    binds: Sequence[Sequence[str]] = (),
    chdir: str = "",
    more: Sequence[str] = (),
) -> list[str]:
    """Return the argv prefix that runs a program with an image's tree as its root.

    /sys is the host's, read-only; /dev, /proc and /tmp are new and end with the process. Every user
    may write to /tmp and /dev/shm, as in a container.

    Args:
        rootfs: Path of the tree on the host.
        writable: Whether the program may change the tree; otherwise the tree is read-only.
        network: Whether the program has the host's network; otherwise it has none.
        binds: (path on the host, path inside) of each further file or folder, read-only.
        chdir: Working directory inside; empty for the caller's.
        more: Further options of Bubblewrap, such as `virtbed_contract.cdi.entered` returns.
    """
    return [
        "bwrap", "--die-with-parent", "--bind" if writable else "--ro-bind", rootfs, "/",
        "--ro-bind", "/sys", "/sys", "--dev", "/dev", "--proc", "/proc",
        *(word for path in _WRITABLE for word in ("--perms", "1777", "--tmpfs", path)),
        *(word for source, inside in binds for word in ("--ro-bind", source, inside)),
        *more,
        *([] if network else ["--unshare-net"]),
        *(["--chdir", chdir] if chdir else []),
    ]  # fmt: skip
