"""The worker is killed again and again under load, and nobody notices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from swap_killing import Killer, killing
from swap_support import Device, run, vswap

KILLS = int(os.environ.get("VSWAP_KILLS", "40"))
"""How often; more for a longer look."""

CHECKED = 100
"""After so many of the last kills everything is compared."""

FIO_SECONDS = 300.0


def verify_until(killer: Killer, kills: int, loop: str) -> None:
    """Run fio on a device until the killer is done: two regions are verified, one is discarded."""
    round_ = 0
    while killer.kills < kills and killer.failure is None:
        round_ += 1
        done = run(
            *("fio", f"--filename={loop}", "--direct=1", "--ioengine=libaio", "--group_reporting"),
            *("--verify=crc32c", "--verify_backlog=128", "--verify_fatal=1"),
            *("--verify_state_save=0", "--buffer_compress_percentage=60", f"--randseed={round_}"),
            *("--name=mixed", "--rw=randrw", "--bsrange=4k-128k", "--size=96M", "--iodepth=8"),
            *("--name=pages", "--rw=randrw", "--bs=4k", "--offset=96M", "--size=16M"),
            "--iodepth=16",
            *("--name=trim", "--rw=randtrim", "--bsrange=4k-128k", "--offset=128M", "--size=64M"),
            *("--iodepth=4", "--thinktime=1000"),
            timeout=FIO_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def check(device: Device) -> None:
    """Everything is as it should be, and `ctl` answers."""
    done = vswap("ctl", "--device", str(device.mount), "check", timeout=FIO_SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("ok: ")


@pytest.mark.parametrize("backing", [False, True], ids=["memory", "backing"])
def test_killed_at_random_moments_it_loses_nothing(
    backing: bool, up: Callable[..., Device], tmp_path: Path
) -> None:
    more = ("--backing", str(tmp_path / "backing"), "--backing-size", "256M") if backing else ()
    device = up(
        "--size", "256M", "--no-swapon", "--memory-limit", "32M" if backing else "80M", *more
    )
    supervisor = int(device.status()["supervisor_pid"])

    def after(kills: int) -> None:
        if kills > KILLS - CHECKED and (KILLS > CHECKED or kills % 4 == 0):
            check(device)

    with killing(supervisor, KILLS, seed=1, after=after) as killer:
        verify_until(killer, KILLS, device.loop)
    check(device)
    stats = device.stats()
    assert stats["worker_restarts"] >= KILLS
    assert stats["failed_reads"] == stats["failed_writes"] == stats["internal_errors"] == 0
    if backing:
        assert stats["backing_pages"] > 0
