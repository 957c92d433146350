from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from virtbed.lab import LabError
from virtbed.lab.shape import Shape, accelerator_here


def values(command: tuple[str, ...], option: str) -> list[str]:
    """Return the values of an option that may be repeated."""
    return [value for name, value in pairwise(command) if name == option]


def command(shape: Shape, **options: Any) -> tuple[str, ...]:
    return shape.command(Path("/k"), Path("/r"), Path("/lab/servers/a"), 2222, **options)


def test_a_plain_server_has_no_numa_options() -> None:
    found = Shape(cores=2, memory_mib=2048).hardware()
    assert values(found, "-smp") == ["2,sockets=1,cores=2,threads=1"]
    assert values(found, "-m") == ["2048"]
    assert values(found, "-numa") == []


def test_two_nodes_have_half_of_the_memory_and_one_socket_each() -> None:
    found = Shape(sockets=2, cores=1, threads=2, nodes=2, memory_mib=3072).hardware()
    assert values(found, "-object") == [
        "memory-backend-ram,id=node0,size=1536M", "memory-backend-ram,id=node1,size=1536M",
    ]  # fmt: skip
    assert values(found, "-numa") == [
        "node,nodeid=0,memdev=node0", "node,nodeid=1,memdev=node1", "dist,src=0,dst=1,val=21",
        "cpu,node-id=0,socket-id=0,core-id=0,thread-id=0",
        "cpu,node-id=0,socket-id=0,core-id=0,thread-id=1",
        "cpu,node-id=1,socket-id=1,core-id=0,thread-id=0",
        "cpu,node-id=1,socket-id=1,core-id=0,thread-id=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sockets", "cores", "nodes", "expected"),
    [
        (1, 4, 2, [0, 0, 1, 1]),  # nodes within a socket
        (4, 1, 2, [0, 0, 1, 1]),  # sockets within a node
        (2, 2, 4, [0, 1, 2, 3]),
        (2, 2, 1, [0, 0, 0, 0]),
    ],
)
def test_cores_are_divided_among_nodes(
    sockets: int, cores: int, nodes: int, expected: list[int]
) -> None:
    shape = Shape(sockets=sockets, cores=cores, nodes=nodes, memory_mib=4096)
    assert [shape.node(s, c) for s in range(sockets) for c in range(cores)] == expected


def test_linux_accepts_the_processors_topology_of_threads() -> None:
    (processor,) = values(Shape(threads=2).hardware(), "-cpu")
    assert "+topoext" in processor and "xlevel=0x8000001e" in processor
    assert values(Shape(threads=1).hardware(), "-cpu") == [processor]


def test_a_server_lacks_the_instructions_that_its_guests_would_lose() -> None:
    """Guests lost AVX, so no trial in them was attested."""
    (processor,) = values(Shape().hardware(), "-cpu")
    assert {"-xsave", "-avx", "-avx2", "-fma", "-f16c"} <= {*processor.split(",")}


def test_svm_can_be_off() -> None:
    assert values(Shape(svm=False).hardware(), "-cpu")[0].endswith(",-svm")
    assert values(Shape(svm=False).hardware("kvm"), "-cpu") == ["host,-svm,-vmx"]


def test_an_iommu_is_before_its_devices_and_enabled_in_the_kernels_arguments() -> None:
    found = command(Shape(iommu=True, spare=True))
    devices = values(found, "-device")
    assert devices[0].startswith("intel-iommu,")
    assert "e1000e,bus=spare" in devices[1:]
    assert "intel_iommu=on" in values(found, "-append")[0]
    assert "intel_iommu" not in " ".join(command(Shape()))


def test_kvm_needs_its_interrupt_controller_split_for_an_iommu() -> None:
    assert values(Shape(iommu=True).hardware("kvm"), "-machine") == ["q35,kernel-irqchip=split"]
    assert values(Shape(iommu=True).hardware("tcg"), "-machine") == ["q35"]


def test_ssh_listens_on_the_loopback_only() -> None:
    assert values(command(Shape()), "-netdev") == ["user,id=net,hostfwd=tcp:127.0.0.1:2222-:22"]
    assert values(command(Shape(), online=False), "-netdev")[0].endswith(",restrict=on")


def test_a_snapshot_is_started_by_its_name_with_the_same_hardware() -> None:
    booted, resumed = command(Shape()), command(Shape(), snapshot="ready")
    assert resumed == (*booted, "-loadvm", "ready")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cores": 0}, "cores 0 found"),
        ({"threads": 3}, "threads 3 found, 1 or 2 needed"),
        ({"sockets": 2, "nodes": 3}, "one number must divide the other"),
        ({"cores": 3, "nodes": 2}, "must divide its cores"),
        ({"memory_mib": 512}, "at least 1024"),
        ({"sockets": 3, "nodes": 3, "memory_mib": 2048}, "a multiple of the 3 nodes"),
    ],
)
def test_impossible_hardware_is_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(LabError, match=said):
        Shape(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [
        ("fpu vmx", True, "kvm"),
        ("fpu svm", True, "kvm"),
        ("fpu", True, "tcg"),
        ("vmx", False, "tcg"),
    ],
)
def test_a_processor_without_virtualization_has_no_usable_kvm(
    tmp_path: Path, flags: str, device: bool, expected: str
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    (tmp_path / "dev").mkdir()
    if device:
        (tmp_path / "dev/kvm").touch()
    assert accelerator_here(tmp_path) == expected
