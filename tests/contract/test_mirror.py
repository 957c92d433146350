"""tests/unit mirrors the sources: each module has a test file of its name, or one listed here.

The test file of a module is tests/unit/MEMBER/test_MODULE.py, or in a subfolder like the module's,
or with the subfolder in its name. Applications are tested in tests/applications. Modules that are
tested in another file are listed in `ELSEWHERE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from virtbed.checkout import REPOSITORY

TESTS = REPOSITORY / "tests"
MEMBERS = {
    "virtbed": "python/virtbed",
    "analysis": "analysis/virtbed_analysis",
    "contract": "contract/virtbed_contract",
    "workloads": "workloads/virtbed_workloads",
}
_CLI, _REPORT, _FINDINGS = (
    "unit/virtbed/test_cli.py", "unit/analysis/test_report.py", "unit/analysis/test_findings.py",
)  # fmt: skip
_SWEEP, _STATUS = "unit/virtbed/test_sweep.py", "unit/virtbed/test_status.py"
_FLEET, _SLURM = "unit/virtbed/test_fleet.py", "unit/virtbed/test_slurm.py"
_MERGING = "unit/virtbed/test_merging.py"
_APPLICATIONS = "applications/test_{}.py"
# The test file of each module that has none of its own.
ELSEWHERE = {
    "virtbed/cli/documents": _CLI,
    "virtbed/cli/hosts": _CLI,
    "virtbed/cli/images": "unit/virtbed/test_image_diff.py",
    "virtbed/cli/lab": "unit/virtbed/lab/test_server.py",
    "virtbed/cli/results": _CLI,
    "virtbed/cli/sweeps": _CLI,
    "virtbed/fleet_ledger": _FLEET,
    "virtbed/host_status": _STATUS,
    "virtbed/ledger_view": _STATUS,
    "virtbed/lab/prepared": "unit/virtbed/lab/test_digests.py",
    "virtbed/lab/recipe": "unit/virtbed/lab/test_digests.py",
    "virtbed/merging/choosing": _MERGING,
    "virtbed/merging/joining": _MERGING,
    "virtbed/merging/sources": _MERGING,
    "virtbed/render/explained": "unit/virtbed/test_explain.py",
    "virtbed/render/results": "unit/virtbed/test_render_table.py",
    "virtbed/slurm/allocation": _SLURM,
    "virtbed/slurm/asking": _SLURM,
    "virtbed/slurm/inputs": _SLURM,
    "virtbed/slurm/job": _SLURM,
    "virtbed/slurm/submission": _SLURM,
    "virtbed/sweep/blocks": _SWEEP,
    "virtbed/sweep/call": _FLEET,
    "virtbed/sweep/elsewhere": "unit/virtbed/test_shards.py",
    "virtbed/sweep/judging": _MERGING,
    "virtbed/sweep/joining": _FLEET,
    "virtbed/sweep/precision": "unit/analysis/test_precision.py",
    "virtbed/sweep/recording": _SWEEP,
    "virtbed/sweep/several": _FLEET,
    "virtbed/sweep/worker": _FLEET,
    "analysis/answers": _FINDINGS,
    "analysis/candidates": "unit/analysis/test_best.py",
    "analysis/checking": "unit/analysis/test_hostile_files.py",
    "analysis/choosing": "unit/analysis/test_headline.py",
    "analysis/claims": _FINDINGS,
    "analysis/context": _FINDINGS,
    "analysis/crate": "unit/analysis/test_archive.py",
    "analysis/differences": "unit/analysis/test_unlike.py",
    "analysis/doubts": "unit/analysis/test_robust.py",
    "analysis/errors": "unit/analysis/test_functional.py",
    "analysis/frames": "unit/analysis/test_load.py",
    "analysis/host_by_host": "unit/analysis/test_hosts.py",
    "analysis/inputs": "unit/analysis/test_within_cells.py",
    "analysis/kernels": "unit/analysis/test_likeness.py",
    "analysis/likenesses": "unit/analysis/test_likeness.py",
    "analysis/loadgen": "unit/analysis/test_loadgen_table.py",
    "analysis/members": "unit/analysis/test_archive.py",
    "analysis/neighbours": "unit/analysis/test_isolation.py",
    "analysis/next_instance": "unit/analysis/test_model.py",
    "analysis/page": _REPORT,
    "analysis/per_trial": "unit/analysis/test_other_measures.py",
    "analysis/provenance": _REPORT,
    "analysis/question": "unit/analysis/test_best.py",
    "analysis/reading": "unit/analysis/test_files.py",
    "analysis/reasons": "unit/analysis/test_advice_text.py",
    "analysis/reduction": "unit/analysis/test_engine.py",
    "analysis/run_order": "unit/analysis/test_diagnostics.py",
    "analysis/samples_per_trial": "unit/analysis/test_diagnostics.py",
    "analysis/suspects": "unit/analysis/test_suspicion.py",
    "analysis/trust": "unit/analysis/test_hostile_files.py",
    "analysis/unmeasured": "unit/analysis/test_model.py",
    "analysis/waterfall": "unit/analysis/test_explained.py",
    "analysis/weaknesses": "unit/analysis/test_published.py",
    "contract/events": "unit/virtbed/test_outcome.py",
    "contract/factors": "unit/contract/test_factors_and_measures.py",
    "contract/gpu_refusals": "unit/virtbed/test_gpu.py",
    "contract/guest": "unit/contract/kernel/test_shape.py",
    "contract/kernel/nvidia": "unit/contract/test_gpus.py",
    "contract/likeness": "unit/analysis/test_likeness.py",
    "contract/measures": "unit/contract/test_factors_and_measures.py",
    "contract/result": "unit/contract/test_documents.py",
    "contract/schemas": "unit/contract/test_documents.py",
    "contract/surroundings": "unit/contract/kernel/test_moments.py",
    "contract/sweep": "unit/contract/test_documents.py",
    "contract/tree": "unit/virtbed/test_here.py",
    "workloads/__main__": "unit/workloads/test_harness.py",
    "workloads/contract": "unit/workloads/test_null.py",
    "workloads/schema": "unit/workloads/test_harness.py",
    "workloads/models/basic_pitch": _APPLICATIONS.format("audio_transcription"),
    "workloads/models/bert": _APPLICATIONS.format("question_answering"),
    "workloads/models/conformer": _APPLICATIONS.format("audio_transcription"),
    "workloads/models/efficientnet_lite": _APPLICATIONS.format("image_classification"),
    "workloads/models/mtcnn": _APPLICATIONS.format("face_detection"),
    "workloads/models/resnet": _APPLICATIONS.format("image_classification"),
    "workloads/models/seeded": _APPLICATIONS.format("backend"),
    "workloads/models/ssd_mobilenet": _APPLICATIONS.format("face_detection"),
    "workloads/models/tensorflow_file": _APPLICATIONS.format("face_detection"),
    "workloads/models/unet": _APPLICATIONS.format("medical_segmentation"),
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module as MEMBER/PATH, with its path below its package."""
    for member, folder in MEMBERS.items():
        base = REPOSITORY / folder
        for path in sorted(base.rglob("*.py")):
            below = path.relative_to(base).with_suffix("")
            if below.name != "__init__":
                yield f"{member}/{below}", below


def mirrors(member: str, below: Path) -> list[Path]:
    """Return the paths at which a module's own test file may be."""
    folder = TESTS / "unit" / member
    names = {f"test_{below.name}.py", f"test_{'_'.join(below.parts)}.py"}
    places = {folder, folder / below.parent}
    places |= {TESTS / "applications"} if member == "workloads" else set()
    return [where / name for where in places for name in names]


LACKING = {
    module
    for module, below in modules()
    if not any(path.is_file() for path in mirrors(module.partition("/")[0], below))
}


def test_every_module_has_its_own_test_file_or_is_listed_with_another() -> None:
    assert len({*modules()}) > 150
    new, gone = sorted(LACKING - ELSEWHERE.keys()), sorted(ELSEWHERE.keys() - LACKING)
    assert new == [], "write tests/unit/MEMBER/test_MODULE.py, or add the test file to ELSEWHERE"
    assert gone == [], "has its own test file or does not exist: remove it from ELSEWHERE"


@pytest.mark.parametrize("where", sorted({*ELSEWHERE.values()}))
def test_a_file_that_is_listed_for_a_module_contains_tests(where: str) -> None:
    assert "\ndef test_" in (TESTS / where).read_text(encoding="utf-8")
