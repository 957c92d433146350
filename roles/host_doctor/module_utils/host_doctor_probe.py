"""Probes of engines, by running their commands, and of KVM, by booting a guest.

Everything started here is killed and reaped before its function returns. Standard library only.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.virtbed_contract.documents import Engine, RoleProperties
from ansible.module_utils.virtbed_contract.kernel.topology import MOST_HWLOC_BYTES
from ansible.module_utils.virtbed_contract.remedies import setup

COMMAND_DEADLINE_S = 10.0
# Of programs that ask no daemon, and so do not hang: they are only slow on a busy machine.
LOCAL_DEADLINE_S = 60.0
GUEST_MEMORY_MIB = 512
HWLOC = "lstopo-no-graphics"
# hwloc's other attributes identify the machine: serial numbers, asset tags, addresses of its cards.
HWLOC_KEPT = (
    "CoreType", "DAXDevice", "DAXType", "FrequencyBaseMHz", "FrequencyMaxMHz", "LinuxCapacity",
    "MemoryTier", "hwlocVersion",
)  # fmt: skip
HWLOC_INFO = re.compile(r'^\s*<info name="([^"]*)".*/>\n', re.MULTILINE)
CPU_MODEL = {"kvm": "host", "tcg": "max"}
# Printed by the kernel when it starts user space, and by Debian's initramfs.
USERSPACE = re.compile(rb"Run /\S*init as init process|Loading, please wait")


def find(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed."""
    # Daemons are in sbin, which is not on an unprivileged user's PATH.
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return next((path for name in names if (path := shutil.which(name, path=places))), None)


def output_of(argv: Sequence[str], times: int = 1) -> str | None:
    """Return a program's standard output; None if it fails or does not end in time.

    Args:
        argv: The program and its arguments.
        times: Factor on COMMAND_DEADLINE_S.
    """
    try:
        return _printed(argv, COMMAND_DEADLINE_S * times)
    except (OSError, subprocess.SubprocessError):
        return None


def _printed(argv: Sequence[str], deadline_s: float) -> str:
    done = subprocess.run(
        list(argv),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=deadline_s,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout.decode(errors="replace").strip()


def hwloc_facts(program: str = HWLOC, times: int = 1) -> dict[str, str | None]:
    """Return {xml, problem}: the topology of the machine from hwloc, or why there is none.

    It includes CPUs that this process may not use, because they share caches with those it may.

    Args:
        program: hwloc's program.
        times: Factor on the deadline; above 1 on an emulated host.
    """
    path = find(program)
    if path is None:
        return {"xml": None, "problem": f"no {program} found"}
    quiet = ["--filter", "osdev:none", "--filter", "misc:none", "--no-icaches"]
    try:
        xml = _printed([path, "--disallowed", *quiet, "--of", "xml", "-"], LOCAL_DEADLINE_S * times)
    except subprocess.TimeoutExpired as error:
        return {"xml": None, "problem": f"{path} does not answer in {error.timeout:g} s"}
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip()[-500:]
        return {"xml": None, "problem": f"{path} fails with status {error.returncode}: {words}"}
    except OSError as error:
        return {"xml": None, "problem": f"{path} cannot be run: {error}"}
    if not xml:
        return {"xml": None, "problem": f"{path} printed nothing"}
    if len(xml) > MOST_HWLOC_BYTES:
        problem = f"{path} printed {len(xml)} characters, {MOST_HWLOC_BYTES} at most needed"
        return {"xml": None, "problem": problem}
    kept = HWLOC_INFO.sub(lambda info: info.group() if info.group(1) in HWLOC_KEPT else "", xml)
    return {"xml": kept, "problem": None}


def loader_cache(times: int = 1) -> str:
    """Return the output of ``ldconfig -p``, the loader's cache of libraries; empty if it fails."""
    program = find("ldconfig")
    return (output_of([program, "-p"], times) if program else None) or ""


def engine_facts(engines: Mapping[str, Engine], times: int = 1) -> dict[str, dict[str, Any]]:
    """Return {name, installed, running, version} of each engine.

    An engine is installed if its programs are, or if its service answers without them. It runs if
    its service answers in time; an engine without a service runs if it is installed. `times` is the
    factor on the deadline, above 1 on an emulated host.
    """
    return {key: _engine(engine, times) for key, engine in engines.items()}


def lacking(roles: Mapping[str, RoleProperties], times: int = 1) -> list[list[str]]:
    """Return [role, factor, value] of each factor's value that a role offers and the host lacks."""
    return [
        [name, factor, value]
        for name, role in roles.items()
        for factor, values in role.varies.items()
        for value, command in values.items()
        if command and _query(command, times) is None
    ]


def _engine(engine: Engine, times: int) -> dict[str, Any]:
    complete = all(find(*names) for names in engine.programs)
    version = _query(engine.version, times)
    if engine.answers == engine.version:  # so that a hanging daemon costs one deadline, not two
        running = version is not None
    else:
        running = _query(engine.answers, times) is not None if engine.answers else complete
    number = re.search(r"\d+\.\d[\w.+~-]*", version or "")
    return {
        "name": engine.name,
        "installed": complete or running,
        "running": running,
        "version": number.group() if number else None,
    }


def _query(argv: Sequence[str], times: int) -> str | None:
    program = find(argv[0])
    return output_of([program, *argv[1:]], times) if program else None


def _last_line(console: bytes) -> str:
    lines = [line.strip() for line in console.decode(errors="replace").splitlines()]
    return next((line[:200] for line in reversed(lines) if line), "nothing")


def boot(kernel: Path, initrd: Path, accel: str, deadline_s: float) -> dict[str, Any]:
    """Boot a guest kernel until it starts user space, then kill it.

    Args:
        kernel: The kernel's file.
        initrd: The initial ramdisk's file.
        accel: QEMU's accelerator, "kvm" or "tcg".
        deadline_s: Seconds until the guest is killed.

    Returns:
        {probe, seconds, detail}. `probe` is "booted", "hung" (user space not started at the
        deadline) or "failed" (QEMU ended before).
    """
    qemu = find("qemu-system-x86_64") or "qemu-system-x86_64"
    argv = [qemu, "-accel", accel, "-cpu", CPU_MODEL[accel], "-m", str(GUEST_MEMORY_MIB)]
    argv += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    argv += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyS0 panic=-1"]
    # So that the kernel kills the guest if this process is killed.
    guard = find("setpriv")
    if guard:
        argv = [guard, "--pdeathsig", "KILL", *argv]
    began = time.monotonic()
    guest = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    console = b""
    verdict = "hung"
    try:
        assert guest.stdout is not None  # because of stdout=PIPE
        with selectors.DefaultSelector() as selector:
            selector.register(guest.stdout, selectors.EVENT_READ)
            while (left_s := began + deadline_s - time.monotonic()) > 0:
                if not selector.select(left_s):
                    continue
                chunk = os.read(guest.stdout.fileno(), 65536)
                console += chunk
                if USERSPACE.search(console):
                    verdict = "booted"
                    break
                if not chunk:
                    verdict = "failed"
                    break
        seconds = round(time.monotonic() - began, 2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.communicate()
    detail = {
        "booted": f"the guest kernel started user space under {accel} after {seconds} s",
        "hung": f"the guest kernel had not started user space under {accel} after {seconds} s",
        "failed": f"QEMU ended under {accel} before the guest kernel started user space",
    }[verdict]
    if verdict != "booted":
        detail += f"; last console line: {_last_line(console)}"
    return {"probe": verdict, "seconds": seconds, "detail": detail}


def kvm_facts(
    device: Path, cpu_flags: set[str], image: Path | None, enabled: bool, deadline_s: float
) -> dict[str, Any]:
    """Return {device, usable, probe, seconds, detail}: whether KVM boots the image's guest kernel.

    `image` is the directory of the current image, None before it is built. The existence of
    `device` is not enough: a nested KVM may create virtual CPUs and still hang every kernel.
    """
    present = device.exists()
    outcome: dict[str, Any] = {"probe": "not-run", "seconds": None}
    if not present:
        hardware = sorted(cpu_flags & {"vmx", "svm"})
        why = f"though the CPU has {hardware[0]}" if hardware else "and no vmx or svm CPU flag"
        outcome.update(probe="failed", detail=f"there is no {device}, {why}")
    elif not os.access(device, os.R_OK | os.W_OK):
        outcome.update(probe="failed", detail=f"this user may not open {device}")
    elif not enabled:
        outcome.update(detail="the boot probe was switched off")
    elif not find("qemu-system-x86_64"):
        outcome.update(detail=f"no QEMU installed yet: {setup()}, which installs it")
    elif image is None:
        outcome.update(detail=f"no guest kernel yet: {setup()}, which builds it")
    else:
        outcome = boot(image / "vmlinuz", image / "initrd.img", "kvm", deadline_s)
    return {"device": present, "usable": outcome["probe"] == "booted", **outcome}
