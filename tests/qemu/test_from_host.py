"""Devices of the host's as disks of guests, which swap on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qemu.conftest import Boot
from qemu.guest import Drive
from qemu.stack import PASSES, Stack, judged, wait_filled
from swap_support import Device, left_behind, missing, tear_down, vswap

PAGE = 4096
GUEST_MIB = 192
SECONDS = 200.0


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Callable[[str], Device]]:
    """Make devices of the host's that nobody here swaps on."""
    if reason := missing():
        pytest.skip(reason)
    mounts: list[Path] = []

    def make(name: str) -> Device:
        mount = tmp_path / name
        mount.mkdir()
        mounts.append(mount)
        options = ("--size", "512M", "--no-swapon", "--no-tune")
        done = vswap("up", "--mount", str(mount), *options)
        assert done.returncode == 0, done.stderr
        return Device(mount, done.stdout.strip())

    yield make
    for mount in mounts:
        vswap("down", str(mount))
        if left_behind(mount):
            tear_down(mount)
        Path(f"/run/vswap/{mount.name}.log").unlink(missing_ok=True)


def test_two_guests_swap_on_two_devices(boot: Boot, devices: Callable[[str], Device]) -> None:
    names = ("qemu-first", "qemu-second")
    made = [devices(name) for name in names]
    guests = [
        boot(
            memory=GUEST_MIB,
            kernel=kernel,
            processors=1,
            drives=[Drive(Path(device.loop), discard=True, block_size=PAGE)],
        )
        for device, kernel in zip(made, ("6.1", "6.12"), strict=True)
    ]
    for guest in guests:
        guest.sh("mkswap /dev/vdb >/dev/null && swapon --discard /dev/vdb")
    hogs = [
        Stack(guest).hog(GUEST_MIB + 60, "--passes", str(PASSES), "--seconds", "15")
        for guest in guests
    ]
    for hog in hogs:
        wait_filled(hog)
    for device, guest in zip(made, guests, strict=True):
        stats = device.stats()
        assert stats["stored_pages"] > 10_000
        per_page = stats["mem_used_total"] / (stats["stored_pages"] + stats["zero_pages"])
        print(f"{guest.release}: {stats['stored_pages']} pages, {per_page:.0f} bytes for each")
        assert per_page < PAGE / 2
    for hog in hogs:
        judged(hog.wait(SECONDS))
    for device, guest in zip(made, guests, strict=True):
        before = device.stats()["notify_free"]
        guest.sh("swapoff /dev/vdb && blkdiscard -f /dev/vdb", seconds=SECONDS)
        stats = device.stats()
        assert stats["notify_free"] > before
        assert stats["stored_pages"] == stats["zero_pages"] == 0
        assert stats["failed_reads"] == stats["failed_writes"] == 0
        done = vswap("ctl", "--device", str(device.mount), "check")
        assert done.stdout.startswith("ok: "), done.stdout + done.stderr
