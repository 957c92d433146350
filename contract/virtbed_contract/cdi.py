"""A GPU as containers are given it: one CDI document, and the same as options of an engine.

CDI is the Container Device Interface (https://github.com/cncf-tags/container-device-interface).
Podman reads its documents; Docker before 25 does not, and is given the same by options. On metal
Bubblewrap is, too.
"""

from __future__ import annotations

from typing import Any

from .documents import InstanceGpu

KIND, NAME = "virtbed.local/gpu", "instance"
"""Not nvidia.com/gpu, of which the host may have a document of its own."""
VERSION = "0.5.0"
"""The first with all fields that are used: engines refuse versions that they do not know."""
ROOM = "/opt"
"""Empty in the image, whose tree is read-only: there Bubblewrap can make a folder."""
FOLDER = f"{ROOM}/nvidia"
"""Where processes have the driver's libraries."""
ENVIRONMENT = {"LD_LIBRARY_PATH": FOLDER}
"""By which they are found: the root is read-only, and so is the loader's cache in it."""


def document(gpu: InstanceGpu) -> dict[str, Any]:
    """Return the CDI document of one GPU, as JSON values."""
    return {
        "cdiVersion": VERSION,
        "kind": KIND,
        "devices": [
            {
                "name": NAME,
                "containerEdits": {
                    "deviceNodes": [
                        {"path": node, "hostPath": node, "permissions": "rw"} for node in gpu.nodes
                    ],
                    "mounts": [
                        {
                            "hostPath": file,
                            "containerPath": inside,
                            "options": ["ro", "nosuid", "nodev", "rbind"],
                        }
                        for inside, file in _mounts(gpu)
                    ],
                    "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
                },
            }
        ],
    }


def named() -> list[str]:
    """Return the options of ``podman run`` that give a container what the document says.

    The environment is named again: a process that is started in the container later has what the
    container was made with, and not what an engine edits at its start.
    """
    return ["--device", f"{KIND}={NAME}", *_environment()]


def spelled_out(gpu: InstanceGpu) -> list[str]:
    """Return the options of ``docker run`` that give a container the same.

    Raises:
        ValueError: a library's path cannot be an option.
    """
    options = []
    for node in gpu.nodes:
        options += ["--device", f"{node}:{node}:rw"]
    for inside, file in _mounts(gpu):
        if "," in file:
            raise ValueError(f"{file} found, a path without a comma needed for `docker --mount`")
        options += ["--mount", f"type=bind,source={file},target={inside},readonly"]
    return [*options, *_environment()]


def entered(gpu: InstanceGpu) -> list[str]:
    """Return the options of Bubblewrap that give a process on metal the same."""
    return [
        *(word for node in gpu.nodes for word in ("--dev-bind", node, node)),
        # What it makes by itself, for a file within, is root's alone to enter.
        "--tmpfs", ROOM, "--perms", "0755", "--dir", FOLDER,
        *(word for inside, file in _mounts(gpu) for word in ("--ro-bind", file, inside)),
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
    ]  # fmt: skip


def _mounts(gpu: InstanceGpu) -> list[tuple[str, str]]:
    """Return path inside and file on the host of each library: by the name that is loaded.

    So no links need be made, and no hook that makes them.
    """
    return [(f"{FOLDER}/{name}", file) for name, file in sorted(gpu.libraries.items())]


def _environment() -> list[str]:
    return [word for name, value in ENVIRONMENT.items() for word in ("--env", f"{name}={value}")]
