"""A container's factors in the engine's command, and the burst of its quota."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from virtbed_contract.codec import encode
from virtbed_contract.documents import Instance, InstanceGpu

from .conftest import REPOSITORY, module

burst = module("enclosure_docker", "quota_burst")

INSTANCE = Instance(
    id="cn-vanilla-c02-r01", platform="cn", machine="metal", enclosure="docker", own_kernel=False,
    private_kernel=False, mode="vanilla", enclosure_limit="quota", cores=2, memory_mib=1024,
    accelerator="none", cpus="2-3", cpu_ids=(2, 3), mems="0", housekeeping="0", allowed="0-3",
    inner_cpus="2-3", inner_mems="0", inner_allowed="0-3", seen_cpus="0-3", quota_cpus=2.0,
    seen_quota_cpus=2.0, image_digest="sha256:" + "a" * 64, image_name="a" * 16,
)  # fmt: skip
PINNED = replace(INSTANCE, mode="pinned", enclosure_limit="set", quota_cpus=None, seen_cpus="2-3")
VARIED: list[dict[str, str]] = [
    {},
    {"seccomp_profile": "unconfined"},
    {"network": "host"},
    {"runtime": "runc"},
    {"cfs_period": "10ms"},
    {"cfs_burst": "full"},
]
WITH_GPU = replace(
    INSTANCE,
    gpu=InstanceGpu(
        uuid=None, functions=("0000:41:00.0",), window_mib=1024, nodes=("/dev/nvidia0",),
        libraries={"libcuda.so.1": "/lib/libcuda.so.1"},
    ),
)  # fmt: skip


def commands(folder: Path, engine: str) -> list[list[str]]:
    """Return the commands that Ansible renders to start a container.

    One for each of `VARIED`, then pinned, with a GPU, and with a GPU in a guest.
    """
    instances = [encode(INSTANCE) | {"factors": factors} for factors in VARIED]
    instances += map(encode, (PINNED, WITH_GPU, replace(WITH_GPU, own_kernel=True)))
    task = {
        "name": "Tell",
        "ansible.builtin.copy": {
            "content": f"{{{{ __enclosure_{engine}_run | to_json }}}}",
            "dest": f"{folder}/{{{{ place }}}}",
            "mode": "0644",
        },
        "vars": {"virtbed_instance": "{{ item }}"},
        "loop": instances,
        "loop_control": {"index_var": "place"},
    }
    file = REPOSITORY / f"roles/enclosure_{engine}/vars/main.yml"
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task],
        "vars_files": [str(file)],
    }  # fmt: skip
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    more = {
        f"ANSIBLE_{kind.upper()}_PLUGINS": str(REPOSITORY / f"playbooks/{kind}_plugins")
        for kind in ("filter", "lookup")
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml"],
        cwd=REPOSITORY, check=False, capture_output=True, text=True, env=os.environ | more,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (json.loads((folder / str(place)).read_text()) for place in range(len(instances)))
    return [[str(word) for word in command] for command in commands]


def test_a_guest_boots_without_mitigations_if_the_factor_says_none(tmp_path: Path) -> None:
    shared = yaml.safe_load((REPOSITORY / "roles/machine_guest/vars/main.yml").read_text())
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False,
        "vars": {
            "cmdline": shared["machine_guest_cmdline"],
            "__machine_guest_hugepages": {"content": "YWx3YXlzIFttYWR2aXNlXSBuZXZlcgo="},
        },
        "tasks": [{
            "name": "Tell",
            "ansible.builtin.copy": {
                "content": "{{ cmdline }}", "dest": f"{tmp_path}/{{{{ place }}}}", "mode": "0644",
            },
            "vars": {"virtbed_instance": "{{ item }}"},
            "loop": [{}, {"factors": {}}, {"factors": {"guest_mitigations": "none"}}],
            "loop_control": {"index_var": "place"},
        }],
    }  # fmt: skip
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml"],
        cwd=REPOSITORY, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    usual = "root=/dev/vda rw console=ttyS0 transparent_hugepage=madvise"
    written = [(tmp_path / str(place)).read_text() for place in range(3)]
    assert written == [usual, usual, f"{usual} mitigations=off"]


def added(command: list[str], reference: list[str]) -> list[str]:
    """Return the words of a command that the reference does not have, in order."""
    left = list(reference)
    words = []
    for word in command:
        if word in left:
            left.remove(word)
        else:
            words.append(word)
    return words


def test_each_factor_changes_only_its_option_of_docker(tmp_path: Path) -> None:
    usual, *varied, pinned, gpu, in_guest = commands(tmp_path, "docker")
    assert "--cpuset-cpus 2-3 --cpuset-mems 0" in " ".join(pinned) and "--cpu-quota" not in pinned
    assert "--network none" in " ".join(usual) and "--runtime" not in usual
    assert "--cpu-period 100000 --cpu-quota 200000" in " ".join(usual)
    assert [added(command, usual) for command in varied] == [
        ["--security-opt", "seccomp=unconfined"],
        ["host"],
        ["--runtime", "runc"],
        ["10000", "20000"],
        [],
    ]
    assert added(gpu, usual) == [
        "--device", "/dev/nvidia0:/dev/nvidia0:rw",
        "--mount",
        "type=bind,source=/lib/libcuda.so.1,target=/opt/nvidia/libcuda.so.1,readonly",
        "--env", "LD_LIBRARY_PATH=/opt/nvidia",
    ]  # fmt: skip
    assert in_guest == usual  # a guest does not have the host's device nodes and libraries


def test_each_factor_changes_only_its_option_of_podman(tmp_path: Path) -> None:
    usual, *varied, _, gpu, in_guest = commands(tmp_path, "podman")
    assert "podman run" in " ".join(usual) and "--network none" in " ".join(usual)
    assert [added(command, usual) for command in varied] == [
        ["--security-opt", "seccomp=unconfined"],
        ["host"],
        ["--runtime", "runc"],
        [],
        [],
    ]
    assert "podman --runtime runc run" in " ".join(varied[2])
    assert added(gpu, usual) == [
        "--device", "virtbed.local/gpu=instance", "--env", "LD_LIBRARY_PATH=/opt/nvidia",
    ]  # fmt: skip
    assert in_guest == usual


def host(root: Path, version: int, **files: str) -> Path:
    """Make a host with a process 7, whose control group has a quota."""
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,cpu,cpuacct"
    quota = {"x/cpu.max": "200000 100000"} if version == 2 else {"x/cpu.cfs_quota_us": "200000"}
    files = {
        "proc/self/mountinfo": f"30 23 0:26 / /sys/fs/cgroup rw - {kind}\n",
        "proc/7/cgroup": "0::/d/x\n" if version == 2 else "1:cpu,cpuacct:/d/x\n0::/\n",
        **{f"sys/fs/cgroup/d/{name}": text for name, text in (quota | files).items()},
    }
    (root / "sys/fs/cgroup/d/x").mkdir(parents=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("version", "name"), [(1, "cpu.cfs_burst_us"), (2, "cpu.max.burst")])
def test_the_burst_is_set_once_on_the_group_of_the_process(
    tmp_path: Path, version: int, name: str
) -> None:
    root = host(tmp_path, version, **{f"x/{name}": "0\n", name: "0\n"})
    file = root / "sys/fs/cgroup/d/x" / name
    assert burst.set_burst(root, 7, 100_000) == (file, True)
    assert file.read_text() == "100000\n"
    assert (root / "sys/fs/cgroup/d" / name).read_text() == "0\n"
    assert burst.set_burst(root, 7, 100_000) == (file, False)


def test_a_kernel_without_bursts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(burst.BurstError, match=r"has none of cpu\.max\.burst.*Linux 5\.14"):
        burst.set_burst(host(tmp_path, 1), 7, 100_000)
    with pytest.raises(burst.BurstError, match="no control group of process 8"):
        burst.set_burst(tmp_path / "none", 8, 100_000)


@pytest.mark.parametrize(
    ("version", "files"),
    [
        (1, {"x/cpu.cfs_quota_us": "-1", "x/cpu.cfs_burst_us": "0"}),
        (2, {"x/cpu.max": "max 100000", "x/cpu.max.burst": "0"}),
    ],
)
def test_a_group_without_a_quota_of_its_own_is_not_changed(
    tmp_path: Path, version: int, files: dict[str, str]
) -> None:
    root = host(tmp_path, version, **files)
    with pytest.raises(burst.BurstError, match="has no CPU quota of its own, one needed"):
        burst.set_burst(root, 7, 100_000)
    assert (root / "sys/fs/cgroup/d" / list(files)[1]).read_text() == "0"


def test_a_burst_that_the_kernel_refuses_is_an_error(tmp_path: Path) -> None:
    root = host(tmp_path, 1, **{"x/cpu.cfs_burst_us": "0\n"})
    file = root / "sys/fs/cgroup/d/x/cpu.cfs_burst_us"
    file.unlink()
    file.mkdir()
    with pytest.raises(burst.BurstError, match="100000 refused by"):
        burst.set_burst(root, 7, 100_000)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_role_varies_only_registered_factors_and_values(engine: str) -> None:
    from virtbed_contract.factors import default_of, values_of

    meta = yaml.safe_load((REPOSITORY / f"roles/enclosure_{engine}/meta/virtbed.yml").read_text())
    for factor, values in meta["varies"].items():
        assert set(values) <= set(values_of(factor)) - {default_of(factor)}


def test_bursts_are_offered_on_kernels_from_5_14(tmp_path: Path) -> None:
    meta = yaml.safe_load((REPOSITORY / "roles/enclosure_docker/meta/virtbed.yml").read_text())
    command = meta["varies"]["cfs_burst"]["full"]
    (tmp_path / "uname").write_text('#!/bin/sh\necho "$RELEASE"\n')
    (tmp_path / "uname").chmod(0o755)
    for release, offered in (("5.10.0-30-amd64", False), ("5.14.1", True), ("6.1.0-9", True)):
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RELEASE": release}
        done = subprocess.run(command, env=path, check=False, capture_output=True)
        assert (done.returncode == 0) == offered, release
