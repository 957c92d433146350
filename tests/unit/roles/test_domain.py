"""The libvirt definition of a guest: flat, with a topology, with a GPU; and its reading."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import tempfile
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from jinja2 import Environment

from virtbed_contract.codec import encode
from virtbed_contract.documents import GuestNode, GuestShape, InstanceGpu

from .conftest import REPOSITORY, module

TEMPLATE = REPOSITORY / "roles/machine_kvm/templates/domain.xml.j2"
domain = module("machine_kvm", "domain_placement")

FLAT = """\
<domain type="kvm"
        xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>virtbed-vm-pinned-c02-r01</name>
  <uuid>76697274-6265-640b-1234-123456789abc</uuid>
  <memory unit="MiB">4097</memory>
  <vcpu placement="static">2</vcpu>
  <cputune>
    <vcpupin vcpu="0" cpuset="2"/>
    <vcpupin vcpu="1" cpuset="3"/>
    <emulatorpin cpuset="0"/>
  </cputune>
  <numatune>
    <memory mode="strict" nodeset="0-1"/>
  </numatune>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>/image/vmlinuz</kernel>
    <initrd>/image/initrd.img</initrd>
    <cmdline>root=/dev/vda</cmdline>
  </os>
  <features><acpi/></features>
    <cpu mode="host-passthrough">
    <feature policy="disable" name="avx2"/>
  </cpu>
  <clock offset="utc"/>
"""
INSTANCE = {
    "id": "vm-pinned-c02-r01", "accelerator": "kvm", "cores": 2, "memory_mib": 4097,
    "mode": "pinned", "cpu_ids": [2, 3], "housekeeping": "0", "mems": "0-1", "shape": None,
}  # fmt: skip
NODES = (GuestNode(0, "0-1", 2049, (10, 21)), GuestNode(1, "2-3", 2048, (21, 10)))


def rendered(topoext: bool = False, boot: str = "/image", **changes: Any) -> str:
    """Return the definition as Ansible's template module renders it."""
    made = Environment(trim_blocks=True, keep_trailing_newline=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    return made.render(
        virtbed_instance=INSTANCE | changes, machine_guest_boot=boot,
        machine_guest_cmdline="root=/dev/vda", machine_guest_hidden_cpu_features=["avx2"],
        machine_guest_overlay="/o", machine_guest_seed="/s", machine_guest_console="/c",
        machine_guest_netdev="user", __machine_kvm_topoext=topoext,
        __machine_kvm_uuid="76697274-6265-640b-1234-123456789abc",
    )  # fmt: skip


def with_shape(grid: GuestShape, **changes: Any) -> ElementTree.Element:
    return ElementTree.fromstring(rendered(shape=encode(grid), **changes))


def test_the_definition_of_a_flat_guest_does_not_change() -> None:
    assert rendered().startswith(FLAT)
    assert rendered(topoext=True) == rendered()
    old = {name: value for name, value in INSTANCE.items() if name != "shape"}
    assert rendered(**old) == rendered()


def test_a_topology_without_gaps_has_every_vcpu() -> None:
    definition = with_shape(GuestShape(1, 1, 2, (0, 1), ()))
    assert definition.find("vcpu").attrib == {"placement": "static"}  # type: ignore[union-attr]
    assert definition.find("vcpus") is None and definition.find("cpu/numa") is None
    topology = definition.find("cpu/topology")
    assert topology is not None
    assert topology.attrib == {"sockets": "1", "cores": "1", "threads": "2"}
    assert [f.get("name") for f in definition.findall("cpu/feature")] == ["avx2"]
    named = with_shape(GuestShape(1, 1, 2, (0, 1), ()), topoext=True).findall("cpu/feature")
    assert [(f.get("name"), f.get("policy")) for f in named] == [
        ("topoext", "require"),
        ("avx2", "disable"),
    ]


def test_a_topology_with_gaps_disables_vcpus_and_pins_by_their_numbers() -> None:
    definition = with_shape(GuestShape(2, 1, 2, (0, 2), NODES))
    assert definition.findtext("vcpu") == "4"
    assert definition.find("vcpu").get("current") == "2"  # type: ignore[union-attr]
    places = [
        (v.get("id"), v.get("enabled"), v.get("hotpluggable")) for v in definition.iter("vcpu")
    ]
    assert places[1:] == [
        ("0", "yes", "no"), ("1", "no", "yes"), ("2", "yes", "yes"), ("3", "no", "yes"),
    ]  # fmt: skip
    pins = [(p.get("vcpu"), p.get("cpuset")) for p in definition.findall("cputune/vcpupin")]
    assert pins == [("0", "2"), ("2", "3")]
    bound = [(m.get("cellid"), m.get("nodeset")) for m in definition.findall("numatune/memnode")]
    assert bound == [("0", "0"), ("1", "1")]
    cells = definition.findall("cpu/numa/cell")
    assert [(c.get("cpus"), c.get("memory")) for c in cells] == [("0-1", "2049"), ("2-3", "2048")]
    far = [s.get("value") for c in cells for s in c.findall("distances/sibling")]
    assert far == ["10", "21", "21", "10"]


def test_unknown_distances_are_not_written() -> None:
    unknown = tuple(GuestNode(n.host, n.vcpus, n.memory_mib, (0, 0)) for n in NODES)
    assert "<distances>" not in rendered(shape=encode(GuestShape(2, 1, 2, (0, 2), unknown)))


def test_the_hosts_kernel_is_booted_from_the_state_directory() -> None:
    definition = ElementTree.fromstring(rendered(boot="/state/kernels/6.1-b-a"))
    assert definition.findtext("os/kernel") == "/state/kernels/6.1-b-a/vmlinuz"
    assert definition.findtext("os/initrd") == "/state/kernels/6.1-b-a/initrd.img"


GPU = InstanceGpu(
    uuid=None, functions=("0000:41:00.0", "0000:41:00.1"), window_mib=256 * 1024, nodes=(),
    libraries={},
)  # fmt: skip


def test_every_function_of_a_gpu_is_passed_to_the_guest() -> None:
    definition = ElementTree.fromstring(rendered(gpu=encode(GPU)))
    passed = definition.findall("devices/hostdev")
    assert [device.attrib for device in passed] == [
        {"mode": "subsystem", "type": "pci", "managed": "yes"}
    ] * 2
    at = [device.find("source/address").attrib for device in passed]  # type: ignore[union-attr]
    one = {"domain": "0x0000", "bus": "0x41", "slot": "0x00", "function": "0x0"}
    assert at == [one, one | {"function": "0x1"}]
    window = definition.find("devices/controller[@model='pcie-root']/pcihole64")
    assert window is not None and (window.text, window.get("unit")) == ("268435456", "KiB")
    assert {device.find("driver").get("name") for device in passed} == {"vfio"}  # type: ignore[union-attr]
    assert rendered(gpu=None) == rendered()


SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
# Run by Debian's Python, which has lxml from the role's packages.
VALIDATES = """
import sys
from lxml import etree
schema = etree.RelaxNG(etree.parse(sys.argv[1]))
sys.exit(None if schema.validate(etree.parse(sys.argv[2])) else str(schema.error_log))
"""


def validated(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", "-c", VALIDATES, SCHEMA, file], capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [None, GuestShape(1, 2, 1, (0, 1), ())])
@pytest.mark.parametrize("gpu", [None, GPU])
def test_a_definition_matches_libvirts_schema(
    tmp_path: Path, shape: GuestShape | None, gpu: InstanceGpu | None
) -> None:
    if not SCHEMA.is_file():
        pytest.skip(f"no {SCHEMA} here; make setup installs it")
    file = tmp_path / "domain.xml"
    file.write_text(rendered(shape=encode(shape), gpu=encode(gpu)))
    done = validated(file)
    assert done.returncode == 0, done.stderr
    file.write_text(file.read_text().replace("<clock ", "<clocks "))
    assert validated(file).returncode != 0


def test_libvirt_translates_a_gpu_into_qemus_options(tmp_path: Path) -> None:
    """Uses libvirt's embedded driver: no daemon is contacted, no guest started."""
    program = shutil.which("virsh")
    if program is None:
        pytest.skip("no virsh here; make setup installs it")
    file = tmp_path / "domain.xml"
    file.write_text(rendered(gpu=encode(GPU), mode="vanilla", accelerator="tcg"))
    with tempfile.TemporaryDirectory() as root:  # a short path, because it contains sockets
        done = subprocess.run(
            [program, "--connect", f"qemu:///embed?root={root}", "domxml-to-native", "qemu-argv",
             file],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "-global q35-pcihost.pci-hole64-size=268435456K" in done.stdout
    for address in GPU.functions:
        assert f'"driver":"vfio-pci","host":"{address}"' in done.stdout


RUNNING = """
<domain type="kvm"><memory>4195328</memory><os><kernel>/k</kernel></os>
<cputune><vcpupin vcpu="0" cpuset="2"/><vcpupin vcpu="2" cpuset="3-4"/></cputune>
<cpu mode="host-passthrough">{}</cpu>
<devices><disk><backingStore><source file="/d"/></backingStore></disk></devices></domain>
"""
TOPOLOGY = """<topology sockets="2" dies="1" cores="1" threads="2"/><cache mode="passthrough"/>
<numa><cell id="0" cpus="0-1"/><cell id="1" cpus="2-3"/></numa>"""


def test_the_topology_is_read_from_the_definition() -> None:
    assert "topology" not in domain.described(RUNNING.format(""))
    assert domain.described(RUNNING.format(TOPOLOGY))["topology"] == {
        "sockets": 2, "cores": 1, "threads": 2, "cache": "passthrough", "cells": ["0-1", "2-3"],
    }  # fmt: skip


def test_pins_are_read_by_vcpu_number_if_numbers_have_gaps() -> None:
    assert domain.pins_of(RUNNING, [0, 1]) is None  # libvirt's own call returns them
    assert domain.pins_of(RUNNING, [2, 0]) == {0: "2", 2: "3-4"}
    assert domain.pins_of(RUNNING, [0, 3]) == {0: "2", 3: None}


VARIABLES = yaml.safe_load((REPOSITORY / "roles/machine_kvm/vars/main.yml").read_text())


def profiles(instance: str) -> str:
    """Return the pattern of the files that release removes, as Ansible evaluates it."""
    tasks = yaml.safe_load((REPOSITORY / "roles/machine_kvm/tasks/release.yml").read_text())
    (task,) = (task for task in tasks if "AppArmor" in task["name"])
    known = {"virtbed_instance": {"id": instance, "accelerator": "kvm"}}
    variables = _trusted(VARIABLES | task["vars"]) | known
    command: str = Templar(DataLoader(), variables=variables).template(
        _trusted(task["ansible.builtin.raw"])
    )
    assert command.startswith("rm -f /etc/apparmor.d/libvirt/libvirt-")
    return command.removeprefix("rm -f /etc/apparmor.d/libvirt/")


def _trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _trusted(each) for key, each in value.items()}
    return trust_as_template(value) if isinstance(value, str) else value


def test_the_apparmor_profiles_of_virtbeds_guests_are_recognized_by_their_uuid() -> None:
    one, other, all_of_them = map(profiles, ("vm-pinned-c01-r01", "vm-pinned-c01-r02", ".*"))
    assert uuid.UUID(one.removeprefix("libvirt-").removesuffix("*"))
    names = [f"{name.removesuffix('*')}{end}" for name in (one, other) for end in ("", ".files")]
    names.append(f"libvirt-{uuid.uuid4()}")  # a guest of somebody else
    assert fnmatch.filter(names, one) == names[:2]
    assert fnmatch.filter(names, all_of_them) == names[:4]
