"""Memory pressure on a device whose memory is too small: cold pages go to a file, and come back."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from swap_support import Device, left_behind, vswap, wait_until

from bench.cgroup import MemoryCgroup
from vswap.errors import UserError
from vswap.store import backing_make
from vswapd.swapdev import swap_areas

MIB = 1 << 20
HOG = 192 * MIB
GROUP = 48 * MIB
MEMORY = 24 * MIB
SPILLED = 2000
"""Pages on disk at least, when the hog has filled its memory."""

SECONDS = 60.0


@pytest.fixture
def device(up: Callable[..., Device], tmp_path: Path) -> Device:
    """A device that takes little memory and writes back to a new file."""
    if any(area.used for area in swap_areas()):
        pytest.skip("other swap is in use")
    file = tmp_path / "backing"
    try:
        backing_make.check_path(str(file))
    except UserError as error:
        pytest.skip(f"the temporary directory cannot hold a backing: {error}")
    return up(
        *("--size", "256M", "--threads", "2", "--priority", "1000"),
        *("--memory-limit", str(MEMORY), "--backing", str(file), "--backing-size", "256M"),
    )


@pytest.fixture
def group() -> Iterator[MemoryCgroup]:
    """Less memory than the hog needs."""
    with MemoryCgroup(GROUP, f"vswap-test-spill-{os.getpid()}") as group:
        yield group
        assert group.oom_kills() == 0


@pytest.fixture
def hog_command(programs: Callable[[str], Path], memory_corpus: Path) -> list[str]:
    """Every page is verified twice, a quarter of them written anew in between."""
    return [
        *(str(programs("hog")), "--size", str(HOG), "--source", str(memory_corpus)),
        *("--passes", "2", "--rewrite", "0.25", "--json"),
    ]


@pytest.fixture
def filled(
    device: Device, group: MemoryCgroup, hog_command: list[str]
) -> Iterator[subprocess.Popen[str]]:
    """A hog that has filled its memory, of which much is on disk, and waits for a line."""
    hog = group.start([*hog_command, "--hold"], capture=True, talk=True)
    try:
        assert hog.stdout is not None
        assert select.select([hog.stdout], [], [], SECONDS)[0]
        assert hog.stdout.readline() == "filled\n"
        assert device.stats()["backing_pages"] > SPILLED
        yield hog
    finally:
        hog.kill()
        hog.communicate(timeout=SECONDS)


def assert_verified(hog: subprocess.Popen[str], said: str | None = None) -> None:
    """It ends, and has found every page as it was."""
    output, errors = hog.communicate(said, timeout=SECONDS)
    assert hog.returncode == 0, errors
    assert json.loads(output.splitlines()[-1])["mismatches"] == 0


def assert_sound(device: Device) -> None:
    """What the device counts and stores is as it should be, and nothing has failed."""
    done = vswap("ctl", "--device", str(device.mount), "check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("ok: ")
    stats = device.stats()
    failures = (
        *("failed_reads", "failed_writes", "internal_errors"),
        *("backing_failed_reads", "backing_failed_writes", "backing_corrupt"),
    )
    assert {name: stats[name] for name in failures} == dict.fromkeys(failures, 0)


def test_every_page_of_a_hog_comes_back_right_from_memory_and_disk(
    device: Device, group: MemoryCgroup, hog_command: list[str]
) -> None:
    hog = group.start(hog_command, capture=True)
    most = 0
    while hog.poll() is None:
        most = max(most, device.stats()["backing_pages"])
        assert_sound(device)
        with suppress(subprocess.TimeoutExpired):
            hog.wait(0.5)
    assert_verified(hog)
    assert most > SPILLED
    assert_sound(device)
    stats = device.stats()
    assert stats["writeback_pages"] >= most
    assert stats["bd_reads"] > 0
    assert stats["mem_used_max"] <= stats["mem_limit"] == MEMORY


def test_down_brings_back_what_is_on_disk(
    device: Device, group: MemoryCgroup, filled: subprocess.Popen[str], tmp_path: Path
) -> None:
    group.set_limit(2 * HOG)
    done = vswap("down", str(device.mount))
    assert done.returncode == 0, done.stderr
    assert left_behind(device.mount) == []
    (tmp_path / "backing").unlink()
    assert_verified(filled, "\n")


def test_a_backing_can_be_detached_while_a_hog_runs(
    device: Device, filled: subprocess.Popen[str], tmp_path: Path
) -> None:
    ctl = ("ctl", "--device", str(device.mount))
    assert vswap(*ctl, "memory_limit", "none").returncode == 0
    assert filled.stdin is not None
    filled.stdin.write("\n")
    filled.stdin.flush()
    done = vswap(*ctl, "backing", "detach")
    assert done.returncode == 0, done.stderr
    assert filled.poll() is None  # it runs still
    wait_until(lambda: device.stats()["backing_state"] == "none", "all has come back", SECONDS)
    (tmp_path / "backing").unlink()
    assert_sound(device)
    assert_verified(filled)
    assert_sound(device)
    assert device.stats()["detach_result"] == "detached"
