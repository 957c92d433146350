"""The filter ``virtbed_behind``: SSH options to reach a guest behind a remote bench host."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def behind(host: Mapping[str, Any]) -> str:
    """Return arguments of ssh for a guest on a host's loopback; empty if the host is this machine.

    They use ProxyCommand instead of ProxyJump, since ssh does not pass its options on to a jump
    host, and so the inventory's options of the host would be lost.

    Args:
        host: The host's variables, its ``hostvars``.

    Raises:
        AnsibleFilterError: The inventory has a password for the host; ssh cannot read one here.
    """
    if host.get("ansible_connection") == "local":
        return ""
    name = host.get("inventory_hostname", "")
    if any(
        host.get(word) for word in ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")
    ):
        raise AnsibleFilterError(
            f"{name}: ansible_password found, a key needed to reach the guests "
            "behind it; set ansible_ssh_private_key_file in the inventory, or use an agent"
        )
    address = str(host.get("ansible_host") or host.get("ansible_ssh_host") or name)
    user, port = (
        host.get(f"ansible_{w}") or host.get(f"ansible_ssh_{w}") for w in ("user", "port")
    )
    key = host.get("ansible_ssh_private_key_file") or host.get("ansible_private_key_file")
    words = ["ssh", "-o", "BatchMode=yes"]
    words += ["-p", str(port)] if port else []
    words += ["-i", str(key), "-o", "IdentitiesOnly=yes"] if key else []
    for variable in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        words += shlex.split(str(host.get(variable) or ""))
    words += ["-l", str(user)] if user else []
    # Escape the inventory's percent signs, which are literal; %h and %p below are the guest's.
    command = " ".join(shlex.quote(word.replace("%", "%%")) for word in [*words, address])
    return "-o " + shlex.quote(f"ProxyCommand={command} -W %h:%p")


class FilterModule:
    """The filter by the name that roles use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"virtbed_behind": behind}
