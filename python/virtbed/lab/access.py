"""How a server is reached: what SSH and Ansible need to know of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY
from virtbed.lab.image import Image
from virtbed.lab.recipe import USER
from virtbed.lab.shape import ADDRESS

SSH_CONFIG, INVENTORY, BECOME = "ssh_config", "inventory", "become"
"""Names in a server's folder: ssh's configuration; inventories, as root and as a user with sudo."""


def write_access(name: str, folder: Path, port: int, image: Image) -> None:
    """Write a server's host key, ssh's configuration and its inventories.

    Args:
        name: The server's.
        folder: The server's.
        port: Of ADDRESS, where its SSH is found.
        image: Its image, which has the keys.
    """
    config, known = folder / SSH_CONFIG, folder / "known_hosts"
    known.write_text(f"{name} {image.host_key}\n", encoding="utf-8")
    # A file, and no options: what jumps through the server to its guests reads it, too.
    config.write_text(
        f"Host {name}\n  HostName {ADDRESS}\n  Port {port}\n"
        f"  HostKeyAlias {name}\n  IdentityFile {image.key}\n  IdentitiesOnly yes\n"
        "Host *\n"
        f"  UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n  ConnectTimeout 60\n  ServerAliveInterval 30\n  LogLevel ERROR\n",
        encoding="utf-8",
    )
    for place, user in ((INVENTORY, "root"), (BECOME, USER)):
        host: dict[str, Any] = {
            "ansible_user": user,
            "ansible_ssh_common_args": f"-F {config}",
            "ansible_ssh_timeout": 60,  # a busy emulated server takes over ten seconds for sudo
        }
        if user != "root":
            host["ansible_become"] = True
        (folder / place).mkdir()
        (folder / place / "hosts.yml").write_text(  # JSON is YAML
            json.dumps({"bench": {"hosts": {name: host}}}, indent=2) + "\n", encoding="utf-8"
        )
        (folder / place / "group_vars").symlink_to(REPOSITORY / "inventory" / "group_vars")
