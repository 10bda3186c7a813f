"""Routing: requests byte for byte in, replies byte for byte out, on a real store.

The store keeps pages as they are, one to a unit, so that a test can find and damage one.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.proto import Fallocate, Lseek, Open, Other, Read, Request, Write
from vswap.store import Lane, Parked
from vswap.store.entry import SEGMENT_MASK, SEGMENT_OFFSET_SHIFT
from vswapd.channel import Outstanding, receive_buffer
from vswapd.channel.done import Done
from vswapd.channel.router import Router

if TYPE_CHECKING:
    from daemon.channel.conftest import Kernel, Small

SIZE = 4 << 20
OUT = struct.Struct("<IiQ")
FORGET, GETATTR, RELEASE, FSYNC, INTERRUPT, BATCH_FORGET, DESTROY = 2, 3, 18, 20, 36, 42, 38
LOG = "vswapd.channel.router"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def error(unique: int, code: int) -> bytes:
    return OUT.pack(OUT.size, -code, unique)


def data(unique: int, content: bytes) -> bytes:
    return OUT.pack(OUT.size + len(content), 0, unique) + content


def written(unique: int, size: int) -> bytes:
    return OUT.pack(OUT.size + 8, 0, unique) + struct.pack("<II", size, 0)


@dataclass
class Routed:
    """A router on one receive buffer. `passed_on` is what went to the control plane."""

    kernel: Kernel
    buffer: memoryview
    lane: Lane
    mark: memoryview
    outstanding: Outstanding
    accepts: bool = True
    passed_on: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.router = Router(
            self.kernel.fd,
            self.buffer,
            self.lane,
            Done(self.mark),
            self.outstanding,
            self.forward,
            self.answer,
        )

    def forward(self, request: memoryview) -> bool:
        self.passed_on.append(bytes(request))
        return self.accepts

    def answer(self, unique: int, read: Parked, received_ns: int) -> None:
        pytest.fail("nothing here is on disk")

    def take(self, raw: bytes) -> None:
        """Do with a request what a data thread does."""
        self.buffer[: len(raw)] = raw
        request = self.router.decode(len(raw))
        if request is not None:
            self.router.serve(request, len(raw))

    def ask(self, raw: bytes) -> bytes:
        """The reply to a request that has one."""
        self.take(raw)
        return self.kernel.reply()

    def read(self, offset: int, size: int) -> bytes:
        reply = self.ask(self.kernel.read(offset, size))
        assert OUT.unpack_from(reply)[1] == 0
        return reply[OUT.size :]

    def write(self, offset: int, content: bytes) -> None:
        reply = self.ask(self.kernel.write(offset, content))
        assert OUT.unpack_from(reply)[1] == 0


def routed_to(kernel: Kernel, small: Small, lane: Lane) -> Routed:
    """All of the first thread's memory, as a worker finds it."""
    whole = small.state.buffer(0)
    outstanding = Outstanding(small.state.outstanding.view)
    return Routed(kernel, receive_buffer(whole), lane, whole, outstanding)


@pytest.fixture
def routed(kernel: Kernel, small: Small) -> Routed:
    return routed_to(kernel, small, small.lane)


class FailingLane:
    """A lane with a fault nobody thought of."""

    size = SIZE

    def look(self, offset: int, size: int) -> list[bytes]:
        raise ZeroDivisionError

    write = discard = seek = look

    def read_ahead(self) -> bool:
        raise ZeroDivisionError


@pytest.fixture
def failing(kernel: Kernel, small: Small) -> Routed:
    lane: Lane = FailingLane()  # type: ignore[assignment]
    return routed_to(kernel, small, lane)


# --- READ ------------------------------------------------------------------------------


def test_read_of_one_page(routed: Routed, kernel: Kernel) -> None:
    page = noise(PAGE_SIZE)
    routed.write(5 * PAGE_SIZE, page)
    assert routed.ask(kernel.read(5 * PAGE_SIZE, PAGE_SIZE, unique=7)) == data(7, page)


def test_read_of_a_page_never_written_is_zeros(routed: Routed, kernel: Kernel) -> None:
    assert routed.ask(kernel.read(0, PAGE_SIZE, unique=7)) == data(7, bytes(PAGE_SIZE))


def test_read_of_many_pages_is_one_reply(routed: Routed, kernel: Kernel) -> None:
    pages = noise(3 * PAGE_SIZE)
    routed.write(PAGE_SIZE, pages)
    wanted = bytes(PAGE_SIZE) + pages + bytes(PAGE_SIZE)
    assert routed.ask(kernel.read(0, 5 * PAGE_SIZE, unique=7)) == data(7, wanted)


def test_read_of_bytes_at_any_place(routed: Routed, kernel: Kernel) -> None:
    pages = noise(2 * PAGE_SIZE)
    routed.write(0, pages)
    assert routed.ask(kernel.read(4000, 200, unique=7)) == data(7, pages[4000:4200])


def test_read_ends_at_the_end_of_the_device(routed: Routed, kernel: Kernel) -> None:
    page = noise(PAGE_SIZE)
    routed.write(SIZE - PAGE_SIZE, page)
    assert routed.ask(kernel.read(SIZE - PAGE_SIZE, 1 << 17, unique=7)) == data(7, page)
    assert routed.ask(kernel.read(SIZE - 10, PAGE_SIZE, unique=8)) == data(8, page[-10:])


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, SIZE + PAGE_SIZE, 1 << 63, (1 << 64) - 4096])
def test_read_beyond_the_end_is_empty(offset: int, routed: Routed, kernel: Kernel) -> None:
    assert routed.ask(kernel.read(offset, PAGE_SIZE, unique=7)) == data(7, b"")


def test_read_of_nothing_is_empty(routed: Routed, kernel: Kernel) -> None:
    assert routed.ask(kernel.read(0, 0, unique=7)) == data(7, b"")


# --- WRITE -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(0, PAGE_SIZE, id="a page"),
        pytest.param(3 * PAGE_SIZE, 32 * PAGE_SIZE, id="many pages"),
        pytest.param(1000, 512, id="part of a page"),
        pytest.param(4000, 5000, id="parts of three pages"),
        pytest.param((2 << 20) - 100, 200, id="over a cluster's end"),
        pytest.param(SIZE - PAGE_SIZE, PAGE_SIZE, id="the last page"),
        pytest.param(SIZE - 1, 1, id="the last byte"),
    ],
)
def test_write_is_answered_whole_and_can_be_read(
    offset: int, size: int, routed: Routed, kernel: Kernel
) -> None:
    content = noise(size)
    assert routed.ask(kernel.write(offset, content, unique=7)) == written(7, size)
    assert routed.read(offset, size) == content


def test_write_of_a_full_megabyte_fits_the_buffer(routed: Routed, kernel: Kernel) -> None:
    content = noise(1 << 20)
    assert routed.ask(kernel.write(0, content, unique=7)) == written(7, 1 << 20)
    assert routed.read((1 << 20) - PAGE_SIZE, PAGE_SIZE) == content[-PAGE_SIZE:]


def test_write_takes_no_byte_of_what_lay_in_the_buffer(routed: Routed) -> None:
    routed.write(0, noise(8 * PAGE_SIZE))
    routed.write(100 * PAGE_SIZE, noise(PAGE_SIZE, seed=2))
    assert routed.read(101 * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(SIZE, PAGE_SIZE, id="behind the end"),
        pytest.param(SIZE - PAGE_SIZE, 2 * PAGE_SIZE, id="over the end"),
        pytest.param(SIZE - 10, 11, id="over the end by a byte"),
        pytest.param(1 << 63, PAGE_SIZE, id="negative as a signed number"),
        pytest.param((1 << 64) - PAGE_SIZE, PAGE_SIZE, id="where offsets wrap"),
    ],
)
def test_write_beyond_the_end_is_einval(
    offset: int, size: int, routed: Routed, kernel: Kernel
) -> None:
    reply = routed.ask(kernel.write(offset, noise(size), unique=7))
    assert reply == error(7, errno.EINVAL)


def test_a_refused_write_changes_nothing(routed: Routed, kernel: Kernel) -> None:
    page = noise(PAGE_SIZE)
    routed.write(SIZE - PAGE_SIZE, page)
    routed.ask(kernel.write(SIZE - PAGE_SIZE, noise(2 * PAGE_SIZE, seed=2)))
    assert routed.read(SIZE - PAGE_SIZE, PAGE_SIZE) == page


@pytest.mark.parametrize("small", ["tight"], indirect=True)
def test_write_to_a_full_store_is_enospc(routed: Routed, kernel: Kernel, small: Small) -> None:
    for _ in range(3):  # they have open segments
        small.store.lane()
    size = 32 * PAGE_SIZE
    codes = []
    for at in range(0, SIZE, size):
        reply = routed.ask(kernel.write(at, noise(size, seed=at)))
        codes.append(-OUT.unpack_from(reply)[1])
    assert set(codes) == {0, errno.ENOSPC}
    assert routed.read(0, size) == noise(size, seed=0)


@pytest.mark.parametrize("unique", [2, 1 << 63 | 6, (1 << 64) - 2])
def test_unique_is_echoed_exactly(unique: int, routed: Routed, kernel: Kernel) -> None:
    page = noise(PAGE_SIZE)
    assert routed.ask(kernel.write(0, page, unique=unique)) == written(unique, PAGE_SIZE)
    assert routed.ask(kernel.read(0, PAGE_SIZE, unique=unique)) == data(unique, page)


def test_a_request_served_twice_has_the_same_result(routed: Routed, kernel: Kernel) -> None:
    request = kernel.write(0, noise(4 * PAGE_SIZE), unique=7)
    assert routed.ask(request) == routed.ask(request) == written(7, 4 * PAGE_SIZE)
    assert routed.read(0, 4 * PAGE_SIZE) == noise(4 * PAGE_SIZE)


# --- Damage ----------------------------------------------------------------------------


def damage(small: Small, page: bytes) -> None:
    """Change one bit of the stored copy of `page`."""
    memory = small.state.segments.view[:SEGMENT_SIZE]
    at = bytes(memory).find(page)
    assert at >= 0
    memory[at + 17] ^= 1


def test_a_damaged_page_is_eio(routed: Routed, kernel: Kernel, small: Small) -> None:
    routed.write(0, noise(PAGE_SIZE))
    damage(small, noise(PAGE_SIZE))
    assert routed.ask(kernel.read(0, PAGE_SIZE, unique=7)) == error(7, errno.EIO)


def test_a_read_that_meets_a_damaged_page_is_eio_as_a_whole(
    routed: Routed, kernel: Kernel, small: Small
) -> None:
    pages = noise(3 * PAGE_SIZE)
    routed.write(0, pages)
    damage(small, pages[PAGE_SIZE : 2 * PAGE_SIZE])
    assert routed.ask(kernel.read(0, 3 * PAGE_SIZE, unique=7)) == error(7, errno.EIO)


def test_the_pages_beside_a_damaged_one_are_unharmed(routed: Routed, small: Small) -> None:
    pages = noise(3 * PAGE_SIZE)
    routed.write(0, pages)
    damage(small, pages[PAGE_SIZE : 2 * PAGE_SIZE])
    assert routed.read(0, PAGE_SIZE) == pages[:PAGE_SIZE]
    assert routed.read(2 * PAGE_SIZE, PAGE_SIZE) == pages[-PAGE_SIZE:]


def test_part_of_a_damaged_page_cannot_be_overwritten(
    routed: Routed, kernel: Kernel, small: Small
) -> None:
    routed.write(0, noise(PAGE_SIZE))
    damage(small, noise(PAGE_SIZE))
    assert routed.ask(kernel.write(100, b"part", unique=7)) == error(7, errno.EIO)


def test_a_damaged_page_is_well_again_once_overwritten(routed: Routed, small: Small) -> None:
    routed.write(0, noise(PAGE_SIZE))
    damage(small, noise(PAGE_SIZE))
    routed.write(0, noise(PAGE_SIZE, seed=2))
    assert routed.read(0, PAGE_SIZE) == noise(PAGE_SIZE, seed=2)


# --- FALLOCATE -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0x02, 0x03, 0x10, 0x11])
def test_punching_and_zeroing_make_zeros(mode: int, routed: Routed, kernel: Kernel) -> None:
    pages = noise(3 * PAGE_SIZE)
    routed.write(0, pages)
    request = kernel.fallocate(PAGE_SIZE, PAGE_SIZE, mode)
    assert routed.ask(request) == OUT.pack(OUT.size, 0, kernel.unique)
    wanted = pages[:PAGE_SIZE] + bytes(PAGE_SIZE) + pages[-PAGE_SIZE:]
    assert routed.read(0, 3 * PAGE_SIZE) == wanted


@pytest.mark.parametrize("mode", [0x03, 0x11])
def test_parts_of_pages_can_be_zeroed(mode: int, routed: Routed, kernel: Kernel) -> None:
    pages = noise(3 * PAGE_SIZE)
    routed.write(0, pages)
    routed.ask(kernel.fallocate(100, 2 * PAGE_SIZE, mode))
    wanted = pages[:100] + bytes(2 * PAGE_SIZE) + pages[2 * PAGE_SIZE + 100 :]
    assert routed.read(0, 3 * PAGE_SIZE) == wanted


def test_the_whole_device_can_be_discarded(routed: Routed, kernel: Kernel, small: Small) -> None:
    routed.write(0, noise(8 * PAGE_SIZE))
    routed.write(SIZE - PAGE_SIZE, noise(PAGE_SIZE))
    routed.ask(kernel.fallocate(0, SIZE, 3))
    statistics = small.store.statistics()
    assert (statistics.stored_pages, statistics.clusters_used) == (0, 0)


@pytest.mark.parametrize("mode", [0, 1])
def test_allocating_changes_nothing(mode: int, routed: Routed, kernel: Kernel) -> None:
    page = noise(PAGE_SIZE)
    routed.write(0, page)
    request = kernel.fallocate(0, SIZE, mode)
    assert routed.ask(request) == OUT.pack(OUT.size, 0, kernel.unique)
    assert routed.read(0, PAGE_SIZE) == page


@pytest.mark.parametrize("mode", [0, 3, 0x10])
@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE, PAGE_SIZE), (0, SIZE + PAGE_SIZE), (PAGE_SIZE, 1 << 63)]
)
def test_fallocate_beyond_the_end_is_einval(
    offset: int, length: int, mode: int, routed: Routed, kernel: Kernel
) -> None:
    request = kernel.fallocate(offset, length, mode)
    assert routed.ask(request) == error(kernel.unique, errno.EINVAL)


@pytest.mark.parametrize("mode", [0x04, 0x08, 0x20, 0x40, 0x80, 0x83, 1 << 31])
def test_other_modes_are_eopnotsupp(mode: int, routed: Routed, kernel: Kernel) -> None:
    page = noise(PAGE_SIZE)
    routed.write(0, page)
    request = kernel.fallocate(0, PAGE_SIZE, mode)
    assert routed.ask(request) == error(kernel.unique, errno.EOPNOTSUPP)
    assert routed.read(0, PAGE_SIZE) == page


# --- LSEEK and OPEN --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "whence", "found"),
    [
        (0, os.SEEK_DATA, 2 * PAGE_SIZE),
        (2 * PAGE_SIZE + 5, os.SEEK_DATA, 2 * PAGE_SIZE + 5),
        (0, os.SEEK_HOLE, 0),
        (2 * PAGE_SIZE, os.SEEK_HOLE, 4 * PAGE_SIZE),
        (SIZE - PAGE_SIZE, os.SEEK_HOLE, SIZE),
    ],
)
def test_seek_answers_an_offset(
    offset: int, whence: int, found: int, routed: Routed, kernel: Kernel
) -> None:
    routed.write(2 * PAGE_SIZE, noise(2 * PAGE_SIZE))
    routed.write(SIZE - PAGE_SIZE, noise(PAGE_SIZE))
    reply = routed.ask(kernel.lseek(offset, whence))
    assert reply == OUT.pack(OUT.size + 8, 0, kernel.unique) + struct.pack("<Q", found)


@pytest.mark.parametrize(
    ("offset", "whence"), [(0, os.SEEK_DATA), (SIZE, os.SEEK_HOLE), (1 << 63, os.SEEK_DATA)]
)
def test_seek_where_there_is_nothing_is_enxio(
    offset: int, whence: int, routed: Routed, kernel: Kernel
) -> None:
    request = kernel.lseek(offset, whence)
    assert routed.ask(request) == error(kernel.unique, errno.ENXIO)


@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 99])
def test_seek_for_anything_else_is_refused(whence: int, routed: Routed, kernel: Kernel) -> None:
    request = kernel.lseek(0, whence)
    assert routed.ask(request) == error(kernel.unique, errno.EOPNOTSUPP)


def test_open_asks_for_direct_and_parallel_writes(routed: Routed, kernel: Kernel) -> None:
    direct_io, noflush, parallel_direct_writes = 1 << 0, 1 << 5, 1 << 6
    reply = routed.ask(kernel.open())
    body = struct.pack("<QIi", 0, direct_io | noflush | parallel_direct_writes, 0)
    assert reply == OUT.pack(32, 0, kernel.unique) + body


# --- What is not ours ------------------------------------------------------------------


def of_other_inode(kernel: Kernel, name: str) -> bytes:
    return {
        "READ": kernel.read(0, 4096, nodeid=3),
        "WRITE": kernel.write(0, b"help\n", nodeid=3),
        "OPEN": kernel.open(nodeid=3),
        "GETATTR": kernel.request(GETATTR, bytes(16), nodeid=3),
        "LOOKUP": kernel.request(1, b"stats\0", nodeid=1),
    }[name]


@pytest.mark.parametrize("name", ["READ", "WRITE", "OPEN", "GETATTR", "LOOKUP"])
def test_requests_for_other_files_are_passed_on_as_they_came(
    name: str, routed: Routed, kernel: Kernel
) -> None:
    raw = of_other_inode(kernel, name)
    routed.take(raw)
    assert routed.passed_on == [raw]
    assert not kernel.has_reply()


@pytest.mark.parametrize("opcode", [GETATTR, RELEASE, FSYNC, 25, DESTROY, 4711])
def test_other_requests_for_swap_are_passed_on(opcode: int, routed: Routed, kernel: Kernel) -> None:
    raw = kernel.request(opcode, bytes(24))
    routed.take(raw)
    assert routed.passed_on == [raw]


@pytest.mark.parametrize("name", ["READ", "WRITE", "OPEN", "GETATTR", "LOOKUP"])
def test_what_the_control_plane_cannot_take_is_ebusy(
    name: str, routed: Routed, kernel: Kernel
) -> None:
    routed.accepts = False
    raw = of_other_inode(kernel, name)
    assert routed.ask(raw) == error(struct.unpack_from("<Q", raw, 8)[0], errno.EBUSY)


def test_an_interrupt_is_answered_so_that_no_more_come(routed: Routed, kernel: Kernel) -> None:
    raw = kernel.request(INTERRUPT, bytes(8), nodeid=0, unique=9)
    assert routed.ask(raw) == error(9, errno.ENOSYS)
    assert routed.passed_on == []


@pytest.mark.parametrize("opcode", [FORGET, BATCH_FORGET])
def test_what_expects_no_reply_gets_none(opcode: int, routed: Routed, kernel: Kernel) -> None:
    routed.accepts = False
    routed.take(kernel.request(opcode, bytes(16), nodeid=3))
    assert not kernel.has_reply()


def test_what_was_passed_on_and_refused_is_counted(routed: Routed, kernel: Kernel) -> None:
    routed.take(kernel.request(GETATTR, bytes(16), nodeid=3))
    routed.accepts = False
    routed.take(kernel.request(GETATTR, bytes(16), nodeid=3))
    routed.take(kernel.request(FORGET, bytes(8), nodeid=3))
    statistics = routed.router.statistics()
    assert (statistics.forwarded, statistics.refused) == (3, 2)


# --- What is wrong ---------------------------------------------------------------------


def wrong(kernel: Kernel, name: str) -> bytes:
    """Messages that are no requests, and yet have a `unique`, 7."""
    read = kernel.read(0, 4096, unique=7)
    write = kernel.write(0, bytes(100), unique=7)
    return {
        "announces more": struct.pack("<I", len(read) + 8) + read[4:],
        "announces less": struct.pack("<I", len(read) - 8) + read[4:],
        "body too short": struct.pack("<I", 48) + read[4:48],
        "more data than announced": struct.pack("<I", len(write) + 1) + write[4:] + b"x",
        "less data than announced": struct.pack("<I", len(write) - 1) + write[4:-1],
        "extensions beyond its size": read[:36] + b"\xff\xff" + read[38:],
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "announces more",
        "announces less",
        "body too short",
        "more data than announced",
        "less data than announced",
        "extensions beyond its size",
    ],
)
def test_garbage_with_a_unique_is_einval(
    name: str, routed: Routed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    assert routed.ask(wrong(kernel, name)) == error(7, errno.EINVAL)
    assert routed.router.statistics().protocol_errors == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("size", [1, 4, 39])
def test_garbage_without_a_unique_is_dropped(
    size: int, routed: Routed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    routed.take(b"\xff" * size)
    assert not kernel.has_reply()
    assert routed.router.statistics().protocol_errors == 1
    assert caplog.records


def test_after_garbage_requests_are_served(routed: Routed, kernel: Kernel) -> None:
    routed.take(b"\xff" * 39)
    routed.ask(wrong(kernel, "body too short"))
    assert routed.read(0, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_contents_of_pages_do_not_get_into_the_log(
    routed: Routed, failing: Routed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    secret = b"TOPSECRET" * 400
    caplog.set_level(logging.DEBUG)
    failing.ask(kernel.write(0, secret))
    request = kernel.write(0, secret)
    routed.ask(struct.pack("<I", len(request) - 1) + request[4:-1])
    assert len(caplog.records) == 2
    assert "SECRET" not in caplog.text
    assert secret[:8].hex() not in caplog.text


def each_kind(kernel: Kernel) -> list[bytes]:
    return [
        kernel.read(0, PAGE_SIZE),
        kernel.write(0, bytes(PAGE_SIZE)),
        kernel.fallocate(0, PAGE_SIZE, 3),
        kernel.lseek(0, os.SEEK_DATA),
    ]


@pytest.mark.parametrize("index", range(4), ids=["READ", "WRITE", "FALLOCATE", "LSEEK"])
def test_an_error_nobody_foresaw_is_eio(
    index: int, failing: Routed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    request = each_kind(kernel)[index]
    unique = struct.unpack_from("<Q", request, 8)[0]
    assert failing.ask(request) == error(unique, errno.EIO)
    assert failing.router.statistics().internal_errors == 1
    assert [(record.name, record.levelno) for record in caplog.records] == [(LOG, logging.ERROR)]
    assert caplog.records[0].exc_info is not None


# --- What is prepared -------------------------------------------------------------------


def test_the_lane_reads_ahead_of_requests_in_order(
    routed: Routed, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.write(0, noise(64 * PAGE_SIZE))
    assert not routed.router.prepare()
    for slot in range(8):
        routed.read(slot * PAGE_SIZE, PAGE_SIZE)
    turns = 0
    while routed.router.prepare():
        turns += 1
    assert 7 <= turns <= 8
    assert not kernel.has_reply()


def test_preparing_is_no_request(routed: Routed) -> None:
    routed.write(0, noise(64 * PAGE_SIZE))
    for slot in range(8):
        routed.read(slot * PAGE_SIZE, PAGE_SIZE)
    before = routed.router.statistics(), routed.lane.counters.reads
    assert routed.router.prepare()
    assert (routed.router.statistics(), routed.lane.counters.reads) == before


def test_an_error_nobody_foresaw_ends_what_is_prepared(failing: Routed) -> None:
    """And nothing else: nobody has asked for anything."""
    assert failing.router.prepare() is False
    assert failing.router.statistics().internal_errors == 1


def test_an_entry_that_names_no_place_is_an_error_only_to_who_reads_it(
    routed: Routed, kernel: Kernel, small: Small
) -> None:
    """Memory fails, and what is prepared may be what nobody will ever ask for."""
    pages = noise(32 * PAGE_SIZE)
    routed.write(0, pages)
    table = small.store._parts.table
    table.replace(20, table.get(20) | SEGMENT_MASK << SEGMENT_OFFSET_SHIFT)
    for slot in range(32):
        reply = routed.ask(kernel.read(slot * PAGE_SIZE, PAGE_SIZE, unique=7))
        page = pages[slot * PAGE_SIZE :][:PAGE_SIZE]
        assert reply == (error(7, errno.EIO) if slot == 20 else data(7, page))
        for _ in range(SIZE // PAGE_SIZE):
            if not routed.router.prepare():
                break


# --- Replies that the kernel does not take ---------------------------------------------


def refuse_replies(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def writev(fd: int, buffers: tuple[bytes, ...]) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "writev", writev)


def test_a_reply_nobody_waits_for_is_counted_as_late(
    routed: Routed,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse_replies(monkeypatch, errno.ENOENT)
    routed.take(kernel.read(0, PAGE_SIZE))
    statistics = routed.router.statistics()
    assert (statistics.late_replies, statistics.internal_errors) == (1, 0)
    assert not caplog.records


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ECONNABORTED])
def test_a_reply_after_the_end_is_no_error(
    code: int,
    routed: Routed,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse_replies(monkeypatch, code)
    routed.take(kernel.read(0, PAGE_SIZE))
    statistics = routed.router.statistics()
    assert (statistics.late_replies, statistics.internal_errors) == (0, 0)
    assert not caplog.records


def test_a_reply_that_the_kernel_refuses_is_counted_and_told(
    routed: Routed,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse_replies(monkeypatch, errno.EINVAL)
    routed.take(kernel.read(0, PAGE_SIZE))
    assert routed.router.statistics().internal_errors == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_reply_is_one_write(
    routed: Routed, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.write(0, noise(64 * PAGE_SIZE))
    written_whole = []
    monkeypatch.setattr(os, "writev", lambda fd, buffers: written_whole.append(buffers))
    routed.take(kernel.read(0, 64 * PAGE_SIZE, unique=7))
    assert [b"".join(buffers) for buffers in written_whole] == [data(7, noise(64 * PAGE_SIZE))]


# --- What is marked as done, before it is answered ---------------------------------------


def marks_when_answered(
    routed: Routed, monkeypatch: pytest.MonkeyPatch, *requests: bytes
) -> list[int | None]:
    """The outcome of each request by its mark, at the moment when it is answered."""
    marks: list[int | None] = []
    real = os.writev

    def writev(fd: int, buffers: tuple[bytes, ...]) -> int:
        unique = OUT.unpack_from(buffers[0])[2]
        marks.append(Done(routed.mark).outcome_of(unique))
        return real(fd, buffers)

    monkeypatch.setattr(os, "writev", writev)
    for request in requests:
        routed.ask(request)
    return marks


def test_what_changes_something_is_marked_before_it_is_answered(
    routed: Routed, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed in between must not do it again: others may have been served since."""
    requests = [
        kernel.write(0, noise(PAGE_SIZE)),
        kernel.fallocate(0, PAGE_SIZE, 3),
        kernel.fallocate(0, PAGE_SIZE, 0),
        kernel.write(PAGE_SIZE, noise(100)),
    ]
    assert marks_when_answered(routed, monkeypatch, *requests) == [0, 0, 0, 0]


def test_what_failed_is_marked_with_its_errno_before_it_is_answered(
    routed: Routed, kernel: Kernel, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.write(0, noise(PAGE_SIZE))
    damage(small, noise(PAGE_SIZE))
    requests = [
        kernel.write(SIZE, noise(PAGE_SIZE)),
        kernel.fallocate(0, PAGE_SIZE, 0x40),
        kernel.lseek(SIZE, os.SEEK_DATA),
        kernel.write(100, b"part"),
    ]
    marks = marks_when_answered(routed, monkeypatch, *requests)
    assert marks == [errno.EINVAL, errno.EOPNOTSUPP, errno.ENXIO, errno.EIO]


@pytest.mark.parametrize("index", range(4), ids=["READ", "WRITE", "FALLOCATE", "LSEEK"])
def test_an_error_nobody_foresaw_is_marked_too(
    index: int, failing: Routed, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = each_kind(kernel)[index]
    assert marks_when_answered(failing, monkeypatch, request) == [errno.EIO]


def test_what_is_passed_on_is_marked_before_that(routed: Routed, kernel: Kernel) -> None:
    """Nobody knows here how it will end; but it has been given, and must not be given again."""
    marks: list[int | None] = []

    def forward(request: memoryview) -> bool:
        marks.append(Done(routed.mark).outcome_of(7))
        return True

    routed.router._forward = forward
    routed.take(kernel.write(0, b"echo", nodeid=3, unique=7))
    assert marks == [errno.ECANCELED]


def test_a_write_is_marked_when_it_is_done_and_not_before(kernel: Kernel, small: Small) -> None:
    class KilledError(BaseException):
        pass

    class KilledLane(FailingLane):
        def write(self, offset: int, size: int) -> list[bytes]:
            raise KilledError

    lane: Lane = KilledLane()  # type: ignore[assignment]
    routed = routed_to(kernel, small, lane)
    with pytest.raises(KilledError):
        routed.take(kernel.write(0, noise(PAGE_SIZE), unique=7))
    assert Done(routed.mark).outcome_of(7) is None


# --- What a predecessor left in the receive buffer ---------------------------------------


def left(small: Small, raw: bytes) -> None:
    """Let a worker have been killed with this request in its first buffer."""
    receive_buffer(small.state.buffer(0))[: len(raw)] = raw


def redone(kernel: Kernel, small: Small) -> list[bytes]:
    """What the next worker answers."""
    routed = routed_to(kernel, small, small.lane)
    routed.router.redo()
    replies = []
    while kernel.has_reply():
        replies.append(kernel.reply())
    return replies


def stored(small: Small, slot: int) -> bytes:
    found = small.lane.read(slot * PAGE_SIZE, PAGE_SIZE)
    return b"".join(found)


def test_a_write_that_was_not_done_is_done(kernel: Kernel, small: Small) -> None:
    left(small, kernel.write(0, noise(2 * PAGE_SIZE), unique=7))
    assert redone(kernel, small) == [written(7, 2 * PAGE_SIZE)]
    assert stored(small, 1) == noise(2 * PAGE_SIZE)[PAGE_SIZE:]
    assert Done(small.state.buffer(0)).outcome_of(7) == 0


def test_a_write_that_was_done_is_answered_and_not_done_again(kernel: Kernel, small: Small) -> None:
    """Meanwhile another thread has served a later write of the same page."""
    left(small, kernel.write(0, noise(PAGE_SIZE, 1), unique=7))
    Done(small.state.buffer(0)).succeeded(7)
    small.lane.write(0, memoryview(noise(PAGE_SIZE, 2)))
    assert redone(kernel, small) == [written(7, PAGE_SIZE)]
    assert stored(small, 0) == noise(PAGE_SIZE, 2)


def test_a_discard_that_was_done_is_answered_and_not_done_again(
    kernel: Kernel, small: Small
) -> None:
    left(small, kernel.fallocate(0, PAGE_SIZE, 3))
    Done(small.state.buffer(0)).succeeded(kernel.unique)
    small.lane.write(0, memoryview(noise(PAGE_SIZE)))
    assert redone(kernel, small) == [OUT.pack(OUT.size, 0, kernel.unique)]
    assert stored(small, 0) == noise(PAGE_SIZE)


def test_a_discard_that_was_not_done_is_done(kernel: Kernel, small: Small) -> None:
    small.lane.write(0, memoryview(noise(PAGE_SIZE)))
    left(small, kernel.fallocate(0, PAGE_SIZE, 3))
    assert redone(kernel, small) == [OUT.pack(OUT.size, 0, kernel.unique)]
    assert stored(small, 0) == bytes(PAGE_SIZE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_what_had_failed_has_failed(code: int, kernel: Kernel, small: Small) -> None:
    """And is not tried again, though it might succeed now."""
    left(small, kernel.write(0, noise(PAGE_SIZE), unique=7))
    Done(small.state.buffer(0)).failed(7, code)
    assert redone(kernel, small) == [error(7, code)]
    assert stored(small, 0) == bytes(PAGE_SIZE)


def test_marks_of_other_requests_say_nothing(kernel: Kernel, small: Small) -> None:
    done = Done(small.state.buffer(0))
    done.succeeded(5)
    done.failed(3, errno.EIO)
    left(small, kernel.write(0, noise(PAGE_SIZE), unique=7))
    assert redone(kernel, small) == [written(7, PAGE_SIZE)]
    assert stored(small, 0) == noise(PAGE_SIZE)


def test_a_read_is_answered_with_what_is_there_now(kernel: Kernel, small: Small) -> None:
    small.lane.write(0, memoryview(noise(PAGE_SIZE)))
    left(small, kernel.read(0, PAGE_SIZE, unique=7))
    assert redone(kernel, small) == [data(7, noise(PAGE_SIZE))]


def test_a_buffer_without_a_request_is_left_alone(kernel: Kernel, small: Small) -> None:
    left(small, bytes(4) + kernel.write(0, noise(PAGE_SIZE))[4:])
    assert redone(kernel, small) == []
    assert stored(small, 0) == bytes(PAGE_SIZE)


@pytest.mark.parametrize("raw", [b"\x01\0\0\0", b"\xff" * 80, (1 << 30).to_bytes(4, "little")])
def test_what_is_no_request_does_not_end_the_next_worker(
    raw: bytes, kernel: Kernel, small: Small
) -> None:
    left(small, raw)
    redone(kernel, small)
    assert stored(small, 0) == bytes(PAGE_SIZE)


def test_what_had_been_passed_on_is_not_passed_on_from_the_buffer(
    kernel: Kernel, small: Small
) -> None:
    """It is kept elsewhere, and somebody answers it from there."""
    raw = kernel.request(GETATTR, bytes(16), nodeid=3, unique=7)
    before = routed_to(kernel, small, small.lane)
    before.take(raw)
    after = routed_to(kernel, small, small.lane)
    after.router.redo()
    assert (before.passed_on, after.passed_on) == ([raw], [])
    assert not kernel.has_reply()


@pytest.mark.parametrize("size", [10, 4096])
def test_a_command_that_was_answered_is_not_given_again_from_the_buffer(
    size: int, kernel: Kernel, small: Small
) -> None:
    """It is not kept any more, and its worker was killed before it had emptied its buffer.

    The answer is one that nobody waits for.
    """
    raw = kernel.write(0, b"x" * size, nodeid=3, unique=7)
    before = routed_to(kernel, small, small.lane)
    before.take(raw)
    before.outstanding.answered(7)
    after = routed_to(kernel, small, small.lane)
    after.router.redo(resend=False)
    assert (before.passed_on, after.passed_on) == ([raw], [])
    assert kernel.reply() == error(7, errno.ECANCELED)
    assert after.outstanding.all() == []


def test_a_command_that_comes_after_one_that_was_answered_is_given(
    kernel: Kernel, small: Small
) -> None:
    """What was received later has a number of its own."""
    before = routed_to(kernel, small, small.lane)
    before.take(kernel.write(0, b"x", nodeid=3, unique=7))
    before.outstanding.answered(7)
    raw = kernel.write(0, b"y", nodeid=3, unique=9)
    left(small, raw)
    after = routed_to(kernel, small, small.lane)
    after.router.redo(resend=False)
    assert after.passed_on == [raw]


def test_what_had_not_been_passed_on_yet_is_passed_on(kernel: Kernel, small: Small) -> None:
    raw = kernel.request(GETATTR, bytes(16), nodeid=3, unique=7)
    left(small, raw)
    after = routed_to(kernel, small, small.lane)
    after.router.redo()
    assert after.passed_on == [raw]
    assert 7 in after.outstanding


# --- What a predecessor had passed on ----------------------------------------------------


def kept_by(kernel: Kernel, small: Small, *requests: bytes) -> None:
    """Let a worker have passed these on, and been killed."""
    before = routed_to(kernel, small, small.lane)
    for raw in requests:
        before.take(raw)
    assert not kernel.has_reply()


@pytest.mark.parametrize("name", ["READ", "OPEN", "GETATTR", "LOOKUP"])
def test_what_was_passed_on_is_kept_until_it_is_answered(
    name: str, kernel: Kernel, small: Small
) -> None:
    raw = of_other_inode(kernel, name)
    kept_by(kernel, small, raw)
    after = routed_to(kernel, small, small.lane)
    assert after.outstanding.all() == [raw]
    after.router.serve_again(raw)
    assert after.passed_on == [raw]
    assert after.outstanding.all() == [raw]
    assert not kernel.has_reply()


@pytest.mark.parametrize("size", [10, 4096])
def test_a_command_is_not_given_again(size: int, kernel: Kernel, small: Small) -> None:
    """Nobody knows how far it has come; and of a long one only the beginning is kept."""
    kept_by(kernel, small, kernel.write(0, b"x" * size, nodeid=3, unique=7))
    after = routed_to(kernel, small, small.lane)
    (kept,) = after.outstanding.all()
    after.router.serve_again(kept)
    assert kernel.reply() == error(7, errno.ECANCELED)
    assert (after.passed_on, after.outstanding.all()) == ([], [])


def test_what_the_control_plane_cannot_take_again_is_ebusy(kernel: Kernel, small: Small) -> None:
    raw = of_other_inode(kernel, "GETATTR")
    kept_by(kernel, small, raw)
    after = routed_to(kernel, small, small.lane)
    after.accepts = False
    after.router.serve_again(raw)
    assert kernel.reply() == error(struct.unpack_from("<Q", raw, 8)[0], errno.EBUSY)
    assert after.outstanding.all() == []


def test_a_command_that_comes_again_is_canceled(routed: Routed, kernel: Kernel) -> None:
    """A worker before us was doing it when it ended; only one that comes anew is done."""
    resent = 1 << 63 | 8
    raw = kernel.write(0, b"compact", nodeid=3, unique=resent)
    assert routed.ask(raw) == error(resent, errno.ECANCELED)
    assert routed.passed_on == []
    assert resent not in routed.outstanding


@pytest.mark.parametrize("index", range(4), ids=["READ", "WRITE", "FALLOCATE", "LSEEK"])
def test_requests_for_swap_that_come_again_are_served(
    index: int, routed: Routed, kernel: Kernel
) -> None:
    request = bytearray(each_kind(kernel)[index])
    unique = struct.unpack_from("<Q", request, 8)[0] | 1 << 63
    struct.pack_into("<Q", request, 8, unique)
    routed.write(0, noise(PAGE_SIZE))
    reply = routed.ask(bytes(request))
    assert OUT.unpack_from(reply) == (len(reply), 0, unique)


def test_other_requests_that_come_again_are_passed_on(routed: Routed, kernel: Kernel) -> None:
    raw = kernel.request(GETATTR, bytes(16), nodeid=3, unique=1 << 63 | 8)
    routed.take(raw)
    assert routed.passed_on == [raw]


# --- What is kept while it is passed on ---------------------------------------------------


def test_what_is_passed_on_is_kept_before_that(kernel: Kernel, small: Small) -> None:
    """Or who is killed as soon as it is in the socket leaves a request that nobody knows of."""
    kept: list[bool] = []
    routed = routed_to(kernel, small, small.lane)

    def forward(request: memoryview) -> bool:
        kept.append(9 in Outstanding(small.state.outstanding.view))
        return True

    routed.router._forward = forward
    routed.take(kernel.request(GETATTR, bytes(16), nodeid=3, unique=9))
    assert kept == [True]


def test_what_was_refused_is_not_kept(routed: Routed, kernel: Kernel) -> None:
    routed.accepts = False
    routed.ask(kernel.request(GETATTR, bytes(16), nodeid=3))
    assert routed.outstanding.all() == []


@pytest.mark.parametrize("opcode", [FORGET, BATCH_FORGET])
def test_what_expects_no_reply_is_not_kept(opcode: int, routed: Routed, kernel: Kernel) -> None:
    """It would be kept for ever."""
    raw = kernel.request(opcode, bytes(16), nodeid=3)
    routed.take(raw)
    assert routed.passed_on == [raw]
    assert routed.outstanding.all() == []


def test_with_no_place_left_what_is_passed_on_is_ebusy(routed: Routed, kernel: Kernel) -> None:
    for unique in range(2, 600, 2):
        routed.outstanding.keep(unique, memoryview(bytes(80)))
    raw = kernel.request(GETATTR, bytes(16), nodeid=3, unique=1001)
    assert routed.ask(raw) == error(1001, errno.EBUSY)
    assert routed.passed_on == []
    assert routed.read(0, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_asking_again_is_a_notification(routed: Routed, kernel: Kernel) -> None:
    routed.router.ask_again()
    assert kernel.reply() == OUT.pack(OUT.size, 7, 0)


# --- For which requests another thread receives meanwhile --------------------------------


@pytest.mark.parametrize(
    ("request_", "alone", "when_pending"),
    [
        (Read(1, 2, 0, 0, 65535), False, False),
        (Read(1, 2, 0, 0, 65536), False, True),
        (Read(1, 2, 0, 0, 512 << 10), True, True),
        (Write(1, 2, 0, 0, 4096), False, False),
        (Write(1, 2, 0, 0, 128 << 10), False, True),
        (Write(1, 2, 0, 0, 1 << 20), True, True),
        (Fallocate(1, 2, 0, 0, 4096, 3), True, True),
        (Lseek(1, 2, 0, 0, os.SEEK_DATA), True, True),
        (Open(1, 2, 0), False, False),
        (Other(1, 2, 3), False, False),
    ],
)
def test_what_wants_company(request_: Request, alone: bool, when_pending: bool) -> None:
    assert Router.wants_company(request_, lambda: False) is alone
    assert Router.wants_company(request_, lambda: True) is when_pending
