"""`down` with pages on the device: they come back right, and in bulk."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from swap_support import ENVIRONMENT, Device, left_behind, start_vswap, vswap, wait_until

from bench.cgroup import MemoryCgroup
from vswapd.swapdev import parse_meminfo, swap_area, swap_areas

MIB = 1 << 20
HOG = 256 * MIB
LIMIT = 32 * MIB
SECONDS = 120.0
LARGE = 8
"""Pages in a read, on average. swapoff by itself reads one or two."""


@pytest.fixture
def hog(
    up: Callable[..., Device], programs: Callable[[str], Path], memory_corpus: Path
) -> Iterator[tuple[Device, subprocess.Popen[str]]]:
    """A device with most of the pages of a process, which waits; then there is room for all."""
    if any(area.used for area in swap_areas()):
        pytest.skip("other swap is in use")
    device = up("--size", "1G", "--priority", "1000")
    argv = [
        *(str(programs("hog")), "--size", str(HOG), "--source", str(memory_corpus)),
        *("--passes", "1", "--hold", "--json"),
    ]
    with MemoryCgroup(LIMIT, "vswap-test-down") as group:
        process = group.start(argv, capture=True, talk=True)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], SECONDS)[0]
        assert process.stdout.readline() == "filled\n"
        group.set_limit(2 * HOG)
        area = swap_area(device.loop)
        assert area is not None
        assert area.used > HOG - 2 * LIMIT
        yield device, process
        process.kill()
        process.communicate()


def cached() -> int:
    """Bytes that are on swap and in memory as well."""
    return parse_meminfo(Path("/proc/meminfo").read_text(), "SwapCached")


def verified(process: subprocess.Popen[str]) -> bool:
    """Whether it finds every page as it was, when it is let go on."""
    output, errors = process.communicate("\n", timeout=SECONDS)
    assert process.returncode == 0, errors
    mismatches: int = json.loads(output.splitlines()[-1])["mismatches"]
    return mismatches == 0


@pytest.fixture
def last_stats(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dict[str, Any]]:
    """What the device said of itself after swapoff: `losetup -d` is what comes next."""
    kept, losetup = tmp_path / "stats.json", tmp_path / "bin/losetup"
    losetup.parent.mkdir()
    real = shutil.which("losetup", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    losetup.write_text(f'#!/bin/sh\ncat {mount}/stats.json > {kept}\nexec {real} "$@"\n')
    losetup.chmod(0o755)
    path = f"{losetup.parent}:{os.environ['PATH']}"
    monkeypatch.setitem(ENVIRONMENT, "PATH", path)

    def read() -> dict[str, Any]:
        stats = json.loads(kept.read_text())
        assert isinstance(stats, dict)
        return stats

    return read


def test_down_brings_pages_back_in_bulk(
    hog: tuple[Device, subprocess.Popen[str]], last_stats: Callable[[], dict[str, Any]]
) -> None:
    device, process = hog
    before = device.stats()
    done = vswap("down", str(device.mount))
    assert done.returncode == 0, done.stderr
    assert left_behind(device.mount) == []
    assert verified(process)
    after = last_stats()
    pages, reads = (after[name] - before[name] for name in ("pages_read", "reads"))
    assert pages * 4096 >= HOG - 3 * LIMIT  # zero pages are not read
    assert pages / reads > LARGE
    assert after["failed_reads"] == 0


def test_down_that_is_stopped_loses_nothing(hog: tuple[Device, subprocess.Popen[str]]) -> None:
    device, process = hog
    before = cached()
    stopped = start_vswap("down", str(device.mount))
    wait_until(
        lambda: cached() > before + MIB or stopped.poll() is not None, "pages are being read"
    )
    os.killpg(stopped.pid, signal.SIGINT)
    _, errors = stopped.communicate(timeout=SECONDS)
    assert stopped.returncode in {0, 130}, errors  # it may have been faster
    assert "Traceback" not in errors
    assert verified(process)
    if stopped.returncode:
        assert vswap("down", str(device.mount)).returncode == 0
    assert left_behind(device.mount) == []


def test_down_waits_for_another_swapoff(hog: tuple[Device, subprocess.Popen[str]]) -> None:
    """At shutdown systemd begins one of its own, and the kernel refuses a second one."""
    device, process = hog
    before = cached()
    with subprocess.Popen(["swapoff", device.loop], stderr=subprocess.PIPE, text=True) as other:
        wait_until(lambda: cached() > before or other.poll() is not None, "it is at work")
        done = vswap("down", str(device.mount))
        _, errors = other.communicate(timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert other.returncode == 0, errors
    assert left_behind(device.mount) == []
    assert verified(process)
