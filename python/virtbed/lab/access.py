"""Access to a server of the lab: its known host key, ssh configuration and inventories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY
from virtbed.lab.image import Image
from virtbed.lab.recipe import USER
from virtbed.lab.shape import ADDRESS

SSH_CONFIG, INVENTORY, BECOME = "ssh_config", "inventory", "become"
"""Names in a server's folder: ssh configuration; inventories that log in as root, and with sudo."""


def write_access(name: str, folder: Path, port: int, image: Image) -> None:
    """Write a server's known_hosts, ssh configuration and inventories.

    Args:
        name: Name of the server.
        folder: Folder of the server.
        port: Port of its SSH on ADDRESS.
        image: Its image, which has the keys.
    """
    config, known = folder / SSH_CONFIG, folder / "known_hosts"
    known.write_text(f"{name} {image.host_key}\n", encoding="utf-8")
    # A file instead of options, because connections to guests through the server read it, too.
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
