"""Tests of a GPU's CDI document, and of the options for engines that cannot read it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from virtbed_contract import cdi
from virtbed_contract.documents import InstanceGpu
from virtbed_contract.privileges import PROCESS
from virtbed_contract.tree import enter

GPU = InstanceGpu(
    uuid="GPU-1", functions=("0000:41:00.0", "0000:41:00.1"), window_mib=256 * 1024,
    nodes=("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"),
    libraries={"libnvidia-ml.so.1": "/lib/x/libnvidia-ml.so.1",
               "libcuda.so.1": "/lib/x/libcuda.so.1"},
)  # fmt: skip


def objects(needed: list[str], **properties: Any) -> dict[str, Any]:
    """Return the schema of an object without further keys, since engines refuse unknown keys."""
    return {
        "type": "object", "required": needed, "properties": properties,
        "additionalProperties": False,
    }  # fmt: skip


def lists(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


TEXT, PATH, NUMBER = {"type": "string"}, {"type": "string", "pattern": "^/"}, {"type": "integer"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
EDITS = objects(
    [],
    env=lists({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*="}),
    deviceNodes=lists(objects(
        ["path"], path=PATH, hostPath=PATH, type={"enum": ["b", "c", "u", "p"]}, major=NUMBER,
        minor=NUMBER, fileMode=NUMBER, permissions={"type": "string", "pattern": "^[rwm]*$"},
        uid=NUMBER, gid=NUMBER,
    )),
    mounts=lists(objects(
        ["hostPath", "containerPath"], hostPath=PATH, containerPath=PATH, options=lists(TEXT),
        type=TEXT,
    )),
    hooks=lists(objects(
        ["hookName", "path"], hookName=TEXT, path=PATH, args=lists(TEXT), env=lists(TEXT),
        timeout=NUMBER,
    )),
    additionalGids=lists(NUMBER),
)  # fmt: skip
# Written from the text of the specification, version 1.0. It is stricter than the specification's
# own schema: the kind needs a vendor and a class.
CDI = objects(
    ["cdiVersion", "kind", "devices"],
    cdiVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    kind={"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9.-]*[A-Za-z0-9]/[A-Za-z][\w-]*$"},
    annotations=TEXTS,
    containerEdits=EDITS,
    devices={
        **lists(objects(
            ["name", "containerEdits"],
            name={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:-]*$"},
            annotations=TEXTS, containerEdits=EDITS,
        )),
        "minItems": 1,
    },
)  # fmt: skip
CHECK = jsonschema_rs.validator_for(CDI)


def test_the_document_is_valid() -> None:
    CHECK.validate(json.loads(json.dumps(cdi.document(GPU))))


@pytest.mark.parametrize("broken", ["kind", "cdiVersion", "devices"])
def test_an_invalid_document_is_found(broken: str) -> None:
    document = cdi.document(GPU)
    assert not CHECK.is_valid({name: document[name] for name in document if name != broken})
    assert not CHECK.is_valid(document | {"hooks": []})
    assert not CHECK.is_valid(document | {"kind": "gpu"})


def test_the_document_has_every_node_and_library_and_nothing_else() -> None:
    (device,) = cdi.document(GPU)["devices"]
    edits = device["containerEdits"]
    assert [node["hostPath"] for node in edits["deviceNodes"]] == list(GPU.nodes)
    assert all(node["permissions"] == "rw" and "m" not in node for node in edits["deviceNodes"])
    mounted = {mount["containerPath"]: mount["hostPath"] for mount in edits["mounts"]}
    assert mounted == {f"{cdi.FOLDER}/{name}": file for name, file in GPU.libraries.items()}
    assert all("ro" in mount["options"] for mount in edits["mounts"])
    assert edits["env"] == [f"LD_LIBRARY_PATH={cdi.FOLDER}"] and "hooks" not in edits


def parsed(options: list[str]) -> dict[str, list[str]]:
    """Return the values of each option, in their order."""
    found: dict[str, list[str]] = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        found.setdefault(option, []).append(value)
    return found


def test_options_have_the_same_effect_as_the_document() -> None:
    (device,) = cdi.document(GPU)["devices"]
    edits = device["containerEdits"]
    assert parsed(cdi.spelled_out(GPU)) == {
        "--device": [
            f"{n['hostPath']}:{n['path']}:{n['permissions']}" for n in edits["deviceNodes"]
        ],
        "--mount": [
            f"type=bind,source={m['hostPath']},target={m['containerPath']},readonly"
            for m in edits["mounts"]
        ],
        "--env": edits["env"],
    }
    assert parsed(cdi.named()) == {
        "--device": ["virtbed.local/gpu=instance"],
        "--env": edits["env"],
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_process_on_metal_has_the_nodes_and_libraries_and_nothing_else(tmp_path: Path) -> None:
    """Uses a device node and a file as stand-ins, in a namespace like that of a trial."""
    library = tmp_path / "libcuda.so.535"
    library.write_text("stand-in")
    node = "/dev/cpu_dma_latency"
    gpu = replace(GPU, nodes=(node,), libraries={"libcuda.so.1": str(library)})
    look = (
        "import os, json; nodes = {n: os.lstat(f'/dev/{n}').st_rdev for n in os.listdir('/dev')}; "
        "libraries = {n: open(f'/opt/nvidia/{n}').read() for n in os.listdir('/opt/nvidia')} "
        "if os.path.isdir('/opt/nvidia') else {}; "
        "print(json.dumps([nodes, libraries, os.environ.get('LD_LIBRARY_PATH')]))"
    )

    def seen(*more: str) -> Any:
        command = [*enter("/", more=more), *PROCESS, "/usr/bin/python3", "-c", look]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        return json.loads(done.stdout)

    without, found = seen(), seen(*cdi.entered(gpu))
    assert set(found[0]) - set(without[0]) == {"cpu_dma_latency"}
    assert found[0]["cpu_dma_latency"] == Path(node).stat().st_rdev
    assert found[1:] == [{"libcuda.so.1": "stand-in"}, cdi.FOLDER]
    assert without[1] == {}


def test_a_gpu_adds_no_privilege() -> None:
    words = [*cdi.spelled_out(GPU), *cdi.named(), *cdi.entered(GPU)]
    assert not {"--privileged", "--cap-add", "--security-opt", "--gpus"} & {*words}


def test_a_library_path_with_a_comma_is_refused() -> None:
    odd = InstanceGpu(None, GPU.functions, 1, (), {"libcuda.so.1": "/a,b/libcuda.so.1"})
    with pytest.raises(ValueError, match="/a,b/libcuda"):
        cdi.spelled_out(odd)
    CHECK.validate(cdi.document(odd))
