"""Routing on a store with a disk: what must wait for the disk is handed over, nothing else."""

from __future__ import annotations

import errno
import logging
import os
import random
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Gap, Parked
from vswapd.channel import Outstanding, receive_buffer
from vswapd.channel.done import Done
from vswapd.channel.fetchers import FETCHERS, Fetchers
from vswapd.channel.router import Router

if TYPE_CHECKING:
    from daemon.channel.conftest import Backed, Kernel

SECONDS = 10
SIZE = 4 << 20
OUT = struct.Struct("<IiQ")


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
    """A router on one receive buffer. `handed` are the reads that somebody else is to answer."""

    kernel: Kernel
    backed: Backed
    handed: list[tuple[int, Parked]] = field(default_factory=list)
    ahead: list[Gap] = field(default_factory=list)

    def __post_init__(self) -> None:
        state = self.backed.small.state
        self.buffer, self.done = receive_buffer(state.buffer(0)), Done(state.buffer(0))
        self.outstanding = Outstanding(state.outstanding.view)
        self.lane = self.backed.store.lane(fetch_ahead=self.ahead.append)
        self.router = Router(
            self.kernel.fd,
            self.buffer,
            self.lane,
            self.done,
            self.outstanding,
            lambda request: False,
            self.answer,
        )

    def answer(self, unique: int, read: Parked, received_ns: int) -> None:
        self.handed.append((unique, read))

    def take(self, raw: bytes) -> None:
        """Do with a request what a data thread does."""
        self.buffer[: len(raw)] = raw
        request = self.router.decode(len(raw))
        assert request is not None
        self.router.serve(request, len(raw))

    def ask(self, raw: bytes) -> bytes:
        """The reply to a request that is answered at once."""
        self.take(raw)
        assert self.kernel.has_reply()
        return self.kernel.reply()

    def hand_over(self, raw: bytes) -> tuple[int, Parked]:
        """What becomes of a request that is not."""
        before = len(self.handed)
        self.take(raw)
        assert not self.kernel.has_reply()
        assert len(self.handed) == before + 1
        return self.handed[-1]

    def read(self, offset: int, size: int) -> bytes:
        """What is read in the end, whoever answers."""
        before = len(self.handed)
        self.take(self.kernel.read(offset, size))
        if len(self.handed) > before:
            return b"".join(self.backed.store.fetch_lane().finish(self.handed[-1][1]))
        reply = self.kernel.reply()
        assert OUT.unpack_from(reply)[1] == 0
        return reply[OUT.size :]


@pytest.fixture
def routed(kernel: Kernel, backed: Backed) -> Routed:
    return Routed(kernel, backed)


# --- What is handed over ----------------------------------------------------------------


def test_a_read_of_a_page_on_disk_is_handed_over(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """And the disk is not touched by who hands it over."""
    page = noise(PAGE_SIZE)
    backed.fill(5, page)
    unique, parked = routed.hand_over(kernel.read(5 * PAGE_SIZE, PAGE_SIZE, unique=7))
    assert unique == 7
    assert backed.disk.reads == []
    assert b"".join(backed.store.fetch_lane().finish(parked)) == page


@pytest.mark.parametrize("unique", [2, 1 << 63 | 6, (1 << 64) - 2])
def test_it_is_handed_over_with_its_unique(
    unique: int, routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    assert routed.hand_over(kernel.read(0, PAGE_SIZE, unique=unique))[0] == unique


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(0, 8 * PAGE_SIZE, id="all of it"),
        pytest.param(PAGE_SIZE, 2 * PAGE_SIZE, id="the last of it"),
        pytest.param(3 * PAGE_SIZE - 1, 2, id="a byte of it"),
        pytest.param(100, 6 * PAGE_SIZE, id="parts of pages"),
    ],
)
def test_a_read_of_which_some_lies_on_disk_is_handed_over_whole(
    offset: int, size: int, routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    on_disk, memory = noise(3 * PAGE_SIZE, 1), noise(2 * PAGE_SIZE, 2)
    backed.fill(0, on_disk)
    routed.ask(kernel.write(3 * PAGE_SIZE, memory))
    _, parked = routed.hand_over(kernel.read(offset, size))
    whole = on_disk + memory + bytes(3 * PAGE_SIZE)
    answer = b"".join(backed.store.fetch_lane().finish(parked))
    assert answer == whole[offset : offset + size]


def test_what_was_handed_over_is_no_more_in_the_receive_buffer(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """The next request is received into it before the disk answers."""
    backed.fill(0, noise(PAGE_SIZE))
    routed.ask(kernel.write(PAGE_SIZE, noise(PAGE_SIZE, 2)))
    _, parked = routed.hand_over(kernel.read(0, 2 * PAGE_SIZE))
    routed.buffer[:] = b"\xee" * len(routed.buffer)
    answer = b"".join(backed.store.fetch_lane().finish(parked))
    assert answer == noise(PAGE_SIZE) + noise(PAGE_SIZE, 2)


def test_what_is_in_memory_is_answered_at_once(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """Stored, never written, or of one word; though its neighbour lies on disk."""
    backed.fill(0, noise(PAGE_SIZE))
    word = b"fillword" * 512
    routed.ask(kernel.write(PAGE_SIZE, noise(PAGE_SIZE, 2)))
    routed.ask(kernel.write(2 * PAGE_SIZE, word))
    pages = {1: noise(PAGE_SIZE, 2), 2: word, 3: bytes(PAGE_SIZE)}
    for slot, page in pages.items():
        raw = kernel.read(slot * PAGE_SIZE, PAGE_SIZE, unique=7)
        assert routed.ask(raw) == data(7, page)
    raw = kernel.read(PAGE_SIZE, 3 * PAGE_SIZE, unique=7)
    assert routed.ask(raw) == data(7, b"".join(pages.values()))
    assert routed.handed == []


def test_what_has_just_been_fetched_is_answered_at_once(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    pages = noise(2 * PAGE_SIZE)
    backed.fill(0, pages)
    _, parked = routed.hand_over(kernel.read(0, 2 * PAGE_SIZE))
    backed.store.fetch_lane().finish(parked)
    reads = len(backed.disk.reads)
    for slot in range(2):
        raw = kernel.read(slot * PAGE_SIZE, PAGE_SIZE, unique=7)
        assert routed.ask(raw) == data(7, pages[slot * PAGE_SIZE :][:PAGE_SIZE])
    assert routed.ask(kernel.read(0, 2 * PAGE_SIZE, unique=7)) == data(7, pages)
    assert len(routed.handed) == 1
    assert len(backed.disk.reads) == reads


def test_what_was_brought_home_is_answered_at_once(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    pages = noise(8 * PAGE_SIZE)
    backed.fill(0, pages)
    backed.store.backing.begin_detach()
    while backed.store.backing.detaching:
        backed.store.step()
    assert routed.ask(kernel.read(0, 8 * PAGE_SIZE, unique=7)) == data(7, pages)
    assert routed.handed == []


def test_a_read_that_meets_a_damaged_page_in_memory_is_eio_at_once(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """Whatever the disk would say of the rest."""
    backed.fill(0, noise(PAGE_SIZE))
    page = noise(PAGE_SIZE, 2)
    routed.ask(kernel.write(PAGE_SIZE, page))
    memory = backed.small.state.segments.view
    at = bytes(memory[: 4 * SEGMENT_SIZE]).find(page)
    assert at >= 0
    memory[at + 17] ^= 1
    assert routed.ask(kernel.read(0, 2 * PAGE_SIZE, unique=7)) == error(7, errno.EIO)
    assert routed.handed == []


def test_a_read_that_nobody_takes_over_is_eio(
    kernel: Kernel, backed: Backed, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next one is served."""

    def refuse(unique: int, read: Parked, received_ns: int) -> None:
        raise ZeroDivisionError

    routed = Routed(kernel, backed)
    router = Router(
        kernel.fd,
        routed.buffer,
        routed.lane,
        routed.done,
        routed.outstanding,
        lambda request: False,
        refuse,
    )
    routed.router = router
    backed.fill(0, noise(PAGE_SIZE))
    assert routed.ask(kernel.read(0, PAGE_SIZE, unique=7)) == error(7, errno.EIO)
    assert router.statistics().internal_errors == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert routed.ask(kernel.read(PAGE_SIZE, 512, unique=9)) == data(9, bytes(512))


# --- What is kept while it waits for the disk --------------------------------------------


def kept_now(backed: Backed) -> list[bytes]:
    """What another worker would find."""
    return Outstanding(backed.small.state.outstanding.view).all()


def test_a_read_that_was_handed_over_is_kept(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    raw = kernel.read(0, PAGE_SIZE, unique=7)
    routed.hand_over(raw)
    assert kept_now(backed) == [raw]


def test_it_is_kept_before_it_is_handed_over(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """Or it could be answered before, and then be kept for ever."""
    backed.fill(0, noise(PAGE_SIZE))
    kept: list[int] = []
    routed.router._answer = lambda unique, _read, _ns: kept.append(len(kept_now(backed)))
    routed.take(kernel.read(0, PAGE_SIZE, unique=7))
    assert kept == [1]


def test_what_is_answered_at_once_is_not_kept(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    routed.ask(kernel.write(0, noise(PAGE_SIZE)))
    routed.ask(kernel.read(0, PAGE_SIZE))
    assert kept_now(backed) == []


def test_with_no_place_left_a_read_waits_for_the_disk_itself(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    while routed.outstanding.keep(kernel.unique, memoryview(bytes(80))):
        kernel.unique += 2
    assert routed.ask(kernel.read(0, PAGE_SIZE, unique=7)) == data(7, noise(PAGE_SIZE))
    assert routed.handed == []
    assert routed.router.statistics().parked == 0


def successor(routed: Routed) -> Routed:
    """The next worker's router; what the one before it was doing is left as it is."""
    return Routed(routed.kernel, routed.backed)


def test_a_read_that_waited_is_handed_over_again(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """And is kept until it is answered, for the next worker may be killed, too."""
    page = noise(PAGE_SIZE)
    backed.fill(5, page)
    raw = kernel.read(5 * PAGE_SIZE, PAGE_SIZE, unique=7)
    routed.hand_over(raw)
    routed.ask(kernel.read(0, PAGE_SIZE))  # the buffer has another request now
    for _ in range(3):
        routed = successor(routed)
        assert kept_now(backed) == [raw]
        (kept,) = routed.outstanding.all()
        routed.router.serve_again(kept)
        ((unique, read),) = routed.handed
        assert unique == 7
        assert not kernel.has_reply()
    assert b"".join(backed.store.fetch_lane().finish(read)) == page
    routed.outstanding.answered(7)
    assert kept_now(backed) == []


def test_it_takes_no_second_place(routed: Routed, backed: Backed, kernel: Kernel) -> None:
    backed.scatter(noise(4 * PAGE_SIZE))
    for slot in range(4):
        routed.hand_over(kernel.read(slot * PAGE_SIZE, PAGE_SIZE))
    after = successor(routed)
    for kept in after.outstanding.all():
        after.router.serve_again(kept)
    for unique, _ in after.handed:
        after.outstanding.answered(unique)
    assert len(after.handed) == 4
    assert kept_now(backed) == []


def test_a_read_that_waited_for_what_is_in_memory_now_is_answered(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    raw = kernel.read(0, PAGE_SIZE, unique=7)
    routed.hand_over(raw)
    backed.small.lane.write(0, memoryview(noise(PAGE_SIZE, 2)))
    after = successor(routed)
    after.router.serve_again(raw)
    assert kernel.reply() == data(7, noise(PAGE_SIZE, 2))
    assert (after.handed, kept_now(backed)) == ([], [])


def test_a_read_that_waited_for_what_is_damaged_now_is_eio(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """And does not end one worker after the other."""
    backed.fill(0, noise(PAGE_SIZE))
    raw = kernel.read(0, PAGE_SIZE, unique=7)
    routed.hand_over(raw)
    page = noise(PAGE_SIZE, 2)
    backed.small.lane.write(0, memoryview(page))
    segments = backed.small.state.segments.view
    at = bytes(segments).find(page)
    segments[at + 17] ^= 1
    after = successor(routed)
    after.router.serve_again(raw)
    assert kernel.reply() == error(7, errno.EIO)
    assert kept_now(backed) == []


def test_a_read_in_the_buffer_that_was_handed_over_is_not_answered_from_there(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """Its worker was killed before the buffer was free."""
    backed.fill(0, noise(PAGE_SIZE))
    routed.hand_over(kernel.read(0, PAGE_SIZE, unique=7))
    after = successor(routed)
    after.router.redo()
    assert after.handed == []
    assert not kernel.has_reply()


def test_a_read_in_the_buffer_that_was_not_handed_over_yet_is(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    raw = kernel.read(0, PAGE_SIZE, unique=7)
    routed.buffer[: len(raw)] = raw
    after = successor(routed)
    after.router.redo()
    assert [unique for unique, _ in after.handed] == [7]
    assert kept_now(backed) == [raw]


# --- Statistics -------------------------------------------------------------------------


def test_what_was_handed_over_is_counted(routed: Routed, backed: Backed, kernel: Kernel) -> None:
    """Requests, not pages; and nothing else is."""
    backed.fill(0, noise(8 * PAGE_SIZE))
    assert routed.router.statistics().parked == 0
    for size in (8 * PAGE_SIZE, PAGE_SIZE, 512):
        routed.hand_over(kernel.read(0, size))
    routed.ask(kernel.read(8 * PAGE_SIZE, PAGE_SIZE))
    routed.ask(kernel.write(9 * PAGE_SIZE, noise(PAGE_SIZE)))
    counts = routed.router.statistics()
    assert counts.parked == 3
    others = (counts.forwarded, counts.refused, counts.late_replies)
    assert others == (0, 0, 0)
    assert (counts.protocol_errors, counts.internal_errors) == (0, 0)


def test_a_read_counts_once_whoever_answers_it(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(8 * PAGE_SIZE))
    before = backed.store.statistics()
    assert routed.read(0, 8 * PAGE_SIZE) == noise(8 * PAGE_SIZE)
    assert routed.read(8 * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)
    after = backed.store.statistics()
    assert after.reads - before.reads == 2
    assert after.pages_read - before.pages_read == 9
    assert after.failed_reads == before.failed_reads


# --- Other requests for what is on disk ---------------------------------------------------


def test_a_page_on_disk_can_be_overwritten_without_the_disk(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(3 * PAGE_SIZE))
    backed.disk.error = OSError(errno.EIO, "scripted")
    raw = kernel.write(0, noise(3 * PAGE_SIZE, 2), unique=7)
    assert routed.ask(raw) == written(7, 3 * PAGE_SIZE)
    raw = kernel.read(0, 3 * PAGE_SIZE, unique=9)
    assert routed.ask(raw) == data(9, noise(3 * PAGE_SIZE, 2))
    assert backed.disk.reads == []


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(100, 512, id="in a page"),
        pytest.param(4000, 200, id="over two pages"),
        pytest.param(4000, PAGE_SIZE + 200, id="over three pages"),
    ],
)
def test_of_a_page_that_is_overwritten_in_part_the_rest_stays(
    offset: int, size: int, routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    pages, part = bytearray(noise(3 * PAGE_SIZE)), noise(size, 2)
    backed.fill(0, bytes(pages))
    assert routed.ask(kernel.write(offset, part, unique=7)) == written(7, size)
    pages[offset : offset + size] = part
    assert routed.read(0, 3 * PAGE_SIZE) == bytes(pages)


@pytest.mark.parametrize("kind", ["the disk fails", "the page is lost"])
def test_part_of_a_page_that_cannot_be_had_is_not_overwritten(
    kind: str, routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(2 * PAGE_SIZE))
    if kind == "the disk fails":
        backed.disk.error = OSError(errno.EIO, "scripted")
    else:
        backed.damage(0)
    assert routed.ask(kernel.write(100, b"part", unique=7)) == error(7, errno.EIO)
    backed.disk.error = None
    if kind == "the page is lost":
        backed.damage(0)
    assert routed.read(0, 2 * PAGE_SIZE) == noise(2 * PAGE_SIZE)
    assert routed.router.statistics().internal_errors == 0


def test_a_page_that_was_lost_is_well_again_once_overwritten(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    backed.damage(0)
    assert routed.ask(kernel.write(0, noise(PAGE_SIZE, 2), unique=7)) == written(7, PAGE_SIZE)
    assert routed.read(0, PAGE_SIZE) == noise(PAGE_SIZE, 2)


@pytest.mark.parametrize("mode", [0x03, 0x11])
def test_pages_on_disk_are_discarded_without_the_disk(
    mode: int, routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(3 * PAGE_SIZE))
    raw = kernel.fallocate(0, 3 * PAGE_SIZE, mode)
    assert routed.ask(raw) == OUT.pack(OUT.size, 0, kernel.unique)
    assert routed.ask(kernel.read(0, 3 * PAGE_SIZE, unique=7)) == data(7, bytes(3 * PAGE_SIZE))
    assert backed.disk.reads == []
    assert backed.store.statistics().backing_pages == 0


def test_parts_of_pages_on_disk_can_be_zeroed(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    pages = noise(3 * PAGE_SIZE)
    backed.fill(0, pages)
    raw = kernel.fallocate(100, 2 * PAGE_SIZE, 3)
    assert routed.ask(raw) == OUT.pack(OUT.size, 0, kernel.unique)
    wanted = pages[:100] + bytes(2 * PAGE_SIZE) + pages[2 * PAGE_SIZE + 100 :]
    assert routed.read(0, 3 * PAGE_SIZE) == wanted


@pytest.mark.parametrize(
    ("offset", "whence", "found"),
    [
        (0, os.SEEK_DATA, 2 * PAGE_SIZE),
        (2 * PAGE_SIZE, os.SEEK_HOLE, 4 * PAGE_SIZE),
        (0, os.SEEK_HOLE, 0),
    ],
)
def test_what_lies_on_disk_is_data(
    offset: int, whence: int, found: int, routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(2, noise(2 * PAGE_SIZE))
    reply = routed.ask(kernel.lseek(offset, whence))
    assert reply == OUT.pack(OUT.size + 8, 0, kernel.unique) + struct.pack("<Q", found)
    assert backed.disk.reads == []


# --- What is prepared -------------------------------------------------------------------


def in_order(routed: Routed, backed: Backed) -> bytes:
    """Read the first 8 of 20 pages on disk, one after the other."""
    pages = noise(20 * PAGE_SIZE)
    backed.scatter(pages)
    for slot in range(8):
        assert routed.read(slot * PAGE_SIZE, PAGE_SIZE) == pages[slot * PAGE_SIZE :][:PAGE_SIZE]
    return pages


def test_for_reads_in_order_units_are_asked_for_ahead(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    """By the data thread, which reads nothing itself and says nothing to the kernel."""
    in_order(routed, backed)
    reads = len(backed.disk.reads)
    turns = 0
    while routed.router.prepare():
        turns += 1
    assert 7 <= turns <= 8
    assert [gap.slot for gap in routed.ahead] == list(range(8, 8 + turns))
    assert len(backed.disk.reads) == reads
    assert not kernel.has_reply()
    assert routed.router.statistics().internal_errors == 0


def test_what_was_asked_for_ahead_and_fetched_is_answered_at_once(
    routed: Routed, backed: Backed, kernel: Kernel
) -> None:
    pages = in_order(routed, backed)
    assert routed.router.prepare()
    backed.store.fetch_lane().fetch_ahead(routed.ahead[0])
    raw = kernel.read(8 * PAGE_SIZE, PAGE_SIZE, unique=7)
    assert routed.ask(raw) == data(7, pages[8 * PAGE_SIZE :][:PAGE_SIZE])


def test_without_an_order_nothing_is_asked_for_ahead(routed: Routed, backed: Backed) -> None:
    backed.fill(0, noise(200 * PAGE_SIZE))
    for slot in (0, 150, 75):
        routed.read(slot * PAGE_SIZE, PAGE_SIZE)
        assert not routed.router.prepare()
    assert routed.ahead == []


def test_a_fault_in_asking_ahead_ends_what_is_prepared(
    routed: Routed, backed: Backed, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order(routed, backed)

    def fail() -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(routed.lane, "read_ahead", fail)
    assert routed.router.prepare() is False
    assert routed.router.statistics().internal_errors == 1
    assert not kernel.has_reply()


# --- With fetchers ----------------------------------------------------------------------


@dataclass
class Joined:
    """A router whose reads of what is on disk are answered by fetchers."""

    routed: Routed
    fetchers: Fetchers


@pytest.fixture
def joined(kernel: Kernel, backed: Backed) -> Iterator[Joined]:
    routed = Routed(kernel, backed)
    answered = routed.outstanding.answered
    fetchers = Fetchers(kernel.fd, backed.store.fetch_lane, answered, lambda: None)
    routed.lane = backed.store.lane(fetch_ahead=fetchers.fetch_ahead)
    routed.router = Router(
        kernel.fd,
        routed.buffer,
        routed.lane,
        routed.done,
        routed.outstanding,
        lambda request: False,
        fetchers.answer,
    )
    fetchers.start()
    yield Joined(routed, fetchers)
    backed.disk.go()
    fetchers.stop()
    fetchers.join(SECONDS)
    assert not any(thread.is_alive() for thread in fetchers._threads)


def test_each_read_is_answered_whoever_does_it(
    joined: Joined, backed: Backed, kernel: Kernel
) -> None:
    on_disk, memory = noise(64 * PAGE_SIZE, 1), noise(64 * PAGE_SIZE, 2)
    backed.fill(0, on_disk)
    joined.routed.ask(kernel.write(64 * PAGE_SIZE, memory))
    whole = on_disk + memory + bytes(8 * PAGE_SIZE)
    places = random.Random(3)
    for unique in range(2, 402, 2):
        offset = places.randrange(len(whole) - 3 * PAGE_SIZE)
        if unique % 4:
            offset &= -PAGE_SIZE
        size = places.choice([1, 512, PAGE_SIZE, 3 * PAGE_SIZE])
        joined.routed.take(kernel.read(offset, size, unique=unique))
        assert kernel.reply() == data(unique, whole[offset : offset + size])
        joined.routed.router.prepare()
    assert 0 < joined.routed.router.statistics().parked < 200
    assert not kernel.has_reply()


def test_while_the_disk_hangs_everything_else_is_answered(
    joined: Joined, backed: Backed, kernel: Kernel
) -> None:
    """By the one thread that receives: it has more reads on its hands than fetchers there are."""
    pages = noise(16 * (FETCHERS + 2) * PAGE_SIZE)
    backed.fill(0, pages)
    backed.disk.hang()
    hanging = {2 * index + 2: index * 16 for index in range(FETCHERS + 2)}
    for unique, slot in hanging.items():
        joined.routed.take(kernel.read(slot * PAGE_SIZE, PAGE_SIZE, unique=unique))
    backed.disk.wait_entered(FETCHERS)
    ask, at = joined.routed.ask, 500 * PAGE_SIZE
    assert ask(kernel.write(at, noise(2 * PAGE_SIZE, 2), unique=901)) == written(901, 2 * PAGE_SIZE)
    assert ask(kernel.read(at, PAGE_SIZE, unique=903)) == data(903, noise(PAGE_SIZE, 2))
    assert ask(kernel.read(0, PAGE_SIZE, nodeid=3, unique=905)) == error(905, errno.EBUSY)
    assert ask(kernel.write(0, noise(PAGE_SIZE, 3), unique=907)) == written(907, PAGE_SIZE)
    assert ask(kernel.read(0, PAGE_SIZE, unique=909)) == data(909, noise(PAGE_SIZE, 3))
    assert ask(kernel.lseek(0, os.SEEK_DATA))[4:8] == bytes(4)
    assert ask(kernel.fallocate(at, PAGE_SIZE, 3))[4:8] == bytes(4)
    assert ask(kernel.read(at, PAGE_SIZE, unique=911)) == data(911, bytes(PAGE_SIZE))
    assert not kernel.has_reply()
    backed.disk.go()
    replies = {kernel.reply() for _ in hanging}
    uniques = {struct.unpack_from("<Q", reply, 8)[0] for reply in replies}
    assert uniques == set(hanging)
    for reply in replies:
        slot = hanging[struct.unpack_from("<Q", reply, 8)[0]]
        page = pages[slot * PAGE_SIZE :][:PAGE_SIZE]
        allowed = [page, noise(PAGE_SIZE, 3)] if slot == 0 else [page]  # it was overwritten
        assert reply[OUT.size :] in allowed


def test_a_disk_that_fails_is_eio_and_the_next_request_is_fine(
    joined: Joined, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    backed.disk.error = OSError(errno.EIO, "scripted")
    joined.routed.take(kernel.read(0, PAGE_SIZE, unique=7))
    assert kernel.reply() == error(7, errno.EIO)
    assert joined.routed.ask(kernel.read(PAGE_SIZE, 512, unique=9)) == data(9, bytes(512))
    backed.disk.error = None
    joined.routed.take(kernel.read(0, PAGE_SIZE, unique=11))
    assert kernel.reply() == data(11, noise(PAGE_SIZE))
    assert joined.routed.router.statistics().parked == 2


def test_what_is_prepared_is_fetched_by_the_fetchers(
    joined: Joined, backed: Backed, kernel: Kernel
) -> None:
    """Never by the data thread, which only asks for it."""
    pages = noise(20 * PAGE_SIZE)
    backed.scatter(pages)
    names: set[str] = set()
    read = backed.disk.read

    def noted(offset: int, into: memoryview) -> None:
        names.add(threading.current_thread().name)
        read(offset, into)

    backed.disk.read = noted  # type: ignore[method-assign]
    for slot in range(20):
        joined.routed.take(kernel.read(slot * PAGE_SIZE, PAGE_SIZE, unique=7))
        assert kernel.reply() == data(7, pages[slot * PAGE_SIZE :][:PAGE_SIZE])
        while joined.routed.router.prepare():
            pass
    assert names
    assert len(backed.disk.reads) >= 20
    assert all(name.startswith("vswap-fetch-") for name in names)
    assert joined.fetchers.internal_errors == 0
    assert joined.routed.router.statistics().internal_errors == 0
