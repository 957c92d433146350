"""Fixtures of the tests on real Docker, libvirt and QEMU; no test uses a fake or is skipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed.checkout import REPOSITORY

from ..commands import ENVIRONMENT as ENVIRONMENT
from ..commands import TIED as TIED
from ..commands import TOOLS as TOOLS
from ..commands import run as run

NULL: dict[str, Any] = {
    "applications": [{"name": "null", "scale": "tiny", "samples": 2, "warmup": 1}]
}
"""An application without a model: importing TensorFlow in an emulated guest takes a minute."""
INSTANCE = re.compile(rb"virtbed-[a-z0-9_]+-(vanilla|pinned)-c\d\d")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run test_teardown.py last, because it removes what all other tests need."""
    items.sort(key=lambda item: item.path.name == "test_teardown.py")


def idles(engine: str, container: str) -> str:
    """Return a shell command that succeeds once a container has set its CPUs and idles.

    A container that is moved earlier cannot set its CPUs and ends.
    """
    pid = f"{engine} container inspect --format '{{{{.State.Pid}}}}' {container}"
    return f'grep -qx sleep "/proc/$({pid})/comm"'


def sweep_with_change(plan: str, *changes: str) -> subprocess.CompletedProcess[str]:
    """Sweep a plan; meanwhile run each shell command repeatedly until it has succeeded once."""
    once = (
        f'if [ -z "$done{n}" ] && {{ {change}; }}; then done{n}=yes left=$((left - 1)); fi'
        for n, change in enumerate(changes)
    )
    loop = f"while [ $left -gt 0 ]; do {'; '.join(once)}; sleep 0.05; done"
    watcher = f"left={len(changes)}; {loop} >/dev/null 2>&1"
    command = f"({watcher}) & virtbed sweep {plan}; s=$?; kill $! 2>/dev/null; exit $s"
    return run("bash", "-c", command, ok=False)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def traces() -> dict[str, list[str]]:
    """Return what instances have left on this host, by kind; compare it with `NOTHING`."""
    containers = run("docker", "ps", "--all", "--quiet", "--filter", "label=virtbed").stdout
    domains = run("virsh", "-c", "qemu:///system", "list", "--all", "--name").stdout
    listening = run("ss", "-Hltn", "sport = :22022").stdout
    instances = Path("/var/lib/virtbed/instances")
    return {
        "containers": containers.split(),
        "domains": [name for name in domains.split() if name.startswith("virtbed")],
        "ports": listening.splitlines(),
        "processes": [
            p.name for p in Path("/proc").iterdir() if p.name.isdigit() and of_an_instance(p)
        ],
        "groups": [
            str(path)
            for path in Path("/sys/fs/cgroup").glob("**/*virtbed-*")
            if INSTANCE.search(path.name.encode())
        ],
        "overlays": [p.name for p in instances.glob("*")],
        "mounts": [m for m in Path("/proc/mounts").read_text().splitlines() if "virtbed" in m],
    }


def of_an_instance(process: Path) -> bool:
    """Return whether a process belongs to an instance, by its environment or its command.

    An engine's processes (a sandbox, a monitor, QEMU) have the instance's name in their command. So
    have those that query a server's instances in the lab, which tests/lab/apart.sh marks.
    """
    try:
        environ, command = ((process / name).read_bytes() for name in ("environ", "cmdline"))
    except OSError:  # it has ended, or it is protected: neither belongs to an instance
        return False
    if b"VIRTBED_APART=" in environ:
        return False
    return b"VIRTBED_INSTANCE=" in environ or bool(INSTANCE.search(command))


NOTHING: dict[str, list[str]] = {
    kind: []
    for kind in ("containers", "domains", "ports", "processes", "groups", "overlays", "mounts")
}


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Sweep plans/quick.yml under another name; yield its folder and a report made in between.

    The tests of the platforms and of the report share it, because guests are slow to emulate.
    Three replicates instead of five are enough for intervals.
    """
    plan = yaml.safe_load((REPOSITORY / "plans" / "quick.yml").read_text())
    plan |= {"name": "test-quick", "replicates": 3}
    path = tmp_path_factory.mktemp("plans") / "quick.yml"
    path.write_text(yaml.safe_dump(plan))
    folder = REPOSITORY / "results" / plan["name"]
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed test, if it exists
    sweep = subprocess.Popen(
        [TOOLS / "virtbed", "sweep", path], cwd=REPOSITORY, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while len(list(folder.glob("trials/*/result.json"))) < 3 and sweep.poll() is None:
            time.sleep(0.5)
        run("virtbed", "report", str(path))
        partial = read(folder / "report.json")
        output, _ = sweep.communicate()
        assert sweep.returncode == 0, output
        yield folder, partial
    finally:
        sweep.terminate()
        sweep.wait()
        shutil.rmtree(folder, ignore_errors=True)  # it does not exist if the sweep was refused


@pytest.fixture
def write_plan(tmp_path: Path) -> Iterator[Any]:
    """Return a function that writes a plan of one short trial, with changes; remove its results."""
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


@pytest.fixture
def attested(write_plan: Any) -> Any:
    """Return a function that sweeps a platform in both modes, together with bare metal.

    It checks that each trial is attested, gives the answers of bare metal and leaves nothing
    behind. It returns (result, evidence) by mode.
    """

    def sweep(platform: str) -> dict[str, tuple[Any, Any]]:
        plan, folder = write_plan(
            platform, platforms={"bm": ["pinned"], platform: ["vanilla", "pinned"]}
        )
        run("virtbed", "sweep", plan)
        assert traces() == NOTHING
        trials = {path.parent.name: path.parent for path in folder.glob("trials/*/result.json")}
        assert len(trials) == 3
        found = {name: read(path / "result.json") for name, path in trials.items()}
        assert len({result["answers"]["digest"] for result in found.values()}) == 1
        evidence = {name: read(path / "evidence.json") for name, path in trials.items()}
        assert all(document["attested"] for document in evidence.values())
        return {
            result["trial"]["mode"]: (result, evidence[name])
            for name, result in found.items()
            if result["trial"]["platform"] == platform
        }

    return sweep
