"""Devices of the host's as disks of guests, which swap on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from qemu.conftest import Boot, Tell
from qemu.guest import Drive
from qemu.kernels import Kernel
from qemu.stack import PASSES, Stack, judged, wait_filled
from swap_support import Device, left_behind, missing, tear_down, vswap, wait_until

PAGE = 4096
GUEST_MIB = 192
SECONDS = 200.0
FREED = 4096
"""Pages of discards that are seen while the guest has swap on."""


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
        if left_behind(mount):
            tear_down(mount)
        Path(f"/run/vswap/{mount.name}.log").unlink(missing_ok=True)


def has_freed(device: Device, pages: int) -> bool:
    return bool(device.stats()["notify_free"] > pages)


def test_two_guests_swap_on_two_devices(
    devices: Callable[[str], Device], boot: Boot, kernels: dict[str, Kernel], tell: Tell
) -> None:
    newest = "6.12" if "6.12" in kernels else "6.1"
    names = ("qemu-first", "qemu-second")
    made = [devices(name) for name in names]
    guests = [
        boot(
            memory=GUEST_MIB,
            kernel=kernel,
            processors=1,
            drives=[Drive(Path(device.loop), discard=True, block_size=PAGE)],
        )
        for device, kernel in zip(made, ("6.1", newest), strict=True)
    ]
    for guest in guests:
        guest.sh(
            # Or the kernel takes it for a disk that turns, and discards no cluster that is free.
            "echo 0 >/sys/block/vdb/queue/rotational; "
            "mkswap /dev/vdb >/dev/null && swapon --discard /dev/vdb"
        )
    hogs = [
        Stack(guest).hog(GUEST_MIB + 60, "--passes", str(PASSES), "--seconds", "10")
        for guest in guests
    ]
    for hog in hogs:
        wait_filled(hog)
    for device, guest in zip(made, guests, strict=True):
        stats = device.stats()
        assert stats["stored_pages"] > 10_000
        per_page = stats["mem_used_total"] / (stats["stored_pages"] + stats["zero_pages"])
        tell(f"on the host, for {guest.release}: {per_page:.0f} bytes for each page")
        assert per_page < PAGE / 2
    freed = [device.stats()["notify_free"] for device in made]
    for hog in hogs:
        judged(hog.wait(SECONDS))
    for device, guest, before in zip(made, guests, freed, strict=True):
        # The guest's kernel discards what the hog had, a cluster at a time, when it has ended.
        wait_until(partial(has_freed, device, before + FREED), "the guest's discards arrive")
        guest.sh("swapoff /dev/vdb && blkdiscard -f /dev/vdb", seconds=SECONDS)
        stats = device.stats()
        assert stats["stored_pages"] == stats["zero_pages"] == 0
        assert stats["failed_reads"] == stats["failed_writes"] == 0
        done = vswap("ctl", "--device", str(device.mount), "check")
        assert done.stdout.startswith("ok: "), done.stdout + done.stderr
        guest.stop()
        done = vswap("down", str(device.mount))
        assert done.returncode == 0, done.stderr
