"""Background services and timers that would disturb measurements, on hosts and in guests.

Tuning stops these units on the host while trials run; the image of guests masks them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

_JOBS = "runs jobs at times of its own, and checks every minute whether one is due"
_PROFILE = "changes settings of the host to a profile, and overrides those of a sweep"
_PAGES = "starts and stops the merging of equal pages, including pages of measured guests"
_CRASH = "reloads the crash kernel when a CPU goes offline or comes online"
_DISKS = "checks the health of disks every half hour"
_CLOCK = "wakes up to correct the clock, and changes its rate"

SERVICES: dict[str, str] = {
    "cron.service": _JOBS,
    "crond.service": _JOBS,
    "cronie.service": _JOBS,
    "anacron.service": "runs the jobs that were missed while the host was off",
    "atd.service": _JOBS,
    "unattended-upgrades.service": "waits to install updates of packages",
    "packagekit.service": "searches for packages, and updates their lists",
    "snapd.service": "updates snaps, four times per day",
    "fwupd.service": "searches for firmware updates, and queries devices for their versions",
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
"""Services that may wake up during a measurement, each with what it does then.

Timers need no list: every timer starts its unit at a time that is independent of trials.
"""


def why_quiet(unit: str, activates: str = "") -> Optional[str]:
    """Return why a systemd unit is stopped while trials run, and masked in guests.

    Args:
        unit: Name of the unit, such as "apt-daily.timer".
        activates: For a timer, the unit that it starts.

    Returns:
        None for a unit that may stay.
    """
    if unit.endswith(".timer"):
        return f"runs {activates or 'something'} at a time of its own"
    return SERVICES.get(unit)


def quiet_units(units: Iterable[str]) -> list[str]:
    """Return the units to stop while trials run, sorted, without duplicates.

    >>> quiet_units(["ssh.service", "fstrim.timer", "cron.service"])
    ['cron.service', 'fstrim.timer']
    """
    return sorted({unit for unit in units if why_quiet(unit) is not None})
