"""Access of containers and processes to a GPU: a CDI document, or the same as options.

CDI is the Container Device Interface (https://github.com/cncf-tags/container-device-interface).
Podman reads its documents. Docker before version 25 does not, so `spelled_out` returns the same as
options of ``docker run``; `entered` returns it as options of Bubblewrap, for processes on metal.
"""

from __future__ import annotations

from typing import Any

from .documents import InstanceGpu

KIND, NAME = "virtbed.local/gpu", "instance"
"""Kind and name of the device. The kind is not nvidia.com/gpu, since the host may have a document
for that."""
VERSION = "0.5.0"
"""First version of CDI with all fields used here; engines refuse versions that they do not know."""
ROOM = "/opt"
"""Empty folder of the image. The tree is read-only, so Bubblewrap can create folders only here."""
FOLDER = f"{ROOM}/nvidia"
"""Folder of the driver's libraries inside a container or tree."""
ENVIRONMENT = {"LD_LIBRARY_PATH": FOLDER}
"""Environment that makes the loader find the libraries; its cache in the tree is read-only."""


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
    """Return the options of ``podman run`` that apply the CDI document to a container.

    The environment is repeated as options, since a process that is started in the container later
    has the environment of the container's options, without the edits of the document.
    """
    return ["--device", f"{KIND}={NAME}", *_environment()]


def spelled_out(gpu: InstanceGpu) -> list[str]:
    """Return the options of ``docker run`` that have the effect of the CDI document.

    Raises:
        ValueError: The path of a library has a comma, which `--mount` cannot express.
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
    """Return the options of Bubblewrap that have the effect of the CDI document."""
    return [
        *(word for node in gpu.nodes for word in ("--dev-bind", node, node)),
        # Bubblewrap would create the folder by itself, but so that only root can enter it.
        "--tmpfs", ROOM, "--perms", "0755", "--dir", FOLDER,
        *(word for inside, file in _mounts(gpu) for word in ("--ro-bind", file, inside)),
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
    ]  # fmt: skip


def _mounts(gpu: InstanceGpu) -> list[tuple[str, str]]:
    """Return the path inside and the file on the host of each library.

    The path inside has the name that is loaded, so neither links nor a hook to create them is
    needed.
    """
    return [(f"{FOLDER}/{name}", file) for name, file in sorted(gpu.libraries.items())]


def _environment() -> list[str]:
    return [word for name, value in ENVIRONMENT.items() for word in ("--env", f"{name}={value}")]
