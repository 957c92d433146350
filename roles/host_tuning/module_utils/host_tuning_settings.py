"""Kinds of host settings: kernel files, daemons, interrupts; how to read and write each.

Every function takes the root of a file system ("/" on a live host, a made-up tree in a test).
Standard library only, as it runs on the managed host. Units of systemd are in host_tuning_units.
"""

from __future__ import annotations

import errno
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from ansible.module_utils.virtbed_contract.kernel.files import chosen, read

_SHOWN = 6
NOT_THERE = "this host or its kernel does not have it"


class TuningError(Exception):
    """A setting could not be changed; the message has its name, its value and the value needed."""


def named(names: Iterable[str]) -> str:
    """Return names for a message: the first few, and the number of the others."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


@dataclass(frozen=True)
class Setting(ABC):
    """One host setting, in one or more places.

    Attributes:
        name: Name of the setting.
        wanted: Value for a measurement.
        reason: Why `wanted` disturbs a measurement least.
    """

    name: str
    wanted: str
    reason: str

    @abstractmethod
    def read(self, root: Path) -> dict[str, str]:
        """Return the value per place of the setting; empty if the host does not have it."""

    @abstractmethod
    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Set some places.

        Returns:
            The places that cannot be set, each with the reason.

        Raises:
            OSError, subprocess.SubprocessError, TuningError: Setting a place failed.
        """

    def confirm(self, root: Path, places: Iterable[str]) -> dict[str, str]:
        """Return the values of some places, read back."""
        current = self.read(root)
        return {place: current[place] for place in places if place in current}

    def gone(self, root: Path, places: Iterable[str]) -> set[str]:
        """Return the places that no longer exist, so that there is nothing to restore."""
        return set()

    def exempt(self, root: Path) -> dict[str, str]:
        """Return the places that are known not to be settable without trying, with the reason."""
        return {}

    def missing(self, root: Path) -> str:
        """Return why the setting is not available."""
        return NOT_THERE

    def in_words(self, values: Mapping[str, str]) -> str:
        """Return the values as text, which equals `wanted` if and only if each value does."""
        return ", ".join(sorted(set(values.values())))


def _everywhere(_: Path) -> bool:
    return True


@dataclass(frozen=True)
class Files(Setting):
    """A setting in kernel files that hold a word, or "[one] of several".

    `only` selects among the files that match `pattern`.
    """

    pattern: str
    only: Callable[[Path], bool] = _everywhere

    def read(self, root: Path) -> dict[str, str]:
        """Return the value of each file that can be read, by its path below the root.

        The governor's file of an offline CPU exists, but reading it fails with EBUSY.
        """
        values = {}
        for path in sorted(filter(self.only, root.glob(self.pattern))):
            text = read(path)
            if text:
                values[str(path.relative_to(root))] = chosen(text) or text
        return values

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Write each file."""
        for place, value in values.items():
            (root / place).write_text(f"{value}\n")
        return {}


def slower_than(latency_us: int) -> Callable[[Path], bool]:
    """Return a predicate for files of idle states with an exit latency above `latency_us`."""

    def slow(path: Path) -> bool:
        latency = read(path.with_name("latency")) or ""
        return latency.isdigit() and int(latency) > latency_us

    return slow


@dataclass(frozen=True)
class Service(Setting):
    """A daemon: running or stopped."""

    daemon: str

    def read(self, root: Path) -> dict[str, str]:
        """Return whether the daemon runs; empty if it is not installed."""
        if not (root / "usr/sbin" / self.daemon).exists():
            return {}
        running = subprocess.run(["pgrep", "--exact", self.daemon], capture_output=True).returncode
        return {self.daemon: "stopped" if running else "running"}

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Start or stop the daemon."""
        for place, value in values.items():
            verb = {"running": "start", "stopped": "stop"}[value]
            subprocess.run(["service", place, verb], check=True, capture_output=True)
        return {}


# The kernel's answers for interrupts that cannot be moved. Any other error is a failure.
_UNMOVED = {
    errno.EIO: "its driver manages it, or it belongs to one CPU",
    errno.EPERM: "its driver manages it, or it belongs to one CPU",
    errno.EINVAL: "its controller cannot",
    errno.ENOSPC: "no vector is left there",
    errno.EBUSY: "it is in use",
}
_DEFAULT = "proc/irq/default_smp_affinity"


@dataclass(frozen=True)
class Interrupts(Setting):
    """The CPUs that handle interrupts, including the default for new devices.

    Values are kernel lists ("0-2,5"); `wanted` is "" outside of a sweep.
    """

    def read(self, root: Path) -> dict[str, str]:
        """Return the CPUs of each interrupt, by its file below the root."""
        values = {}
        files = sorted(root.glob("proc/irq/[0-9]*/smp_affinity_list"), key=_number)
        for path in files:
            text = read(path)
            if text:  # an interrupt freed in the meantime has no file
                values[str(path.relative_to(root))] = format_cpu_list(parse_cpu_list(text))
        mask = read(root / _DEFAULT)
        if mask:
            values[_DEFAULT] = format_cpu_list(_of_mask(mask))
        return values

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Move each interrupt that can be moved; return the others, with the reason."""
        refused = {}
        for place, value in values.items():
            text = _mask(parse_cpu_list(value)) if place == _DEFAULT else value
            try:
                _write(root / place, f"{text}\n")
            except FileNotFoundError:
                refused[place] = "its device is gone"
            except OSError as error:
                if error.errno not in _UNMOVED:
                    raise
                refused[place] = f"{_UNMOVED[error.errno]} ({os.strerror(error.errno)})"
        return refused

    def gone(self, root: Path, places: Iterable[str]) -> set[str]:
        """Return the interrupts whose devices no longer exist."""
        return {place for place in places if not (root / place).exists()}

    def in_words(self, values: Mapping[str, str]) -> str:
        """Return the number of interrupts on other CPUs, and the first of them."""
        if not self.wanted:
            cpus = {cpu for value in values.values() for cpu in parse_cpu_list(value)}
            return f"on CPUs {format_cpu_list(cpus)}" if cpus else ""
        elsewhere = [
            f"{_interrupt(place)} on CPUs {value}"
            for place, value in values.items()
            if value != self.wanted
        ]
        if not elsewhere:
            return self.wanted if values else ""
        return f"{len(elsewhere)} of {len(values)} elsewhere: {named(elsewhere)}"


def interrupt_name(root: Path, place: str) -> str:
    """Return an interrupt's number, and the name of its device: a subfolder of its folder."""
    devices = sorted(path.name for path in (root / place).parent.glob("*/"))
    number = _interrupt(place)
    return f"{number} ({', '.join(devices)})" if devices and place != _DEFAULT else number


def _interrupt(place: str) -> str:
    return "the default" if place == _DEFAULT else place.split("/")[2]


def _number(path: Path) -> int:
    return int(path.parent.name)


def _write(path: Path, text: str) -> None:
    """Write an existing file; never create one."""
    opened = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(opened, text.encode())
    finally:
        os.close(opened)


def _of_mask(text: str) -> list[int]:
    """Return the CPUs in a mask of 32-bit words: [0, 1, 32] for "1,00000003"."""
    bits = int(text.replace(",", ""), 16)
    return [cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1]


def _mask(cpus: Iterable[int]) -> str:
    """Return the mask of some CPUs in 32-bit words: the inverse of `_of_mask`."""
    bits = sum(1 << cpu for cpu in cpus)
    words = range((bits.bit_length() - 1) // 32, -1, -1)
    return ",".join(f"{bits >> 32 * word & 0xFFFFFFFF:08x}" for word in words)
