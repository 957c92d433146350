"""Which units are stopped on a host and masked in guests, by one list."""

import pytest

from virtbed_contract.quiet import SERVICES, quiet_units, why_quiet


@pytest.mark.parametrize(
    "unit",
    ["apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "man-db.timer",
     "dpkg-db-backup.timer", "e2scrub_all.timer", "mdcheck_start.timer", "sysstat-collect.timer",
     "plocate-updatedb.timer", "logrotate.timer", "of-this-site@2.timer", "cron.service",
     "atd.service", "unattended-upgrades.service", "tuned.service", "ksmtuned.service",
     "kdump.service", "packagekit.service", "snapd.service", "smartd.service",
     "systemd-timesyncd.service"],
)  # fmt: skip
def test_what_wakes_by_itself_is_said_with_why(unit: str) -> None:
    assert why_quiet(unit)
    assert quiet_units([unit, unit]) == [unit]


@pytest.mark.parametrize(
    "unit",
    ["ssh.service", "dbus.service", "docker.service", "libvirtd.service", "systemd-udevd.service",
     "NetworkManager.service", "auditd.service", "multipathd.service", "timer.service"],
)  # fmt: skip
def test_what_a_host_or_a_sweep_needs_stays(unit: str) -> None:
    assert why_quiet(unit) is None
    assert quiet_units([unit]) == []


def test_a_timer_says_what_it_starts() -> None:
    assert "fstrim.service" in str(why_quiet("fstrim.timer", "fstrim.service"))


def test_the_list_has_services_alone() -> None:
    assert all(unit.endswith(".service") for unit in SERVICES)
