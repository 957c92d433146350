from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import pytest
from pydantic import ValidationError

from tests.unit.virtbed.conftest import DIGEST, PLATFORMS, report
from virtbed.bench import Bench, BenchError
from virtbed.checkout import REPOSITORY
from virtbed.design import design
from virtbed.image import image_key
from virtbed.placement import PlacementError
from virtbed.plan import Plan
from virtbed.scratch import run_dir
from virtbed.sweep import SweepError
from virtbed.sweep.admission import (
    Admitted,
    _image,
    admit,
    check_facts,
    check_memory,
    identity,
)
from virtbed.sweep.interruption import Interruption
from virtbed_contract.codec import encode
from virtbed_contract.sweep import HostReport


def host(variant: str, **image: object) -> HostReport:
    found = report()
    facts = {"variant": variant, "digest": DIGEST, "key": image_key(variant), **image}
    return replace(found, facts={**found.facts, "image": facts})


def nulls(plan: Plan) -> Plan:
    return Plan.model_validate(
        plan.model_dump()
        | {"image": None, "applications": [{"name": None, "scale": "tiny", "samples": 6}]}
    )


def test_the_image_that_the_plan_names_is_the_one_that_runs(plan: Plan) -> None:
    null_plan = nulls(plan)
    assert (null_plan.image, null_plan.applications[0].name) == ("null", "null")  # unquoted in YAML
    assert _image(host("null"), null_plan) == DIGEST
    with pytest.raises(SweepError, match=r"image null .* other sources .*make setup PLAN=demo"):
        _image(host("cpu"), null_plan)  # a report on another image than the plan's
    with pytest.raises(SweepError, match="no image null found on this host"):
        _image(host("null", digest=None), null_plan)


def test_a_sweep_is_bound_to_the_variant_of_its_image(plan: Plan) -> None:
    def bound(of: Plan) -> dict[str, str]:
        found = host(of.image)
        found.facts["engines"] = {
            name: {"version": "1"} for role in PLATFORMS.roles.values() for name in role.engines
        }
        designed = design(of, found, PLATFORMS)
        assert designed.document(of, DIGEST, PLATFORMS, []).image == of.image
        return identity(of, Admitted(found, DIGEST, designed, False), PLATFORMS)

    assert bound(plan)["image variant"] == "cpu"
    assert bound(nulls(plan))["image variant"] == "null"
    assert plan.digest() != nulls(plan).digest()


@pytest.mark.parametrize(
    ("memory_mib", "guests", "refused"),
    [
        (7680, True, ""),
        (7681, True, "memory_mib 7681 requested, 8193 MiB needed .* bench has 8192 MiB available"),
        (7681, False, ""),
        (15873, False, "16385 MiB needed .* bench has 16384 MiB total: lower `memory_mib`"),
        (2**26, True, "lower `memory_mib` in the plan"),
    ],
)
def test_memory_that_the_host_lacks_is_refused(
    plan: Plan, memory_mib: int, guests: bool, refused: str
) -> None:
    large = plan.model_copy(update={"memory_mib": memory_mib})
    with pytest.raises(SweepError, match=refused) if refused else nullcontext():
        check_memory(large, report(), guests=guests)


def test_a_plan_without_a_cell_that_the_host_can_run_is_refused_with_reasons(plan: Plan) -> None:
    """Only guests of a kernel without a file: the sweep would succeed without a trial."""
    guests_only = Plan.model_validate(
        {
            "name": "demo",
            "replicates": 2,
            "platforms": {"vm": ["pinned"]},
            "applications": [{"name": "image_classification"}],
            "cores": [1],
            "guest_kernel": ["host"],
        }
    )
    found = host(guests_only.image)
    kernel = {"kernel": None, "missing": [], "problem": "no file", "remedy": "install it"}
    found.facts["host_kernel"] = kernel
    available = [
        replace(row, status="available") if row.platform == "vm" else row for row in found.platforms
    ]
    found = replace(found, platforms=tuple(available), accelerator="kvm")

    class Examined(Bench):
        def examine(self, **_: object) -> tuple[HostReport, bool]:  # type: ignore[override]
            return found, False

    refused = r"can run no cell of the plan demo\. vm: guest_kernel host: no file; install it, or"
    with pytest.raises(SweepError, match=refused):
        admit(guests_only, Examined(), PLATFORMS, Interruption())


def test_memory_that_no_host_has_is_refused_when_the_plan_is_read(plan: Plan) -> None:
    with pytest.raises(ValidationError, match="memory_mib"):
        Plan.model_validate(plan.model_dump() | {"memory_mib": 10**12})


def inventory(folder: Path, variables: str) -> Bench:
    path = folder / "hosts.yml"
    path.write_text(f"bench: {{hosts: {{bench01: {{{variables}}}}}}}\n")
    return Bench((str(path),))


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ("ansible_connection: local", True),
        ("ansible_connection: local, ansible_become: true", False),
        ("ansible_host: 192.0.2.7, ansible_user: root", False),
    ],
)
def test_root_is_needed_where_instances_are_placed_not_where_the_controller_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: str, refused: bool
) -> None:
    bench = inventory(tmp_path, variables)
    bench.require_root("here")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BenchError, match="user id 1000") if refused else nullcontext():
        bench.require_root("here")


def test_a_controller_that_is_not_root_has_a_lock_and_keys_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_dir() == Path("/run/virtbed")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert run_dir() == tmp_path / "virtbed-1000"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    assert run_dir() == Path(gettempdir()) / "virtbed-1000"


def test_a_host_is_refused_by_facts_that_need_no_hwloc(plan: Plan) -> None:
    two = plan.model_copy(update={"cores": [1, 2]})
    bare = report()
    bare.facts["hwloc"] = {"xml": None, "problem": "not installed yet"}
    check_facts(two, bare, PLATFORMS)
    one = replace(bare, facts={**bare.facts, "cpu": {**bare.facts["cpu"], "allowed": [1]}})
    with pytest.raises(
        PlacementError, match=r"2 cores requested, this host offers 1 allowed CPU \(1\);"
    ):
        check_facts(two, one, PLATFORMS)
    check_facts(plan.model_copy(update={"cores": [1]}), one, PLATFORMS)
    full = {"kind": "tmp", "path": "/tmp", "free_mib": 1}
    with pytest.raises(SweepError, match="1 MiB free for /tmp"):
        check_facts(two, replace(bare, facts={**bare.facts, "disks": [full]}), PLATFORMS)
    little = {"total": 100, "available": 100}
    with pytest.raises(SweepError, match="memory_mib"):
        check_facts(two, replace(bare, facts={**bare.facts, "memory_mib": little}), PLATFORMS)


def test_set_up_refuses_such_a_host_by_a_filter() -> None:
    path = REPOSITORY / "playbooks/filter_plugins/virtbed_plan.py"
    spec = importlib.util.spec_from_file_location("virtbed_plan", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    refused = module.FilterModule().filters()["virtbed_refused"]
    found = encode(report())
    assert refused(found, "functional") == ""
    found["facts"]["cpu"]["allowed"] = [0]
    assert "2 cores requested, this host offers 1 allowed CPU (0)" in refused(found, "quick")
