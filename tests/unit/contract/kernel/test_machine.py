from __future__ import annotations

from pathlib import Path

import pytest

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
        "id": None, "boot": None, "product": None,
    }  # fmt: skip


UUID = "4c4c4544-0051-3610-8052-b4c04f4d3232"


def product(folder: Path, uuid: str) -> str | None:
    return machine.identity(lay(folder, {"sys/class/dmi/id/product_uuid": uuid}))["product"]


def test_a_firmwares_uuid_is_read_as_a_digest_in_either_case(tmp_path: Path) -> None:
    found = product(tmp_path / "a", f"{UUID}\n")
    assert found and UUID not in found
    assert product(tmp_path / "b", UUID.upper()) == found


@pytest.mark.parametrize(
    "uuid",
    [
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "Not Settable",
        "",
    ],
)
def test_a_uuid_that_many_boards_have_is_no_identity(tmp_path: Path, uuid: str) -> None:
    assert product(tmp_path, uuid) is None


def test_identities_with_the_same_boot_id_and_machine_id_are_one_machine() -> None:
    one = {"id": "1", "boot": "b"}
    assert machine.one_by(one, dict(one)) == "machine-id and boot id"
    assert machine.one_by(one, one | {"id": None})  # a machine without a machine-id
    assert machine.one_by(one, one | {"product": "p"})  # only one of them could read it
    assert not machine.one_by(one, one | {"boot": "c"})  # a clone
    assert not machine.one_by(one, one | {"id": "2"})  # a container that acts as a machine
    assert not machine.one_by({}, {}) and not machine.one_by(one, {})


def test_where_both_have_a_firmwares_uuid_it_decides() -> None:
    one = {"id": "1", "boot": "b", "product": "p"}
    # A container, or a system that was installed again in a folder of its own.
    assert machine.one_by(one, one | {"id": "2"}) == "the firmware's UUID"
    assert machine.one_by(one, one | {"id": "2", "boot": "c"})
    # Two guests that continue one snapshot have one boot id.
    assert not machine.one_by(one, one | {"product": "q"})


def test_different_machines_with_one_machine_id_are_cloned() -> None:
    one = {"id": "1", "boot": "b", "product": "p"}
    assert machine.are_cloned(one, one | {"product": "q"})
    assert machine.are_cloned({"id": "1", "boot": "b"}, {"id": "1", "boot": "c"})
    assert not machine.are_cloned(one, dict(one))
    assert not machine.are_cloned(one, {"id": "2", "boot": "c", "product": "q"})
    assert not machine.are_cloned({"boot": "b"}, {"boot": "c"})


def test_machines_of_different_times_differ_by_uuid_or_else_by_machine_id() -> None:
    one = {"id": "1", "boot": "b", "product": "p"}
    assert machine.two_by(one, one | {"boot": "c", "id": "2"}) == ""  # installed again
    assert machine.two_by(one, one | {"product": "q"}) == "the firmware's UUID"
    assert machine.two_by(one, {"id": "2"}) == "machine-id"
    assert machine.two_by(one, {"id": "1"}) == machine.two_by(one, {}) == ""


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
