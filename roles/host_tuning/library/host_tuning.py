#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Settings of a host that disturb a measurement: shown, set, and restored."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel.files import chosen
from ansible.module_utils.virtbed_contract.kernel.snapshots import keep, kept

DOCUMENTATION = r"""
module: host_tuning
short_description: Quieten a host for measurements, and put it back as it was
description:
  - Each setting is available or not on a host, and says why not.
  - Before the first change the values found are written to a snapshot, and synced to disk. It
    outlives a crash, and a second C(set) never overwrites what it holds.
  - C(restore) writes the snapshot's values back, reads them again, and removes it.
options:
  state:
    description: What to do.
    type: str
    choices: [show, set, restore]
    default: show
  snapshot:
    description: The file that holds the values found before the first change.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Quieten the host
  host_tuning:
    state: set
    snapshot: /var/lib/virtbed/tuning.json
"""
RETURN = r"""
settings:
  description: Each setting with its C(name), C(available), C(value), C(wanted) and C(reason).
  returned: always
  type: list
  elements: dict
"""


class TuningError(Exception):
    """A setting that could not be changed; the message names it, its value and the one needed."""


@dataclass(frozen=True)
class Setting(ABC):
    """One setting of a host. `reason` says why `wanted` is better for a measurement."""

    name: str
    wanted: str
    reason: str

    @abstractmethod
    def read(self, root: Path) -> dict[str, str]:
        """Return the value of each place where the setting lies; empty if it is not there."""

    @abstractmethod
    def write(self, root: Path, place: str, value: str) -> None:
        """Set one place."""


@dataclass(frozen=True)
class Files(Setting):
    """A setting in kernel files that hold a word, or "[one] of several"."""

    pattern: str

    def read(self, root: Path) -> dict[str, str]:
        found = {}
        for path in sorted(root.glob(self.pattern)):
            text = path.read_text().strip()
            found[str(path.relative_to(root))] = chosen(text) or text
        return found

    def write(self, root: Path, place: str, value: str) -> None:
        (root / place).write_text(f"{value}\n")


@dataclass(frozen=True)
class Service(Setting):
    """A daemon that runs or does not."""

    daemon: str

    def read(self, root: Path) -> dict[str, str]:
        if not (root / "usr/sbin" / self.daemon).exists():
            return {}
        running = subprocess.run(["pgrep", "--exact", self.daemon], capture_output=True).returncode
        return {self.daemon: "stopped" if running else "running"}

    def write(self, root: Path, place: str, value: str) -> None:
        verb = {"running": "start", "stopped": "stop"}[value]
        subprocess.run(["service", place, verb], check=True, capture_output=True)


SETTINGS: tuple[Setting, ...] = (
    Files(
        "governor", "performance",
        "the clock rate then does not depend on what ran before",
        "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    ),
    Files(
        "turbo (intel)", "1",
        "1 turns it off: its clock rate depends on heat, and on how many cores are busy",
        "sys/devices/system/cpu/intel_pstate/no_turbo",
    ),
    Files(
        "turbo (cpufreq)", "0",
        "0 turns it off: its clock rate depends on heat, and on how many cores are busy",
        "sys/devices/system/cpu/cpufreq/boost",
    ),
    Files(
        "transparent hugepages", "madvise",
        "the kernel then joins pages for who asks only, not at moments of its own choice",
        "sys/kernel/mm/transparent_hugepage/enabled",
    ),
    Service(
        "irqbalance", "stopped",
        "interrupts then stay where they are, instead of moving to measured CPUs",
        "irqbalance",
    ),
    Files(
        "address space randomization", "2",
        "layouts that differ from trial to trial average out what one layout would bias "
        "(Mytkowicz et al., ASPLOS 2009, doi:10.1145/1508244.1508275)",
        "proc/sys/kernel/randomize_va_space",
    ),
    Files(
        "swappiness", "1",
        "a process is then not paged out for the sake of a file cache",
        "proc/sys/vm/swappiness",
    ),
)  # fmt: skip


def show(root: Path) -> list[dict[str, Any]]:
    """Return every setting as it is."""
    rows = []
    for setting in SETTINGS:
        values = sorted(set(setting.read(root).values()))
        rows.append(
            {
                "name": setting.name,
                "available": bool(values),
                "value": ", ".join(values) if values else None,
                "wanted": setting.wanted,
                "reason": setting.reason if values else "this host or its kernel does not have it",
            }
        )
    return rows


def tune(root: Path, snapshot: Path) -> bool:
    """Set every available setting as wanted; return whether that changed anything.

    Raises TuningError if one does not take its value; the snapshot then holds the old ones.
    """
    before = kept(snapshot)
    changes = [
        (setting, place, value)
        for setting in SETTINGS
        for place, value in setting.read(root).items()
        if value != setting.wanted
    ]
    for setting, place, value in changes:
        before.setdefault(setting.name, {}).setdefault(place, value)
    if changes:
        keep(snapshot, before)
    for setting, place, _ in changes:
        _set(root, setting, place, setting.wanted)
    return bool(changes)


def restore(root: Path, snapshot: Path) -> bool:
    """Put the snapshot's values back and remove it; return whether there was one.

    Raises TuningError if one does not take its value; the snapshot then stays.
    """
    before = kept(snapshot)
    if not before:
        return False
    for setting in SETTINGS:
        for place, value in before.get(setting.name, {}).items():
            # A CPU that is offline has no governor, and comes back with the tuned one.
            if place not in setting.read(root):
                raise TuningError(
                    f"host_tuning: {setting.name}: {place} is not there, to be set to {value}; "
                    f"bring its CPU online, or remove {snapshot}"
                )
            _set(root, setting, place, value)
    snapshot.unlink()
    return True


def _set(root: Path, setting: Setting, place: str, value: str) -> None:
    try:
        setting.write(root, place, value)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TuningError(f"host_tuning: {setting.name}: {place}: {error}") from error
    found = setting.read(root).get(place)
    if found != value:
        raise TuningError(
            f"host_tuning: {setting.name}: {place} is {found}, {value} needed; something else on "
            "this host sets it (power-profiles-daemon, tuned, a hypervisor)"
        )


def main() -> None:
    """Answer as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["show", "set", "restore"], "default": "show"},
            "snapshot": {"type": "path", "required": True},
        }
    )
    root, snapshot = Path("/"), Path(module.params["snapshot"])
    try:
        changed = {
            "show": lambda: False,
            "set": lambda: tune(root, snapshot),
            "restore": lambda: restore(root, snapshot),
        }[module.params["state"]]()
    except TuningError as error:
        module.fail_json(msg=str(error), settings=show(root))
    module.exit_json(changed=changed, settings=show(root))


if __name__ == "__main__":
    main()
