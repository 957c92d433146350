"""Tests of the CPU topology of a guest and of its host, on synthetic kernels."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.codec import decode
from virtbed_contract.documents import GuestNode, GuestShape, HostKernel, Instance
from virtbed_contract.guest import guest_mismatches
from virtbed_contract.kernel import shape


def machine(threads: dict[int, str], package: str, l3: str, node: str, size: str = "32K") -> str:
    """Return the output of `shape.SCRIPT` on a machine with one package, cache and node."""
    lines = ["6.1.0-1-amd64", "#1 SMP Debian", f"node/node0/cpulist:{node}"]
    for cpu, siblings in threads.items():
        lines += [
            f"cpu/cpu{cpu}/topology/thread_siblings_list:{siblings}",
            f"cpu/cpu{cpu}/topology/core_siblings_list:{package}",
        ]
        for index, level, kind, kib, shared in (
            (0, 1, "Data", size, siblings), (3, 3, "Unified", "32768K", l3),
        ):  # fmt: skip
            cache = {"level": level, "type": kind, "size": kib, "shared_cpu_list": shared}
            lines += [f"cpu/cpu{cpu}/cache/index{index}/{k}:{v}" for k, v in cache.items()]
    return "\n".join(lines) + "\n"


HOST = machine({c: f"{c % 4},{c % 4 + 4}" for c in range(8)}, "0-7", "0-7", "0-7")
GUEST = machine({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, "0-3", "0-3", "0-3")


def test_a_guest_and_its_host_cpus_have_the_same_shape() -> None:
    host, guest = shape.parse(HOST, [1, 5, 2, 6]), shape.parse(GUEST, range(4))
    assert host == guest
    assert host["kernel"] == {"release": "6.1.0-1-amd64", "version": "#1 SMP Debian"}
    assert host["shape"] == {
        "packages": ["0-3"],
        "cores": ["0-1", "2-3"],
        "nodes": ["0-3"],
        "caches": {"L1 Data 32K": ["0-1", "2-3"], "L3 Unified 32768K": ["0-3"]},
    }


def test_a_kernel_that_reports_nothing_has_no_shape() -> None:
    assert shape.parse("", [0])["shape"] == {
        "packages": [], "cores": [], "nodes": [], "caches": {},
    }  # fmt: skip


def test_the_script_reads_this_machine() -> None:
    done = subprocess.run(["sh", "-c", shape.SCRIPT], capture_output=True, text=True, check=True)
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    found = shape.parse(done.stdout, range(int(online.split("-")[-1]) + 1))
    assert found["kernel"]["release"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert found["kernel"]["version"] == Path("/proc/sys/kernel/version").read_text().strip()
    assert found["shape"]["cores"]


KERNEL = HostKernel("6.1.0-1-amd64", "#1 SMP Debian", "/k", "sha256:" + "a" * 64, "/m", "/c")
TOPOLOGY = {"sockets": 1, "cores": 2, "threads": 2, "cache": "passthrough", "cells": []}


def requested(**changes: Any) -> Instance:
    plain: dict[str, Any] = {
        "id": "vm-pinned-c04-r01", "platform": "vm", "machine": "kvm", "enclosure": "process",
        "own_kernel": True, "private_kernel": False, "mode": "pinned", "enclosure_limit": "none",
        "cores": 4, "memory_mib": 4096, "accelerator": "kvm", "cpus": "1-2,5-6",
        "cpu_ids": [1, 5, 2, 6], "mems": "0", "housekeeping": "0", "allowed": "0-7",
        "inner_cpus": "0-3", "inner_mems": "0", "inner_allowed": "0-3", "seen_cpus": "0-3",
        "quota_cpus": None, "seen_quota_cpus": None, "image_digest": "sha256:" + "a" * 64,
        "image_name": "a" * 16,
    }  # fmt: skip
    return replace(decode(Instance, plain), **changes)


def reading(**changes: Any) -> dict[str, Any]:
    sides = {"guest": shape.parse(GUEST, range(4)), "host": shape.parse(HOST, [1, 5, 2, 6])}
    return {"topology": TOPOLOGY, **sides, **changes}


GRID = GuestShape(1, 2, 2, (0, 1, 2, 3), ())


def test_a_guest_as_requested_has_no_mismatch() -> None:
    assert guest_mismatches(requested(kernel=KERNEL, shape=GRID), reading()) == []
    assert guest_mismatches(requested(), {}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology": None}, "defined with the topology flat"),
        ({"topology": TOPOLOGY | {"threads": 1}}, "'threads': 1, 'cache'"),
        ({"topology": TOPOLOGY | {"cache": "emulate"}}, "caches emulate, passthrough is needed"),
        ({"topology": TOPOLOGY | {"cells": ["0-3"]}}, "in nodes"),
        ({"guest": shape.parse(machine({c: str(c) for c in range(4)}, "0-3", "0-3", "0-3"),
                               range(4))}, "sees cores ['0', '1', '2', '3']"),
        ({"guest": shape.parse(GUEST.replace("32768K", "16384K"), range(4))}, "sees caches"),
        ({"guest": shape.parse(GUEST.replace("node0/cpulist:0-3", "node0/cpulist:0-1"), range(4))},
         "sees nodes"),
        ({"guest": None}, "sees packages None"),
        ({"host": None}, "have None"),
    ],
)  # fmt: skip
def test_another_shape_is_reported_with_both_values(changes: dict[str, Any], message: str) -> None:
    found = guest_mismatches(requested(shape=GRID), reading(**changes))
    assert any(message in sentence for sentence in found), found


def test_caches_of_an_emulated_guest_are_not_compared() -> None:
    other = reading(guest=shape.parse(GUEST.replace("32768K", "393216K"), range(4)))
    assert guest_mismatches(requested(shape=GRID), other)
    assert guest_mismatches(requested(shape=GRID, accelerator="tcg"), other) == []


@pytest.mark.parametrize(
    "guest",
    [None, {"kernel": {"release": "6.1.0-2-amd64", "version": "#1 SMP Debian"}},
     {"kernel": {"release": "6.1.0-1-amd64", "version": "#1 SMP rebuilt"}}],
)  # fmt: skip
def test_another_build_of_the_same_kernel_release_is_a_mismatch(guest: Any) -> None:
    (mismatch,) = guest_mismatches(requested(kernel=KERNEL), reading(guest=guest))
    assert "the host's, 6.1.0-1-amd64 #1 SMP Debian, is needed" in mismatch


def test_the_nodes_in_the_definition_are_compared() -> None:
    nodes = (GuestNode(0, "0-1", 2048, (10, 21)), GuestNode(1, "2-3", 2048, (21, 10)))
    found = guest_mismatches(requested(shape=replace(GRID, nodes=nodes)), reading())
    assert found == ["the machine was defined with vCPUs [] in nodes, ['0-1', '2-3'] is needed"]
