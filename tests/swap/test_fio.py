"""What fio writes, it reads back: random reads and writes, checked by crc32c."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest
from swap_support import Device, run, vswap

SIZE = "96M"
ON_DEVICE = "256M"
SECONDS = 120.0


@pytest.fixture(params=[512, 4096], ids=["512-byte-blocks", "4K-blocks"])
def block_device(request: pytest.FixtureRequest, up: Callable[..., Device]) -> Iterator[str]:
    """A loop device over the served file, with small or whole-page logical blocks."""
    device = up("--size", ON_DEVICE, "--no-swapon")
    if request.param == 4096:
        yield device.loop
        return
    file = str(device.mount / "swap")
    made = run("losetup", "--direct-io=on", "--sector-size", "512", "-f", "--show", file)
    assert made.returncode == 0, made.stderr
    loop = made.stdout.strip()
    try:
        yield loop
    finally:
        assert run("losetup", "-d", loop).returncode == 0


def verify(block_device: str, block: str, *more: str) -> None:
    done = run(
        *("fio", "--name=verify", f"--filename={block_device}", "--direct=1", "--rw=randrw"),
        *(f"--bs={block}", f"--size={SIZE}", "--ioengine=libaio", "--iodepth=16"),
        *("--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1", "--randseed=1"),
        "--verify_state_save=0",
        *("--buffer_compress_percentage=60", *more),
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", ["4k", "16k", "128k"])
def test_random_io_verifies(block_device: str, block: str) -> None:
    verify(block_device, block)


def test_requests_that_are_no_whole_pages_verify(up: Callable[..., Device]) -> None:
    device = up("--size", ON_DEVICE, "--no-swapon")
    done = run("losetup", "--sector-size", "512", "-f", "--show", str(device.mount / "swap"))
    loop = done.stdout.strip()
    try:
        verify(loop, "512-20k", "--bsrange=512-20k", "--blockalign=512", f"--size={SIZE}")
    finally:
        assert run("losetup", "-d", loop).returncode == 0


def test_discards_beside_writes_verify(up: Callable[..., Device]) -> None:
    """Two regions: one is written and verified while the other is discarded over and over."""
    device = up("--size", ON_DEVICE, "--no-swapon")
    done = run(
        *("fio", f"--filename={device.loop}", "--direct=1", "--ioengine=libaio", "--bs=16k"),
        *("--name=verify", "--rw=randrw", "--size=64M", "--iodepth=8", "--randseed=2"),
        *("--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1", "--verify_state_save=0"),
        *("--name=trim", "--rw=randtrim", "--offset=128M", "--size=64M", "--iodepth=8"),
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(device.stats()["discards"]) > 0


def test_what_keeps_it_small_goes_on_beside_verified_writes(up: Callable[..., Device]) -> None:
    """Writes in random order under a limit, with every command given meanwhile."""
    device = up("--size", ON_DEVICE, "--no-swapon", "--memory-limit", "96M")
    ended = threading.Event()
    failed: list[str] = []

    def give() -> None:
        for command in itertools.cycle(("check", "compact", "idle all", "recompress", "check")):
            if ended.is_set():
                return
            done = vswap("ctl", "--device", str(device.mount), *command.split(), timeout=SECONDS)
            if done.returncode:
                failed.append(f"{command}: {done.stdout}{done.stderr}")

    giver = threading.Thread(target=give)
    giver.start()
    try:
        verify(device.loop, "4k")
    finally:
        ended.set()
        giver.join()
    assert failed == []
    assert vswap("ctl", "--device", str(device.mount), "check").returncode == 0
    assert device.stats()["mem_used_total"] <= 96 << 20
