"""SSH options that reach a guest through its bench host, as ssh itself parses them."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

PATH = Path(__file__).resolve().parents[3] / "playbooks/filter_plugins/virtbed_ssh.py"


@pytest.fixture(scope="module")
def filters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("virtbed_ssh", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def proxy(filters: ModuleType, **host: Any) -> list[str]:
    """Return the argv of the ProxyCommand that `ssh -G` reports."""
    words = shlex.split(filters.behind({"inventory_hostname": "bench01", **host}))
    assert words[0] == "-o" and len(words) == 2
    shown = subprocess.run(
        ["ssh", "-F", "/dev/null", "-G", *words, "-p", "22022", "127.0.0.1"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (command,) = [line for line in shown.splitlines() if line.startswith("proxycommand ")]
    return shlex.split(command.removeprefix("proxycommand "))


def test_a_local_bench_host_needs_no_proxy_command(filters: ModuleType) -> None:
    assert filters.behind({"ansible_connection": "local"}) == ""


def test_the_proxy_command_has_the_inventorys_settings(filters: ModuleType) -> None:
    plain = ["ssh", "-o", "BatchMode=yes"]
    forward = ["-W", "%h:%p"]
    assert proxy(filters) == [*plain, "bench01", *forward]  # the user is ssh_config's, or one's own
    settings = {
        "ansible_host": "192.0.2.7",
        "ansible_user": "operator",
        "ansible_port": 2200,
        "ansible_ssh_private_key_file": "/keys/of bench",
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/keys/%k -J bastion",
    }
    assert proxy(filters, **settings) == [
        *plain, "-p", "2200", "-i", "/keys/of bench", "-o", "IdentitiesOnly=yes",
        "-o", "UserKnownHostsFile=/keys/%%k", "-J", "bastion", "-l", "operator", "192.0.2.7",
        *forward,
    ]  # fmt: skip


def test_a_password_in_the_inventory_is_refused(filters: ModuleType) -> None:
    with pytest.raises(AnsibleFilterError, match="bench01: ansible_password found, a key needed"):
        filters.behind({"inventory_hostname": "bench01", "ansible_password": "x"})
