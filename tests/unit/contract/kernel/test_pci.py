"""Tests of the reader of PCI devices and IOMMU groups, on recorded and synthetic machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed_contract.kernel import nvidia, pci
from virtbed_contract.kernel.pci import Bar

from .conftest import lay
from .pci_tree import ACS_OFF, ACS_ON, GIB, MIB, PCI, Tree, bars, config

Recorded = Callable[[str], Path]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000:41:00.0", "0000:41:00.0"),
        ("00000000:41:00.0", "0000:41:00.0"),  # nvidia-smi
        ("41:00.0", "0000:41:00.0"),  # lspci
        ("0001:C1:1F.7 ", "0001:c1:1f.7"),
        ("10000:e1:00.0", "10000:e1:00.0"),  # VMD has domains of its own
        ("0000:41:00.8", None),
        ("GPU-41:00.0", None),
        ("", None),
    ],
)
def test_addresses_are_written_as_the_kernel_does(text: str, expected: str | None) -> None:
    assert pci.address(text) == expected


def test_a_recorded_server(recorded: Recorded) -> None:
    devices = pci.devices(recorded("40intel64"))
    screen = devices["0000:09:03.0"]
    assert (screen.kind, screen.vendor, screen.model) == ("030000", "102b", "0532")
    assert screen.boot_vga and screen.above == ("0000:00:1e.0",)
    assert pci.answers(recorded("40intel64"), screen.address)
    assert screen.bars == (
        Bar(8 * MIB, False, True), Bar(16 * 1024, False, True), Bar(8 * MIB, False, True),
    )  # fmt: skip
    assert screen.words == "0000:09:03.0 (display controller 102b:0532)"
    assert {device.group for device in devices.values()} == {None}
    assert not pci.has_iommu(recorded("40intel64"))
    # The firmware reports the node of one card only.
    near = {name[5:7]: device.nodes for name, device in devices.items()}
    assert near["09"] == near["40"] == () and near["43"] == (2,)


def test_a_gpu_whose_memory_is_a_node_is_near_a_node_with_cpus(recorded: Recorded) -> None:
    root = recorded("nvidiagpunumanodes")
    nodes = {name: device.nodes for name, device in pci.devices(root).items()}
    assert nodes == {
        "0004:05:00.0": (0,), "0004:06:00.0": (0,), "0006:00:00.0": (0,),
        "0007:00:00.0": (8,), "0035:04:00.0": (8,), "0035:05:00.0": (8,),
    }  # fmt: skip
    assert nvidia.listed(root) == tuple(nodes)


def test_a_machine_without_a_pci_bus(recorded: Recorded, tmp_path: Path) -> None:
    for root in (recorded("arm-A510"), tmp_path):
        assert pci.devices(root) == {} and nvidia.listed(root) == ()
        assert nvidia.module_version(root) is None and not pci.has_iommu(root)


def test_driver_and_group_of_a_function(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.port("0000:40:00.0", 11)
    tree.gpu()
    tree.add("0000:41:00.1", "040300", above=("0000:40:00.0",), driver="snd_hda_intel", group=12)
    (tmp_path / "sys/kernel/iommu_groups/12/devices/serial8250").mkdir()
    devices = pci.devices(tmp_path)
    gpu = devices["0000:41:00.0"]
    assert (gpu.driver, gpu.group, gpu.above) == ("nvidia", "12", ("0000:40:00.0",))
    assert gpu.slot == devices["0000:41:00.1"].slot != devices["0000:40:00.0"].slot
    assert gpu.bars == (
        Bar(16 * MIB, False, True), Bar(128 * GIB, True, True), Bar(32 * MIB, True, True),
    )  # fmt: skip
    assert gpu.words == "0000:41:00.0 (display controller 10de:2331, driver nvidia)"
    assert pci.members(tmp_path, "12") == ("0000:41:00.0", "0000:41:00.1", "serial8250")
    assert pci.keeps_apart(tmp_path, "0000:40:00.0") is True
    assert pci.keeps_apart(tmp_path, gpu.address) is None


def test_groups_are_found_by_either_of_their_links(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.gpu(group=12)
    (tmp_path / PCI / "0000:41:00.0/iommu_group").unlink()
    (folder,) = (tmp_path / "sys/kernel/iommu_groups").iterdir()
    assert pci.devices(tmp_path)["0000:41:00.0"].group == "12"
    (folder / "devices/0000:41:00.0").unlink()
    assert pci.devices(tmp_path)["0000:41:00.0"].group is None
    (tmp_path / PCI / "0000:41:00.0/iommu_group").symlink_to(folder)
    assert pci.devices(tmp_path)["0000:41:00.0"].group == "12"


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (config(ACS_ON), True),
        (config(ACS_ON | 0x40), True),
        (config(ACS_OFF), False),
        (config(0x01), False),  # source validation alone does not isolate
        (config(None), None),
        (config(ACS_ON, extended=False), None),
        (b"", None),
        (
            config()[:0x100] + (0x0001 | 0x100 << 20).to_bytes(4, "little") * 99,
            None,
        ),  # a list with a cycle
    ],
)
def test_acs_is_read_from_the_configuration_space(
    tmp_path: Path, space: bytes, expected: bool | None
) -> None:
    folder = Tree(tmp_path).port("0000:40:00.0")
    (folder / "config").write_bytes(space)
    assert pci.keeps_apart(tmp_path, "0000:40:00.0") is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"reset_method": "flr bus"}, True),
        ({"reset_method": "", "reset": ""}, False),  # turned off
        ({"reset": ""}, True),  # before Linux 5.15
        ({}, False),
    ],
)
def test_whether_the_kernel_can_reset_a_function(
    tmp_path: Path, files: dict[str, str], expected: bool
) -> None:
    folder = Tree(tmp_path).gpu()
    (folder / "reset_method").unlink()
    lay(folder, files)
    assert pci.devices(tmp_path)["0000:41:00.0"].resets is expected


def test_windows_without_an_address_and_invalid_lines(tmp_path: Path) -> None:
    folder = Tree(tmp_path).gpu()
    lay(folder, {"resource": bars([16 * MIB, GIB], placed=False)})
    found = pci.devices(tmp_path)["0000:41:00.0"].bars
    assert found == (Bar(16 * MIB, False, False), Bar(GIB, True, False))
    lay(folder, {"resource": "0x10 0x1f\nrubbish 0 0\n0x0000c000 0x0000c0ff 0x0101"})
    assert pci.devices(tmp_path)["0000:41:00.0"].bars == ()


@pytest.mark.parametrize(
    ("node", "near", "expected"),
    [
        ("1", {}, (1,)),
        ("-1", {"local_cpulist": "4-7"}, (1,)),
        ("-1", {"local_cpus": "00000000,0000000f"}, (0,)),
        ("-1", {"local_cpulist": "0-7"}, (0, 1)),  # one package has both
        ("-1", {"local_cpulist": "0-11"}, ()),
        ("-1", {}, ()),
        ("250", {"local_cpulist": "4-7"}, (1,)),  # memory without CPUs
    ],
)
def test_nodes_near_a_card_have_cpus(
    tmp_path: Path, node: str, near: dict[str, str], expected: tuple[int, ...]
) -> None:
    Tree(tmp_path, nodes=("0-3", "4-7", "8-11")).gpu(files={"numa_node": node, **near})
    assert pci.devices(tmp_path)["0000:41:00.0"].nodes == expected


def test_every_device_is_near_the_only_node(tmp_path: Path) -> None:
    Tree(tmp_path).gpu(files={"numa_node": "-1"})
    assert pci.devices(tmp_path)["0000:41:00.0"].nodes == (0,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue Oct  1", "535.261.03"),
        ("NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build", "550.163.01"),
        ("rubbish", None),
    ],
)
def test_the_version_of_the_module(tmp_path: Path, text: str, expected: str | None) -> None:
    lay(tmp_path, {"proc/driver/nvidia/version": f"NVRM version: {text}\nGCC version:  12.2.0"})
    assert nvidia.module_version(tmp_path) == expected


def test_an_unused_gpu_reports_no_uuid(tmp_path: Path) -> None:
    Tree(tmp_path).gpu(uuid="GPU-????????-????-????-????-????????????")
    assert nvidia.uuid(tmp_path, "0000:41:00.0") is None
    assert nvidia.name(tmp_path, "0000:41:00.0") == "NVIDIA H100 PCIe"
