"""Memory files under reclaim: what is in them stays, although nobody has it locked."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from swap_support import Device

from vswap import libc, memfile

SIZE = 8 << 20
MADV_PAGEOUT = 21  # linux/mman.h


def swapped(fd: int, name: str, data: bytes) -> int:
    """Bytes of the file that are swapped out, once `data` has been in it and is not wanted."""
    os.ftruncate(fd, len(data))
    with mmap.mmap(fd, len(data)) as mapping:
        mapping[:] = data
        libc.madvise(libc.address_of(mapping), len(data), MADV_PAGEOUT)
        smaps = Path("/proc/self/smaps").read_text().split(f"{name} (deleted)")[1]
        assert mapping[:] == data
    return int(smaps.split("Swap:")[1].split()[0]) << 10


def test_a_memory_file_is_not_swapped_out(up: Callable[..., Device], memory_corpus: Path) -> None:
    """RESIDENT. And a memfd is, by the same means."""
    device = up("--size", "64M", "--priority", "1000")
    with memory_corpus.open("rb") as file:
        data = file.read(SIZE)
    fds = memfile.create("other"), memfile.create("kept", resident=True)
    try:
        assert swapped(fds[0], "/memfd:vswap-other", data) > SIZE // 2
        if memfile.is_swappable(fds[1]):
            pytest.skip("this kernel has no tmpfs without swap (it came with 6.4)")
        assert swapped(fds[1], "/vswap-kept", data) == 0
    finally:
        for fd in fds:
            os.close(fd)
    assert device.stats()["failed_writes"] == 0


def test_all_that_a_device_leaves_to_a_worker_is_in_such_files(up: Callable[..., Device]) -> None:
    """RESIDENT: the state and the history, as the supervisor has them."""
    device = up("--size", "64M", "--no-swapon")
    probe = memfile.create("probe", resident=True)
    swappable = memfile.is_swappable(probe)
    os.close(probe)
    links = Path(f"/proc/{device.status()['supervisor_pid']}/fd").iterdir()
    files = [name for link in links if (name := str(link.readlink())).endswith(" (deleted)")]
    assert len([name for name in files if "vswap-" in name]) >= 10, files
    assert any(name.startswith("/memfd:") for name in files) == swappable, files
