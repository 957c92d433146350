"""What a measured process may do: the same, and next to nothing, on every platform.

It runs as a user without files, account or capabilities, and cannot gain any. A platform on which
it had more would take other paths through the kernel, which would be measured as the platform's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

USER = 65532
"""Its user and group: no account of a Debian system, and not ``nobody``, as whom daemons run."""

PIDS = 16384
"""Processes and threads of one container: far more than pools need, far less than a host has."""

PROCESS = (
    "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all",
    "--bounding-set=-all", "--no-new-privs",
    # The kernel forgets the signal where a process changes its user.
    "--pdeathsig=KILL",
)  # fmt: skip
"""The argv prefix that gives all else up, run by root."""

CONTAINER = (
    "--user", f"{USER}:{USER}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--pids-limit", str(PIDS),
)  # fmt: skip
"""The same, as options of ``docker run`` and ``podman run``."""


PLAY = "VIRTBED_PLAY"
"""The variable by which the controller knows the processes of its playbooks."""

OUTLIVES = ("env", f"--unset={PLAY}", "--unset=TMPDIR")
"""The argv prefix of what stays when its playbook ends: without the mark by which the controller
ends what a playbook left, and without that playbook's folder of temporary files."""


def excess(found: Mapping[str, Any]) -> Iterator[str]:
    """Give what a process may do beyond that, a sentence each.

    Args:
        found: Its ``privileges``, as `kernel.readings` reads them; what is None was not reported,
            as gVisor's kernel does not report the users, and is not judged.
    """
    for name in ("users", "groups"):
        ids = found.get(name)
        if ids is not None and list(ids) != [USER]:
            yield f"{name} {', '.join(map(str, ids))} found, {USER} alone needed"
    capabilities = found.get("capabilities")
    if capabilities is not None and int(capabilities, 16):
        yield f"capabilities {capabilities} found, none needed"
    if found.get("no_new_privileges") is False:
        yield "new privileges can be gained (NoNewPrivs 0), no_new_privs needed"


def unreported(found: Mapping[str, Any]) -> list[str]:
    """Return the names of what a reading does not report: none on Linux's own kernel."""
    names = ("users", "groups", "capabilities", "no_new_privileges")
    return [name for name in names if found.get(name) is None]
