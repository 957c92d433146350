"""Kinds of settings of a host: kernel files, daemons, interrupts; how each is read and written.

Every function takes the root of a file system ("/" on a live host, a made-up tree in a test).
Standard library only: it runs on the managed host.
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
    """A setting that could not be changed; the message names it, its value and the one needed."""


def named(names: Iterable[str]) -> str:
    """Return some names as a message holds them: the first few, and how many more."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


@dataclass(frozen=True)
class Setting(ABC):
    """One setting of a host, in one place or many. `reason` says why `wanted` disturbs least."""

    name: str
    wanted: str
    reason: str

    @abstractmethod
    def read(self, root: Path) -> dict[str, str]:
        """Return the value of each place where the setting lies; empty if it is not there."""

    @abstractmethod
    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Set some places.

        Returns:
            Those that nobody can set, each with why.

        Raises:
            OSError, subprocess.SubprocessError, TuningError: one cannot be set that should be.
        """

    def confirm(self, root: Path, places: Iterable[str]) -> dict[str, str]:
        """Return the values of some places, read again."""
        found = self.read(root)
        return {place: found[place] for place in places if place in found}

    def gone(self, root: Path, places: Iterable[str]) -> set[str]:
        """Return those of some places that went for good, so that there is nothing to put back."""
        return set()

    def exempt(self, root: Path) -> dict[str, str]:
        """Return the places that are known to be out of reach before they are tried, with why."""
        return {}

    def missing(self, root: Path) -> str:
        """Return why the setting is not available, where nothing was read."""
        return NOT_THERE

    def in_words(self, values: Mapping[str, str]) -> str:
        """Return some values in words; `wanted` if and only if each is as wanted."""
        return ", ".join(sorted(set(values.values())))


def _everywhere(_: Path) -> bool:
    return True


@dataclass(frozen=True)
class Files(Setting):
    """A setting in kernel files that hold a word, or "[one] of several".

    `only` tells which of the files that match the pattern.
    """

    pattern: str
    only: Callable[[Path], bool] = _everywhere

    def read(self, root: Path) -> dict[str, str]:
        """Return the value of each file that can be read, by its path below the root.

        The governor of a CPU that is offline has a file, and the kernel answers EBUSY.
        """
        found = {}
        for path in sorted(filter(self.only, root.glob(self.pattern))):
            text = read(path)
            if text:
                found[str(path.relative_to(root))] = chosen(text) or text
        return found

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Write each file."""
        for place, value in values.items():
            (root / place).write_text(f"{value}\n")
        return {}


def slower_than(latency_us: int) -> Callable[[Path], bool]:
    """Return what tells files of idle states that a CPU takes longer than that to leave."""

    def slow(path: Path) -> bool:
        latency = read(path.with_name("latency")) or ""
        return latency.isdigit() and int(latency) > latency_us

    return slow


@dataclass(frozen=True)
class Service(Setting):
    """A daemon that runs or does not."""

    daemon: str

    def read(self, root: Path) -> dict[str, str]:
        """Return whether it runs, by its name."""
        if not (root / "usr/sbin" / self.daemon).exists():
            return {}
        running = subprocess.run(["pgrep", "--exact", self.daemon], capture_output=True).returncode
        return {self.daemon: "stopped" if running else "running"}

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Start or stop it."""
        for place, value in values.items():
            verb = {"running": "start", "stopped": "stop"}[value]
            subprocess.run(["service", place, verb], check=True, capture_output=True)
        return {}


# What the kernel answers where nobody can move an interrupt; whatever else it answers is an error.
_UNMOVED = {
    errno.EIO: "its driver manages it, or it is of one CPU",
    errno.EPERM: "its driver manages it, or it is of one CPU",
    errno.EINVAL: "its controller cannot",
    errno.ENOSPC: "no vector is left there",
    errno.EBUSY: "it is in use",
}
_DEFAULT = "proc/irq/default_smp_affinity"


@dataclass(frozen=True)
class Interrupts(Setting):
    """The CPUs that interrupts may come to, those of devices yet to come included.

    Values are kernel lists ("0-2,5"); `wanted` is "" as long as no sweep has said which CPUs.
    """

    def read(self, root: Path) -> dict[str, str]:
        """Return the CPUs of each interrupt, by its file below the root."""
        found = {}
        files = sorted(root.glob("proc/irq/[0-9]*/smp_affinity_list"), key=_number)
        for path in files:
            text = read(path)
            if text:  # one that was freed meanwhile has no file any more
                found[str(path.relative_to(root))] = format_cpu_list(parse_cpu_list(text))
        mask = read(root / _DEFAULT)
        if mask:
            found[_DEFAULT] = format_cpu_list(_of_mask(mask))
        return found

    def write(self, root: Path, values: Mapping[str, str]) -> dict[str, str]:
        """Move each interrupt; one that nobody can move stays where it is."""
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
        """Return the interrupts whose devices are gone."""
        return {place for place in places if not (root / place).exists()}

    def in_words(self, values: Mapping[str, str]) -> str:
        """Return how many are elsewhere, and which."""
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
    """Return an interrupt's number and its device's name, which its folder holds a folder of."""
    devices = sorted(path.name for path in (root / place).parent.glob("*/"))
    number = _interrupt(place)
    return f"{number} ({', '.join(devices)})" if devices and place != _DEFAULT else number


def _interrupt(place: str) -> str:
    return "the default" if place == _DEFAULT else place.split("/")[2]


def _number(path: Path) -> int:
    return int(path.parent.name)


def _write(path: Path, text: str) -> None:
    """Write a file that is there."""
    opened = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(opened, text.encode())
    finally:
        os.close(opened)


def _of_mask(text: str) -> list[int]:
    """Return the CPUs of a mask of 32-bit words: "1,00000003" gives 0, 1, 32."""
    bits = int(text.replace(",", ""), 16)
    return [cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1]


def _mask(cpus: Iterable[int]) -> str:
    """Return the mask of some CPUs, in 32-bit words."""
    bits = sum(1 << cpu for cpu in cpus)
    words = range((bits.bit_length() - 1) // 32, -1, -1)
    return ",".join(f"{bits >> 32 * word & 0xFFFFFFFF:08x}" for word in words)
