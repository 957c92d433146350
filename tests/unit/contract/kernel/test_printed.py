"""Tests that printed files are read like live ones: synthetic, recorded and hostile text."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.kernel import cgroups, moments, processes, readings, settings, topology
from virtbed_contract.kernel.files import read
from virtbed_contract.kernel.printed import Place, Printed

from .conftest import lay
from .test_moments import tree
from .test_readings import LIMITED, OF_ANOTHER, STATUS, TREES

MADE_UP = {
    "a machine": tree(),
    **{f"a process, {name}": STATUS | files for name, files in TREES.items()},
    **{f"an enclosure, {name}": OF_ANOTHER | files for name, files in LIMITED.items()},
}
RECORDED = ("x86_64-epyc_7451", "20em64t-hybrid", "s390-lpar", "arm-A510")
WALLS = "sys/devices/system/cpu/vulnerabilities"


def everything(root: Place) -> dict[str, Any]:
    """Return the results of all readers that take a root, or a folder below it."""
    return {
        "settings": settings.kernel(root),
        "huge": settings.huge_share(root),
        "counters": moments.counters(root, (0, 1)),
        "process": readings.process(root),
        "enclosed": readings.enclosed(root, 7),
        "groups": [cgroups.controllers(root), cgroups.quota_times(root, 7), cgroups.limits(root)],
        "cpus": [topology.present(root), topology.siblings(root, 1), topology.parts(root)],
        "mitigations": topology.mitigations(root),
        "threads": processes.threads(7, root / "proc"),
    }


def of(root: Path) -> Printed:
    """Return the same files as a printed tree, without bytes that are not UTF-8."""
    files = [path for path in root.rglob("*") if path.is_file() and os.access(path, os.R_OK)]
    return Printed((str(p.relative_to(root)), p.read_text(errors="replace")) for p in files)


@pytest.mark.parametrize("name", MADE_UP)
def test_printed_synthetic_files_are_read_like_live_ones(tmp_path: Path, name: str) -> None:
    more = {f"{WALLS}/meltdown": "Not affected", "proc/7/task/7/stat": "", "proc/7/task/9/stat": ""}
    root = lay(tmp_path, MADE_UP[name] | more)
    found = everything(of(root))
    assert found == everything(root)
    assert found["mitigations"] == {"meltdown": "Not affected"} and found["threads"] == {7, 9}


@pytest.mark.parametrize("name", RECORDED)
def test_printed_files_of_recorded_machines_are_read_like_live_ones(
    recorded: Callable[[str], Path], name: str
) -> None:
    root = recorded(name)
    assert everything(of(root)) == everything(root)
    command = ["sh", "-c", moments.SCRIPT, "sh", str(root)]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    live = {"settings": settings.kernel(root), **moments.counters(root, (0,))}
    assert moments.machine(printed, (0,)) == live


def test_a_printed_server_with_thousands_of_files_opens_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = f"{readings.MARK}sys/devices/system/cpu"
    printed = [f"{cpu}/online <==\n0-511\n"]
    for number in range(512):
        for state in range(5):
            folder = f"{cpu}/cpu{number}/cpuidle/state{state}"
            printed += [f"{folder}/name <==\nC{state}\n", f"{folder}/disable <==\n{number % 2}\n"]
        printed.append(f"{cpu}/cpu{number}/thermal_throttle/core_throttle_count <==\n2\n")
        printed.append(f"{readings.MARK}proc/irq/{number}/smp_affinity_list <==\n{number}\n")

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("no file is needed")

    for module, names in ((os, ("open", "mkdir", "rmdir")), (io, ("open",)), (builtins, ("open",))):
        for name in names:
            monkeypatch.setattr(module, name, refused)
    found = moments.machine("\n".join(printed), (3, 4))
    reading = readings.process(readings.unpack("\n".join(printed)))
    monkeypatch.undo()
    assert (found["throttled"], found["aimed"], found["online"]) == (1024, "3-4", "0-511")
    assert found["settings"]["idle"] == "; ".join(f"C{state} mixed" for state in range(5))
    assert reading["cpus_visible"] == 512


@pytest.mark.parametrize(
    ("printed", "files"),
    [
        ("==> /../etc/passwd\nx\n==> a/../../b <==\nx\n==> ..\nx\n==> c/../\n", {}),
        ("==> \nx\n==> /\n==> //\n==> . <==\nx", {}),
        ("==> //a/./b/ <==\nc", {}),
        ("==> //a//./b <==\nc\n==> /a/\n", {"a/b": "c"}),
        ("==> a\n1\n==> a/b\n2\n==> a\n3\n==> b/c\n==> b\n", {"a": "3", "a/b": "2", "b": ""}),
        ("x\n==> a\r\n1\r\n2\r3\x00", {"a": "1\n2\n3"}),
        ("==> a\nven\udcffdor \udce2\udc82", {"a": "ven\ufffddor \ufffd"}),
        ("==> a\x00b\n1", {"a\x00b": "1"}),
        (f"==> {'a' * 300}\n1", {"a" * 300: "1"}),
        (" ==> a\n1\n==>b\n2", {}),
    ],
)
def test_hostile_text_cannot_leave_the_tree(printed: str, files: dict[str, str]) -> None:
    root = readings.unpack(printed)
    assert {name: read(root / name) for name in files} == files
    assert root.is_dir()
    assert {path.name for path in root.iterdir()} >= {name.split("/")[0] for name in files}
    assert ".." not in {path.name for path in root.glob("*")}
    for name in ("../etc/passwd", "etc/passwd", "/etc/passwd", "/proc/self/status", "..", ""):
        assert read(root / name) is None
    assert readings.enclosed(root, 7) is None
    assert readings.process(root)["cpus_visible"] is None


def test_a_mount_point_outside_the_tree_is_not_found() -> None:
    point = "/sys/../../../../../../.."
    mounts = f"30 23 0:26 / {point} rw - cgroup2 cgroup2 rw"
    printed = f"==> /proc/self/mountinfo\n{mounts}\n==> /proc/self/cgroup\n0::/proc\n"
    root = readings.unpack(printed)
    assert cgroups.lineage(root, "cpu") == [root / point]
    assert cgroups.limits(root)["memory_mib"] is None


def test_paths() -> None:
    root = readings.unpack("==> a/b1/c\n1\n==> a/b2/c\n2\n==> a/x/c\n3\n==> .d\n4\n==> e/\n")
    assert sorted(path.parts for path in root.glob("a/b[0-9]/c")) == [
        ("a", "b1", "c"),
        ("a", "b2", "c"),
    ]
    assert {str(path) for path in root.glob("*")} == {"a", ".d", "e"}
    assert list(root.glob("e/*")) == list(root.glob("a/b1/c/*")) == list(root.glob("none/*")) == []
    deep = root / "a" / Path("b1/c")
    assert deep == root / "/a//b1/./c" and hash(deep) == hash(root / "a/b1/c")
    assert deep.parents == [root / "a/b1", root / "a", root] and deep.name == "c"
    assert (deep.is_dir(), deep.parents[0].is_dir(), (root / "e").is_dir()) == (False, True, True)
    assert (root.name, root.parents, deep == "a/b1/c") == ("", [], False)
    assert deep != readings.unpack("==> a/b1/c\n1") / "a/b1/c"
    assert deep.read_bytes() == b"1"
    for missing in (root / "z", deep.parents[0]):
        with pytest.raises(FileNotFoundError, match="was not printed"):
            missing.read_text()
    with pytest.raises(FileNotFoundError):
        list(deep.iterdir())
