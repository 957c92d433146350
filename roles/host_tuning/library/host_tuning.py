#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Settings of a host that disturb a measurement: shown, set, and restored."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_tuning_settings import (
    Files,
    Interrupts,
    Service,
    Setting,
    TuningError,
    interrupt_name,
    named,
    slower_than,
)
from ansible.module_utils.host_tuning_units import Units, waking
from ansible.module_utils.virtbed_contract.codec import DocumentError, encode
from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from ansible.module_utils.virtbed_contract.kernel.snapshots import keep, kept
from ansible.module_utils.virtbed_contract.sweep import TuningRow

DOCUMENTATION = r"""
module: host_tuning
short_description: Make a host quiet for measurements, and put it back as it was
description:
  - Each setting is available or not on a host, and says why not.
  - Before the first change the values found are written to a snapshot, and synced to disk. It
    outlives a crash, and a second C(set) never overwrites what it holds.
  - C(restore) writes the snapshot's values back, reads them again, and removes it.
  - Timers and services are stopped where systemd is the init. Elsewhere that setting is not
    available, and says so.
options:
  interrupts:
    description:
      - Kernel list of the CPUs that interrupts are to come to. C(state=set) needs it; to C(show)
        whether they do, too.
    type: str
    default: ""
  wakers:
    description: Whether to list what may wake up, and when.
    type: bool
    default: false
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
- name: Make the host quiet
  host_tuning:
    state: set
    interrupts: "0"
    snapshot: /var/lib/virtbed/tuning.json
"""
RETURN = r"""
settings:
  description:
    - Each setting with its C(name), C(available), C(value), C(wanted) and C(reason), and C(exempt),
      what of it nobody can set.
  returned: success
  type: list
  elements: dict
waking:
  description: What may wake up, with its C(name), C(next), C(stopped) and C(reason).
  returned: success
  type: list
  elements: dict
waking_unknown:
  description: Why nobody can tell what may wake up; empty where it is known, or was not asked.
  returned: success
  type: str
"""


SETTINGS: tuple[Setting, ...] = (
    # First: some of these services set what follows.
    Units(
        "timers and services", "stopped",
        "what wakes up in the middle of a trial would be measured along",
    ),
    Service(
        "irqbalance", "stopped",
        "interrupts then stay where they are, instead of moving to measured CPUs",
        "irqbalance",
    ),
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
    Files(
        "merging of equal pages (KSM)", "0",
        "the kernel then neither scans memory nor lets one process wait for another's page",
        "sys/kernel/mm/ksm/run",
    ),
    Files(
        "deep idle states", "1",
        "1 turns one off: a CPU takes longer to leave it than to answer a short request (more than "
        "3 us)",
        "sys/devices/system/cpu/cpu[0-9]*/cpuidle/state[0-9]*/disable",
        slower_than(3),
    ),
    Interrupts(
        "interrupts", "",
        "devices then do not interrupt measured CPUs, as far as another CPU is left for them",
    ),
)  # fmt: skip


# What of a setting nobody can set, such as interrupts of one CPU: next to the values in a snapshot.
REFUSED = "cannot be set"


def settings_for(interrupts: str) -> list[Setting]:
    """Return the settings, with the CPUs that interrupts are to come to (a kernel list)."""
    cpus = format_cpu_list(parse_cpu_list(interrupts))
    return [
        replace(setting, wanted=cpus) if isinstance(setting, Interrupts) else setting
        for setting in SETTINGS
    ]


def show(
    root: Path, settings: Sequence[Setting], refused: dict[str, Any] | None = None
) -> list[TuningRow]:
    """Return every setting as it is, without what is known to be out of reach."""
    rows = []
    for setting in settings:
        found = setting.read(root)
        exempt = {**setting.exempt(root), **(refused or {}).get(setting.name, {})}
        values = {place: value for place, value in found.items() if place not in exempt}
        rows.append(
            TuningRow(
                setting.name,
                available=bool(values),
                value=setting.in_words(values) if values else None,
                wanted=setting.wanted or "the housekeeping CPUs of a sweep",
                reason=setting.reason if values else setting.missing(root),
                exempt=_exempt(root, setting, exempt),
            )
        )
    return rows


def _exempt(root: Path, setting: Setting, exempt: dict[str, str]) -> tuple[str, ...]:
    """Return what cannot be set, by the reason: hundreds of interrupts have one or two."""
    why: dict[str, list[str]] = {}
    for place, reason in exempt.items():
        name = interrupt_name(root, place) if isinstance(setting, Interrupts) else place
        why.setdefault(reason, []).append(name)
    return tuple(f"{', '.join(names)[:800]}: {reason}" for reason, names in why.items())


def tune(root: Path, snapshot: Path, settings: Sequence[Setting]) -> bool:
    """Set every available setting as wanted; return whether that changed anything.

    One after another: a daemon that is stopped (tuned) may put back what it had set itself, and
    that is then what the next setting finds, and puts back.

    Raises TuningError if one does not take its value; the snapshot then holds the old ones.
    """
    before, changed = kept(snapshot), False
    refused: dict[str, dict[str, str]] = before.setdefault(REFUSED, {})
    for setting in settings:
        out_of_reach = {**setting.exempt(root), **refused.get(setting.name, {})}
        old = {
            place: value
            for place, value in setting.read(root).items()
            if value != setting.wanted and place not in out_of_reach
        }
        if not old:
            continue
        before[setting.name] = {**old, **before.get(setting.name, {})}
        keep(snapshot, before)
        said = _set(root, setting, dict.fromkeys(old, setting.wanted))
        if said:
            refused[setting.name] = {**refused.get(setting.name, {}), **said}
            for place in said:
                before[setting.name].pop(place)
            keep(snapshot, before)
        changed = changed or old.keys() != said.keys()
    return changed


def restore(root: Path, snapshot: Path, settings: Sequence[Setting]) -> bool:
    """Put the snapshot's values back and remove it; return whether there was one.

    In the reverse order: what a daemon sets is there again before the daemon is.

    Raises TuningError if one does not take its value, once all others are back; the snapshot then
    stays.
    """
    before = kept(snapshot)
    if not before:
        return False
    wrong = []
    for setting in reversed(settings):
        values = dict(before.get(setting.name, {}))
        try:
            if values:
                _put_back(root, snapshot, setting, values)
        except (OSError, subprocess.SubprocessError, TuningError) as error:
            said = str(error)
            wrong.append(said if setting.name in said else f"host_tuning: {setting.name}: {said}")
    if wrong:
        raise TuningError("; ".join(wrong))
    snapshot.unlink()
    return True


def _put_back(root: Path, snapshot: Path, setting: Setting, values: dict[str, str]) -> None:
    gone = setting.gone(root, values)
    values = {place: value for place, value in values.items() if place not in gone}
    # A CPU that is offline has no governor, and comes back with the tuned one.
    lost = values.keys() - setting.confirm(root, values).keys()
    said = _set(root, setting, {p: v for p, v in values.items() if p not in lost})
    if lost or said:
        why = {**dict.fromkeys(lost, "it is not there"), **said}
        place, reason = next(iter(sorted(why.items())))
        raise TuningError(
            f"host_tuning: {setting.name}: {place} could not be set to {values[place]}, as "
            f"{len(why) - 1} others: {reason}; bring its CPU online, or remove {snapshot}"
        )


def _set(root: Path, setting: Setting, values: dict[str, str]) -> dict[str, str]:
    """Set some places and read them again; return those that nobody can set, with why."""
    try:
        refused = setting.write(root, values)
        found = setting.confirm(root, values)
    except (OSError, subprocess.SubprocessError, TuningError) as error:
        raise TuningError(f"host_tuning: {setting.name}: {error}") from error
    wrong = [
        f"{place} is {found.get(place)}, {value} needed"
        for place, value in values.items()
        if place not in refused and found.get(place) != value
    ]
    if wrong:
        raise TuningError(
            f"host_tuning: {setting.name}: {named(wrong)}; something else on this host sets it "
            "(power-profiles-daemon, tuned, a hypervisor)"
        )
    return refused


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["show", "set", "restore"], "default": "show"},
            "snapshot": {"type": "path", "required": True},
            "interrupts": {"type": "str", "default": ""},
            "wakers": {"type": "bool", "default": False},
        },
        required_if=[("state", "set", ["interrupts"])],
    )
    root, snapshot = Path("/"), Path(module.params["snapshot"])
    changed = False
    try:
        settings = settings_for(module.params["interrupts"])
        if module.params["state"] == "set":
            changed = tune(root, snapshot, settings)
        elif module.params["state"] == "restore":
            changed = restore(root, snapshot, settings)
        rows = show(root, settings, kept(snapshot).get(REFUSED))
    except (OSError, subprocess.SubprocessError, TuningError, DocumentError, ValueError) as error:
        module.fail_json(msg=str(error))
    daemons = {s.daemon: s.reason for s in SETTINGS if isinstance(s, Service)}
    due, unknown = waking(root, daemons) if module.params["wakers"] else ([], "")
    module.exit_json(
        changed=changed, settings=encode(rows), waking=encode(due), waking_unknown=unknown
    )


if __name__ == "__main__":
    main()
