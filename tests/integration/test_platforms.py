"""All four platforms for real: one trial in each, attested, and nothing left behind."""

from __future__ import annotations

from typing import Any

import jsonschema

from virtbed_workloads.registry import APPLICATIONS
from virtbed_workloads.schema import result_schema

from .conftest import NOTHING, read, run, traces


def test_every_application_gives_the_same_answers_on_four_platforms(write_plan: Any) -> None:
    """And every trial is attested, and nothing is left behind."""
    names = [name for name, entry in APPLICATIONS.items() if not entry.hidden]
    plan, folder = write_plan(
        "platforms",
        platforms={
            "bm": ["pinned"],
            "cn": ["vanilla", "pinned"],
            "vm": ["pinned"],
            "vmcn": ["vanilla"],
        },
        applications=[{"name": name, "scale": "tiny", "samples": 2, "warmup": 1} for name in names],
    )
    done = run("virtbed", "sweep", plan)
    assert traces() == NOTHING
    results = {p.parent.name: read(p) for p in (folder / "trials").glob("*/result.json")}
    assert sorted(results) == sorted(
        f"{cell}-c01-{name}-r01"
        for cell in ("bm-pinned", "cn-pinned", "cn-vanilla", "vm-pinned", "vmcn-vanilla")
        for name in names
    )
    assert "[25/25]" in done.stdout
    accelerator = read(folder / "design.json")["accelerator"]
    for name, result in results.items():
        jsonschema.validate(result, result_schema())
        evidence = read(folder / "trials" / name / "evidence.json")
        assert evidence["attested"] is True
        assert evidence["before"]["enclosure"] and evidence["after"]["enclosure"]
        guest = result["trial"]["machine"] == "kvm"
        assert result["trial"]["accelerator"] == (accelerator if guest else "none")
        assert result["trial"]["emulated"] == (guest and accelerator == "tcg")
        assert result["answers"]["checked"] == len(result["samples"])
        assert result["startup"]["spawn_ns"] > 0
    answers = {(r["trial"]["application"], r["answers"]["digest"]) for r in results.values()}
    assert sorted(name for name, _ in answers) == sorted(names)
    inside = {
        name.split("-c01")[0]: result["environment"]
        for name, result in results.items()
        if result["trial"]["application"] == "image_classification"
    }
    assert inside["bm-pinned"]["affinity"] == inside["cn-pinned"]["affinity"]
    assert len(inside["bm-pinned"]["affinity"]) == 1
    assert inside["bm-pinned"]["memory_policy"].startswith("bind:")
    assert inside["cn-vanilla"]["cgroup"]["quota_cpus"] == 1.0
    assert inside["vm-pinned"]["cpus_visible"] == inside["vmcn-vanilla"]["cpus_visible"] == 1
    pinned = read(folder / "trials" / "vm-pinned-c01-image_classification-r01" / "evidence.json")
    (thread,) = pinned["after"]["machine"]["vcpu_threads"]
    assert thread["cpus_allowed_list"] == pinned["asked"]["cpus"]
    report = read(folder / "report.json")
    assert report["answers_differ"] == []
    shown = {(c["platform"], "ratio" in c) for c in report["emulated"]}
    assert shown == ({("vm", False), ("vmcn", False)} if accelerator == "tcg" else set())
