"""Four real platforms: trials in each are attested, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema

from virtbed_contract.privileges import USER
from virtbed_workloads.registry import APPLICATIONS
from virtbed_workloads.schema import result_schema

from . import leaving
from .conftest import NOTHING, read, run, traces


def test_applications_give_the_same_answers_on_four_platforms(
    write_plan: Any, quick: Any, tmp_path: Path
) -> None:
    """Also: every trial is attested, nothing is left behind, and no attempt to escape succeeds.

    An emulated trial takes minutes. So guests run one application per kind of model, and a
    container in a guest only that of plans/quick.yml, because another enclosure does not change
    arithmetic.
    """
    names = [name for name, entry in APPLICATIONS.items() if not entry.hidden]
    sweeps = {
        "platforms": (
            {"bm": ["pinned"], "cn": ["vanilla", "pinned"]},
            names,
            leaving.into_container("virtbed-cn-pinned-c01-r01"),
        ),
        "guest": (
            {"vm": ["pinned"]},
            ["question_answering", "audio_transcription"],
            leaving.into_guest("test-guest"),
        ),
    }
    folders = [quick[0]]
    for sweep, (platforms, applications, enter) in sweeps.items():
        entries = [
            {"name": name, "scale": "tiny", "samples": 3, "warmup": 1} for name in applications
        ]
        plan, folder = write_plan(
            sweep, platforms=platforms, applications=entries,
            emulated={"scale": "tiny", "samples": 3, "warmup": 1},
        )  # fmt: skip
        with leaving.tried(tmp_path, enter) as succeeded:
            done = run("virtbed", "sweep", plan)
        assert succeeded() == [], sweep
        assert traces() == NOTHING
        count = sum(map(len, platforms.values())) * len(applications)
        assert f"[{count}/{count}]" in done.stdout
        assert sorted(path.parent.name for path in folder.glob("trials/*/result.json")) == sorted(
            f"{platform}-{mode}-c01-{name}-r01"
            for platform, modes in platforms.items()
            for mode in modes
            for name in applications
        )
        folders.append(folder)
    trials = [path.parent for folder in folders for path in folder.glob("trials/*/result.json")]
    results = {trial: read(trial / "result.json") for trial in trials}
    accelerator = read(folders[0] / "design.json")["accelerator"]
    for trial, result in results.items():
        jsonschema.validate(result, result_schema())
        evidence = read(trial / "evidence.json")
        assert evidence["attested"] is True
        assert evidence["before"]["enclosure"] and evidence["after"]["enclosure"]
        guest = result["trial"]["machine"] == "kvm"
        assert result["trial"]["accelerator"] == (accelerator if guest else "none")
        assert result["trial"]["emulated"] == (guest and accelerator == "tcg")
        assert result["answers"]["checked"] == len(result["samples"])
        assert result["startup"]["spawn_ns"] > 0
        seccomp = "filter" if result["trial"]["enclosure"] == "docker" else "none"
        assert result["environment"]["privileges"] == {
            "users": [USER],
            "groups": [USER],
            "capabilities": "0",
            "no_new_privileges": True,
        }
        assert result["environment"]["process_settings"]["seccomp"] == seccomp
        if guest and result["trial"]["enclosure"] == "process":
            # An emulated kernel may log messages; required is only that their number is known.
            assert result["confounders"]["moved"]["messages"] is not None
    answers: dict[tuple[str, str, int], set[str]] = {}
    for result in results.values():
        asked = (result["trial"]["application"], result["trial"]["scale"], len(result["samples"]))
        answers.setdefault(asked, set()).add(result["answers"]["digest"])
    assert {name for name, scale, _ in answers if scale == "tiny"} == set(names)
    assert all(len(digests) == 1 for digests in answers.values()), answers
    inside = {
        result["trial"]["platform"] + "-" + result["trial"]["mode"]: result["environment"]
        for result in results.values()
        if result["trial"]["application"] == "image_classification"
        and result["trial"]["cores"] == 1
    }
    assert inside["bm-pinned"]["affinity"] == inside["cn-pinned"]["affinity"]
    assert len(inside["bm-pinned"]["affinity"]) == 1
    assert inside["bm-pinned"]["memory_policy"].startswith("bind:")
    assert inside["cn-vanilla"]["cgroup"]["quota_cpus"] == 1.0
    assert inside["vm-pinned"]["cpus_visible"] == inside["vmcn-pinned"]["cpus_visible"] == 1
    pinned = read(folders[2] / "trials" / "vm-pinned-c01-question_answering-r01" / "evidence.json")
    (thread,) = pinned["after"]["machine"]["vcpu_threads"]
    assert thread["cpus_allowed_list"] == pinned["asked"]["cpus"]
    sbom = read(Path("/var/lib/virtbed/images/current-cpu/sbom.cdx.json"))
    digests = {result["trial"]["image_digest"] for result in results.values()}
    assert digests == {sbom["metadata"]["component"]["version"]}
    parts = {part["purl"].partition("@")[0] for part in sbom["components"]}
    assert parts > {"pkg:deb/debian/docker.io", "pkg:pypi/numpy", "pkg:pypi/virtbed-workloads"}
    for folder, guests in ((folders[0], ("vm", "vmcn")), (folders[2], ("vm",))):
        report = read(folder / "report.json")
        assert report["answers_differ"] == []
        shown = {(c["platform"], "ratio" in c) for c in report["emulated"]}
        emulated = {(guest, False) for guest in guests}
        assert shown == (emulated if accelerator == "tcg" else set())
