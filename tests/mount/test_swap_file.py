"""The file `swap`: what any program may do with it, through the kernel."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from mount.harness import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    PAGE,
    SIZE,
    Start,
    Worker,
    aligned,
    close,
    environment,
    errno_of,
    fallocate,
)

pytestmark = pytest.mark.mount

CLUSTER = 512 * PAGE
MIB = 1 << 20
PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
ZERO = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE

RANGES = [
    pytest.param(0, PAGE, id="the first page"),
    pytest.param(3 * PAGE, 5 * PAGE, id="pages"),
    pytest.param(7 * PAGE, 64 * PAGE, id="many pages"),
    pytest.param(100, 10, id="within a page"),
    pytest.param(512, 512, id="a sector"),
    pytest.param(4000, 200, id="over a page's end"),
    pytest.param(4095, 2 * PAGE + 2, id="two whole pages and two bytes"),
    pytest.param(CLUSTER - PAGE, 2 * PAGE, id="over a cluster's end"),
    pytest.param(CLUSTER - 3, 6, id="over a cluster's end, unaligned"),
    pytest.param(CLUSTER - 5000, 3 * MIB, id="a cluster and more, unaligned"),
    pytest.param(SIZE - PAGE, PAGE, id="the last page"),
    pytest.param(SIZE - 1, 1, id="the last byte"),
    pytest.param(SIZE - 5000, 5000, id="the end, unaligned"),
]


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int = 1) -> bytes:
    """Compresses about as well as memory does."""
    words = [b"%08x" % random.Random(seed + i).getrandbits(16) for i in range(200)]
    return b"".join(random.Random(seed).choices(words, k=size // 8 + 1))[:size]


@pytest.fixture(scope="module")
def shared_swap(shared: Worker) -> Iterator[int]:
    fd = os.open(shared.swap, os.O_RDWR)
    yield fd
    close(fd)


@pytest.fixture
def blank(shared_swap: int) -> int:
    """The shared device's file, discarded: it holds nothing."""
    fallocate(shared_swap, PUNCH, 0, SIZE)
    return shared_swap


# --- Reading and writing ---------------------------------------------------------------


@pytest.mark.parametrize(("offset", "size"), RANGES)
@pytest.mark.parametrize("make", [noise, text, bytes], ids=["n", "t", "z"])
def test_what_is_written_is_read(
    make: Callable[[int], bytes], offset: int, size: int, blank: int
) -> None:
    data = make(size)
    assert os.pwrite(blank, data, offset) == size
    assert os.pread(blank, size, offset) == data


@pytest.mark.parametrize(("offset", "size"), RANGES)
def test_a_write_changes_nothing_beside_it(offset: int, size: int, blank: int) -> None:
    start = max(0, offset - 2 * PAGE)
    end = min(SIZE, offset + size + 2 * PAGE)
    before = noise(end - start, seed=2)
    os.pwrite(blank, before, start)
    os.pwrite(blank, text(size), offset)
    wanted = before[: offset - start] + text(size) + before[offset - start + size :]
    assert os.pread(blank, end - start, start) == wanted


def test_what_was_never_written_is_zeros(blank: int) -> None:
    assert os.pread(blank, MIB, 0) == bytes(MIB)


def test_overwriting_in_random_order(blank: int) -> None:
    """200 writes of any size at any place, against a copy in memory."""
    chance = random.Random(3)
    copy = bytearray(4 * MIB)
    for seed in range(200):
        size = chance.choice([512, PAGE, 5 * PAGE, 10_000, 128 << 10])
        offset = chance.randrange(0, len(copy) - size, chance.choice([1, 512, PAGE]))
        data = text(size, seed) if chance.random() < 0.7 else bytes(size)
        os.pwrite(blank, data, offset)
        copy[offset : offset + size] = data
    assert os.pread(blank, len(copy), 0) == copy


@pytest.mark.parametrize(("offset", "pages"), [(0, 1), (PAGE, 16), (CLUSTER - PAGE, 2)])
def test_direct_io(offset: int, pages: int, shared: Worker, blank: int) -> None:
    data = noise(pages * PAGE)
    back = aligned(bytes(pages * PAGE))
    fd = os.open(shared.swap, os.O_RDWR | os.O_DIRECT)
    try:
        assert os.pwritev(fd, [aligned(data)], offset) == len(data)
        assert os.preadv(fd, [back], offset) == len(data)
    finally:
        os.close(fd)
    assert back[:] == data
    assert os.pread(blank, len(data), offset) == data


@pytest.mark.parametrize(
    ("offset", "size", "left"), [(SIZE - 10, PAGE, 10), (SIZE - PAGE, MIB, PAGE)]
)
def test_a_read_ends_at_the_end(offset: int, size: int, left: int, blank: int) -> None:
    os.pwrite(blank, noise(left), offset)
    assert os.pread(blank, size, offset) == noise(left)


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, SIZE + MIB, 1 << 62])
def test_beyond_the_end_nothing_is_read(offset: int, blank: int) -> None:
    assert os.pread(blank, PAGE, offset) == b""


@pytest.mark.parametrize(
    ("offset", "size"),
    [(SIZE, PAGE), (SIZE, 1), (SIZE - 10, 11), (SIZE - PAGE, 2 * PAGE), (1 << 60, PAGE)],
)
def test_writing_beyond_the_end_is_einval(offset: int, size: int, blank: int) -> None:
    os.pwrite(blank, noise(PAGE), SIZE - PAGE)
    assert errno_of(lambda: os.pwrite(blank, bytes(size), offset)) == errno.EINVAL
    assert os.fstat(blank).st_size == SIZE
    assert os.pread(blank, PAGE, SIZE - PAGE) == noise(PAGE)


def test_appending_is_einval(shared: Worker) -> None:
    fd = os.open(shared.swap, os.O_WRONLY | os.O_APPEND)
    try:
        assert errno_of(lambda: os.write(fd, bytes(PAGE))) == errno.EINVAL
    finally:
        os.close(fd)


def test_truncating_at_open_is_refused_and_loses_nothing(shared: Worker, blank: int) -> None:
    os.pwrite(blank, noise(PAGE), 0)
    assert errno_of(lambda: os.open(shared.swap, os.O_RDWR | os.O_TRUNC)) == errno.EPERM
    assert os.pread(blank, PAGE, 0) == noise(PAGE)


def test_its_size_is_the_device_s(shared: Worker, blank: int) -> None:
    os.pwrite(blank, noise(PAGE), 0)
    assert shared.swap.stat().st_size == os.fstat(blank).st_size == SIZE
    assert os.lseek(blank, 0, os.SEEK_END) == SIZE


def test_data_survives_closing(device: Worker) -> None:
    """And no handle stays open on the device, which could keep them."""
    with device.swap.open("r+b", buffering=0) as file:
        file.write(noise(5 * PAGE))
    with device.swap.open("rb", buffering=0) as file:
        assert file.read(5 * PAGE) == noise(5 * PAGE)


def test_fsync_is_answered(blank: int) -> None:
    os.fsync(blank)
    os.fdatasync(blank)


# --- Holes -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [PUNCH, ZERO, FALLOC_FL_ZERO_RANGE], ids=["punch", "zero", "z"])
@pytest.mark.parametrize(("offset", "size"), RANGES)
def test_punching_and_zeroing_make_zeros(mode: int, offset: int, size: int, blank: int) -> None:
    start = max(0, offset - PAGE)
    end = min(SIZE, offset + size + PAGE)
    before = noise(end - start)
    os.pwrite(blank, before, start)
    fallocate(blank, mode, offset, size)
    wanted = before[: offset - start] + bytes(size) + before[offset - start + size :]
    assert os.pread(blank, end - start, start) == wanted


def test_punched_pages_are_freed(device: Worker, swap: int) -> None:
    os.pwrite(swap, noise(20 * PAGE), 0)
    fallocate(swap, PUNCH, 5 * PAGE, 10 * PAGE)
    stats = device.stats()
    assert (stats["stored_pages"], stats["notify_free"]) == (10, 10)


def test_a_whole_discard_frees_everything(device: Worker, swap: int) -> None:
    os.pwrite(swap, noise(300 * PAGE), CLUSTER - 100 * PAGE)
    os.pwrite(swap, bytes(100 * PAGE), 10 * CLUSTER)
    fallocate(swap, PUNCH, 0, SIZE)
    stats = device.stats()
    assert (stats["stored_pages"], stats["zero_pages"], stats["clusters_used"]) == (0, 0, 0)
    assert stats["table_bytes"] == 0


def test_zero_pages_are_not_stored(device: Worker, swap: int) -> None:
    os.pwrite(swap, bytes(64 * PAGE), 0)
    stats = device.stats()
    assert (stats["stored_pages"], stats["zero_pages"], stats["same_pages"]) == (0, 64, 64)


def test_allocating_changes_nothing(blank: int) -> None:
    os.pwrite(blank, noise(PAGE), 0)
    os.posix_fallocate(blank, 0, SIZE)
    assert os.pread(blank, PAGE, 0) == noise(PAGE)


def test_the_device_does_not_grow(blank: int) -> None:
    assert errno_of(lambda: fallocate(blank, 0, 0, SIZE + PAGE)) == errno.EINVAL
    assert os.fstat(blank).st_size == SIZE


@pytest.mark.parametrize("mode", [0x08, 0x20, 0x40])
def test_other_kinds_of_fallocate_are_eopnotsupp(mode: int, blank: int) -> None:
    assert errno_of(lambda: fallocate(blank, mode, 0, PAGE)) == errno.EOPNOTSUPP


def test_seeking_data_and_holes(blank: int) -> None:
    os.pwrite(blank, noise(2 * PAGE), 3 * PAGE)
    os.pwrite(blank, noise(PAGE), 5 * CLUSTER)
    found = [
        os.lseek(blank, 0, os.SEEK_DATA),
        os.lseek(blank, 3 * PAGE, os.SEEK_HOLE),
        os.lseek(blank, 5 * PAGE, os.SEEK_DATA),
        os.lseek(blank, 5 * CLUSTER, os.SEEK_HOLE),
        os.lseek(blank, 0, os.SEEK_HOLE),
    ]
    assert found == [3 * PAGE, 5 * PAGE, 5 * CLUSTER, 5 * CLUSTER + PAGE, 0]


def test_behind_the_last_data_there_is_none(blank: int) -> None:
    os.pwrite(blank, noise(PAGE), 0)
    assert errno_of(lambda: os.lseek(blank, PAGE, os.SEEK_DATA)) == errno.ENXIO


def test_the_end_counts_as_a_hole(blank: int) -> None:
    os.pwrite(blank, noise(PAGE), SIZE - PAGE)
    assert os.lseek(blank, SIZE - PAGE, os.SEEK_HOLE) == SIZE


# --- Requests --------------------------------------------------------------------------


def test_a_megabyte_is_read_in_one_request(device: Worker, swap: int) -> None:
    buffer = aligned(bytes(MIB))
    before = device.stats()
    os.preadv(swap, [buffer], 0)
    after = device.stats()
    assert after["reads"] - before["reads"] == 1
    assert after["pages_read"] - before["pages_read"] == 256


def test_a_write_of_many_megabytes_comes_by_the_megabyte(device: Worker, swap: int) -> None:
    before = device.stats()
    os.pwritev(swap, [aligned(text(5 * MIB))], 0)
    after = device.stats()
    assert after["writes"] - before["writes"] == 5
    assert after["pages_written"] - before["pages_written"] == 5 * 256


def test_requests_are_counted(device: Worker, swap: int) -> None:
    os.pwrite(swap, noise(PAGE), 0)
    os.pread(swap, PAGE, 0)
    fallocate(swap, PUNCH, 0, PAGE)
    errno_of(lambda: os.pwrite(swap, bytes(PAGE), SIZE))
    stats = device.stats()
    counted = {name: stats[name] for name in ("reads", "writes", "discards", "failed_writes")}
    assert counted == {"reads": 1, "writes": 2, "discards": 1, "failed_writes": 1}
    assert stats["invalid_io"] == 1


# --- Full ------------------------------------------------------------------------------


def test_a_full_device_is_enospc_and_keeps_what_it_has(start: Start) -> None:
    device = start(memory_limit=12 << 20)
    fd = os.open(device.swap, os.O_RDWR)
    try:
        codes = []
        for at in range(0, 16 * MIB, MIB):
            codes.append(errno_of(lambda at=at: os.pwrite(fd, noise(MIB, at), at)))  # type: ignore[misc]
        assert set(codes) == {0, errno.ENOSPC}
        kept = codes.index(errno.ENOSPC)
        for at in range(0, kept * MIB, MIB):
            assert os.pread(fd, MIB, at) == noise(MIB, at)
        fallocate(fd, PUNCH, 0, SIZE)
        os.pwrite(fd, noise(MIB), 0)
        assert os.pread(fd, MIB, 0) == noise(MIB)
    finally:
        os.close(fd)


# --- Several processes -----------------------------------------------------------------

PROCESS = """
import os, random, sys
path, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(number)
fd = os.open(path, os.O_RDWR)
pages = {}
for step in range(300):
    page = chance.randrange(0, 1000) * count + number
    if step % 3 or page not in pages:
        pages[page] = chance.choice([chance.randbytes(4096), bytes(4096), b"%04096d" % step])
        assert os.pwrite(fd, pages[page], page * 4096) == 4096
    elif os.pread(fd, 4096, page * 4096) != pages[page]:
        sys.exit(f"page {page} differs")
for page, data in pages.items():
    if os.pread(fd, 4096, page * 4096) != data:
        sys.exit(f"page {page} differs in the end")
"""


def test_several_processes_at_once(shared: Worker, blank: int) -> None:
    """Each with pages of its own, side by side with the others' in each cluster and unit."""
    count = 4
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(shared.swap), str(number), str(count)],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        ended = [process.communicate(timeout=50)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    assert ended == [""] * count
