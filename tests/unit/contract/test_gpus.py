"""Tests of the GPUs of a host, and of the reasons why they cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract import gpus
from virtbed_contract.codec import decode, encode
from virtbed_contract.gpus import Gpu, GpuError
from virtbed_contract.kernel import nvidia

from .kernel.conftest import lay, recorded  # noqa: F401 - a fixture
from .kernel.pci_tree import ACS_OFF, ACS_ON, PCI, Tree, bars

AT, PORT = "0000:41:00.0", "0000:40:00.0"
UUID = "GPU-11111111-2222-3333-4444-555555555555"
NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0")
Change = Callable[[Tree], object]


def clean(root: Path, **more: Any) -> Tree:
    """Return a host with one GPU in a group of its own, below a port."""
    tree = Tree(root)
    tree.port(PORT, group=11)
    tree.gpu(uuid=UUID, **more)
    return tree


def only(root: Path, guest_mib: int = 4096) -> Gpu:
    (gpu,) = gpus.read(root, guest_mib)
    assert decode(Gpu, json.loads(json.dumps(encode(gpu)))) == gpu
    return gpu


def kinds(gpu: Gpu) -> tuple[str | None, str | None]:
    """Return the kinds of refusal for processes on the host and for guests."""
    return (
        gpu.on_host.kind if gpu.on_host else None,
        gpu.to_guest.kind if gpu.to_guest else None,
    )


def test_a_gpu_in_a_group_of_its_own_can_be_used_by_hosts_and_guests(tmp_path: Path) -> None:
    clean(tmp_path)
    assert only(tmp_path) == Gpu(
        address=AT, name="NVIDIA H100 PCIe", uuid=UUID, driver="nvidia", nodes=(0,), along=(),
        parts=(), device_nodes=NODES, window_mib=256 * 1024, on_host=None, to_guest=None,
    )  # fmt: skip


def test_only_nvidia_gpus_are_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a configuration space wakes a sleeping device, and makes some devices hang.

    The number of virtual functions cannot be read while a driver is busy with the device.
    """
    opened: list[str] = []
    real = Path.open

    def spied(path: Path, *how: Any, **more: Any) -> Any:
        if path.name in {"config", "sriov_numvfs"}:
            opened.append(path.parent.name)
        return real(path, *how, **more)

    tree = Tree(tmp_path)
    tree.port(PORT, group=11)
    neighbour(tree)
    monkeypatch.setattr(Path, "open", spied)
    assert gpus.read(tmp_path) == () and opened == []
    tree.gpu()
    opened.clear()
    assert kinds(only(tmp_path)) == (None, "shared") and set(opened) == {AT}


def audio(tree: Tree, **more: Any) -> None:
    properties = {"group": 12, "driver": "snd_hda_intel", **more}
    tree.add("0000:41:00.1", "040300", above=(PORT,), vendor="10de", model="22bb", **properties)


def neighbour(tree: Tree, address: str = "0000:42:00.0", **more: Any) -> None:
    properties = {"group": 12, "driver": "ixgbe", "above": (PORT,), **more}
    tree.add(address, **properties)


def regroup(tree: Tree, acs: int | None) -> None:
    """Put the GPU and another device behind the same switch."""
    for at in ("0000:3a:00.0", "0000:3a:01.0"):
        tree.port(at, group=12, acs=acs, above=("0000:39:00.0",))
    tree.port("0000:39:00.0", group=12)
    tree.gpu("0000:3b:00.0", uuid=None, above=("0000:39:00.0", "0000:3a:00.0"))
    neighbour(tree, "0000:3c:00.0", above=("0000:39:00.0", "0000:3a:01.0"))


def virtual(tree: Tree) -> None:
    folder = tree.root / PCI / AT
    lay(folder, {"sriov_totalvfs": "16"})
    for function in (4, 5):
        tree.add(
            f"0000:41:00.{function}", "030200", above=(PORT,), vendor="10de", model="2331",
            group=20 + function, parent=AT, driver="nvidia-vgpu-vfio",
        )  # fmt: skip


def divided(tree: Tree) -> None:
    (tree.root / "proc/driver/nvidia/capabilities/gpu0/mig/gi1").mkdir(parents=True)


def gone(tree: Tree) -> None:
    (tree.root / PCI / AT / "config").write_bytes(b"\xff" * 4096)


def on_console(tree: Tree, bound: str = "1", name: str = "(M) frame buffer device") -> None:
    folder = (tree.root / PCI / AT).resolve() / "graphics/fb0"
    folder.mkdir(parents=True)
    (tree.root / "sys/class/graphics").mkdir(parents=True)
    (tree.root / "sys/class/graphics/fb0").symlink_to(folder)
    lay(
        tree.root,
        {
            "sys/class/vtconsole/vtcon0/name": "(S) dummy device",
            "sys/class/vtconsole/vtcon0/bind": "0",
            "sys/class/vtconsole/vtcon1/name": name,
            "sys/class/vtconsole/vtcon1/bind": bound,
        },
    )


def on_screen(tree: Tree, enabled: str = "enabled") -> None:
    folder = (tree.root / PCI / AT).resolve() / "drm/card1/card1-DP-1"
    lay(folder, {"enabled": enabled, "status": "connected"})
    (tree.root / "sys/class/drm").mkdir(parents=True)
    (tree.root / "sys/class/drm/card1-DP-1").symlink_to(folder)


def bind(driver: str | None) -> Change:
    def change(tree: Tree) -> None:
        link = tree.root / PCI / AT / "driver"
        link.unlink()
        if driver:
            link.symlink_to(tree.root / "sys/bus/pci/drivers" / driver)

    return change


def put(name: str, text: str) -> Change:
    return lambda tree: lay(tree.root / PCI / AT, {name: text})


def without_iommu(tree: Tree) -> None:
    (tree.root / "sys/class/iommu/dmar0").rmdir()


def without_group(tree: Tree) -> None:
    (tree.root / PCI / AT / "iommu_group").unlink()
    (tree.root / f"sys/kernel/iommu_groups/12/devices/{AT}").unlink()


def made_up(tree: Tree) -> None:
    lay(tree.root, {"sys/kernel/iommu_groups/12/name": "vfio-noiommu"})


def never_reset(tree: Tree) -> None:
    (tree.root / PCI / AT / "reset_method").unlink()


def on_a_root_bus(tree: Tree) -> None:
    folder = (tree.root / PCI / AT).resolve()
    flat = tree.root / "sys/devices/pci0000:00" / AT
    flat.parent.mkdir(parents=True)
    folder.rename(flat)
    (tree.root / PCI / AT).unlink()
    (tree.root / PCI / AT).symlink_to(flat)
    never_reset(tree)


def addresses_of(bits: int) -> Change:
    text = f"processor\t: 0\naddress sizes\t: {bits} bits physical, 48 bits virtual"
    return lambda tree: lay(tree.root, {"proc/cpuinfo": text})


def may_lock(limit: str, capabilities: str) -> Change:
    line = f"Max locked memory         8388608              {limit}              bytes"
    files = {"proc/self/limits": f"Limit Soft Hard Units\n{line}",
             "proc/self/status": f"Name:\tx\nCapEff:\t{capabilities}"}  # fmt: skip
    return lambda tree: lay(tree.root, files)


def sequence(*changes: Change) -> Change:
    return lambda tree: [change(tree) for change in changes]


def built(*modules: str, secure: bool = False) -> Change:
    """Return a change that installs modules for the kernel, and unbinds the GPU."""

    def change(tree: Tree) -> None:
        bind(None)(tree)
        lines = "\n".join(f"updates/dkms/{name}: kernel/drivers/x.ko" for name in modules)
        lay(
            tree.root,
            {"proc/sys/kernel/osrelease": "6.1.0", "lib/modules/6.1.0/modules.dep": lines},
        )
        path = tree.root / nvidia.SECURE_BOOT
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([6, 0, 0, 0, secure]))

    return change


ALL_CAPABILITIES, NO_RESOURCE = "000001ffffffffff", "000001fffeffffff"
# A change of a clean host, and the kind of refusal for the host's processes and for guests.
CASES: list[tuple[str, Change, str | None, str | None]] = [
    ("another function of the card in its group", audio, None, None),
    ("another function of the card in a group of its own",
     lambda t: audio(t, group=13), None, None),
    ("another function of the card in a shared group",
     lambda t: [audio(t, group=13), neighbour(t, group=13)], None, "shared"),
    ("a port in the group", lambda t: t.port("0000:00:01.0", group=12), None, None),
    ("a port without a driver", lambda t: t.port("0000:00:01.0", group=12, driver=None), None,
     None),
    ("a bridge whose driver VFIO refuses",
     lambda t: t.port("0000:00:1f.0", group=12, driver="lpc_ich"), None, "shared"),
    ("another device in the group", neighbour, None, "shared"),
    ("another device without a driver in the group",
     lambda t: neighbour(t, driver=None), None, "shared"),
    ("another device bound to vfio-pci in the group",
     lambda t: neighbour(t, driver="vfio-pci"), None, "shared"),
    ("a device that is not on the PCI bus",
     lambda t: (t.root / "sys/kernel/iommu_groups/12/devices/serial").mkdir(), None, "shared"),
    ("a neighbour in another group", lambda t: neighbour(t, group=13), None, None),
    ("a GPU with virtual functions", virtual, "divided", "divided"),
    ("a GPU that supports virtual functions but has none", put("sriov_totalvfs", "16"), None, None),
    ("a GPU divided by MIG", divided, "mig", "mig"),
    ("a GPU that has fallen off the bus", gone, "gone", "gone"),
    ("the firmware's display", put("boot_vga", "1"), "display", "display"),
    ("a GPU that is not the firmware's display", put("boot_vga", "0"), None, None),
    ("the console", on_console, "display", "display"),
    ("a console that was unbound from its frame buffers",
     lambda t: on_console(t, bound="0"), None, None),
    ("a console of unknown kind", lambda t: on_console(t, name=""), "display", "display"),
    ("a screen", on_screen, "display", "display"),
    ("a screen that is off", lambda t: on_screen(t, "disabled"), None, None),
    ("nouveau", bind("nouveau"), "nouveau", "nouveau"),
    ("nova_core, the successor of nouveau", bind("nova_core"), "nouveau", "nouveau"),
    ("no driver", bind(None), "driver", None),
    ("a module that is not loaded", built("nvidia-current.ko"), "driver", None),
    ("a module that Secure Boot refuses", built("nvidia.ko.xz", secure=True), "secure_boot", None),
    ("Secure Boot without a module", built("nvidiafb.ko", secure=True), "driver", None),
    ("another driver", bind("pci-stub"), "driver", None),
    ("a GPU bound to vfio-pci", bind("vfio-pci"), "kept", None),
    ("no addresses for its memory", put("resource", bars([2**24, 2**37], placed=False)),
     "unplaced", "unplaced"),
    ("no IOMMU", without_iommu, None, "iommu"),
    ("no group", without_group, None, "group"),
    ("a group that VFIO created without an IOMMU", made_up, None, "group"),
    ("no reset of the function, but of its bus", never_reset, None, None),
    ("no reset of the function, but of its bus with the whole card",
     sequence(never_reset, audio), None, None),
    ("no reset, with others on its bus",
     sequence(never_reset, lambda t: neighbour(t, "0000:41:01.0", group=13)), None, "reset"),
    ("no reset, below no bridge", on_a_root_bus, None, "reset"),
    ("addresses of 39 bits hold 128 GiB of a GPU", addresses_of(39), None, None),
    ("addresses of 38 bits do not", addresses_of(38), None, "window"),
    ("addresses of 36 bits hold a GPU of less memory",
     sequence(addresses_of(36), put("resource", bars([2**24, 2**28]))),
     None, None),
    ("locked memory is limited", may_lock("8388608", NO_RESOURCE), None, "memory"),
    ("locked memory is limited to more than is needed",
     may_lock("8589934592", NO_RESOURCE), None, None),
    ("locked memory is limited to one page less than is needed",
     may_lock("5368709119", NO_RESOURCE), None, "memory"),
    ("locked memory is not limited", may_lock("unlimited", NO_RESOURCE), None, None),
    ("locked memory is limited, but may be raised",
     may_lock("8388608", ALL_CAPABILITIES), None, None),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change", "host", "guest"), CASES, ids=[c[0] for c in CASES])
def test_each_refusal_has_one_reason(
    tmp_path: Path, what: str, change: Change, host: str | None, guest: str | None
) -> None:
    tree = clean(tmp_path)
    change(tree)
    gpu = only(tmp_path)
    assert kinds(gpu) == (host, guest), what
    for refusal in (gpu.on_host, gpu.to_guest):
        if refusal:
            assert refusal.reason and refusal.remedy
            assert gpu.address in refusal.reason or refusal.kind in {"iommu", "memory"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (neighbour, r"group 12 of 0000:41:00.0 is shared with 0000:42:00.0 \(network controller "
         r"8086:1528, driver ixgbe\)$"),
        (lambda t: (t.root / "sys/kernel/iommu_groups/12/devices/serial").mkdir(),
         r"shared with serial \(not on the PCI bus\)"),
        (on_console, "drives the display: the console, by fb0"),
        (on_screen, "drives the display: the screen at card1-DP-1"),
        (put("boot_vga", "1"), "drives the display: the firmware starts on it"),
        (addresses_of(38), "a window of 256 GiB .* 38 bits, 39 needed"),
        (may_lock("8388608", NO_RESOURCE), "8 MiB may be locked, 5120 MiB needed"),
        (put("resource", bars([2**24, 2**37], placed=False)), r"\(16 MiB, 131072 MiB\)"),
        (virtual, "2 virtual functions"),
        (bind(None), "no driver is bound to 0000:41:00.0$"),
        (built("x.ko"), "bound to 0000:41:00.0, and the running kernel has no module for it$"),
        (built("nvidia.ko"), "no driver is bound to 0000:41:00.0, though its module is installed$"),
        (built("nvidia.ko", secure=True), "Secure Boot is on, and refuses a module with an"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_value_found(tmp_path: Path, change: Change, reason: str) -> None:
    change(clean(tmp_path))
    refusal = only(tmp_path).on_host or only(tmp_path).to_guest
    assert refusal and re.search(reason, refusal.reason)


def test_the_other_functions_of_a_card_are_listed_without_virtual_ones(tmp_path: Path) -> None:
    tree = clean(tmp_path)
    audio(tree)
    virtual(tree)
    gpu = only(tmp_path)
    assert gpu.along == ("0000:41:00.1",)
    assert gpu.parts == ("0000:41:00.4", "0000:41:00.5")


@pytest.mark.parametrize(
    ("acs", "kind", "words"),
    [
        (ACS_OFF, "acs", "ACS is off at the bridge 0000:3a:00.0"),
        (None, "shared", "shared with 0000:3c:00.0"),  # ACS is missing, or cannot be read
        (ACS_ON, "shared", "shared with 0000:3c:00.0"),
    ],
)
def test_bridges_with_acs_off_are_named(
    tmp_path: Path, acs: int | None, kind: str, words: str
) -> None:
    regroup(Tree(tmp_path), acs)
    refusal = only(tmp_path).to_guest
    assert refusal and refusal.kind == kind and words in refusal.reason


def test_a_bridge_above_both_devices_is_not_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.port(PORT, group=12, acs=ACS_OFF)
    tree.gpu()
    neighbour(tree, "0000:41:01.0")
    assert kinds(only(tmp_path)) == (None, "shared")


def test_the_node_of_a_gpu_on_the_second_socket(tmp_path: Path) -> None:
    tree = Tree(tmp_path, nodes=("0-3", "4-7"))
    tree.gpu(files={"numa_node": "1"})
    assert only(tmp_path).nodes == (1,)


def test_recorded_gpus_are_found_without_a_vendor_on_the_bus(
    recorded: Callable[[str], Path],  # noqa: F811
) -> None:
    found = gpus.read(recorded("nvidiagpunumanodes"))
    assert [gpu.nodes for gpu in found] == [(0,)] * 3 + [(8,)] * 3
    assert {kinds(gpu) for gpu in found} == {("driver", "iommu")}
    assert found[0].name == "device 10de:unknown"


@pytest.mark.parametrize("name", ["32em64t", "40intel64", "nvidia-dgx", "x86_64-epyc"])
def test_the_display_of_a_server_is_no_gpu(
    recorded: Callable[[str], Path],  # noqa: F811
    name: str,
) -> None:
    assert gpus.read(recorded(name)) == ()


VERSION = "535.261.03"
SONAMES = {"libcuda.so.1": "libcuda.so", "libnvidia-ml.so.1": "libnvidia-ml.so",
           "libnvidia-ptxjitcompiler.so.1": "libnvidia-ptxjitcompiler.so"}  # fmt: skip


def driver(
    tree: Tree, versions: dict[str, str] | None = None, nodes: tuple[str, ...] = NODES
) -> str:
    """Set up NVIDIA's driver on a host, and return the output of ``ldconfig -p``.

    Args:
        tree: The host.
        versions: Of libraries that are not of the module's; empty for one that is missing.
        nodes: The device nodes that there are.
    """
    loaded = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {VERSION}  Tue Oct  1"
    lay(tree.root, {"proc/driver/nvidia/version": loaded, **{node[1:]: "" for node in nodes}})
    printed = ["3 libs found in cache `/etc/ld.so.cache'", "\tlibc.so.6 (libc6) => /lib/libc.so.6"]
    for name, stem in SONAMES.items():
        version = {name: VERSION, **(versions or {})}[name]
        if version:
            lay(tree.root, {f"usr/lib/x/{stem}.{version}": ""})
            (tree.root / "usr/lib/x" / name).symlink_to(f"{stem}.{version}")
            printed.append(f"\t{name} (libc6,x86-64) => /usr/lib/x/{name}")
            printed.append(f"\t{name} (libc6) => /usr/lib32/{name}")
    return "\n".join(printed)


@pytest.mark.parametrize(
    ("versions", "nodes", "kind", "reason"),
    [
        ({}, NODES, None, ""),
        ({"libcuda.so.1": ""}, NODES, "libraries",
         "driver 535.261.03 loaded but no libcuda.so.1 found"),
        (dict.fromkeys(SONAMES, "550.163.01"), NODES, "mismatch",
         "driver 535.261.03 loaded but libraries 550.163.01"),
        ({"libcuda.so.1": "550.163.01"}, NODES, "mismatch",
         "driver 535.261.03 loaded but libraries 535.261.03 and 550.163.01"),
        ({}, NODES[:1], "nodes", "0000:41:00.0 has no device node /dev/nvidia-uvm, /dev/nvidia-uvm"
         "-tools, /dev/nvidia0"),
    ],
)  # fmt: skip
def test_libraries_and_module_of_the_driver_must_match(
    tmp_path: Path, versions: dict[str, str], nodes: tuple[str, ...], kind: str | None, reason: str
) -> None:
    printed = driver(clean(tmp_path), versions, nodes)
    (gpu,) = gpus.read(tmp_path, 4096, printed)
    assert kinds(gpu) == (kind, None)
    assert gpu.on_host is None or (gpu.on_host.reason == reason and gpu.on_host.remedy)
    assert only(tmp_path).on_host is None  # without the loader's cache, libraries are not checked


def test_the_second_gpu_needs_the_second_device_node(tmp_path: Path) -> None:
    tree = clean(tmp_path)
    second = f"GPU UUID: {UUID}\nDevice Minor: 1"
    lay(tree.root, {f"proc/driver/nvidia/gpus/{AT}/information": second})
    (gpu,) = gpus.read(tmp_path, 4096, driver(tree))
    assert gpu.on_host and gpu.on_host.reason == f"{AT} has no device node /dev/nvidia1"
    assert "--create-nvidia-device-file=1," in gpu.on_host.remedy


def test_libraries_are_those_that_the_loader_would_take(tmp_path: Path) -> None:
    printed = driver(clean(tmp_path))
    found = nvidia.libraries(f"{printed}\n\tlibcuda.so.1 (libc6,x86-64) => /opt/libcuda.so.1")
    assert found == {name: f"/usr/lib/x/{name}" for name in SONAMES}
    compiler = "\tlibnvidia-gpucomp.so.550.163.01 (libc6,x86-64) => /lib/x.so.550.163.01"
    assert nvidia.libraries(compiler) == {"libnvidia-gpucomp.so.550.163.01": "/lib/x.so.550.163.01"}
    arm = "\tlibcuda.so.1 (libc6,AArch64) => /lib/libcuda.so.1"
    assert nvidia.libraries(arm) == {"libcuda.so.1": "/lib/libcuda.so.1"}
    assert nvidia.libraries("") == {}


SECOND = "0000:c1:00.0"


@pytest.mark.parametrize(
    ("named", "address"),
    [(UUID, AT), (UUID.lower(), AT), ("00000000:C1:00.0", SECOND), ("c1:00.0", SECOND)],
)
def test_a_gpu_is_chosen_by_uuid_or_address(tmp_path: Path, named: str, address: str) -> None:
    tree = clean(tmp_path)
    tree.gpu(SECOND, group=13, driver="vfio-pci")
    assert gpus.choose(gpus.read(tmp_path), named).address == address


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (None, f"2 GPUs and none named; .*: NVIDIA H100 PCIe at {AT} \\({UUID}\\); device "
         f"10de:2331 at {SECOND}$"),
        ("GPU-0", f"no GPU 'GPU-0' here; there are: .*; no UUID is known of {SECOND}: name it by"),
        ("0000:43:00.0", "no GPU '0000:43:00.0' here; there are"),
        ("0", "no GPU '0' here"),
        ("", "no GPU '' here"),
        (f"MIG-{UUID[4:]}", r"a part of a GPU \(MIG\), a whole one needed"),
        ("41:00.4", rf"0000:41:00.4 is a virtual function \(SR-IOV\) of NVIDIA H100 PCIe at {AT}"),
    ],
)  # fmt: skip
def test_an_impossible_choice_of_a_gpu_is_refused(
    tmp_path: Path, named: str | None, words: str
) -> None:
    tree = clean(tmp_path)
    virtual(tree)
    tree.gpu(SECOND, group=13, driver="vfio-pci")
    with pytest.raises(GpuError, match=words):
        gpus.choose(gpus.read(tmp_path), named)


def test_the_only_gpu_need_not_be_named(tmp_path: Path) -> None:
    with pytest.raises(GpuError, match="no NVIDIA GPU on the PCI bus"):
        gpus.choose(gpus.read(tmp_path))
    with pytest.raises(GpuError, match="no NVIDIA GPU on the PCI bus"):
        gpus.choose((), UUID)
    clean(tmp_path)
    assert gpus.choose(gpus.read(tmp_path)).address == AT
