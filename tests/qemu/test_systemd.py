"""The unit in a guest that systemd has started: boot, stop, reboot and power-off while swapped."""

from __future__ import annotations

import time

import pytest
from qemu.conftest import Boot
from qemu.guest import Guest
from qemu.stack import PASSES, Stack, hog_command, wait_filled

UNIT = "vswap@swap0.service"
SYSTEMD = "/lib/systemd/systemd"
UP_SECONDS = 90.0
STOP_SECONDS = 30.0
OFF_SECONDS = 60.0


def started(boot: Boot) -> Guest:
    """A guest that swaps on the device of the unit, and needs to."""
    guest = boot(memory=448, init=SYSTEMD, parameters="systemd.show_status=1", seconds=300.0)
    guest.run("systemctl", "is-active", "--wait", "swap.target", seconds=UP_SECONDS)
    end = time.monotonic() + UP_SECONDS
    while guest.run("systemctl", "is-active", UNIT).stdout.strip() != "active":
        assert time.monotonic() < end, guest.run("systemctl", "status", UNIT).stdout
        guest.run("sleep", "1")
    assert "/dev/loop0" in guest.sh("cat /proc/swaps")
    return guest


def swapped(guest: Guest) -> None:
    """Let a service run that needs the device."""
    command = hog_command(448, "--passes", str(PASSES), "--seconds", "300")
    wait_filled(guest.start("systemd-run", "--quiet", "--pipe", "--unit", "hog", *command))


def test_it_serves_before_swap_is_there_and_stops_in_order(boot: Boot) -> None:
    guest = started(boot)
    after = "systemctl show -p ActiveEnterTimestampMonotonic --value "
    unit, target = (int(guest.sh(after + name)) for name in (UNIT, "swap.target"))
    assert unit <= target
    guest.sh("head -c 40M /dev/zero >/dev/null")
    began = time.monotonic()
    guest.sh(f"systemctl stop {UNIT}", seconds=UP_SECONDS)
    assert time.monotonic() - began < STOP_SECONDS
    assert "/dev/loop" not in guest.sh("cat /proc/swaps")
    assert guest.run("pgrep", "vswap-").returncode == 1
    guest.sh(f"systemctl start {UNIT}", seconds=UP_SECONDS)
    guest.sh(f"systemctl reload {UNIT}", seconds=UP_SECONDS)
    Stack(guest).check()


def test_all_processes_are_killed_and_the_next_ones_go_on(boot: Boot) -> None:
    """What systemd has kept is enough, and loop device and swap are recognised."""
    guest = started(boot)
    swapped(guest)
    guest.sh(f"systemctl kill --signal=KILL {UNIT}", seconds=UP_SECONDS)
    end = time.monotonic() + UP_SECONDS
    while "NRestarts=1\nActiveState=active" not in guest.sh(
        f"systemctl show -p NRestarts -p ActiveState {UNIT}", seconds=UP_SECONDS
    ):
        assert time.monotonic() < end, guest.run("systemctl", "status", UNIT).stdout
        guest.run("sleep", "1")
    assert guest.sh("grep -c /dev/loop /proc/swaps").strip() == "1"
    assert "pages" in guest.sh(f"systemctl show -p StatusText {UNIT}")
    Stack(guest).check()


@pytest.mark.parametrize("how", ["reboot", "poweroff"])
def test_the_guest_goes_down_while_it_swaps(how: str, boot: Boot) -> None:
    guest = started(boot)
    swapped(guest)
    began = time.monotonic()
    guest.start("systemctl", how)
    guest.wait_end(OFF_SECONDS)
    took = time.monotonic() - began
    console = guest.console.read_text(errors="replace")
    assert "stop job is running" not in console or took < STOP_SECONDS
    assert "Read-error on swap" not in console
    print(f"{how}: {took:.1f} s")
