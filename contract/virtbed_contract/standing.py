"""Inventory of what virtbed has on a host: instances, processes, snapshots of settings.

It only reads. Without root it finds less, and reports what it could not read.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from . import json_file
from .codec import DocumentError
from .kernel import snapshots
from .kernel.files import read
from .kernel.processes import PROC, pids

ASK_S = 10.0
"""Time that an engine has to answer, in seconds."""
PREFIX = "virtbed-"
"""Prefix of the names of everything that is made for instances."""
_INSTANCE = re.compile(rb"virtbed-[a-z0-9_]+-(?:vanilla|pinned)-c\d\d[a-z0-9_-]*")
_MARK = b"VIRTBED_INSTANCE="
_MARKED = re.compile(_MARK + _INSTANCE.pattern[len(PREFIX) :])


def standing(
    roles: Mapping[str, Sequence[str]], state_dir: Path, proc: Path = PROC, times: int = 1
) -> dict[str, Any]:
    """Return the instances, processes and unrestored settings of virtbed on this host.

    Args:
        roles: By role, the command that lists the instances of its engine, one name per line.
        state_dir: Folder in which virtbed keeps instances and snapshots.
        proc: Mount point of proc.
        times: Factor of the time that an engine has to answer, `ASK_S`.

    Returns:
        ``instances`` ({role, name} each), ``processes`` ({pid, name} each), ``overlays`` (names of
        the folders of instances), ``changed`` ({snapshot, settings} each: settings of the host that
        a sweep changed and has not restored) and ``unseen`` (one sentence for each thing that could
        not be read).
    """
    unseen: list[str] = []
    instances = []
    for role, argv in roles.items():
        # Without root, Podman would list the user's own containers, and create folders for that.
        if os.geteuid() != 0:
            unseen.append(f"instances of {role} are not seen: root is needed")
            continue
        names = _listed(argv, ASK_S * times)
        if names is None:
            unseen.append(
                f"{argv[0]} gives no answer within {ASK_S * times:.0f} s, or an error: instances "
                f"of {role} are not seen; check its daemon"
            )
        else:
            instances += [{"role": role, "name": name} for name in sorted(names)]
    processes, hidden = _processes(proc)
    if hidden:
        unseen.append(_hidden_words(hidden))
    overlays = _names(state_dir / "instances", unseen)
    changed = []
    for name in _names(state_dir, unseen):
        if name.endswith(".json"):
            settings = _kept(state_dir / name)
            changed += (
                [{"snapshot": str(state_dir / name), "settings": settings}] if settings else []
            )
    return {
        "instances": instances,
        "processes": processes,
        "overlays": overlays,
        "changed": changed,
        "unseen": unseen,
    }


def _listed(argv: Sequence[str], limit_s: float) -> Optional[set[str]]:
    """Return the names of virtbed's instances that an engine lists; None if it does not answer."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.defpath}:/usr/sbin:/sbin"}
    try:
        process = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=limit_s, check=True, env=environment,
        )  # fmt: skip
    except FileNotFoundError:  # the engine is not installed, so it has no instances
        return set()
    except (OSError, subprocess.SubprocessError):
        return None
    lines = process.stdout.decode(errors="replace").split()
    return {line for line in lines if line.startswith(PREFIX)}


def _processes(proc: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the processes of instances, and the number of processes that could not be read."""
    processes, hidden = [], 0
    for pid in sorted(pids(proc)):
        command = read(proc / str(pid) / "cmdline")
        named = _INSTANCE.search((command or "").encode())
        try:
            variables = (proc / str(pid) / "environ").read_bytes().split(b"\0")
        except PermissionError:
            hidden += 1
            variables = []
        except OSError:  # it ended
            continue
        marks = [v[len(_MARK) :] for v in variables if _MARKED.fullmatch(v)]
        name = marks[0] if marks else named.group()[len(PREFIX) :] if named else b""
        if name and pid != os.getpid():
            processes.append({"pid": pid, "name": name.decode(errors="replace")[:200]})
    return processes, hidden


def _hidden_words(hidden: int) -> str:
    """Return the sentence on processes whose environment cannot be read."""
    of = f"the environment of {hidden} process{'' if hidden == 1 else 'es'}"
    return f"{of}: root is needed" if os.geteuid() != 0 else f"{of}: the kernel refuses it to root"


def _names(folder: Path, unseen: list[str]) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        unseen.append(f"{folder} cannot be listed: {error.strerror}; root is needed")
        return []


def _kept(path: Path) -> list[str]:
    """Return the names of the settings in a snapshot of this boot; empty for any other file."""
    try:
        document = json_file.read(path)
    except DocumentError:
        return []
    values = document.get("values")
    boot = read(snapshots.BOOT)
    return sorted(values) if isinstance(values, dict) and document.get("boot") == boot else []
