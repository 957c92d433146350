"""What the first screen warns of that no ratio shows."""

from __future__ import annotations

from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep

from .conftest import Folder


def test_sizes_without_bare_metal_have_a_warning(folder: Folder) -> None:
    for replicate, wobble in enumerate([1.0, 1.01, 0.99, 1.005], start=1):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 * wobble]})
        for cores in (1, 2, 4):
            times = {"a": [20.0 * wobble**2 / cores]}
            folder.trial("cn", "pinned", replicate, times, cores=cores)
    screen = document(read_sweep(folder.path))["headline"]
    texts = [row["text"] for row in screen["warnings"]]
    assert (
        "2 cells have no pinned bare metal to compare with, and no part in this summary: "
        "container, pinned (cn pinned) at 2 cores; container, pinned (cn pinned) at 4 cores."
    ) in texts


def test_a_warning_about_one_thing_is_in_the_singular(folder: Folder) -> None:
    for replicate, wobble in enumerate([1.0, 1.01, 0.99], start=1):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 * wobble]})
        folder.trial("cn", "pinned", replicate, {"a": [20.0 * wobble**2]})
    folder.write("trials/no-trial/result.json", {})
    content = document(read_sweep(folder.path))
    assert content["counts"]["rejected"] == 1
    texts = [row["text"] for row in content["headline"]["warnings"]]
    assert "1 file left out, which cannot be trusted." in texts
