from __future__ import annotations

import json
import subprocess
from pathlib import Path

from virtbed.lab.access import BECOME, INVENTORY, SSH_CONFIG, write_access
from virtbed.lab.image import Image


def test_ssh_and_both_inventories_reach_the_server(tmp_path: Path) -> None:
    image = Image(tmp_path / "image", "0" * 16)
    image.folder.mkdir()
    (image.folder / "host_key.pub").write_text("ssh-ed25519 AAAA comment\n")
    write_access("bench", tmp_path, 2222, image)
    assert (tmp_path / "known_hosts").read_text() == "bench ssh-ed25519 AAAA\n"
    found = subprocess.run(
        ["ssh", "-G", "-F", tmp_path / SSH_CONFIG, "bench"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert {
        "hostname 127.0.0.1", "port 2222", "hostkeyalias bench", "stricthostkeychecking true",
        f"identityfile {image.key}", f"userknownhostsfile {tmp_path / 'known_hosts'}",
    } <= set(found)  # fmt: skip
    hosts = {}
    for place in (INVENTORY, BECOME):
        (hosts[place],) = json.loads((tmp_path / place / "hosts.yml").read_text())["bench"][
            "hosts"
        ].values()
        assert (tmp_path / place / "group_vars/all.yml").is_file()
    assert hosts[INVENTORY]["ansible_user"] == "root"
    assert "ansible_become" not in hosts[INVENTORY]
    assert hosts[BECOME]["ansible_user"] != "root" and hosts[BECOME]["ansible_become"]
