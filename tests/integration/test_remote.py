"""This machine as a remote bench host: over SSH, by a user who is not root and becomes root.

The tests make their own server on loopback, its keys and the user, and remove them at the end.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY

from .conftest import read, run

USER = "virtbed-remote"
SUDOERS = Path("/etc/sudoers.d", USER)
RUN = Path("/run/sshd")  # sshd's directory for privilege separation

Inventory = Callable[..., str]


@pytest.fixture(scope="module")
def inventory() -> Iterator[Inventory]:
    """Start the server; yield a function that writes an inventory of it with more variables."""
    # Not pytest's folder, because the server reads the key as the user, who may not enter it.
    folder = Path(mkdtemp(prefix="virtbed-remote-"))
    folder.chmod(0o755)
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    run("userdel", "--remove", USER, ok=False)  # left by a killed run, if it exists
    # An account without password that is not locked; sshd refuses logins to locked accounts.
    run("useradd", "--create-home", "--shell=/bin/sh", "--password=*", USER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nAllowUsers {USER} root\n"
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    # sudo prints its lecture to standard error every time; no reading may contain it.
    SUDOERS.write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\nDefaults:{USER} lecture=always\n")
    SUDOERS.chmod(0o440)
    made = not RUN.exists()
    RUN.mkdir(mode=0o755, exist_ok=True)
    server = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "/usr/sbin/sshd", "-D", "-e", f"-f{folder}/sshd_config"],
        stderr=(folder / "log").open("w"),
    )  # fmt: skip

    def write(**variables: Any) -> str:
        place = folder / f"inventory{len(list(folder.glob('inventory*')))}"
        place.mkdir()
        shutil.copytree(REPOSITORY / "inventory/group_vars", place / "group_vars")
        known = f"-o UserKnownHostsFile={folder}/known_hosts -o ControlPersist=5s"
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(folder / "user"),
            "ansible_ssh_common_args": known,
        }
        hosts = {"bench": {"hosts": {"bench01": {**host, **variables}}}}
        (place / "hosts.yml").write_text(yaml.safe_dump(hosts))
        return str(place)

    try:
        for _ in range(100):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield write
    finally:
        server.kill()
        server.wait()
        SUDOERS.unlink()
        # Its sessions end with the connections that Ansible keeps open for some seconds.
        run("userdel", "--remove", "--force", USER)
        shutil.rmtree(folder)
        if made:
            RUN.rmdir()


def printed(*command: str) -> Any:
    done = run("virtbed", *command, "--json", ok=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout)


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a report that do not change with time, such as free memory does."""
    facts = report["facts"]
    kept = ("kernel", "cpu", "hwloc", "cgroup", "engines", "gpu", "iommu", "images", "is_root")
    return {
        **{name: report[name] for name in ("host", "ok", "accelerator", "tuning")},
        "platforms": {row["platform"]: row["status"] for row in report["platforms"]},
        **{name: facts[name] for name in kept},
    }


def test_the_doctor_reports_the_same_over_ssh_with_a_user_who_becomes_root(
    inventory: Inventory,
) -> None:
    remote = printed("doctor", "--inventory", inventory(ansible_become=True))
    assert remote["facts"]["is_root"]
    assert lasting(remote) == lasting(printed("doctor"))


def test_a_plan_is_placed_equally_on_the_remote_host(inventory: Inventory) -> None:
    remote = printed("plan", "quick", "--inventory", inventory(ansible_become=True))
    local = printed("plan", "quick")
    for key in ("trials", "cells", "not_run", "image"):
        assert remote[key] == local[key]


def test_the_doctor_reports_a_user_who_does_not_become_root(inventory: Inventory) -> None:
    report = printed("doctor", "--inventory", inventory())
    assert not report["ok"] and not report["facts"]["is_root"]
    reasons = {row["platform"]: row["reason"] for row in report["platforms"]}
    assert "not running as root" in reasons["bm"]


def test_a_trial_is_run_and_fetched_by_a_user_who_may_not_read_files_of_root(
    inventory: Inventory, tmp_path: Path
) -> None:
    harness = (
        "import sys; from virtbed_workloads.__main__ import main;"
        "sys.exit(main(sys.argv[sys.argv.index('virtbed_workloads') + 1 :]))"
    )
    trial = {"id": "one", "argv": ["null", "--scale=tiny", "--samples=2"], "timeout_s": 60}
    keep = {"content": "{{ seen.reading | to_json }}", "dest": str(tmp_path / "seen")}
    play = {
        "hosts": "bench",
        "gather_facts": False,
        "vars": {
            "virtbed_instance": {"id": "i", "enclosure": "process", "quota_cpus": None},
            "virtbed_trial": trial,
            "virtbed_incoming_dir": str(tmp_path),
            "enclosure_process_argv": [sys.executable, "-c", harness],
        },
        "tasks": [
            {"process_reading": {"argv": ["env", "LC_ALL=C"]}, "register": "seen"},
            {"ansible.builtin.copy": keep, "delegate_to": "localhost", "connection": "local"},
            {"ansible.builtin.import_role": {"name": "trial_run"}},
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run("ansible-playbook", "-i", inventory(ansible_become=True), str(tmp_path / "play.yml"))
    assert read(tmp_path / "one.json")["application"]["name"] == "null"
    every = Path("/sys/devices/system/cpu/online").read_text().strip()
    assert read(tmp_path / "seen")["cpus_allowed_list"] == every
    assert list(Path("/home", USER, ".ansible/virtbed").iterdir()) == []


def test_a_reading_has_exactly_the_standard_output_of_its_command(
    inventory: Inventory, tmp_path: Path
) -> None:
    """Byte for byte, also with become, because no terminal is in between."""
    where = inventory(ansible_become=True)
    output = tmp_path / "output"
    print_both = "sh -c 'printf \"one\\\\ntwo\\\\n\"; echo complaint >&2'"
    task = {"ansible.builtin.raw": print_both, "register": "found"}
    keep = {
        "ansible.builtin.copy": {"content": "{{ found.stdout | b64encode }}", "dest": str(output)},
        "delegate_to": "localhost",
        "connection": "local",
    }
    play = [{"hosts": "bench", "gather_facts": False, "tasks": [task, keep]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    run("ansible-playbook", "-i", where, str(tmp_path / "play.yml"))
    assert output.read_text() == "b25lCnR3bwo="  # "one\ntwo\n"
