#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Host settings that disturb a measurement: show them, set them, restore them."""

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
short_description: Make a host quiet for measurements, and restore it
description:
  - A setting that the host does not have is reported as not available, with the reason.
  - Before the first change, the present values are written to a snapshot and synced to disk, so
    they survive a crash. A second C(set) never overwrites values in the snapshot.
  - C(restore) writes the snapshot's values, reads them back, and removes the snapshot.
  - Timers and services are stopped if systemd is the init. Under another init that setting is not
    available.
options:
  interrupts:
    description:
      - Kernel list of the CPUs that handle interrupts. Required by C(state=set). With
        C(state=show), the setting's C(wanted) value.
    type: str
    default: ""
  wakers:
    description: Whether to list the timers and services that may start, and when.
    type: bool
    default: false
  state:
    description: What to do.
    type: str
    choices: [show, set, restore]
    default: show
  snapshot:
    description: File of the values before the first change.
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
    - Each setting with its C(name), C(available), C(value), C(wanted), C(reason), and C(exempt),
      the places that cannot be set.
  returned: success
  type: list
  elements: dict
waking:
  description: Timers and services that may start, with C(name), C(next), C(stopped), C(reason).
  returned: success
  type: list
  elements: dict
waking_unknown:
  description: Why C(waking) could not be read; empty where it could, or without C(wakers).
  returned: success
  type: str
"""


SETTINGS: tuple[Setting, ...] = (
    # First, because some of these services write the settings that follow.
    Units(
        "timers and services", "stopped",
        "a timer or service that starts during a trial would be measured with it",
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
        "the kernel then makes huge pages only for programs that request them, at no other time",
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


# Key of a snapshot: the places of each setting that cannot be set, such as interrupts of one CPU.
REFUSED = "cannot be set"


def settings_for(interrupts: str) -> list[Setting]:
    """Return the settings; `interrupts` is the kernel list of the CPUs that handle interrupts."""
    cpus = format_cpu_list(parse_cpu_list(interrupts))
    return [
        replace(setting, wanted=cpus) if isinstance(setting, Interrupts) else setting
        for setting in SETTINGS
    ]


def show(
    root: Path, settings: Sequence[Setting], refused: dict[str, Any] | None = None
) -> list[TuningRow]:
    """Return one row per setting, from the places of it that can be set.

    Args:
        root: Root of the host's file system.
        settings: The settings to show.
        refused: By setting's name, places that could not be set, each with the reason.
    """
    rows = []
    for setting in settings:
        current = setting.read(root)
        exempt = {**setting.exempt(root), **(refused or {}).get(setting.name, {})}
        values = {place: value for place, value in current.items() if place not in exempt}
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
    """Return one line per reason, with its places: hundreds of interrupts share a few reasons."""
    why: dict[str, list[str]] = {}
    for place, reason in exempt.items():
        name = interrupt_name(root, place) if isinstance(setting, Interrupts) else place
        why.setdefault(reason, []).append(name)
    return tuple(f"{', '.join(names)[:800]}: {reason}" for reason, names in why.items())


def tune(root: Path, snapshot: Path, settings: Sequence[Setting]) -> bool:
    """Set every available setting as wanted; return whether that changed anything.

    One after another: a daemon that is stopped (tuned) may restore what it had set itself, and the
    next setting then finds, and later restores, that value.

    Raises:
        TuningError: A setting does not take its value. The snapshot then holds the old values.
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
        new_refusals = _set(root, setting, dict.fromkeys(old, setting.wanted))
        if new_refusals:
            refused[setting.name] = {**refused.get(setting.name, {}), **new_refusals}
            for place in new_refusals:
                before[setting.name].pop(place)
            keep(snapshot, before)
        changed = changed or old.keys() != new_refusals.keys()
    return changed


def restore(root: Path, snapshot: Path, settings: Sequence[Setting]) -> bool:
    """Write the snapshot's values and remove the snapshot; return whether there was one.

    In the reverse order of `tune`: a value that a daemon sets is restored before the daemon starts.

    Raises:
        TuningError: A setting does not take its value. All others are restored; the snapshot stays.
    """
    before = kept(snapshot)
    if not before:
        return False
    wrong = []
    for setting in reversed(settings):
        values = dict(before.get(setting.name, {}))
        try:
            if values:
                _restore_setting(root, snapshot, setting, values)
        except (OSError, subprocess.SubprocessError, TuningError) as error:
            message = str(error)
            named_already = setting.name in message
            wrong.append(message if named_already else f"host_tuning: {setting.name}: {message}")
    if wrong:
        raise TuningError("; ".join(wrong))
    snapshot.unlink()
    return True


def _restore_setting(root: Path, snapshot: Path, setting: Setting, values: dict[str, str]) -> None:
    gone = setting.gone(root, values)
    values = {place: value for place, value in values.items() if place not in gone}
    # An offline CPU has no governor to write, and comes online with the tuned one.
    lost = values.keys() - setting.confirm(root, values).keys()
    refused = _set(root, setting, {p: v for p, v in values.items() if p not in lost})
    if lost or refused:
        why = {**dict.fromkeys(lost, "it does not exist"), **refused}
        place, reason = next(iter(sorted(why.items())))
        raise TuningError(
            f"host_tuning: {setting.name}: {place} could not be set to {values[place]}, nor "
            f"could {len(why) - 1} others: {reason}; bring its CPU online, or remove {snapshot}"
        )


def _set(root: Path, setting: Setting, values: dict[str, str]) -> dict[str, str]:
    """Set some places and read them back; return those that cannot be set, with the reason."""
    try:
        refused = setting.write(root, values)
        current = setting.confirm(root, values)
    except (OSError, subprocess.SubprocessError, TuningError) as error:
        raise TuningError(f"host_tuning: {setting.name}: {error}") from error
    wrong = [
        f"{place} is {current.get(place)}, {value} needed"
        for place, value in values.items()
        if place not in refused and current.get(place) != value
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
