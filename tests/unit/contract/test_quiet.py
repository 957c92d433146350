"""Tests of the list of units that are stopped on hosts and masked in guests."""

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
def test_units_that_wake_up_have_a_reason(unit: str) -> None:
    assert why_quiet(unit)
    assert quiet_units([unit, unit]) == [unit]


@pytest.mark.parametrize(
    "unit",
    ["ssh.service", "dbus.service", "docker.service", "libvirtd.service", "systemd-udevd.service",
     "NetworkManager.service", "auditd.service", "multipathd.service", "timer.service"],
)  # fmt: skip
def test_units_that_a_host_or_a_sweep_needs_are_not_stopped(unit: str) -> None:
    assert why_quiet(unit) is None
    assert quiet_units([unit]) == []


def test_the_reason_of_a_timer_names_the_unit_that_it_starts() -> None:
    assert "fstrim.service" in str(why_quiet("fstrim.timer", "fstrim.service"))


def test_the_list_contains_only_services() -> None:
    assert all(unit.endswith(".service") for unit in SERVICES)
