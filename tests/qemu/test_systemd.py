"""The unit in a guest that systemd has started: boot, stop, reboot and power-off while swapped."""

from __future__ import annotations

import re
import time

import pytest
from qemu.conftest import Boot, Tell
from qemu.guest import Guest, Job
from qemu.stack import FILL_SECONDS, GROUP, PASSES, Stack, cut_off, hog_command, within

UNIT = "vswap@swap0.service"
SYSTEMD = "/lib/systemd/systemd"
UP_SECONDS = 90.0
STOP_SECONDS = 30.0
OFF_SECONDS = 60.0
SAID = "/run/hog"


def started(boot: Boot) -> Guest:
    """A guest that swaps on the device of the unit, and needs to."""
    guest = boot(
        memory=448,
        init=SYSTEMD,
        parameters="systemd.show_status=1",
        seconds=400.0,
        expected=cut_off,
    )
    guest.run("systemctl", "is-active", "--wait", "swap.target", seconds=UP_SECONDS)
    end = time.monotonic() + UP_SECONDS
    while guest.run("systemctl", "is-active", UNIT).stdout.strip() != "active":
        assert time.monotonic() < end, guest.run("systemctl", "status", UNIT).stdout
        guest.run("sleep", "1")
    assert "/dev/loop0" in guest.sh("cat /proc/swaps")
    return guest


def swapped(guest: Guest) -> None:
    """Let a service run that has 60 MiB on the device, by its limit."""
    command = hog_command(124, "--passes", str(PASSES), "--seconds", "300")
    guest.sh(f"rm -f {SAID}")
    guest.run(
        *("systemd-run", "--quiet", "--unit", "hog", "-p", f"StandardError=truncate:{SAID}"),
        *("-p", "MemoryMax=64M"),
        *command,
    ).ok()
    guest.sh(f"until grep -s verify {SAID}; do sleep 1; done", seconds=FILL_SECONDS)
    assert Stack(guest).used_mib() > 50


JOURNAL = f"journalctl -u {UNIT} --no-pager"
KEEP = """
import hashlib, pathlib, sys, time
with open("/opt/test/corpus", "rb") as file:
    kept = file.read(40 << 20)
was = hashlib.sha256(kept).digest()
print("ready", flush=True)
while not pathlib.Path("/run/look").exists():
    time.sleep(0.2)
sys.exit(hashlib.sha256(kept).digest() != was)
"""
TAKE = """
import pathlib, re, time
def kib(pattern, path):
    return int(re.search(pattern, pathlib.Path(path).read_text())[1])
def missing():  # of what `down` wants to see: room for what lies on the device, and 32 MiB
    used = kib(r"loop\\S+\\s+\\S+\\s+\\d+\\s+(\\d+)", "/proc/swaps")
    return used + (32 << 10) - kib(r"MemAvailable: +(\\d+)", "/proc/meminfo")
taken = []
while missing() < 24 << 10:
    taken.append(b"x" * (1 << 20))
print("ready", flush=True)
time.sleep(600)
"""


def ready(guest: Guest, script: str, before: str = ":") -> Job:
    """A program in Python that has come to its point, and stays there."""
    guest.write("/tmp/script.py", script)
    job = guest.start("sh", "-c", f"{before}; exec python3 /tmp/script.py")
    while "ready" not in job.text(1):
        assert job.poll(), job.wait()
        guest.run("sleep", "0.5")
    return job


def pushed_out(guest: Guest) -> Job:
    """Somebody whose pages lie on the device: the limit of his group has done that.

    So systemd's do not, who has to start and stop the unit.
    """
    job = ready(guest, KEEP, before=within(32))
    assert Stack(guest).used_mib() > 10
    return job


def all_processes_are_killed(guest: Guest) -> None:
    """What systemd has kept is enough, and loop device and swap are recognised."""
    out = Stack(guest).used_mib()
    guest.sh(f"systemctl kill --signal=KILL {UNIT}", seconds=UP_SECONDS)
    end = time.monotonic() + UP_SECONDS
    while "NRestarts=1\nActiveState=active" not in guest.sh(
        f"systemctl show -p NRestarts -p ActiveState {UNIT}", seconds=UP_SECONDS
    ):
        assert time.monotonic() < end, guest.run("systemctl", "status", UNIT).stdout
        guest.run("sleep", "1")
    assert guest.sh("grep -c /dev/loop /proc/swaps").strip() == "1"
    assert Stack(guest).used_mib() == out
    Stack(guest).check()


def test_it_serves_before_swap_is_there_outlives_its_processes_and_stops_in_order(
    boot: Boot,
) -> None:
    guest = started(boot)
    after = "systemctl show -p ActiveEnterTimestampMonotonic --value "
    unit, target = (int(guest.sh(after + name)) for name in (UNIT, "swap.target"))
    assert unit <= target
    keeper = pushed_out(guest)
    all_processes_are_killed(guest)
    main = f"systemctl show -p MainPID --value {UNIT}"
    before = guest.sh(main)
    guest.sh(f"systemctl reload {UNIT}", seconds=UP_SECONDS)
    assert guest.sh(main) != before
    guest.sh(f"echo max >{GROUP}/memory.max")
    began = time.monotonic()
    guest.sh(f"systemctl stop {UNIT}", seconds=UP_SECONDS)
    assert time.monotonic() - began < STOP_SECONDS
    assert "/dev/loop" not in guest.sh("cat /proc/swaps"), guest.sh(JOURNAL)
    assert guest.run("pgrep", "vswap-").returncode == 1
    guest.sh("touch /run/look")
    keeper.wait(UP_SECONDS).ok()


QUICKLY = f"""
mkdir -p /run/systemd/system/{UNIT}.d
printf '[Service]\\nTimeoutStopSec=8s\\n' >/run/systemd/system/{UNIT}.d/quickly.conf
systemctl daemon-reload
"""


def test_a_stop_that_is_refused_leaves_everything_and_a_start_takes_it_back(boot: Boot) -> None:
    guest = started(boot)
    guest.sh(QUICKLY)
    keeper = pushed_out(guest)
    guest.sh(f"echo max >{GROUP}/memory.max")
    taker = ready(guest, TAKE)
    guest.run("systemctl", "stop", UNIT, seconds=UP_SECONDS)
    assert "not enough memory to take back" in guest.sh(JOURNAL)
    assert Stack(guest).used_mib() > 10
    assert guest.run("pgrep", "-x", "vswap-worker").returncode == 0
    taker.signal(9)
    taker.wait()
    guest.sh(f"systemctl start {UNIT}", seconds=UP_SECONDS)
    main = guest.sh(f"systemctl show -p MainPID --value {UNIT}").strip()
    assert guest.sh("pgrep -x vswap-keeper").strip() == main
    guest.sh(f"systemctl stop {UNIT}", seconds=UP_SECONDS)
    assert "/dev/loop" not in guest.sh("cat /proc/swaps"), guest.sh(JOURNAL)
    guest.sh("touch /run/look")
    keeper.wait(UP_SECONDS).ok()


@pytest.mark.parametrize("how", ["reboot", "poweroff"])
def test_the_guest_goes_down_while_it_swaps(how: str, boot: Boot, tell: Tell) -> None:
    guest = started(boot)
    swapped(guest)
    began = time.monotonic()
    guest.start("systemctl", how)
    guest.wait_end(OFF_SECONDS)
    took = time.monotonic() - began
    console = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", guest.console.read_text(errors="replace"))
    assert "stop job is running" not in console or took < STOP_SECONDS
    assert "Read-error on swap" not in console
    assert "Stopped vswap@swap0" in console  # systemd shortens the rest
    assert not re.search("Waiting for process.*vswap", console)  # it has ended by itself
    tell(f"{how} while swapped: {took:.1f} s")
