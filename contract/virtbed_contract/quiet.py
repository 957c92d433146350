"""What wakes up by itself and would be measured along: on a host and in a guest the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

_JOBS = "runs jobs at times of its own, and looks every minute whether one is due"
_PROFILE = "sets the host by a profile, against the settings of a sweep"
_PAGES = "starts and stops the merging of equal pages, also those of guests that are measured"
_CRASH = "reloads the crash kernel when a CPU goes offline or comes back"
_DISKS = "asks disks for their health, every half hour"
_CLOCK = "wakes up to correct the clock, and changes its rate"

SERVICES: dict[str, str] = {
    "cron.service": _JOBS,
    "crond.service": _JOBS,
    "cronie.service": _JOBS,
    "anacron.service": "runs the jobs that were missed while the host was off",
    "atd.service": _JOBS,
    "unattended-upgrades.service": "waits to install packages",
    "packagekit.service": "looks for packages, and updates their lists",
    "snapd.service": "updates snaps, four times per day",
    "fwupd.service": "looks for firmware, and asks devices for theirs",
    "tuned.service": _PROFILE,
    "tuned-ppd.service": _PROFILE,
    "power-profiles-daemon.service": _PROFILE,
    "ksm.service": _PAGES,
    "ksmtuned.service": _PAGES,
    "kdump.service": _CRASH,
    "kdump-tools.service": _CRASH,
    "smartd.service": _DISKS,
    "smartmontools.service": _DISKS,
    "systemd-timesyncd.service": _CLOCK,
    "chrony.service": _CLOCK,
    "chronyd.service": _CLOCK,
    "ntp.service": _CLOCK,
    "ntpd.service": _CLOCK,
    "ntpsec.service": _CLOCK,
}
"""Services that may wake up in the middle of a measurement, each with what it does then.

Timers need no list: whatever a timer starts, it starts at a time that no trial chose.
"""


def why_quiet(unit: str, activates: str = "") -> Optional[str]:
    """Return why a unit of systemd is stopped while trials run, and masked in guests.

    Args:
        unit: Its name, such as "apt-daily.timer".
        activates: Of a timer, what it starts.

    Returns:
        None for a unit that may stay.
    """
    if unit.endswith(".timer"):
        return f"runs {activates or 'something'} at a time of its own"
    return SERVICES.get(unit)


def quiet_units(units: Iterable[str]) -> list[str]:
    """Return those of some units that are stopped while trials run, sorted.

    >>> quiet_units(["ssh.service", "fstrim.timer", "cron.service"])
    ['cron.service', 'fstrim.timer']
    """
    return sorted({unit for unit in units if why_quiet(unit) is not None})
