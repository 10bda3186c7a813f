"""Real pressure in a guest: more memory is wanted than there is, for minutes, by several."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from qemu.conftest import Boot, Tell
from qemu.guest import Done, Drive, Guest
from qemu.stack import (
    GROUP,
    MIB,
    PASSES,
    Stack,
    beats,
    judged,
    wait_filled,
)

HOG_SECONDS = 400.0
KILLS = 15
LONGEST_GAP = 10.0
"""Seconds without a heartbeat, which is due every 3."""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An empty file for a guest's second disk."""
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 512 * MIB)
    return path


def oom_kills(guest: Guest) -> int:
    return int(guest.sh("sed -n 's/^oom_kill //p' /proc/vmstat"))


def swapped_pages(guest: Guest) -> int:
    """How many have been swapped in or out."""
    found = guest.sh("sed -n 's/^pswp[a-z]* //p' /proc/vmstat", seconds=HOG_SECONDS).split()
    return sum(map(int, found))


def longest_gap(hog: Done) -> float:
    """Seconds for which a hog has said nothing, up to its end."""
    times = [*beats(hog), float(json.loads(hog.stdout.splitlines()[-1])["elapsed"])]
    return max(after - before for before, after in zip([0.0, *times], times, strict=False))


def test_a_hog_of_more_than_all_memory_beside_others(boot: Boot, disk: Path) -> None:
    """The whole stack in 256 MiB: a store of 40 MiB, what does not fit goes to a disk."""
    guest = boot(memory=256, drives=[Drive(disk, discard=True)], seconds=600.0, nice=-15)
    stack = Stack(guest)
    loop = stack.up("--size", "768M", "--memory-limit", "40M", "--backing", "/dev/vdb")
    began = time.monotonic()
    options = ("--passes", str(PASSES), "--seconds", "120", "--rewrite", "0.2")
    hog = stack.hog(256 + 100, *options)
    files = guest.start("sh", "-ec", "while :; do cat /opt/test/corpus >/dev/null; echo; done")
    report = hog.wait(HOG_SECONDS)
    judged(report)
    assert time.monotonic() - began > 120
    assert longest_gap(report) < LONGEST_GAP
    assert files.poll(), files.wait()
    assert files.text(1)  # it has read all of it, which is a third of all memory, and again
    files.signal(9)
    done = guest.run(
        *("stress-ng", "--vm", "1", "--vm-bytes", "160M", "--vm-method", "rand-sum", "--verify"),
        *("--timeout", "10s"),
        seconds=90.0,
    )
    assert done.returncode == 0, str(done)
    stats = stack.stats()
    assert stats["failed_reads"] == stats["failed_writes"] == 0
    assert stats["writeback_pages"] > 0
    stack.check()
    off_and_on_again(stack, loop)
    assert oom_kills(guest) == 0
    guest.sh("pkill -KILL -x vswap-worker")  # with no spare, for here is no room for one
    stack.check()
    stack.down()


def off_and_on_again(stack: Stack, loop: str) -> None:
    """While somebody has pages on it, and has them there again afterwards."""
    guest = stack.guest
    hog = stack.hog_within(12, 28, "--passes", str(PASSES), "--seconds", "10")
    wait_filled(hog)
    assert stack.used_mib() > 8
    guest.sh(f"echo max >{GROUP}/memory.max")
    guest.sh(f"swapoff {loop} && swapon {loop}", seconds=90.0)
    assert hog.poll(), hog.wait()
    guest.sh(f"echo 12M >{GROUP}/memory.max", seconds=90.0)
    assert stack.used_mib() > 8
    judged(hog.wait(HOG_SECONDS))


def test_the_worker_is_killed_every_second(boot: Boot, disk: Path, tell: Tell) -> None:
    """With all the spares that there can be, which 512 MiB have room for."""
    guest = boot(memory=512, drives=[Drive(disk, discard=True)], seconds=400.0)
    stack = Stack(guest)
    options = ("--memory-limit", "64M", "--backing", "/dev/vdb", "--spares", "2")
    stack.up("--size", "1G", *options)
    hog = stack.hog(330, "--passes", str(PASSES), "--seconds", "25")  # half more than there is
    before, kills = swapped_pages(guest), 0
    while hog.poll() and kills < KILLS:
        guest.run("sleep", "1", seconds=HOG_SECONDS)
        done = guest.run("pkill", "-KILL", "-x", "vswap-worker", seconds=HOG_SECONDS)
        kills += done.returncode == 0
    assert swapped_pages(guest) - before > 1000 * KILLS
    judged(hog.wait(HOG_SECONDS))
    stack.check()
    stats = stack.stats()
    assert stats["worker_restarts"] >= kills == KILLS
    assert oom_kills(guest) == 0
    tell(f"killed in a guest: {kills} kills")
    stack.down()


SUSPEND = """
import ctypes, os, signal, sys, time
# It must not come to wait for whom it has stopped: all that it needs, it has.
assert ctypes.CDLL(None).mlockall(3) == 0
pids = [int(pid) for pid in sys.argv[1:]]
for number, seconds in (signal.SIGCONT, 0.1), (signal.SIGSTOP, 8), (signal.SIGCONT, 0):
    for pid in pids:
        os.kill(pid, number)
    time.sleep(seconds)
"""


def test_the_daemon_is_suspended_for_a_while(boot: Boot) -> None:
    """For longer than the watchdog's patience; then its worker is killed once."""
    guest = boot(memory=448, seconds=300.0)
    stack = Stack(guest)
    stack.up("--size", "768M", "--watchdog", "6")
    guest.sh("until pgrep -x vswap-standby; do sleep 1; done")
    hog = stack.hog(360, "--passes", str(PASSES), "--seconds", "10")
    wait_filled(hog)
    pids = guest.sh("pgrep vswap-", seconds=HOG_SECONDS).split()
    guest.write("/tmp/suspend.py", SUSPEND)
    guest.run("chrt", "-r", "2", "python3", "/tmp/suspend.py", *pids, seconds=HOG_SECONDS).ok()
    assert hog.poll(), "it was not there any more"
    assert stack.stats()["worker_restarts"] == 0
    guest.sh("pkill -KILL -x vswap-worker", seconds=HOG_SECONDS)
    assert hog.poll(), "it was not there any more"
    judged(hog.wait(HOG_SECONDS))
    stack.check()
    assert stack.stats()["worker_restarts"] == 1
    assert oom_kills(guest) == 0
    stack.down()


ZEROS = """
import mmap, sys, time
size = int(sys.argv[1])
memory = mmap.mmap(-1, size)
chunk = bytes(1 << 20)
for at in range(0, size, len(chunk)):
    memory[at : at + len(chunk)] = chunk
print("filled", flush=True)
time.sleep(float(sys.argv[2]))
assert all(memory[at : at + len(chunk)] == chunk for at in range(0, size, len(chunk)))
"""


def test_zero_pages_come_to_the_device_on_6_1_and_cost_nothing(boot: Boot, tell: Tell) -> None:
    """Newer kernels keep them to themselves."""
    guest = boot(memory=320, kernel="6.1")
    stack = Stack(guest)
    stack.up("--size", "768M")
    before = stack.stats()
    guest.write("/tmp/zeros.py", ZEROS)
    zeros = guest.start("python3", "/tmp/zeros.py", str(300 * MIB), "1")
    while "filled" not in zeros.text(1):
        assert zeros.poll(), zeros.wait()
        guest.run("sleep", "1")
    stats = stack.stats()
    assert stats["zero_pages"] > 20_000
    assert stats["stored_pages"] < stats["zero_pages"] / 2
    more = stats["mem_used_total"] - before["mem_used_total"] - stats["compr_data_size"]
    tell(f"{stats['zero_pages']} zero pages: {more} bytes beside what the others take")
    assert more < 3 * MIB  # segments that are not full, and no more than they
    zeros.wait(HOG_SECONDS).ok()
    stack.down()
