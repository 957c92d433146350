from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from virtbed import ansible
from virtbed.plan import Plan
from virtbed.platforms import Platforms, load_platforms
from virtbed_contract.identifiers import HOST_REPORT
from virtbed_contract.sweep import HostReport, PlatformVerdict

from . import machines

PLATFORMS: Platforms = load_platforms()
DIGEST = "sha256:" + "a" * 64
# Unique per run of the tests: with a common mark, parallel runs would kill each other's playbooks.
MARK = f"VIRTBED_TEST_{os.getpid()}"


@pytest.fixture(autouse=True)
def own_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep these tests from killing playbooks of sweeps or of other tests on this machine."""
    monkeypatch.setattr(ansible, "_MARK", MARK)


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


def small(plan: Plan) -> Plan:
    """Return a plan with two cells and six trials."""
    return plan.model_copy(update={"platforms": {"bm": ["pinned"], "cn": ["pinned"]}, "cores": [1]})


def report(cpus: int = 2, guests: str = "emulated", host: str = "bench") -> HostReport:
    """Return the report on a host with one socket, with the facts that a sweep reads."""
    verdicts = []
    for platform in PLATFORMS.entries:
        own_kernel = PLATFORMS.parts(platform)[0].own_kernel
        status = guests if own_kernel else "available"
        reason, remedy = f"{platform} reason", f"{platform} remedy"
        verdicts.append(PlatformVerdict(platform, status, reason, remedy))  # type: ignore[arg-type]
    engines = {name: {} for role in PLATFORMS.roles.values() for name in role.engines}
    facts: dict[str, Any] = {
        "kernel": "6.1.0",
        "machine": {"boot": None},
        "memory_mib": {"total": 16384, "available": 8192, "needed": 6144},
        "engines": {name: {"name": name, "version": "1.0"} for name in engines},
        "image": {
            "variant": "cpu",
            "words": "all",
            "build_s": 240,
            "digest": DIGEST,
            "key": "key",
            "path": "/image",
            "current": True,
        },
        **machines.facts(machines.flat(cpus), cpus, isa=["avx", "avx512f", "x"]),
    }
    accelerator = "tcg" if guests == "emulated" else "kvm"
    return HostReport(HOST_REPORT, host, True, facts, tuple(verdicts), accelerator)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def harness_document() -> dict[str, Any]:
    """Return the document that the harness prints for a trial, run outside of any platform."""
    command = ["-m", "virtbed_workloads", "null", "--scale=tiny", "--samples=2"]
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document
