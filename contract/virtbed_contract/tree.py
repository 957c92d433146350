"""The command line that enters an image's tree: Bubblewrap, in a mount namespace of its own.

The namespace ends with the process, so nothing is mounted on the host and nothing can be left.
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

    /sys is the host's, read-only; /dev, /proc and /tmp are new and end with the process. Whatever
    user it becomes may write to /tmp and /dev/shm, as in a container.

    Args:
        rootfs: The tree's path on the host.
        writable: Whether the program may change the tree; else nothing outlives it.
        network: Whether it has the host's network; else it has none.
        binds: (path on the host, path inside) of what it sees besides the tree, read-only.
        chdir: Its working directory inside; empty for that of the caller.
        more: Further options of Bubblewrap, such as `virtbed_contract.cdi.entered` gives.
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
