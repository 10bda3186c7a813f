"""Real memory pressure: a process that needs more memory than its cgroup has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swap_support import Device, run, swaps, vswap, wait_until

from bench.cgroup import MemoryCgroup

MIB = 1 << 20
HOG = 512 * MIB
LIMIT = 128 * MIB
ON_DEVICE = 300 * MIB
HOG_SECONDS = 240.0
NEARLY = MIB


def test_every_page_of_a_hog_comes_back_right(
    up: Callable[..., Device], programs: Callable[[str], Path], memory_corpus: Path
) -> None:
    device = up("--size", "1G", "--priority", "1000")
    table, segments = device.memory_bytes("table"), device.memory_bytes("segments")
    argv = [
        *(str(programs("hog")), "--size", str(HOG), "--source", str(memory_corpus)),
        *("--passes", "2", "--rewrite", "0.5", "--json"),
    ]
    most = checks = 0
    with MemoryCgroup(LIMIT, "vswap-test-hog") as group:
        hog = group.start(argv, capture=True)
        while hog.poll() is None:
            most = max(most, int(device.stats()["orig_data_size"]))
            _check(device)
            checks += 1
            with suppress(subprocess.TimeoutExpired):
                hog.wait(0.5)
        output, errors = hog.communicate(timeout=HOG_SECONDS)
        assert group.oom_kills() == 0
    assert hog.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["mismatches"] == 0
    assert most >= ON_DEVICE, f"only {most} bytes were on the device"
    assert checks
    _check(device)
    stats = device.stats()
    assert stats["failed_reads"] == stats["failed_writes"] == stats["internal_errors"] == 0

    _memory_returns(device, table, segments)
    _check(device)


def _check(device: Device) -> None:
    """All that the device counts and stores is as it should be, at this moment."""
    done = vswap("ctl", "--device", str(device.mount), "check", timeout=HOG_SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("ok: ")


def _memory_returns(device: Device, table: int, segments: int) -> None:
    """After swapoff and a discard of everything, the device costs what it did when new."""
    assert run("swapoff", device.loop).returncode == 0
    assert device.loop not in swaps()
    assert run("blkdiscard", "--force", device.loop).returncode == 0
    stats = device.stats()
    assert stats["stored_pages"] == stats["zero_pages"] == stats["clusters_used"] == 0
    wait_until(
        lambda: device.memory_bytes("segments") <= segments + NEARLY, "segments are given back"
    )
    assert device.memory_bytes("table") <= table + NEARLY
