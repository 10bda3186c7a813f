"""The unit in a guest that systemd has started: boot, stop, reboot and power-off while swapped."""

from __future__ import annotations

import re
import time

from qemu.conftest import Boot, Tell
from qemu.guest import Guest, Job
from qemu.stack import GROUP, Stack, cut_off, within

UNIT = "vswap@swap0.service"
SYSTEMD = "/lib/systemd/systemd"
UP_SECONDS = 90.0
STOP_SECONDS = 30.0
OFF_SECONDS = 60.0
SAID = "/run/said"


def started(boot: Boot) -> Guest:
    """A guest that swaps on the device of the unit, and needs to."""
    guest = boot(
        memory=448,
        init=SYSTEMD,
        parameters="systemd.show_status=1",
        seconds=600.0,
        expected=cut_off,
    )
    guest.run("systemctl", "is-active", "--wait", "swap.target", seconds=UP_SECONDS)
    end = time.monotonic() + UP_SECONDS
    while guest.run("systemctl", "is-active", UNIT).stdout.strip() != "active":
        assert time.monotonic() < end, guest.run("systemctl", "status", UNIT).stdout
        guest.run("sleep", "1")
    assert "/dev/loop0" in guest.sh("cat /proc/swaps")
    return guest


JOURNAL = f"journalctl -u {UNIT} --no-pager"
KEEP = """
import hashlib, pathlib, sys, time
kept, was = [], hashlib.sha256()
with open("/opt/test/corpus", "rb") as file:
    for _ in range(int(sys.argv[1])):
        kept.append(file.read(1 << 20))
        was.update(kept[-1])
print("ready", flush=True)
while not pathlib.Path("/run/look").exists():
    time.sleep(0.2)
now = hashlib.sha256()
for part in kept:
    now.update(part)
sys.exit(now.digest() != was.digest())
"""
TAKE = """
import pathlib, re, time
def kib(pattern, path):
    return int(re.search(pattern, pathlib.Path(path).read_text())[1])
def missing():  # what `down` asks for: room for what is out, and as much again, up to 32 MiB
    used = kib(r"loop\\S+\\s+\\S+\\s+\\d+\\s+(\\d+)", "/proc/swaps")
    out = used - kib(r"SwapCached: +(\\d+)", "/proc/meminfo")
    return out + min(out, 32 << 10) - kib(r"MemAvailable: +(\\d+)", "/proc/meminfo")
taken = []
while missing() < 24 << 10:
    taken.append(b"x" * (1 << 20))
print("ready", flush=True)
time.sleep(600)
"""


def ready(guest: Guest, script: str, words: str = "", before: str = ":") -> Job:
    """A program in Python that has come to its point, and stays there."""
    guest.write("/tmp/script.py", script)
    job = guest.start("sh", "-c", f"{before}; exec python3 /tmp/script.py {words}")
    while "ready" not in job.text(1):
        assert job.poll(), job.wait()
        guest.run("sleep", "0.5")
    return job


def pushed_out(guest: Guest, mib: int = 40) -> Job:
    """Somebody whose pages lie on the device, who will look at them once there is /run/look.

    The limit of his group has put them there: systemd's, who has to start and stop the unit, are
    not there. It is to be lifted (`lift`) before swap goes off.
    """
    guest.sh("rm -f /run/look")
    job = ready(guest, KEEP, str(mib), before=within(32))
    assert Stack(guest).used_mib() > 10
    return job


def lift(guest: Guest) -> None:
    """Let those whose pages were pushed out have as much memory as there is."""
    guest.sh(f"echo max >{GROUP}/memory.max")


def looks(guest: Guest, keeper: Job) -> None:
    """He finds them as they were."""
    guest.sh("touch /run/look")
    keeper.wait(UP_SECONDS).ok()


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


def stops(guest: Guest) -> None:
    """In its order, and soon enough: swap first, and then the daemon."""
    began = time.monotonic()
    guest.sh(f"systemctl stop {UNIT}", seconds=UP_SECONDS)
    assert time.monotonic() - began < STOP_SECONDS
    assert "/dev/loop" not in guest.sh("cat /proc/swaps"), guest.sh(JOURNAL)
    assert guest.run("pgrep", "vswap-").returncode == 1


def swaps(guest: Guest) -> None:
    """Let a service run that has pages on the device, by its limit, which stays."""
    guest.write("/tmp/script.py", KEEP)
    guest.sh(f"rm -f /run/look {SAID}")
    guest.run(
        *("systemd-run", "--quiet", "--unit", "keeper", "-p", f"StandardOutput=truncate:{SAID}"),
        *("-p", "MemoryMax=32M", "python3", "/tmp/script.py", "40"),
    ).ok()
    guest.sh(f"until grep -qs ready {SAID}; do sleep 1; done", seconds=UP_SECONDS)
    assert Stack(guest).used_mib() > 10


def goes_down(guest: Guest, how: str, tell: Tell) -> None:
    """What lies on the device is brought back or freed first, then its daemon ends."""
    before = len(guest.console.read_bytes())
    began = time.monotonic()
    guest.start("systemctl", how)
    guest.wait_end(OFF_SECONDS)
    took = time.monotonic() - began
    tell(f"{how} while swapped: {took:.1f} s")
    assert took < STOP_SECONDS  # and so did every stop job; systemd cuts its lines where they tell
    console = guest.console.read_bytes()[before:].decode(errors="replace")
    console = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", console)
    assert "Read-error on swap" not in console
    assert re.search("Unmounted run-vswap-swap0.*Stopped vswap@swap0", console, re.DOTALL), console
    assert not re.search("Waiting for process.*vswap", console)  # it has ended by itself


def test_from_boot_to_reboot(boot: Boot, tell: Tell) -> None:
    """The unit serves before swap is there, outlives its processes, is upgraded, and stops."""
    guest = started(boot)
    after = "systemctl show -p ActiveEnterTimestampMonotonic --value "
    unit, target = (int(guest.sh(after + name)) for name in (UNIT, "swap.target"))
    assert unit <= target
    keeper = pushed_out(guest)
    lift(guest)
    all_processes_are_killed(guest)
    main = f"systemctl show -p MainPID --value {UNIT}"
    before = guest.sh(main)
    guest.sh(f"systemctl reload {UNIT}", seconds=UP_SECONDS)
    assert guest.sh(main) != before
    stops(guest)
    looks(guest, keeper)
    guest.sh(f"systemctl start {UNIT}", seconds=UP_SECONDS)
    swaps(guest)  # if it were not stopped first, `down` would refuse: its limit is too low
    goes_down(guest, "reboot", tell)


QUICKLY = f"""
mkdir -p /run/systemd/system/{UNIT}.d
printf '[Service]\\nTimeoutStopSec=8s\\n' >/run/systemd/system/{UNIT}.d/quickly.conf
systemctl daemon-reload
"""


def test_from_a_stop_that_is_refused_to_poweroff(boot: Boot, tell: Tell) -> None:
    """It leaves everything as it is, and a start takes the device back."""
    guest = started(boot)
    guest.sh(QUICKLY)
    keeper = pushed_out(guest, 56)  # `down` then asks for more than there may be by chance
    lift(guest)
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
    guest.sh(f"rm -r /run/systemd/system/{UNIT}.d && systemctl daemon-reload")
    stops(guest)
    looks(guest, keeper)
    guest.sh(f"systemctl start {UNIT}", seconds=UP_SECONDS)
    pushed_out(guest)  # who is not stopped, for he is no service
    lift(guest)
    goes_down(guest, "poweroff", tell)
