"""Ratios of two kernels are marked, and the costs of kernel and KVM are separated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from virtbed.render.results import mark_lines
from virtbed_analysis import Question, advise, compare
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render

from .conftest import Folder, Json

CLOUD = "6.1.0-48-cloud-amd64"
KERNEL = {
    "release": "6.1.0", "version": "#1 SMP", "file": "/boot/vmlinuz-6.1.0",
    "digest": "sha256:" + "d" * 64, "modules": "/lib/modules/6.1.0", "config": "/boot/config-6.1.0",
}  # fmt: skip


def guest(folder: Folder, replicate: int, kernel: str, ms: float, **changes: Any) -> str:
    """Add a trial of a guest, with what its evidence says of its kernel."""
    name = folder.trial("vm", "pinned", replicate, {"a": [ms]}, guest_kernel=kernel)
    factors = {"guest_kernel": kernel, "guest_topology": "flat", "variant": "plain"}
    own = kernel == "host"
    if not own:
        folder.edit(f"trials/{name}/result.json", lambda r: r["environment"].update(kernel=CLOUD))
    requested = {"factors": factors, "kernel": KERNEL if own else None} | changes

    def say(evidence: Json) -> None:
        evidence["asked"].update(requested)
        if own:
            seen = {"kernel": {"release": "6.1.0", "version": "#1 SMP"}}
            for moment in ("before", "after"):
                evidence[moment]["machine"].setdefault("guest", seen)

    folder.edit(f"trials/{name}/evidence.json", say)
    return name


@pytest.fixture
def both(folder: Folder) -> Folder:
    """A guest of 24% overhead, 20% of them its kernel's; a container next to it."""
    for replicate in (1, 2, 3, 4):
        bare = 20.0 + replicate
        folder.trial("bm", "pinned", replicate, {"a": [bare]})
        folder.trial("cn", "pinned", replicate, {"a": [bare * 1.1]})
        guest(folder, replicate, "image", bare * 1.2 * 1.05 + replicate / 1000)
        guest(folder, replicate, "host", bare * 1.05)
    return folder


def test_a_ratio_of_two_kernels_is_marked_and_others_are_not(both: Folder) -> None:
    content = document(read_sweep(both.path))
    assert content["rejected"] == []
    reported = {(c["platform"], c["guest_kernel"]): c["kernels"] for c in content["cells"]}
    note = f"kernel {CLOUD}, bare metal's 6.1.0"
    assert reported == {
        ("bm", "image"): None, ("cn", "image"): None, ("vm", "host"): None, ("vm", "image"): note,
    }  # fmt: skip
    page = render(content)
    note = note.replace("'", "&#39;")
    # Every cell, the first screen, the next instance, and each table of another measure.
    assert page.count(note) >= 3
    assert page.count(">two kernels</a>") >= 2
    shown = [
        *content["next_instance"],
        *(row for table in content["other_measures"] for row in table["rows"]),
        *(cell for one in content["headline"]["applications"] for option in one["options"]
          for cell in option["cells"]),
    ]  # fmt: skip
    guests = [row for row in shown if row["platform"] == "vm"]
    assert guests
    images = [row for row in guests if row.get("guest_kernel", "image") == "image"]
    kernels = [
        {mark["why"] for mark in row["marks"] if mark["text"] == "two kernels"} for row in images
    ]
    assert kernels == [{note.replace("&#39;", "'")}] * len(images)
    assert not any("kernels" in str(row["marks"]) for row in shown if row["platform"] != "vm")


def test_the_costs_of_kernel_and_kvm_are_separated(both: Folder) -> None:
    content = document(read_sweep(both.path))
    (table,) = content["guest_factors"]
    (row,) = table["rows"]
    assert (table["name"], row["platform"], row["guest_kernel"]) == ("guest_kernel", "vm", "host")
    assert row["ratio"] == pytest.approx(1.2, rel=1e-3)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["rest"] == pytest.approx(1.05, rel=1e-3)
    assert "Guests taken apart: guest kernel" in render(content)
    json.dumps(content)


def test_with_one_kernel_costs_are_not_separated(folder: Folder) -> None:
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 + replicate]})
        guest(folder, replicate, "host", 22.0 + replicate)
    content = document(read_sweep(folder.path))
    assert content["guest_factors"] == []
    assert {
        c["platform"]: c["ratio_replicates"] for c in content["cells"] if not c["baseline"]
    } == {"vm": 3}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"kernel": None}, "its evidence has guest_kernel host, but its instance"),
        ({"factors": {"guest_kernel": "image"}}, "is labelled guest_kernel 'host'"),
        ({"kernel": {**KERNEL, "version": "#2 SMP"}}, "the host's, 6.1.0 #2 SMP, is needed"),
        ({"kernel": {**KERNEL, "release": "6.1.1"}}, "the host's, 6.1.1 #1 SMP, is needed"),
    ],
)
def test_a_result_whose_label_contradicts_its_evidence_is_left_out(
    both: Folder, message: Json, why: str
) -> None:
    name = "vm-pinned-c01-host_kernel-image_classification-r02"
    both.edit(f"trials/{name}/evidence.json", lambda e: e["asked"].update(message))
    (left,) = document(read_sweep(both.path))["rejected"]
    assert name in left["file"]
    assert why in left["reason"]


def test_a_guest_of_two_nodes_balances_memory_and_one_of_one_node_does_not(folder: Folder) -> None:
    """Linux sets numa_balancing where it finds nodes to balance: no change of the host between."""
    for cores in (1, 2):
        folder.trial("bm", "pinned", 1, {"a": [20.0]}, cores=cores)
        name = folder.trial(
            "vm", "pinned", 1, {"a": [22.0]}, cores=cores, guest_topology="host"
        )  # fmt: skip
        shape_of(folder, name, cores)
    sweep = read_sweep(folder.path)
    assert sweep.rejected == []
    kinds = set(sweep.trials.filter(pl.col("platform") == "vm")["kernel_kind"])
    assert kinds == {"kvm and host's topology", "kvm and host's topology and 2 nodes"}


def shape_of(folder: Folder, name: str, cores: int) -> None:
    """Let the evidence of a guest tell that each of its CPUs is a socket and a node."""
    places = [str(cpu) for cpu in range(cores)]
    shape = {
        "packages": places, "cores": places, "nodes": places, "caches": {"L2 Unified 1M": places},
    }  # fmt: skip
    nodes = [
        {"host": n, "vcpus": str(n), "memory_mib": 1024, "distances": [10, 10]}
        for n in range(cores if cores > 1 else 0)
    ]

    def say(evidence: Json) -> None:
        evidence["asked"] |= {
            "factors": {"guest_kernel": "image", "guest_topology": "host", "variant": "plain"},
            "shape": {"sockets": cores, "cores": 1, "threads": 1, "vcpus": list(range(cores)),
                      "nodes": nodes},
        }  # fmt: skip
        for moment in ("before", "after"):
            evidence[moment]["machine"] |= {
                "topology": {"sockets": cores, "cores": 1, "threads": 1, "cache": "passthrough",
                             "cells": [node["vcpus"] for node in nodes]},
                "guest": {"shape": shape}, "host": {"shape": shape},
            }  # fmt: skip

    folder.edit(f"trials/{name}/evidence.json", say)
    scheduler = f"numa_balancing {int(cores > 1)}"
    folder.edit(
        f"trials/{name}/result.json",
        lambda r: r["environment"]["kernel_settings"].update(scheduler=scheduler),
    )


def test_a_comparison_names_the_cells_that_it_leaves_out(both: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other")
    for replicate in (1, 2, 3):
        other.trial("bm", "pinned", replicate, {"a": [19.0 + replicate / 7]})
        guest(other, replicate, "image", 25.0 + replicate / 7)
    content = compare(both.path, other.path)
    assert [row["platform"] for row in content["cells"]] == ["bm", "vm"]
    assert "Cells with guest_kernel host are not compared" in content["summary"]
    third = Folder(tmp_path / "third")
    for replicate in (1, 2, 3):
        third.trial("bm", "pinned", replicate, {"a": [18.0 + replicate / 9]})
        guest(third, replicate, "image", 26.0 + replicate / 9)
    assert "not compared" not in compare(other.path, third.path)["summary"]


def test_the_terminal_marks_ratios_of_two_kernels_in_a_choice(both: Folder) -> None:
    sweep = read_sweep(both.path)
    advice = advise(sweep, Question("image_classification"))
    of_kernels = {
        row["platform"]: [m for m in row["marks"] if m["text"] == "two kernels"]
        for row in advice["candidates"]
    }
    assert {platform for platform, marks in of_kernels.items() if marks} == {"vm"}
    (line,) = (one for one in mark_lines(advice["candidates"]) if "two kernels" in one)
    assert line.startswith(f"marked: two kernels (kernel {CLOUD}, bare metal's 6.1.0): ")
    assert line.endswith(", vm pinned, 1 core")
