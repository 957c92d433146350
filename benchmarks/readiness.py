"""How long each platform takes to be ready, beside the plainest way to the same: `make bench`.

The plain ways are the bare process, `docker run`, and a bare QEMU with the same guest. They and
virtbed's own playbook take turns, so that drift falls on both alike.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import jinja2
import yaml

from virtbed import host, playbooks
from virtbed.design import Instance, design
from virtbed.here import IMAGE
from virtbed.image import REPOSITORY
from virtbed.placement import PlacementError
from virtbed.plan import Application, Plan

NAME = "bench-readiness"
BOOT_S = 600
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PLAIN = {  # the times that a plain way gives, each a row
    "bm": ["the same `bwrap` running `true`"],
    "cn": ["`docker run` of `true`"],
    "vm": ["bare QEMU, until its SSH banner", "bare QEMU, until `true` has run by SSH"],
    "vmcn": ["bare QEMU, until `docker run` of `true` has run by SSH"],
}
CAPTION = """
From nothing until a process has run in the instance; medians. virtbed: its playbook provision.yml,
then `true` in it on metal; in a guest Ansible itself has run there by then. Bare QEMU: the same
kernel, initial ramdisk, disk, machine, CPU model, memory and accelerator, neither pinned nor under
libvirt; its overlay, key and seed are made within its time. It stands for `virt-install --import`
with a cloud image, of which there is none offline. A guest under tcg is emulated: how long it boots
is no figure about virtualization. The ratio compares two emulated guests, and under kvm is another.
"""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=3, help="of each (default: 3; guests: 2)")
    parser.add_argument("--only", choices=PLAIN, help="one platform (default: all)")
    options = parser.parse_args()
    plan = Plan(
        name=NAME,
        replicates=1,
        applications=[Application(name="image_classification", scale="tiny")],
        platforms={name: ["pinned"] for name in PLAIN if options.only in (None, name)},
        cores=[1],
    )
    try:
        with host.alone():
            doctor = host.examine()
            digest = doctor["facts"]["image"]["digest"]
            if not digest:
                sys.exit("no image found on this host, one is needed; run make setup")
            laid = design(plan, doctor)
            instances = {trial.instance.platform: trial.instance for trial in laid.trials}
            print("## Time to ready: seconds, image warm, pinned, 1 core\n")
            print("| platform | accelerator | the plain way | times each | plain s | virtbed s "
                  "| more s | virtbed / plain |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
            with cleared():
                for platform in PLAIN:
                    if platform in instances:
                        compare(instances[platform], digest, options.replicates)
    except (host.HostError, PlacementError) as error:
        sys.exit(f"virtbed: {error}")
    print(CAPTION, *(f"Not run: {n.platform}: {n.reason}" for n in laid.not_run), sep="\n")
    return 0


@contextmanager
def cleared() -> Iterator[None]:
    """Begin with a host that is clear of instances, and leave it so, however this ends."""

    def end(*_: object) -> NoReturn:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        sys.exit("interrupted; what was standing is released")

    for number in SIGNALS:
        signal.signal(number, end)
    try:
        host.clear(host.LOCAL)
        yield
    finally:
        shutil.rmtree(host.RUN / NAME, ignore_errors=True)
        host.clear(host.LOCAL)


def compare(instance: Instance, digest: str, replicates: int) -> None:
    """Print the rows of one platform. Whoever comes first in a turn comes last in the next."""
    turns = replicates if instance.machine == "metal" else min(replicates, 2)
    times: dict[object, list[list[float]]] = {plainly: [], by_virtbed: []}
    for turn in range(turns):
        for way in (plainly, by_virtbed)[:: -1 if turn % 2 else 1]:
            times[way].append(way(instance, digest))
    own = statistics.median(seconds for [seconds] in times[by_virtbed])
    ways = zip(PLAIN[instance.platform], zip(*times[plainly], strict=True), strict=True)
    for label, seconds in ways:
        plain = statistics.median(seconds)
        print(f"| {instance.platform} | {instance.accelerator} | {label} | {turns} | {plain:.3f} "
              f"| {own:.3f} | {own - plain:.3f} | {own / plain:.2f} |", flush=True)  # fmt: skip


def by_virtbed(instance: Instance, digest: str) -> list[float]:
    """Return the seconds that virtbed takes, as a sweep has it; release the instance."""
    keys = host.RUN / NAME
    keys.mkdir(mode=0o700, exist_ok=True)
    variables = {"virtbed_instance": asdict(instance), "virtbed_image_digest": digest,
                 "virtbed_run_dir": str(keys)}  # fmt: skip
    begun = time.monotonic()
    with host.affinity_restored():
        host.keep_to(instance.housekeeping)
        outcome = playbooks.play("provision", variables, [host.LOCAL])
        if outcome.ok and instance.machine == "metal":
            subprocess.run([*entered(instance, digest), "true"], check=True)
    ready = time.monotonic() - begun
    released = playbooks.play("release", variables, [host.LOCAL])
    shutil.rmtree(keys)
    if not (outcome.ok and released.ok):
        sys.exit(f"{instance.id}: {outcome.message or released.message}")
    return [ready]


def entered(instance: Instance, digest: str) -> list[str]:
    """Return what starts a process in an instance on metal, as the enclosure's role has it."""
    role = REPOSITORY / "roles" / f"enclosure_{instance.enclosure}" / "vars" / "main.yml"
    said = yaml.safe_load(role.read_text())
    said["__enclosure_process_image"] = str(IMAGE.parent / digest[7:23])
    parts = [f"__enclosure_process_{part}" for part in ("free", "pin", "enter")]
    words = said.get("enclosure_docker_argv") or [word for part in parts for word in said[part]]
    return [jinja2.Template(word).render(said, virtbed_instance=instance) for word in words]


def plainly(instance: Instance, digest: str) -> list[float]:
    """Return the seconds that the plain way takes, one for each row; leave nothing."""
    command = entered(instance, digest) if instance.platform == "bm" else []
    if instance.enclosure == "docker":
        command = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp",
                   f"--memory={instance.memory_mib}M", f"--cpuset-cpus={instance.inner_cpus}",
                   f"--cpuset-mems={instance.inner_mems}",
                   f"virtbed/rootfs:{digest[7:23]}"]  # fmt: skip
    begun = time.monotonic()
    if instance.machine == "metal":
        subprocess.run([*command, "true"], check=True)
        return [time.monotonic() - begun]
    start = "systemctl start docker && " if instance.enclosure == "docker" else ""
    with bare_guest(instance, IMAGE.parent / digest[7:23]) as ssh:
        banner = time.monotonic() - begun
        subprocess.run([*ssh, start + shlex.join([*command, "true"])], check=True)
        ran = time.monotonic() - begun
    return [banner, ran][-len(PLAIN[instance.platform]) :]


@contextmanager
def bare_guest(instance: Instance, image: Path) -> Iterator[list[str]]:
    """Boot a guest without libvirt; give what runs a command in it, once its SSH has answered."""
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
        key, seed, overlay = (f"{folder}/{name}" for name in ("key", "seed.tar", "overlay.qcow2"))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with tarfile.open(seed, "w") as tar:  # one key for the guest and for who may log in
            tar.add(key, "etc/ssh/ssh_host_ed25519_key")
            tar.add(f"{key}.pub", "root/.ssh/authorized_keys")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                        "-b", image / "disk.raw", overlay], check=True)  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        argv = [
            "setpriv", "--pdeathsig=KILL",  # lest it outlives a benchmark that is killed
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35", "-accel", instance.accelerator,
            "-cpu", "host" if instance.accelerator == "kvm" else "max",
            "-smp", str(instance.cores), "-m", str(instance.memory_mib),
            "-kernel", image / "vmlinuz", "-initrd", image / "initrd.img",
            "-append", "root=/dev/vda rw console=ttyS0", "-serial", f"file:{folder}/console.log",
            "-drive", f"file={overlay},format=qcow2,if=none,id=disk",
            "-device", "virtio-blk-pci,drive=disk",
            "-drive", f"file={seed},format=raw,if=none,id=seed,readonly=on",
            "-device", "virtio-blk-pci,drive=seed,serial=virtbed-seed", "-device", "virtio-rng-pci",
            "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22",
            "-device", "virtio-net-pci,netdev=net,bus=pcie.0,addr=0x10",
        ]  # fmt: skip
        with subprocess.Popen(argv) as qemu:
            try:
                await_banner(port, qemu)
                yield ["ssh", "-F", "none", "-p", str(port), "-i", key, "-o", "BatchMode=yes",
                       "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                       "-o", "LogLevel=ERROR", "root@127.0.0.1"]  # fmt: skip
            finally:
                qemu.kill()


def await_banner(port: int, qemu: subprocess.Popen[bytes]) -> None:
    """Wait until the guest's SSH has said its name on the loopback port."""
    deadline = time.monotonic() + BOOT_S
    while qemu.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as guest:
            if guest.recv(4) == b"SSH-":
                return
        time.sleep(0.1)
    sys.exit(f"the bare guest's SSH is silent ({BOOT_S} s at most; QEMU's status: {qemu.poll()})")


if __name__ == "__main__":
    sys.exit(main())
