"""Benchmark of each platform's time to ready, compared with a plain way; part of `make bench`.

The plain ways are the bare process, `docker run`, and a bare QEMU with the same guest. They
alternate with virtbed's own playbook, so that drift affects both.
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
from pathlib import Path
from typing import NoReturn

from virtbed import bench
from virtbed.bench import Bench, BenchError
from virtbed.design import design
from virtbed.here import current_image
from virtbed.placement import PlacementError
from virtbed.plan import Application, Plan
from virtbed.platforms import load_platforms
from virtbed_contract.codec import encode
from virtbed_contract.documents import Instance
from virtbed_contract.tree import enter

NAME = "bench-readiness"
BOOT_S = 600
HOST = Bench(hung_after_s=BOOT_S)
IMAGES = current_image().parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PLAIN = {  # per platform, the times that its plain way gives, one row each
    "bm": ["the same `bwrap` running `true`"],
    "cn": ["`docker run` of `true`"],
    "vm": ["bare QEMU, until its SSH banner", "bare QEMU, until `true` has run by SSH"],
    "vmcn": ["bare QEMU, until `docker run` of `true` has run by SSH"],
}
CAPTION = """
Medians of the time from nothing until a process has run in the instance. virtbed: its playbook
provision, then `true` in the instance on metal; in a guest, Ansible itself has already run. Bare
QEMU: the same kernel, initial ramdisk, disk, machine, CPU model, memory and accelerator, neither
pinned nor under libvirt; its time includes making its overlay, key and seed. It replaces
`virt-install --import` with a cloud image, which cannot be downloaded offline. A guest under tcg is
emulated, so its boot time is no figure about virtualization: the ratio compares two emulated
guests, and under kvm it differs.
"""


def main() -> int:
    """Run the benchmark and print its table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=3, help="per way (default: 3; guests: 2)")
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
        with bench.alone():
            report, _ = HOST.examine(restore=False)
            if not report.facts["image"]["digest"]:
                sys.exit("no image found on this host, one is needed; run make setup PLAN=quick")
            designed = design(plan, report, load_platforms())
            instances = {trial.instance.platform: trial.instance for trial in designed.trials}
            print("## Time to ready: seconds, image warm, pinned, 1 core\n")
            print("| platform | accelerator | plain way | runs per way | plain s | virtbed s "
                  "| more s | virtbed / plain |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
            with cleared():
                for platform in PLAIN:
                    if platform in instances:
                        compare(instances[platform], options.replicates)
    except (BenchError, PlacementError) as error:
        sys.exit(f"virtbed: {error}")
    print(CAPTION, *(f"Not run: {n.platform}: {n.reason}" for n in designed.not_run), sep="\n")
    return 0


@contextmanager
def cleared() -> Iterator[None]:
    """Clear the host of instances before and after, also when interrupted."""

    def end(*_: object) -> NoReturn:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        sys.exit("interrupted; all instances are released")

    for number in SIGNALS:
        signal.signal(number, end)
    try:
        HOST.clear()
        yield
    finally:
        shutil.rmtree(bench.RUN / NAME, ignore_errors=True)
        HOST.clear()


def compare(instance: Instance, replicates: int) -> None:
    """Print the rows of one platform; the order of the two ways alternates between turns."""
    turns = min(replicates, 2) if instance.own_kernel else replicates
    times: dict[object, list[list[float]]] = {plainly: [], by_virtbed: []}
    for turn in range(turns):
        for way in (plainly, by_virtbed)[:: -1 if turn % 2 else 1]:
            times[way].append(way(instance))
    own = statistics.median(seconds for [seconds] in times[by_virtbed])
    ways = zip(PLAIN[instance.platform], zip(*times[plainly], strict=True), strict=True)
    for label, seconds in ways:
        plain = statistics.median(seconds)
        print(f"| {instance.platform} | {instance.accelerator} | {label} | {turns} | {plain:.3f} "
              f"| {own:.3f} | {own - plain:.3f} | {own / plain:.2f} |", flush=True)  # fmt: skip


def by_virtbed(instance: Instance) -> list[float]:
    """Return the seconds that virtbed takes, as in a sweep; release the instance."""
    with bench.keys(NAME) as keys:
        variables = {"virtbed_instance": encode(instance), "virtbed_run_dir": str(keys)}
        started = time.monotonic()
        with bench.affinity_restored() as keep_to:
            keep_to(instance.housekeeping)
            provisioned, _ = HOST.play("provision", variables)
            if provisioned.ok and not instance.own_kernel:
                subprocess.run([*entered(instance), "true"], check=True)
        ready = time.monotonic() - started
        released, _ = HOST.play("release", variables)
    if not (provisioned.ok and released.ok):
        sys.exit(f"{instance.id}: {provisioned.message or released.message}")
    return [ready]


def entered(instance: Instance) -> list[str]:
    """Return the argv prefix for a process in an instance on metal, as in the enclosure's role."""
    if instance.enclosure == "docker":
        return ["docker", "exec", f"virtbed-{instance.id}"]
    # taskset first, because numactl refuses CPUs outside its own affinity, the housekeeping CPUs.
    free = ["taskset", "--cpu-list", instance.allowed]
    bound = [f"--physcpubind={instance.inner_cpus}", f"--membind={instance.inner_mems}"]
    return [*free, "numactl", *bound, *enter(str(IMAGES / instance.image_name / "rootfs"))]


def plainly(instance: Instance) -> list[float]:
    """Return the seconds that the plain way takes, one per row of `PLAIN`."""
    command = entered(instance) if instance.platform == "bm" else []
    if instance.enclosure == "docker":
        command = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp",
                   f"--memory={instance.memory_mib}M", f"--cpuset-cpus={instance.inner_cpus}",
                   f"--cpuset-mems={instance.inner_mems}",
                   f"virtbed/rootfs:{instance.image_name}"]  # fmt: skip
    started = time.monotonic()
    if not instance.own_kernel:
        subprocess.run([*command, "true"], check=True)
        return [time.monotonic() - started]
    start = "systemctl start docker && " if instance.enclosure == "docker" else ""
    with bare_guest(instance, IMAGES / instance.image_name) as ssh:
        banner = time.monotonic() - started
        subprocess.run([*ssh, start + shlex.join([*command, "true"])], check=True)
        ran = time.monotonic() - started
    return [banner, ran][-len(PLAIN[instance.platform]) :]


@contextmanager
def bare_guest(instance: Instance, image: Path) -> Iterator[list[str]]:
    """Boot a guest without libvirt; when its SSH answers, yield the argv prefix to run commands."""
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
        key, seed, overlay = (f"{folder}/{name}" for name in ("key", "seed.tar", "overlay.qcow2"))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with tarfile.open(seed, "w") as tar:  # the same key for the guest's host key and for login
            tar.add(key, "etc/ssh/ssh_host_ed25519_key")
            tar.add(f"{key}.pub", "root/.ssh/authorized_keys")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                        "-b", image / "disk.raw", overlay], check=True)  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        argv = [
            "setpriv", "--pdeathsig=KILL",  # so that it ends if the benchmark is killed
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
    """Wait until the guest's SSH server sends its banner on the loopback port; exit if it ends."""
    deadline = time.monotonic() + BOOT_S
    while qemu.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as guest:
            if guest.recv(4) == b"SSH-":
                return
        time.sleep(0.1)
    sys.exit(
        f"no SSH banner from the bare guest after at most {BOOT_S} s (QEMU's exit status: "
        f"{qemu.poll()})"
    )


if __name__ == "__main__":
    sys.exit(main())
