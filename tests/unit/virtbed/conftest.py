from __future__ import annotations

from typing import Any

import pytest

from virtbed.plan import Plan


@pytest.fixture
def plan() -> Plan:
    return Plan.model_validate(
        {
            "name": "demo",
            "replicates": 3,
            "applications": [{"name": "image_classification", "samples": 6}],
            "platforms": {
                "bm": ["vanilla", "pinned"],
                "cn": ["vanilla", "pinned"],
                "vm": ["pinned"],
                "vmcn": ["vanilla"],
            },
            "cores": [1, 2],
        }
    )


def report(cpus: int = 2, guests: str = "emulated") -> dict[str, Any]:
    """A doctor's report of a one-socket host, as far as a design reads it."""
    rows = [{"cpu": n, "core": n, "socket": 0, "node": 0, "siblings": [n]} for n in range(cpus)]
    status = {"bm": "available", "cn": "available", "vm": guests, "vmcn": guests}
    return {
        "host": "bench",
        "accelerator": "tcg" if guests == "emulated" else "kvm",
        "platforms": [
            {"platform": p, "status": s, "reason": f"{p} reason", "remedy": f"{p} remedy"}
            for p, s in status.items()
        ],
        "facts": {
            "kernel": "6.1.0",
            **{engine: {"version": "1.0"} for engine in ("docker", "libvirt", "qemu")},
            "cpu": {"allowed": list(range(cpus)), "cpus": rows, "isa": ["avx", "avx512f", "x"]},
            "numa": [{"node": 0, "cpus": list(range(cpus)), "memory_mib": 1000}],
        },
    }
