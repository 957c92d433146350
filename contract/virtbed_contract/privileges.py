"""Privileges of measured processes: the same minimum on every platform.

A measured process runs as a user without files, account or capabilities, and cannot gain any. With
other privileges it would take other paths through the kernel, and the difference would be measured
as a cost of the platform.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

USER = 65532
"""Its user and group id: no account of a Debian system, and not ``nobody``, which daemons use."""

PIDS = 16384
"""Limit of processes and threads of a container: more than thread pools need, less than the host's.
"""

PROCESS = (
    "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all",
    "--bounding-set=-all", "--no-new-privs",
    # The kernel clears this signal when a process changes its user, so it is set last.
    "--pdeathsig=KILL",
)  # fmt: skip
"""Argv prefix that drops all privileges; root runs it."""

CONTAINER = (
    "--user", f"{USER}:{USER}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--pids-limit", str(PIDS),
)  # fmt: skip
"""Options of ``docker run`` and ``podman run`` that drop the same privileges."""


PLAY = "VIRTBED_PLAY"
"""Environment variable by which the controller recognizes the processes of its playbooks."""

OUTLIVES = ("env", f"--unset={PLAY}", "--unset=TMPDIR")
"""Argv prefix for processes that must outlive their playbook. It removes the mark by which the
controller finds and ends leftover processes, and the playbook's folder of temporary files."""


def excess(privileges: Mapping[str, Any]) -> Iterator[str]:
    """Yield the privileges of a process beyond the minimum, one sentence each.

    Args:
        privileges: As `kernel.readings.privileges` returns them. None means not reported, as
            gVisor's kernel does not report users, and is not judged.
    """
    for name in ("users", "groups"):
        ids = privileges.get(name)
        if ids is not None and list(ids) != [USER]:
            yield f"{name} {', '.join(map(str, ids))} found, {USER} alone needed"
    capabilities = privileges.get("capabilities")
    if capabilities is not None and int(capabilities, 16):
        yield f"capabilities {capabilities} found, none needed"
    if privileges.get("no_new_privileges") is False:
        yield "new privileges can be gained (NoNewPrivs 0), no_new_privs needed"


def unreported(privileges: Mapping[str, Any]) -> list[str]:
    """Return the names of the privileges that a reading does not report; on Linux, none."""
    names = ("users", "groups", "capabilities", "no_new_privileges")
    return [name for name in names if privileges.get(name) is None]
