"""The log on disk: which disk segments are free, filled, bad; and what of them is alive."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model.effort import effort

from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.disk_log import KEPT_ON_DISK, KEY_SIZE, DiskLog, Filling
from vswap.store.region import Region

MOST = 12
FLAGS = (0, entry.HUGE, entry.COLD, entry.HUGE | entry.COLD)

MakeLog = Callable[..., DiskLog]


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region.create("disk log", DiskLog.region_size(MOST))
    yield made
    made.close()


@pytest.fixture
def log(region: Region) -> DiskLog:
    """Of four disk segments."""
    made = DiskLog(region)
    made.resize(4)
    return made


def pages_of(segment: int, count: int, share: int = 400, flags: int = 0) -> list[int]:
    """The entries of `count` pages in units of one, which fill a disk segment from its start."""
    step = -(-share // entry.BACKING_ALIGNMENT) * entry.BACKING_ALIGNMENT
    return [entry.pack_backing(segment, at * step, 1, share, flags) for at in range(count)]


def filling_of(log: DiskLog, pages: list[int]) -> Filling:
    """What a disk segment holds that these pages are all of."""
    last = entry.extent_of(pages[-1])
    return Filling(
        log.next_sequence(),
        last.offset + last.size,
        len(pages),
        sum(map(entry.share_of, pages)),
        sum(not page & entry.NOT_HOT for page in pages),
        sum(bool(page & entry.HUGE) for page in pages),
        sum(bool(page & entry.COLD) for page in pages),
    )


def fill(log: DiskLog, segment: int, pages: list[int]) -> None:
    """Fill it, and let all of the pages be named."""
    log.fill(segment, filling_of(log, pages))
    log.publish(len(pages), [])


# --- Taking -----------------------------------------------------------------------------


def test_there_is_nothing_to_take_without_a_backing(region: Region) -> None:
    log = DiskLog(region)
    assert (log.size, log.room()) == (0, 0)
    with pytest.raises(FullError):
        log.take(0)


def test_the_lowest_free_disk_segment_is_taken(log: DiskLog) -> None:
    """So that a disk is filled, and read, in order."""
    assert [log.take(0) for _ in range(4)] == [0, 1, 2, 3]
    for segment in (2, 0, 3):
        log.put_back(segment, bad=False)
    assert [log.take(0) for _ in range(3)] == [0, 2, 3]


def test_freed_disk_segments_are_taken_lowest_first(log: DiskLog) -> None:
    entries = {}
    for segment in range(4):
        assert log.take(0) == segment
        entries[segment] = pages_of(segment, 3)
        fill(log, segment, entries[segment])
    for segment in (3, 1, 2):
        log.publish(0, entries[segment])
    assert [log.take(0) for _ in range(3)] == [1, 2, 3]


def test_the_last_free_ones_are_kept(log: DiskLog) -> None:
    for _ in range(4 - KEPT_ON_DISK):
        log.take()
    assert log.room() == KEPT_ON_DISK
    with pytest.raises(FullError):
        log.take()
    assert log.room() == KEPT_ON_DISK
    log.take(0)
    with pytest.raises(FullError):
        log.take(0)


def test_what_could_not_be_written_is_put_aside(log: DiskLog) -> None:
    assert log.take(0) == 0
    log.put_back(0, bad=True)
    assert log.room() == 3
    assert [log.take(0) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(FullError):
        log.take(0)


# --- DISK-LIVE, DISK-REUSE --------------------------------------------------------------


@pytest.mark.parametrize("flags", FLAGS)
def test_what_lives_is_counted(log: DiskLog, flags: int) -> None:
    """DISK-LIVE"""
    pages = pages_of(log.take(), 5, 400, flags)
    log.fill(0, filling_of(log, pages))
    assert log.ledger.totals().staged == 5
    log.publish(5, [])
    log.publish(0, pages[:2])
    totals = log.ledger.totals()
    assert (totals.live_pages, totals.live_bytes, totals.staged) == (3, 1200, 0)
    assert (totals.huge, totals.cold) == (3 * bool(flags & 1), 3 * bool(flags & 2))
    full = log.full()
    assert (full.segments.tolist(), full.live.tolist()) == ([0], [1200])
    assert full.used.tolist() == [4 * 448 + 400]
    assert full.dead_bytes() == 4 * 448 + 400 - 1200
    assert log.used_of(0) == 4 * 448 + 400


def test_a_disk_segment_is_free_when_its_last_page_has_died(log: DiskLog) -> None:
    """DISK-REUSE: not before, whether its pages die one by one or many at a time."""
    pages = pages_of(log.take(), 5)
    fill(log, 0, pages)
    log.publish(0, pages[:1])
    log.publish(0, pages[1:4])
    assert log.room() == 3
    assert log.take() == 1
    log.publish(0, pages[4:])
    assert log.room() == 3
    assert log.take() == 0


def test_what_is_staged_keeps_its_disk_segment(log: DiskLog) -> None:
    """DISK-REUSE: until all of it is published or withdrawn."""
    pages = pages_of(log.take(), 3)
    log.fill(0, filling_of(log, pages))
    log.publish(1, [])
    log.publish(0, pages[:1])
    assert log.full().segments.tolist() == [0]
    log.publish(2, pages[1:])  # never named
    assert log.full().segments.tolist() == []
    assert log.room() == 4
    assert log.ledger.totals().live_bytes == 0


def test_pages_of_several_disk_segments_die_at_once(log: DiskLog) -> None:
    """DISK-LIVE"""
    pages = []
    for segment in range(3):
        pages.append(pages_of(log.take(0), 3))
        fill(log, segment, pages[-1])
    log.publish(0, [*pages[2], *pages[0], pages[1][1]])
    assert log.full().segments.tolist() == [1]
    assert log.full().live.tolist() == [800]
    assert log.take() == 0


# --- DISK-AGE ---------------------------------------------------------------------------


def test_each_filling_has_a_number_of_its_own(log: DiskLog) -> None:
    """DISK-AGE"""
    assert log.sequence_of(0) == 0
    seen = {0}
    for _ in range(5):
        pages = pages_of(log.take(), 1)
        fill(log, 0, pages)
        assert log.sequence_of(0) not in seen
        seen.add(log.sequence_of(0))
        log.publish(0, pages)


def test_the_number_is_there_before_the_filling_counts(log: DiskLog) -> None:
    """DISK-AGE: taking a disk segment changes nothing of what is known of the last filling."""
    pages = pages_of(log.take(), 1)
    fill(log, 0, pages)
    before = log.sequence_of(0), log.used_of(0)
    log.publish(0, pages)
    assert log.take() == 0
    assert (log.sequence_of(0), log.used_of(0)) == before


def test_numbers_go_on_in_the_memory_that_outlives_the_worker(region: Region) -> None:
    """DISK-AGE, NONCE-ONCE"""
    first = DiskLog(region)
    seen = [first.next_sequence() for _ in range(5)]
    seen += [DiskLog(region).next_sequence() for _ in range(5)]
    assert seen == sorted(set(seen))
    assert seen[0] > 0  # which is no filling's


def test_the_key_is_not_in_the_way_of_numbers(region: Region) -> None:
    log = DiskLog(region)
    log.resize(MOST)
    log.key[:] = bytes(range(KEY_SIZE))
    for segment in range(MOST):
        assert log.take(0) == segment
        fill(log, segment, pages_of(segment, 1))
    assert bytes(log.key) == bytes(range(KEY_SIZE))
    assert bytes(region.view[:KEY_SIZE]) == bytes(range(KEY_SIZE))
    assert len({log.sequence_of(segment) for segment in range(MOST)}) == MOST


# --- Size -------------------------------------------------------------------------------


def test_a_region_has_room_for_as_many_as_asked_for(region: Region) -> None:
    assert DiskLog(region).most >= MOST
    assert DiskLog.region_size(MOST) == PAGE_SIZE + 8 * MOST


def test_of_a_larger_backing_a_part_is_used(region: Region) -> None:
    log = DiskLog(region)
    log.resize(log.most + 5)
    assert (log.size, log.room()) == (log.most, log.most)


def test_growing_gives_room_and_touches_nothing(log: DiskLog) -> None:
    fill(log, log.take(), pages_of(0, 3))
    taken = log.take()
    log.resize(7)
    assert (log.size, log.room()) == (7, 5)
    assert log.full().segments.tolist() == [0]
    assert log.full().live.tolist() == [1200]
    log.put_back(taken, bad=False)
    assert [log.take(0) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_of_a_new_backing_nothing_is_bad(log: DiskLog) -> None:
    log.put_back(log.take(), bad=True)
    log.resize(0)
    assert (log.size, log.room()) == (0, 0)
    log.resize(3)
    assert [log.take(0) for _ in range(3)] == [0, 1, 2]


def test_a_backing_in_use_does_not_shrink(log: DiskLog) -> None:
    fill(log, log.take(), pages_of(0, 1))
    with pytest.raises(AssertionError):
        log.resize(3)


# --- Any calls in any order -------------------------------------------------------------


class DiskLogMachine(RuleBasedStateMachine):
    """`alive` has the pages of each filled disk segment, `staged` those not yet published."""

    def __init__(self) -> None:
        super().__init__()
        self.region = Region.create("disk log", DiskLog.region_size(MOST))
        self.log = DiskLog(self.region)
        self.size = 0
        self.free: set[int] = set()
        self.taken: list[int] = []
        self.bad: set[int] = set()
        self.alive: list[int] = []
        self.staged: list[int] = []
        self.used: dict[int, int] = {}
        self.sequences: set[int] = {0}

    def teardown(self) -> None:
        self.region.close()

    def _in(self) -> Counter[int]:
        return Counter(entry.segment_of(page) for page in [*self.alive, *self.staged])

    def _forget_freed(self) -> None:
        alive = self._in()
        for segment in [segment for segment in self.used if not alive[segment]]:
            del self.used[segment]
            self.free.add(segment)

    @precondition(lambda self: not self.size or not (self.alive or self.staged or self.taken))
    @rule(size=st.integers(0, MOST))
    def attach(self, size: int) -> None:
        self.log.resize(size)
        self.size = size
        self.free, self.bad = set(range(self.size)), set()

    @precondition(lambda self: self.size)
    @rule(more=st.integers(0, 2))
    def grow(self, more: int) -> None:
        more = min(more, MOST - self.size)
        self.log.resize(self.size + more)
        before, self.size = self.size, self.size + more
        self.free |= set(range(before, self.size)) | self.bad
        self.bad = set()

    @rule(kept=st.sampled_from((None, 0, 1, 2)))
    def take(self, kept: int | None) -> None:
        least = KEPT_ON_DISK if kept is None else kept
        try:
            segment = self.log.take() if kept is None else self.log.take(kept)
        except FullError:
            assert len(self.free) <= least
            return
        assert len(self.free) > least
        assert segment == min(self.free)
        self.free.remove(segment)
        self.taken.append(segment)

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(0, 99), bad=st.booleans())
    def put_back(self, which: int, bad: bool) -> None:
        segment = self.taken.pop(which % len(self.taken))
        self.log.put_back(segment, bad=bad)
        (self.bad if bad and self.free else self.free).add(segment)  # never the last one

    @precondition(lambda self: self.taken)
    @rule(
        which=st.integers(0, 99),
        count=st.integers(1, 40),
        share=st.integers(1, 1027),
        flags=st.sampled_from(FLAGS),
    )
    def fill(self, which: int, count: int, share: int, flags: int) -> None:
        segment = self.taken.pop(which % len(self.taken))
        pages = pages_of(segment, count, share * 4, flags)
        filling = filling_of(self.log, pages)
        self.log.fill(segment, filling)
        self.used[segment] = filling.used
        self.staged += pages
        assert self.log.sequence_of(segment) not in self.sequences  # DISK-AGE
        self.sequences.add(self.log.sequence_of(segment))

    @precondition(lambda self: self.staged)
    @rule(count=st.integers(1, 60), dead=st.integers(0, 30), seed=st.integers(0, 1000))
    def publish(self, count: int, dead: int, seed: int) -> None:
        random.Random(seed).shuffle(self.alive)
        published, self.staged = self.staged[:count], self.staged[count:]
        dropped, self.alive = self.alive[:dead], self.alive[dead:] + published
        self.log.publish(len(published), dropped)
        self._forget_freed()

    @precondition(lambda self: self.staged)
    @rule(count=st.integers(1, 60))
    def withdraw(self, count: int) -> None:
        withdrawn, self.staged = self.staged[:count], self.staged[count:]
        self.log.publish(len(withdrawn), withdrawn)
        self._forget_freed()

    @precondition(lambda self: self.alive)
    @rule()
    def all_die(self) -> None:
        self.log.publish(0, self.alive)
        self.alive = []
        self._forget_freed()

    @invariant()
    def the_books_are_right(self) -> None:
        """DISK-LIVE and DISK-REUSE."""
        log, everything = self.log, [*self.alive, *self.staged]
        assert (log.size, log.room()) == (self.size, len(self.free))
        full = log.full()
        size = Counter[int]()
        for page in everything:
            size[entry.segment_of(page)] += entry.share_of(page)
        segments = full.segments.tolist()
        assert segments == sorted(self.used)
        assert full.live.tolist() == [size[segment] for segment in segments]
        assert full.used.tolist() == [self.used[segment] for segment in segments]
        totals = log.ledger.totals()
        assert (totals.live_pages, totals.staged) == (len(everything), len(self.staged))
        assert totals.live_bytes == sum(size.values())
        assert totals.huge == sum(bool(page & entry.HUGE) for page in everything)
        assert totals.cold == sum(bool(page & entry.COLD) for page in everything)
        hot = Counter(entry.segment_of(page) for page in everything if not page & entry.NOT_HOT)
        assert log.ledger.hot.tolist() == [hot[at] for at in range(self.log.most)]


DiskLogMachine.TestCase.settings = effort(60)
TestDiskLog = DiskLogMachine.TestCase

assert SEGMENT_SIZE > 40 * 4160
