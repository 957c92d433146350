"""Real Docker, libvirt and QEMU on this host; nothing here is a fake, and nothing is skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY

TOOLS = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Teardown comes last, whatever the files are called: it removes what all others need."""
    items.sort(key=lambda item: item.path.name == "test_teardown.py")


def run(*command: str, ok: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository; with `ok`, fail with all it said unless it ends well."""
    done = subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRONMENT, text=True, capture_output=True, check=False,
        **options,
    )  # fmt: skip
    if ok:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def traces() -> dict[str, list[str]]:
    """Return what an instance could leave on this host."""
    containers = run("docker", "ps", "--all", "--quiet", "--filter", "label=virtbed").stdout
    domains = run("virsh", "-c", "qemu:///system", "list", "--all", "--name").stdout
    listening = run("ss", "-Hltn", "sport = :22022").stdout
    marked = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"VIRTBED_INSTANCE=" in environ(entry)
    ]
    instances = Path("/var/lib/virtbed/instances")
    return {
        "containers": containers.split(),
        "domains": [name for name in domains.split() if name.startswith("virtbed")],
        "ports": listening.splitlines(),
        "processes": marked,
        "overlays": [p.name for p in instances.glob("*")],
        "mounts": [m for m in Path("/proc/mounts").read_text().splitlines() if "virtbed" in m],
    }


def environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it ended, or shields itself: neither is one of ours
        return b""


NOTHING: dict[str, list[str]] = {
    kind: [] for kind in ("containers", "domains", "ports", "processes", "overlays", "mounts")
}


@pytest.fixture
def write_plan(tmp_path: Path) -> Iterator[Any]:
    """Write a plan under a name of the test's own, and remove its results afterwards."""
    made: list[Path] = []

    def write(name: str, **changes: Any) -> tuple[str, Path]:
        plan: dict[str, Any] = {
            "name": f"test-{name}",
            "replicates": 1,
            "applications": [
                {"name": "image_classification", "scale": "tiny", "samples": 2, "warmup": 1}
            ],
            "platforms": {"bm": ["pinned"]},
            "cores": [1],
            "emulated": {"scale": "tiny", "samples": 2, "warmup": 1},
        }
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(plan | changes))
        folder = REPOSITORY / "results" / f"test-{name}"
        subprocess.run(["rm", "-rf", folder], check=True)
        made.append(folder)
        return str(path), folder

    yield write
    for folder in made:
        subprocess.run(["rm", "-rf", folder], check=True)
