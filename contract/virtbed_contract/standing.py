"""What of virtbed's stands on a host: instances, processes, snapshots; read, and never changed.

Whoever is not root sees less, and learns what was not seen.
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
PREFIX = "virtbed-"
_INSTANCE = re.compile(rb"virtbed-[a-z0-9_]+-(?:vanilla|pinned)-c\d\d[a-z0-9_-]*")
_MARK = b"VIRTBED_INSTANCE="
_MARKED = re.compile(_MARK + _INSTANCE.pattern[len(PREFIX) :])


def standing(
    roles: Mapping[str, Sequence[str]], state_dir: Path, proc: Path = PROC, times: int = 1
) -> dict[str, Any]:
    """Return what stands on this host.

    Args:
        roles: By role, the command that lists its engine's instances, a name per line.
        state_dir: Where virtbed keeps its instances and snapshots.
        proc: Where proc is mounted.
        times: How many times ASK_S an engine gets to answer.

    Returns:
        ``instances`` ({role, name} each), ``processes`` ({pid, name}), ``overlays`` (names of
        folders of instances), ``changed`` ({snapshot, settings}: what a sweep changed of the host
        and has not put back) and ``unseen`` (sentences).
    """
    unseen: list[str] = []
    instances = []
    for role, argv in roles.items():
        if (
            os.geteuid() != 0
        ):  # Podman would list the user's own containers, and make folders for it
            unseen.append(f"what {role} keeps is not seen: root is needed")
            continue
        names = _listed(argv, ASK_S * times)
        if names is None:
            unseen.append(
                f"{argv[0]} gives no answer within {ASK_S * times:.0f} s, or an error: what {role} "
                "keeps is not seen; is its daemon well?"
            )
        else:
            instances += [{"role": role, "name": name} for name in sorted(names)]
    processes, hidden = _processes(proc)
    if hidden:
        unseen.append(f"{hidden} processes of other users are not seen: root is needed")
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
    """Return the names of ours that an engine lists; None if it gives no answer."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.defpath}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=limit_s, check=True, env=environment,
        )  # fmt: skip
    except FileNotFoundError:  # it is not installed, and so nothing of it stands
        return set()
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode(errors="replace").split()
    return {line for line in lines if line.startswith(PREFIX)}


def _processes(proc: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the processes of instances, and how many of all could not be read."""
    found, hidden = [], 0
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
            found.append({"pid": pid, "name": name.decode(errors="replace")[:200]})
    return found, hidden


def _names(folder: Path, unseen: list[str]) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        unseen.append(f"{folder} cannot be listed: {error.strerror}; root is needed")
        return []


def _kept(path: Path) -> list[str]:
    """Return what a snapshot of this boot holds the old values of; nothing if it is none."""
    try:
        document = json_file.read(path)
    except DocumentError:
        return []
    values = document.get("values")
    boot = read(snapshots.BOOT)
    return sorted(values) if isinstance(values, dict) and document.get("boot") == boot else []
