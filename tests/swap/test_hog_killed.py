"""Real memory pressure while the worker is killed again and again: a program notices nothing."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swap_killing import killing
from swap_support import Device, vswap

from bench.cgroup import MemoryCgroup

SECONDS = float(os.environ.get("VSWAP_HOG_SECONDS", "10"))
"""For how long; more for a longer look."""

PAUSE_SECONDS = 0.3
MIB = 1 << 20
HOG = 256 * MIB
LIMIT = 64 * MIB
ON_DEVICE = 150 * MIB
HOG_SECONDS = 240.0
MANY_KILLS = 1_000_000


def test_a_hog_does_not_notice_that_the_worker_is_killed(
    up: Callable[..., Device], programs: Callable[[str], Path], memory_corpus: Path
) -> None:
    device = up("--size", "1G", "--priority", "1000")
    supervisor = int(device.status()["supervisor_pid"])
    argv = [
        *(str(programs("hog")), "--size", str(HOG), "--source", str(memory_corpus)),
        *("--passes", "2", "--rewrite", "0.5", "--json"),
    ]
    oom_kills = _oom_kills()
    end = time.monotonic() + SECONDS
    pages = hogs = 0
    with killing(
        supervisor, MANY_KILLS, seed=1, shortest=PAUSE_SECONDS, longest=PAUSE_SECONDS
    ) as killer:
        while time.monotonic() < end and killer.failure is None:
            order = ("seq", "random")[hogs % 2]
            pages += _hog_runs_well([*argv, "--seed", str(hogs), "--order", order])
            hogs += 1
        kills = killer.kills
    assert kills >= SECONDS / PAUSE_SECONDS / 3, f"only {kills} kills"
    assert _oom_kills() == oom_kills
    done = vswap("ctl", "--device", str(device.mount), "check", timeout=HOG_SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("ok: ")
    stats = device.stats()
    assert stats["worker_restarts"] >= kills
    assert stats["failed_reads"] == stats["failed_writes"] == stats["internal_errors"] == 0
    print(f"{hogs} hogs, {pages} pages right, {kills} kills: {done.stdout.strip()}")


def _hog_runs_well(argv: list[str]) -> int:
    """Run a hog to its end in too little memory; how many pages it has looked at or written."""
    most = 0
    with MemoryCgroup(LIMIT, f"vswap-test-killed-{os.getpid()}") as group:
        hog = group.start(argv, capture=True)
        deadline = time.monotonic() + HOG_SECONDS
        while hog.poll() is None and time.monotonic() < deadline:
            most = max(most, group.swap_bytes())
            with suppress(subprocess.TimeoutExpired):
                hog.wait(0.2)
        output, errors = hog.communicate(timeout=HOG_SECONDS)
        assert group.oom_kills() == 0
    assert (hog.returncode, errors) == (0, "")
    result = json.loads(output.splitlines()[-1])
    assert (result["result"], result["mismatches"]) == ("ok", 0)
    assert most >= ON_DEVICE, f"only {most} bytes were on the device"
    return sum(int(phase["pages"]) for phase in result["phases"])


def _oom_kills() -> int:
    """Processes that the kernel has killed for want of memory, since it runs."""
    fields = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(fields["oom_kill"])
