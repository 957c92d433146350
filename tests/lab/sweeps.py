"""Plans of the application null for bench hosts in a box, and what their sweeps leave."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.lab.server import Server

from ..commands import run
from .benches import STATE, read

WritePlan = Callable[..., tuple[str, Path]]
_PLAN: dict[str, Any] = {
    "image": "null",
    "replicates": 1,
    "applications": [{"name": "null", "scale": "tiny", "samples": 2, "warmup": 1}],
    "platforms": {"bm": ["pinned"]},
    "cores": [1],
    "memory_mib": 1024,
}


@pytest.fixture
def write_plan(tmp_path: Path) -> Iterator[WritePlan]:
    """Return a function that writes a plan of the application null, with changes.

    It returns the plan's path, and its results folder, which is removed after the test. A server in
    a box, which is emulated, runs all of the plan.
    """
    made: list[Path] = []

    def write(name: str, **changes: Any) -> tuple[str, Path]:
        plan = {"name": f"test-lab-{name}", **_PLAN, **changes}
        (application,) = plan["applications"]
        plan["emulated"] = {key: plan[key] for key in ("cores", "replicates")} | {
            key: application[key] for key in ("scale", "samples", "warmup")
        }
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(plan))
        folder = REPOSITORY / "results" / f"test-lab-{name}"
        run("rm", "-rf", str(folder))
        made.append(folder)
        return str(path), folder

    yield write
    for folder in made:
        run("rm", "-rf", str(folder))


def joined(servers: Iterable[Server], inventory: Path) -> Path:
    """Write an inventory of several servers to a new folder; return the folder."""
    inventory.mkdir()
    for each in servers:
        (inventory / f"{each.name}.yml").symlink_to(each.inventory / "hosts.yml")
    (inventory / "group_vars").symlink_to(REPOSITORY / "inventory" / "group_vars")
    return inventory


@contextmanager
def watched(server: Server, script: str, cases: Mapping[str, str]) -> Iterator[None]:
    """Run a script of this folder on a server meanwhile.

    Args:
        server: The server.
        script: Its file's name.
        cases: The script's commands by instance; they replace the line CASES.
    """
    text = (Path(__file__).parent / script).read_text(encoding="utf-8")
    lines = " ".join(f"{name}) {command} ;;" for name, command in cases.items())
    argv = server.ssh("bash", "-c", text.replace("    CASES\n", f"    {lines}\n"))
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as watcher:
        try:
            yield
        finally:
            watcher.kill()


def failures(folder: Path) -> str:
    """Return the messages of a sweep's failed trials, one per line."""
    paths = sorted(folder.glob("trials/*/failure.json"))
    return "\n".join(f"{path.parent.name}: {read(path)['message']}" for path in paths)


def traces(server: Server) -> str:
    """Return what instances left on a bench host; empty if nothing."""
    return server.shell(
        "docker ps --all --quiet --filter label=virtbed; podman ps --all --quiet; "
        "virsh -c qemu:///system list --all --name | grep virtbed || true; "
        f"ls {STATE}/instances 2>/dev/null || true; "
        "find /sys/fs/cgroup -name '*virtbed-*'; grep virtbed /proc/mounts || true"
    ).strip()


def inodes(folder: Path) -> dict[str, int]:
    """Return each result's inode by trial; a trial that is repeated gets another inode."""
    return {p.parent.name: p.stat().st_ino for p in folder.glob("trials/*/result.json")}
