"""A bench host over SSH: set up by the playbook, examined, and measured as far as it works."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.image import image_key
from virtbed.lab import FOLDER
from virtbed.lab.prepared import Preparation
from virtbed.lab.server import Server

from .conftest import run, told

HARDWARE: dict[str, Any] = {
    "sockets": 2, "cores": 1, "threads": 2, "nodes": 2, "memory_mib": 3072,
}  # fmt: skip


STATE = "/var/lib/virtbed"
_TAR = ("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*")


def set_up(server: Server) -> None:
    """Set a server up for the image that computes nothing; the image is built here, and brought."""
    ours = FOLDER / "bench"
    told("building the image null on this machine (minutes, once)")
    local = ("-i", "inventory/local", "-e", "plan=functional", "-e", f"virtbed_state_dir={ours}")
    run("ansible-playbook", *local, "playbooks/image.yml")
    told(f"bringing it to {server.name}")
    server.run("install", "-d", "-m", "0711", STATE, f"{STATE}/images")
    with subprocess.Popen(
        [*_TAR, "--sparse", "-C", str(ours / "images"), "-cf", "-", "."], stdout=subprocess.PIPE
    ) as packed:
        unpack = server.ssh(*_TAR, "-C", f"{STATE}/images", "-xf", "-")
        subprocess.run(unpack, stdin=packed.stdout, check=True)
    assert packed.returncode == 0
    told(f"setting {server.name} up (minutes)")
    run("make", "setup", "PLAN=functional", f"INVENTORY={server.inventory}")


SET_UP = Preparation(key=f"set up with image {image_key('null')}", do=set_up)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Sweep a plan of the application null on a server; return its results, removed afterwards."""
    made: list[Path] = []

    def carry_out(name: str, inventory: Path, ok: bool = True, **changes: Any) -> Path:
        plan: dict[str, Any] = {
            "name": f"test-lab-{name}",
            "image": "null",
            "replicates": 1,
            "applications": [{"name": "null", "scale": "tiny", "samples": 2, "warmup": 1}],
            "platforms": {"bm": ["pinned"]},
            "cores": [1],
            "memory_mib": 1024,
            "emulated": {"scale": "tiny", "samples": 2, "warmup": 1},
        }
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(plan | changes))
        folder = REPOSITORY / "results" / f"test-lab-{name}"
        run("rm", "-rf", str(folder))
        made.append(folder)
        run("virtbed", "sweep", str(path), "--inventory", str(inventory), ok=ok)
        return folder

    yield carry_out
    for folder in made:
        run("rm", "-rf", str(folder))


def test_an_emulated_host_is_called_so_as_root_and_with_become(
    server: Callable[..., Server],
) -> None:
    lab = server(**HARDWARE)
    for inventory in (lab.inventory, lab.become_inventory):
        done = run("virtbed", "doctor", "--json", "--inventory", str(inventory), ok=False)
        report = json.loads(done.stdout)
        assert report["emulated"] and report["facts"]["below"]["name"] == "QEMU TCG"
        assert report["facts"]["is_root"]
        assert report["facts"]["cgroup"]["version"] == 2
        assert report["facts"]["init"] == "systemd"
        assert [node["cpus"] for node in report["facts"]["numa"]] == [[0, 1], [2, 3]]
        assert report["facts"]["cpu"]["sockets"] == 2 and report["facts"]["cpu"]["smt"]


@pytest.mark.full
def test_what_is_measured_on_it_is_attested_and_no_figure(
    server: Callable[..., Server], sweep: Callable[..., Path]
) -> None:
    lab = server(preparation=SET_UP, **HARDWARE)
    folder = sweep("bm", lab.inventory)
    (trial,) = (folder / "trials").iterdir()
    result, evidence = (
        json.loads((trial / name).read_text()) for name in ("result.json", "evidence.json")
    )
    assert evidence["attested"] and evidence["asked"]["host_emulated"]
    assert result["trial"]["emulated"] and result["trial"]["accelerator"] == "none"
    assert result["environment"]["cgroup"]["version"] == 2
    report = json.loads((folder / "report.json").read_text())
    assert report["cells"] == [] and len(report["emulated"]) == 1
    left = lab.shell(f"ls {STATE}/instances 2>/dev/null; find /sys/fs/cgroup -name '*virtbed-*'")
    assert left.strip() == ""
