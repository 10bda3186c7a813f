"""The fetchers: reads of what lies on disk are answered, whatever the disk does."""

from __future__ import annotations

import errno
import logging
import os
import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from vswap.geometry import PAGE_SIZE
from vswap.store import FetchLane, Gap, Parked
from vswapd.channel.fetchers import FETCHERS, Fetchers

if TYPE_CHECKING:
    from daemon.channel.conftest import Backed, Kernel

SECONDS = 10
OUT = struct.Struct("<IiQ")
LOG = "vswapd.channel.fetchers"
MOST_AHEAD = 2 * FETCHERS
APART = 16
"""Slots so far from each other that nobody takes them for a read in order."""


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def error(unique: int, code: int) -> bytes:
    return OUT.pack(OUT.size, -code, unique)


def data(unique: int, content: bytes) -> bytes:
    return OUT.pack(OUT.size + len(content), 0, unique) + content


def page_of(pages: bytes, slot: int) -> bytes:
    return pages[slot * PAGE_SIZE :][:PAGE_SIZE]


def nothing() -> None:
    pass


def unkept(unique: int) -> None:
    """A read that nobody kept has been answered."""


def alive(fetchers: Fetchers) -> int:
    return sum(thread.is_alive() for thread in fetchers._threads)


def finish(fetchers: Fetchers) -> None:
    """Do what waits, in threads that then end."""
    fetchers.start()
    fetchers.stop()
    fetchers.join(SECONDS)
    assert alive(fetchers) == 0


@pytest.fixture
def answered() -> list[int]:
    """The reads that need not be kept any more."""
    return []


@pytest.fixture
def waiting(kernel: Kernel, backed: Backed, answered: list[int]) -> Fetchers:
    """Threads that begin when the test says so."""
    return Fetchers(kernel.fd, backed.store.fetch_lane, answered.append, nothing)


@pytest.fixture
def fetchers(waiting: Fetchers, backed: Backed) -> Iterator[Fetchers]:
    """They have begun; and whatever a test does to them, all of them are there to end."""
    waiting.start()
    yield waiting
    assert alive(waiting) == FETCHERS
    backed.disk.go()
    waiting.stop()
    waiting.join(SECONDS)
    assert alive(waiting) == 0


# --- Answers ---------------------------------------------------------------------------


def test_a_read_is_answered_with_what_lies_on_disk(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    page = noise(PAGE_SIZE)
    backed.fill(5, page)
    fetchers.answer(7, backed.park(5))
    assert kernel.reply() == data(7, page)
    assert len(backed.disk.reads) == 1
    assert not kernel.has_reply()


def test_what_is_answered_need_not_be_kept(
    waiting: Fetchers, backed: Backed, kernel: Kernel, answered: list[int]
) -> None:
    """Also what failed; and it is let go after the reply, or nobody would answer it."""
    backed.scatter(noise(3 * PAGE_SIZE))
    backed.damage(1)
    for slot, unique in enumerate((2, 1 << 63 | 6, 8)):
        waiting.answer(unique, backed.park(slot))
    assert answered == []
    finish(waiting)
    assert sorted(answered) == [2, 8, 1 << 63 | 6]
    replies = [kernel.reply() for _ in answered]
    assert error(1 << 63 | 6, errno.EIO) in replies


def test_it_is_let_go_after_the_reply(
    waiting: Fetchers, backed: Backed, answered: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    real = os.writev

    def writev(fd: int, buffers: tuple[bytes, ...]) -> int:
        kept.append(7 not in answered)
        return real(fd, buffers)

    monkeypatch.setattr(os, "writev", writev)
    backed.fill(0, noise(PAGE_SIZE))
    waiting.answer(7, backed.park(0))
    finish(waiting)
    assert (kept, answered) == ([True], [7])


@pytest.mark.parametrize("unique", [2, 1 << 63 | 6, (1 << 64) - 2])
def test_unique_is_echoed_exactly(
    unique: int, fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    fetchers.answer(unique, backed.park(0))
    assert kernel.reply() == data(unique, noise(PAGE_SIZE))


def test_a_read_of_many_pages_is_one_reply(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    pages = noise(20 * PAGE_SIZE)
    backed.fill(3, pages)
    fetchers.answer(7, backed.park(3, 20))
    assert kernel.reply() == data(7, pages)
    assert not kernel.has_reply()


def test_a_read_of_what_lies_partly_on_disk_has_all_of_it_in_order(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    """On disk, in memory, never written, of one word, and on disk in another segment."""
    first, second = noise(2 * PAGE_SIZE, 1), noise(2 * PAGE_SIZE, 2)
    backed.fill(0, first)
    backed.fill(6, second)
    memory, word = noise(2 * PAGE_SIZE, 3), b"fillword" * 512
    lane = backed.small.lane
    lane.write(2 * PAGE_SIZE, memoryview(memory))
    lane.write(5 * PAGE_SIZE, memoryview(word))
    fetchers.answer(7, backed.park(0, 8))
    assert kernel.reply() == data(7, first + memory + bytes(PAGE_SIZE) + word + second)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(10, 20, id="in a page"),
        pytest.param(4000, 200, id="over two pages"),
        pytest.param(PAGE_SIZE - 1, PAGE_SIZE + 2, id="over three pages"),
        pytest.param(0, PAGE_SIZE + 1, id="from a page's start"),
        pytest.param(1, 3 * PAGE_SIZE - 1, id="up to a page's end"),
    ],
)
def test_a_read_of_bytes_at_any_place(
    offset: int, size: int, fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    pages = noise(3 * PAGE_SIZE)
    backed.fill(0, pages)
    found = backed.small.lane.look(offset, size)
    assert isinstance(found, Parked)
    fetchers.answer(7, found)
    assert kernel.reply() == data(7, pages[offset : offset + size])


def test_a_read_over_the_end_is_short(fetchers: Fetchers, backed: Backed, kernel: Kernel) -> None:
    size = backed.store.geometry.size
    backed.fill(size // PAGE_SIZE - 1, noise(PAGE_SIZE))
    found = backed.small.lane.look(size - 100, PAGE_SIZE)
    assert isinstance(found, Parked)
    fetchers.answer(7, found)
    assert kernel.reply() == data(7, noise(PAGE_SIZE)[-100:])


def test_pages_that_were_brought_home_meanwhile_are_had_from_memory(
    waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    """And the disk that they were on has been taken away."""
    pages = noise(4 * PAGE_SIZE)
    backed.fill(0, pages)
    parked = backed.park(0, 4)
    backed.store.backing.begin_detach()
    while backed.store.backing.detaching:
        backed.store.step()
    assert backed.store.backing.statistics().backing == ""
    reads = len(backed.disk.reads)
    waiting.answer(7, parked)
    finish(waiting)
    assert kernel.reply() == data(7, pages)
    assert len(backed.disk.reads) == reads


def test_a_read_of_pages_overwritten_meanwhile_is_the_one_or_the_other(
    waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    """GAP-EXACT. They overlap in time; but each page is whole, and no error."""
    backed.fill(0, noise(2 * PAGE_SIZE, 1))
    parked = backed.park(0, 2)
    backed.small.lane.write(PAGE_SIZE, memoryview(noise(PAGE_SIZE, 2)))
    waiting.answer(7, parked)
    finish(waiting)
    old = noise(2 * PAGE_SIZE, 1)
    assert kernel.reply() in (data(7, old), data(7, old[:PAGE_SIZE] + noise(PAGE_SIZE, 2)))


def test_what_was_overwritten_meanwhile_and_is_lost_on_disk_is_had_from_memory(
    waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE, 1))
    parked = backed.park(0)
    backed.damage(0)
    backed.small.lane.write(0, memoryview(noise(PAGE_SIZE, 2)))
    waiting.answer(7, parked)
    finish(waiting)
    assert kernel.reply() == data(7, noise(PAGE_SIZE, 2))
    assert backed.store.statistics().backing_corrupt == 0


# --- Several ---------------------------------------------------------------------------


def test_several_wait_for_the_disk_at_once(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    """As many as there are threads; the others after them. Each gets its own page."""
    pages = noise((FETCHERS + 2) * APART * PAGE_SIZE)
    backed.fill(0, pages)
    slots = {100 + 2 * index: index * APART for index in range(FETCHERS + 2)}
    backed.disk.hang()
    for unique, slot in slots.items():
        fetchers.answer(unique, backed.park(slot))
    backed.disk.wait_entered(FETCHERS)
    assert not kernel.has_reply()
    assert not backed.disk.has_entered()
    backed.disk.go()
    replies = {kernel.reply() for _ in slots}
    assert replies == {data(unique, page_of(pages, slot)) for unique, slot in slots.items()}


def test_several_may_wait_for_the_same_page(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(4 * PAGE_SIZE))
    backed.disk.hang()
    uniques = range(2, 2 + 4 * FETCHERS, 2)  # two for each thread
    for unique in uniques:
        fetchers.answer(unique, backed.park(0, 4))
    backed.disk.wait_entered()
    backed.disk.go()
    replies = {kernel.reply() for _ in uniques}
    assert replies == {data(unique, noise(4 * PAGE_SIZE)) for unique in uniques}


def test_many_reads_one_after_the_other(fetchers: Fetchers, backed: Backed, kernel: Kernel) -> None:
    pages = noise(200 * PAGE_SIZE)
    backed.fill(0, pages)
    for slot in random.Random(5).sample(range(200), 200):
        found = backed.small.lane.look(slot * PAGE_SIZE, PAGE_SIZE)
        if isinstance(found, Parked):
            fetchers.answer(2 * slot + 2, found)
            assert kernel.reply() == data(2 * slot + 2, page_of(pages, slot))
        else:  # it has just been fetched
            assert b"".join(found) == page_of(pages, slot)
    assert not kernel.has_reply()


# --- Disks that fail -------------------------------------------------------------------


def failures(backed: Backed) -> tuple[int, int, int]:
    counts = backed.store.statistics()
    return counts.backing_failed_reads, counts.backing_corrupt, counts.failed_reads


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT])
def test_what_the_disk_does_not_give_is_eio(
    code: int,
    fetchers: Fetchers,
    backed: Backed,
    kernel: Kernel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the disk says of it. The next read is fine, and the failure is foreseen."""
    pages = noise(2 * APART * PAGE_SIZE)
    backed.fill(0, pages)
    backed.disk.error = OSError(code, os.strerror(code))
    fetchers.answer(7, backed.park(0))
    assert kernel.reply() == error(7, errno.EIO)
    assert failures(backed) == (1, 0, 1)
    backed.disk.error = None
    for unique, slot in ((9, APART), (11, 0)):
        fetchers.answer(unique, backed.park(slot))
        assert kernel.reply() == data(unique, page_of(pages, slot))
    assert failures(backed) == (1, 0, 1)
    assert fetchers.internal_errors == fetchers.failed_replies == 0
    assert not caplog.records


def test_a_page_that_is_not_what_was_written_is_eio(
    fetchers: Fetchers, backed: Backed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """Its neighbours are well, and so is it once the disk gives what was written."""
    pages = noise(2 * APART * PAGE_SIZE)
    backed.fill(0, pages)
    backed.damage(0)
    fetchers.answer(7, backed.park(0))
    assert kernel.reply() == error(7, errno.EIO)
    assert failures(backed) == (0, 1, 1)
    fetchers.answer(9, backed.park(APART))
    assert kernel.reply() == data(9, page_of(pages, APART))
    backed.damage(0)
    fetchers.answer(11, backed.park(0))
    assert kernel.reply() == data(11, page_of(pages, 0))
    assert failures(backed) == (0, 1, 1)
    assert fetchers.internal_errors == 0
    assert not caplog.records


def test_a_read_that_meets_a_lost_page_is_eio_as_a_whole(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(4 * PAGE_SIZE))
    backed.damage(2)
    fetchers.answer(7, backed.park(0, 4))
    assert kernel.reply() == error(7, errno.EIO)
    assert not kernel.has_reply()


def test_what_lies_on_disk_that_is_gone_is_eio(
    waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    parked = backed.park(0)
    backed.store.close()
    waiting.answer(7, parked)
    finish(waiting)
    assert kernel.reply() == error(7, errno.EIO)


def test_reads_that_fail_together_are_each_answered(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(FETCHERS * APART * PAGE_SIZE))
    backed.disk.hang()
    for index in range(FETCHERS):
        fetchers.answer(2 * index + 2, backed.park(index * APART))
    backed.disk.wait_entered(FETCHERS)
    backed.disk.error = OSError(errno.EIO, "scripted")
    backed.disk.go()
    replies = {kernel.reply() for _ in range(FETCHERS)}
    assert replies == {error(2 * index + 2, errno.EIO) for index in range(FETCHERS)}
    assert failures(backed)[0] == FETCHERS


# --- What nobody foresaw ---------------------------------------------------------------


class FaultyLane:
    """Fails as often as it is told to, in all threads together; and then answers."""

    def __init__(self, fault: Callable[[], BaseException], times: int) -> None:
        self._fault = fault
        self._left = threading.Semaphore(times)

    def finish(self, read: Parked) -> Sequence[bytes]:
        if self._left.acquire(blocking=False):
            raise self._fault()
        return [b"fine"]

    def fetch_ahead(self, gap: Gap) -> None:
        self.finish(Parked([], [gap], 0, 0))


NOBODY_S = Parked([b""], [], 0, PAGE_SIZE)
GAP = Gap(0, 0, 1, 0, 0)


def faulty(
    kernel: Kernel, times: int, fault: Callable[[], BaseException] = ZeroDivisionError
) -> Fetchers:
    lane: FetchLane = FaultyLane(fault, times)  # type: ignore[assignment]
    return Fetchers(kernel.fd, lambda: lane, unkept, nothing)


@pytest.mark.parametrize("fault", [ZeroDivisionError, MemoryError, OSError, AssertionError])
def test_an_error_nobody_foresaw_is_eio_and_ends_no_thread(
    fault: Callable[[], BaseException], kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """However often: more errors than there are threads, and then each of them is still there."""
    times = 2 * FETCHERS
    made = faulty(kernel, times, fault)
    made.start()
    for unique in range(2, 2 + 2 * times, 2):
        made.answer(unique, NOBODY_S)
        assert kernel.reply() == error(unique, errno.EIO)
    made.answer(7, NOBODY_S)
    assert kernel.reply() == data(7, b"fine")
    assert alive(made) == FETCHERS
    made.stop()
    made.join(SECONDS)
    assert alive(made) == 0
    assert made.internal_errors == times
    told = [(record.name, record.levelno) for record in caplog.records]
    assert told == [(LOG, logging.ERROR)] * times
    assert all(record.exc_info is not None for record in caplog.records)


def test_an_error_nobody_foresaw_lets_the_request_go(kernel: Kernel, answered: list[int]) -> None:
    lane: FetchLane = FaultyLane(ZeroDivisionError, 1)  # type: ignore[assignment]
    fetchers = Fetchers(kernel.fd, lambda: lane, answered.append, nothing)
    fetchers.answer(7, NOBODY_S)
    finish(fetchers)
    assert kernel.reply() == error(7, errno.EIO)
    assert answered == [7]


def test_an_error_nobody_foresaw_says_nothing_of_the_page(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    made = faulty(kernel, 1)
    made.answer(7, Parked([b"TOPSECRET" * 400], [], 0, 3600))
    finish(made)
    assert len(caplog.records) == 1
    assert "SECRET" not in caplog.text


def test_an_error_nobody_foresaw_in_fetching_ahead_answers_nobody(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    made = faulty(kernel, MOST_AHEAD)
    for _ in range(MOST_AHEAD):
        made.fetch_ahead(GAP)
    finish(made)
    assert not kernel.has_reply()
    assert made.internal_errors == MOST_AHEAD
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * MOST_AHEAD


def test_after_errors_in_fetching_ahead_reads_are_answered(kernel: Kernel) -> None:
    made = faulty(kernel, FETCHERS)
    for _ in range(FETCHERS):
        made.fetch_ahead(GAP)
    made.answer(7, NOBODY_S)
    finish(made)
    assert made.internal_errors == FETCHERS
    reply = kernel.reply()  # of the one or the other: there may be a thread that has not failed
    assert reply in (data(7, b"fine"), error(7, errno.EIO))
    assert not kernel.has_reply()


# --- Ahead -----------------------------------------------------------------------------


def gap_of(backed: Backed, slot: int) -> Gap:
    (gap,) = backed.park(slot).gaps
    return gap


def test_what_was_fetched_ahead_need_not_wait(
    waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    waiting.fetch_ahead(gap_of(backed, 0))
    finish(waiting)
    assert not kernel.has_reply()
    assert len(backed.disk.reads) == 1
    assert backed.small.lane.look(0, PAGE_SIZE) == (noise(PAGE_SIZE),)


@pytest.mark.parametrize("before", ["reads", "units ahead"])
@pytest.mark.parametrize("count", [MOST_AHEAD - 1, MOST_AHEAD, MOST_AHEAD + 5])
def test_it_is_fetched_ahead_only_while_little_waits(
    before: str, count: int, waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    pages = noise((count + 1) * APART * PAGE_SIZE)
    backed.fill(0, pages[:PAGE_SIZE])
    backed.fill(APART, pages[APART * PAGE_SIZE :])
    last = gap_of(backed, 0)
    put = 0
    for index in range(1, count + 1):
        if before == "reads":
            waiting.answer(2 * index, backed.park(index * APART))
            put += 1
        else:
            waiting.fetch_ahead(gap_of(backed, index * APART))
            put = min(put + 1, MOST_AHEAD)
    waiting.fetch_ahead(last)
    finish(waiting)
    expected = put < MOST_AHEAD
    assert isinstance(backed.small.lane.look(0, PAGE_SIZE), Parked) is not expected
    assert len(backed.disk.reads) == put + expected
    replies = {kernel.reply() for _ in range(count)} if before == "reads" else set()
    assert replies == {
        data(2 * index, page_of(pages, index * APART)) for index in range(1, len(replies) + 1)
    }
    assert not kernel.has_reply()


def test_reads_are_taken_however_much_waits(
    waiting: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    page = noise(PAGE_SIZE)
    backed.fill(0, page)
    uniques = range(2, 202, 2)
    for unique in uniques:
        found = backed.small.lane.look(0, 100)
        assert isinstance(found, Parked)
        waiting.answer(unique, found)
    finish(waiting)
    replies = {kernel.reply() for _ in uniques}
    assert replies == {data(unique, page[:100]) for unique in uniques}


def test_what_waits_is_done_in_its_order(
    fetchers: Fetchers, backed: Backed, kernel: Kernel
) -> None:
    """Beside a disk that hangs the fetched-ahead units hold up nothing but what comes later."""
    backed.fill(0, noise(2 * FETCHERS * APART * PAGE_SIZE))
    backed.disk.hang()
    for index in range(FETCHERS):
        fetchers.fetch_ahead(gap_of(backed, index * APART))
    backed.disk.wait_entered(FETCHERS)
    fetchers.answer(7, backed.park(FETCHERS * APART))
    assert not backed.disk.has_entered()
    assert not kernel.has_reply()
    backed.disk.go()
    pages = noise(2 * FETCHERS * APART * PAGE_SIZE)
    assert kernel.reply() == data(7, page_of(pages, FETCHERS * APART))


def test_a_disk_that_fails_ahead_is_told_to_nobody(
    waiting: Fetchers, backed: Backed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks for it will be told, or gets it if the disk has thought better of it."""
    backed.fill(0, noise(PAGE_SIZE))
    backed.disk.error = OSError(errno.EIO, "scripted")
    waiting.fetch_ahead(gap_of(backed, 0))
    finish(waiting)
    assert not kernel.has_reply()
    assert len(backed.disk.reads) == 1
    assert waiting.internal_errors == 0
    assert backed.store.statistics().failed_reads == 0
    assert not caplog.records
    backed.disk.error = None
    assert bytes(b"".join(backed.small.lane.read(0, PAGE_SIZE))) == noise(PAGE_SIZE)


def test_damage_met_ahead_is_told_to_who_reads_it(
    waiting: Fetchers, backed: Backed, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    backed.fill(0, noise(PAGE_SIZE))
    backed.damage(0)
    waiting.fetch_ahead(gap_of(backed, 0))
    waiting.answer(7, backed.park(0))
    finish(waiting)
    assert kernel.reply() == error(7, errno.EIO)
    assert not kernel.has_reply()
    assert failures(backed) == (0, 1, 1)
    assert waiting.internal_errors == 0
    assert not caplog.records


# --- The threads -----------------------------------------------------------------------


def test_each_thread_prepares_itself_and_has_a_lane_of_its_own(
    kernel: Kernel, backed: Backed
) -> None:
    prepared: list[str] = []
    lanes: list[FetchLane] = []

    def lane() -> FetchLane:
        lanes.append(backed.store.fetch_lane())
        return lanes[-1]

    made = Fetchers(
        kernel.fd, lane, unkept, lambda: prepared.append(threading.current_thread().name)
    )
    assert prepared == []
    finish(made)
    assert sorted(prepared) == [f"vswap-fetch-{index}" for index in range(FETCHERS)]
    assert len({id(one) for one in lanes}) == FETCHERS


def test_a_thread_prepares_itself_before_it_reads(kernel: Kernel, backed: Backed) -> None:
    ready = threading.Event()

    def prepare() -> None:
        assert ready.wait(SECONDS)

    made = Fetchers(kernel.fd, backed.store.fetch_lane, unkept, prepare)
    backed.fill(0, noise(PAGE_SIZE))
    made.answer(7, backed.park(0))
    made.start()
    assert backed.disk.reads == []
    ready.set()
    assert kernel.reply() == data(7, noise(PAGE_SIZE))
    made.stop()
    made.join(SECONDS)
    assert alive(made) == 0


def test_no_thread_keeps_the_process_from_ending(waiting: Fetchers) -> None:
    """A disk that hangs must not keep the daemon."""
    assert all(thread.daemon for thread in waiting._threads)


def test_stop_ends_threads_that_have_nothing_to_do(kernel: Kernel, backed: Backed) -> None:
    made = Fetchers(kernel.fd, backed.store.fetch_lane, unkept, nothing)
    made.start()
    made.stop()
    made.join(SECONDS)
    assert alive(made) == 0


def test_what_waited_before_stop_is_done(waiting: Fetchers, backed: Backed, kernel: Kernel) -> None:
    """Also if they were stopped before they began."""
    pages = noise(3 * FETCHERS * PAGE_SIZE)
    backed.fill(0, pages)
    for slot in range(3 * FETCHERS):
        waiting.answer(2 * slot + 2, backed.park(slot))
    waiting.stop()
    waiting.start()
    waiting.join(SECONDS)
    assert alive(waiting) == 0
    replies = {kernel.reply() for _ in range(3 * FETCHERS)}
    assert replies == {data(2 * slot + 2, page_of(pages, slot)) for slot in range(3 * FETCHERS)}
    assert not kernel.has_reply()


def test_stop_waits_for_nothing_and_what_is_read_is_answered(
    kernel: Kernel, backed: Backed
) -> None:
    """While the disk hangs, with more waiting than there are threads."""
    count = FETCHERS + 2
    pages = noise(count * APART * PAGE_SIZE)
    backed.fill(0, pages)
    made = Fetchers(kernel.fd, backed.store.fetch_lane, unkept, nothing)
    made.start()
    backed.disk.hang()
    for index in range(count):
        made.answer(2 * index + 2, backed.park(index * APART))
    backed.disk.wait_entered(FETCHERS)
    made.stop()
    made.join(0)
    assert alive(made) == FETCHERS
    assert not kernel.has_reply()
    backed.disk.go()
    replies = {kernel.reply() for _ in range(count)}
    assert replies == {data(2 * index + 2, page_of(pages, index * APART)) for index in range(count)}
    made.join(SECONDS)
    assert alive(made) == 0


def test_the_end_of_the_connection_is_quiet(
    kernel: Kernel,
    backed: Backed,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What hung until the file system was unmounted is nobody's any more."""
    made = Fetchers(kernel.fd, backed.store.fetch_lane, unkept, nothing)
    backed.fill(0, noise(PAGE_SIZE))
    backed.disk.hang()
    made.answer(7, backed.park(0))
    made.start()
    backed.disk.wait_entered()
    refuse_replies(monkeypatch, errno.ENODEV)
    backed.disk.go()
    made.stop()
    made.join(SECONDS)
    assert alive(made) == 0
    assert (made.late_replies, made.failed_replies, made.internal_errors) == (0, 0, 0)
    assert not caplog.records


# --- Counts ----------------------------------------------------------------------------


def refuse_replies(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def writev(fd: int, buffers: Sequence[bytes]) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "writev", writev)


def test_at_first_nothing_is_counted(waiting: Fetchers) -> None:
    assert (waiting.late_replies, waiting.failed_replies, waiting.internal_errors) == (0, 0, 0)


@pytest.mark.parametrize(
    ("code", "late", "failed"), [(errno.ENOENT, 1, 0), (errno.EINVAL, 0, 1), (errno.EAGAIN, 0, 1)]
)
def test_replies_that_the_kernel_does_not_take_are_counted_over_all_threads(
    code: int,
    late: int,
    failed: int,
    waiting: Fetchers,
    backed: Backed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each thread has one of them, for the disk hangs until all have begun."""
    backed.fill(0, noise(FETCHERS * APART * PAGE_SIZE))
    backed.disk.hang()
    for index in range(FETCHERS):
        waiting.answer(2 * index + 2, backed.park(index * APART))
    waiting.start()
    backed.disk.wait_entered(FETCHERS)
    refuse_replies(monkeypatch, code)
    backed.disk.go()
    waiting.stop()
    waiting.join(SECONDS)
    assert alive(waiting) == 0
    counts = waiting.late_replies, waiting.failed_replies, waiting.internal_errors
    assert counts == (late * FETCHERS, failed * FETCHERS, 0)
    each = [(replier.late, replier.failed) for replier in waiting._repliers]
    assert each == [(late, failed)] * FETCHERS
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * failed * FETCHERS
