from __future__ import annotations

from pathlib import Path

from virtbed_contract.kernel import machine

from .conftest import lay

BOOT = "proc/sys/kernel/random/boot_id"


def test_an_identity_consists_of_digests(tmp_path: Path) -> None:
    number = "0123456789abcdef" * 2
    found = machine.identity(lay(tmp_path, {"etc/machine-id": number, BOOT: "b"}))
    assert found["id"] and found["boot"] and number not in str(found)
    assert found == machine.identity(lay(tmp_path / "again", {"etc/machine-id": number, BOOT: "b"}))
    old = machine.identity(lay(tmp_path / "old", {"var/lib/dbus/machine-id": number, BOOT: "b"}))
    assert old == found
    assert machine.identity(lay(tmp_path / "none", {"etc/machine-id": ""})) == {
        "id": None, "boot": None,
    }  # fmt: skip


def test_identities_with_the_same_boot_id_and_machine_id_are_one_machine() -> None:
    one = {"id": "1", "boot": "b"}
    assert machine.are_one(one, dict(one))
    assert machine.are_one(one, one | {"id": None})  # a machine without a machine-id
    assert not machine.are_one(one, one | {"boot": "c"})  # a clone
    assert not machine.are_one(one, one | {"id": "2"})  # a container that acts as a machine
    assert not machine.are_one({}, {}) and not machine.are_one(one, {})


def test_model_firmware_and_microcode_of_a_machine(tmp_path: Path) -> None:
    dmi = {
        "sys_vendor": "Dell Inc.", "product_name": "PowerEdge R650", "bios_vendor": "Dell",
        "bios_version": "1.2.3", "bios_date": "01/02/2024",
    }  # fmt: skip
    files = {f"sys/class/dmi/id/{name}": text for name, text in dmi.items()}
    root = lay(tmp_path, {**files, "proc/cpuinfo": "processor : 0\nmicrocode : 0xd0003a5\n"})
    assert machine.hardware(root) == {
        "model": "Dell Inc. PowerEdge R650",
        "firmware": "Dell 1.2.3 01/02/2024",
        "microcode": "0xd0003a5",
    }
    assert set(machine.hardware(tmp_path / "none").values()) == {None}
