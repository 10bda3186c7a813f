"""The log: where each segment is in its life, and how much of it is alive."""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model.audit import holes
from model.effort import effort
from model.memory import data_extents

from vswap.errors import FullError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import entry
from vswap.store.log import _BUSY, _HOLE, _OPEN, _READY, _SEALED, Log
from vswap.store.region import Region

Maker = Callable[..., "Harness"]


class Segments(Region):
    """A region that can be told to have no memory left.

    `refuse` is how many of the next populates fail; `refused_after` the bytes that they have
    populated by then, as MADV_POPULATE_WRITE stops where memory ends.
    """

    refuse = 0
    refused_after = 0

    def populate(self, offset: int, length: int) -> None:
        if self.refuse:
            self.refuse -= 1
            if self.refused_after:
                super().populate(offset, self.refused_after)
            raise OSError(errno.ENOMEM, "no memory")
        super().populate(offset, length)

    def with_memory(self) -> set[int]:
        """The segments that have any memory behind them."""
        return {
            segment
            for start, stop in data_extents(self)
            for segment in range(start // SEGMENT_SIZE, -(-stop // SEGMENT_SIZE))
        }


class Harness:
    """A log and what it is made of."""

    def __init__(self, segments: int, reserve: int = 0, limit: int | None = None) -> None:
        region = Segments.create("segments", segments * SEGMENT_SIZE)
        assert isinstance(region, Segments)
        self.region = region
        self.wakes = 0
        self.log = Log(region, reserve, limit, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def add(self, first: int, pages: int) -> None:
        """Count a unit appended where `first`, the entry of its first page, says."""
        segment, size = entry.segment_of(first), entry.share_of(first) * pages
        self.log.add(segment, pages, size, pages if first & entry.HUGE else 0)

    def ready(self) -> set[int]:
        return {segment for segment, state in enumerate(self.states()) if state == _READY}

    def states(self) -> list[int]:
        return list(self.log._state)

    def snapshot(self) -> object:
        """All that a call which fails must leave as it was."""
        log = self.log
        return (
            bytes(log._state),
            sorted(log._ready),
            sorted(holes(log)),
            log.pages.tolist(),
            log.bytes.tolist(),
            log.statistics(),
            log._in_use,
        )


def freed(harness: Harness, count: int) -> None:
    """Make `count` segments ready, with memory behind them, by using them up."""
    for segment in [harness.log.take() for _ in range(count)]:
        harness.region.view[segment * SEGMENT_SIZE] = 1
        harness.log.seal(segment)


@pytest.fixture
def make_log() -> Iterator[Maker]:
    made: list[Harness] = []

    def maker(segments: int = 4, reserve: int = 0, limit: int | None = None) -> Harness:
        made.append(Harness(segments, reserve, limit))
        return made[-1]

    yield maker
    for harness in made:
        harness.region.close()


def unit(segment: int, share: int = 400, flags: int = 0, offset: int = 0) -> int:
    """The first entry of a unit in `segment`."""
    return entry.pack(segment * SEGMENT_SIZE + offset, share, flags)


def each_page(first: int, pages: int) -> list[int]:
    return [first + (i << entry.INDEX_SHIFT) for i in range(pages)]


# --- A segment's life -------------------------------------------------------------------


def test_a_new_log_is_all_holes(make_log: Maker) -> None:
    """LOG-PLACE"""
    harness = make_log(4)
    assert harness.states() == [_HOLE] * 4
    assert harness.region.allocated() == 0


def test_take_opens_segments_each_once(make_log: Maker) -> None:
    """LOG-PLACE: what is taken is taken by nobody else."""
    harness = make_log(4)
    assert sorted(harness.log.take() for _ in range(4)) == [0, 1, 2, 3]
    assert harness.states() == [_OPEN] * 4


def test_a_sealed_segment_with_live_pages_stays(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(1)
    segment = harness.log.take()
    harness.add(unit(segment), 2)
    harness.log.seal(segment)
    assert harness.states() == [_SEALED]
    with pytest.raises(FullError):
        harness.log.take()


def test_a_sealed_segment_is_freed_when_its_last_page_dies(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(1)
    segment = harness.log.take()
    harness.add(unit(segment), 2)
    harness.log.seal(segment)
    first, last = each_page(unit(segment), 2)
    harness.log.drop([first])
    assert harness.states() == [_SEALED]
    harness.log.drop([last])
    assert harness.states() == [_READY]
    assert harness.log.take() == segment


def test_an_open_segment_is_not_freed_when_its_last_page_dies(make_log: Maker) -> None:
    """LOG-REUSE: its appender still writes to it."""
    harness = make_log(1)
    segment = harness.log.take()
    harness.add(unit(segment), 1)
    harness.log.drop([unit(segment)])
    assert harness.states() == [_OPEN]


def test_a_segment_sealed_when_empty_is_freed_at_once(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(1)
    harness.log.seal(harness.log.take())
    assert harness.states() == [_READY]


def test_a_freed_segment_is_taken_before_a_hole(make_log: Maker) -> None:
    """Its memory is there already; a hole would cost page faults."""
    harness = make_log(4)
    harness.log.seal(harness.log.take())
    again = harness.log.take()
    assert harness.states().count(_HOLE) == 3
    assert harness.states()[again] == _OPEN


# --- What is alive ----------------------------------------------------------------------


def test_add_counts_pages_and_the_sum_of_their_shares(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    segment = harness.log.take()
    harness.add(unit(segment, share=300), 4)
    harness.add(unit(segment, share=4000), 1)
    assert harness.log.pages[segment] == 5
    assert harness.log.bytes[segment] == 4 * 300 + 4000
    statistics = harness.log.statistics()
    assert (statistics.pages_live, statistics.bytes_live) == (5, 5200)


def test_drop_subtracts_what_add_counted(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    segment = harness.log.take()
    for offset, share in ((0, 300), (4096, 4000)):
        harness.add(unit(segment, share, 0, offset), 3)
    harness.log.drop(each_page(unit(segment, 300), 2))
    assert harness.log.pages[segment] == 4
    assert harness.log.bytes[segment] == 300 + 3 * 4000
    statistics = harness.log.statistics()
    assert (statistics.pages_live, statistics.bytes_live) == (4, 12300)


def test_huge_pages_are_counted_while_they_live_and_since_ever(make_log: Maker) -> None:
    """LOG-LIVE: `huge_pages` falls again, `huge_pages_since` does not."""
    harness = make_log(1)
    segment = harness.log.take()
    huge = unit(segment, 4108, entry.HUGE)
    harness.add(huge, 4)
    harness.add(unit(segment, 400, 0, 20_000), 2)
    assert harness.log.statistics().huge_pages == 4
    harness.log.drop(each_page(huge, 3))
    harness.log.drop(each_page(unit(segment, 400, 0, 20_000), 2))
    statistics = harness.log.statistics()
    assert (statistics.huge_pages, statistics.huge_pages_since) == (1, 4)


def test_dropping_huge_pages_uncounts_each(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(1)
    segment = harness.log.take()
    huge = unit(segment, 4108, entry.HUGE)
    harness.add(huge, 4)
    harness.log.drop(each_page(huge, 3))
    assert harness.log.statistics().huge_pages == 1


def test_one_drop_can_free_several_segments(make_log: Maker) -> None:
    """LOG-REUSE: in any order of their entries, and not those that keep a page."""
    harness = make_log(4)
    a, b, c = segments = [harness.log.take() for _ in range(3)]
    for segment in segments:
        harness.add(unit(segment), 2)
        harness.log.seal(segment)
    pages = {segment: each_page(unit(segment), 2) for segment in segments}
    mingled = [pages[a][0], pages[b][0], pages[a][1], pages[c][0], pages[b][1]]
    harness.log.drop(mingled)
    assert [harness.states()[segment] for segment in segments] == [_READY, _READY, _SEALED]
    assert harness.log.pages[c] == 1


def test_to_drop_many_at_once_and_one_by_one_is_the_same(make_log: Maker) -> None:
    """LOG-LIVE: for entries of several segments in any order, huge ones among them."""
    at_once, one_by_one = make_log(6), make_log(6)
    numbers = random.Random(1)
    entries: list[int] = []
    for number in range(120):
        flags = numbers.choice((0, entry.HUGE))
        pages = numbers.randint(1, 16)
        first = unit(numbers.randrange(6), 4 * numbers.randint(1, 1027), flags, 4 * number)
        entries += each_page(first, pages)
        for harness in (at_once, one_by_one):
            harness.add(first, pages)
    for harness in (at_once, one_by_one):
        for _ in range(6):
            harness.log.take()
        for segment in range(5):
            harness.log.seal(segment)
    numbers.shuffle(entries)
    for dropped in (entries[:400], entries[400:-1]):
        at_once.log.drop(dropped)
        for page in dropped:
            one_by_one.log.drop([page])
        assert at_once.snapshot() == one_by_one.snapshot()
    assert at_once.log.statistics().pages_live == 1


def test_to_drop_nothing_changes_nothing(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    harness.add(unit(harness.log.take()), 2)
    before = harness.snapshot()
    harness.log.drop([])
    assert harness.snapshot() == before


def test_drop_leaves_the_callers_list_alone(make_log: Maker) -> None:
    harness = make_log(2)
    one, other = harness.log.take(), harness.log.take()
    entries = [unit(other), unit(one)]
    for page in entries:
        harness.add(page, 1)
    harness.log.drop(entries)
    assert entries == [unit(other), unit(one)]


# --- Limits, the reserve, the background ------------------------------------------------


def test_the_limit_bounds_what_is_taken(make_log: Maker) -> None:
    harness = make_log(8, limit=3)
    for _ in range(3):
        harness.log.take()
    with pytest.raises(FullError):
        harness.log.take()


def test_a_full_log_is_left_as_it_was(make_log: Maker) -> None:
    """LOG-PLACE: a take that fails has changed nothing."""
    harness = make_log(8, reserve=1, limit=2)
    segment = harness.log.take()
    harness.add(unit(segment), 1)
    harness.log.take()
    before = harness.snapshot()
    with pytest.raises(FullError):
        harness.log.take()
    assert harness.snapshot() == before


def test_without_a_limit_all_segments_can_be_taken(make_log: Maker) -> None:
    harness = make_log(3)
    for _ in range(3):
        harness.log.take()
    with pytest.raises(FullError):
        harness.log.take()


def test_a_limit_beyond_the_segments_there_are_is_theirs(make_log: Maker) -> None:
    harness = make_log(2, limit=100)
    harness.log.take()
    harness.log.take()
    with pytest.raises(FullError):
        harness.log.take()


def test_what_is_freed_can_be_taken_at_the_limit(make_log: Maker) -> None:
    harness = make_log(8, limit=1)
    segment = harness.log.take()
    harness.log.seal(segment)
    assert harness.log.take() == segment


def test_maintain_fills_the_reserve_with_populated_segments(make_log: Maker) -> None:
    """LOG-PLACE: ready ones have memory behind them, holes have none."""
    harness = make_log(8, reserve=3)
    harness.log.maintain(idle=True)
    ready = harness.ready()
    assert len(ready) == 3
    assert harness.region.with_memory() == ready
    assert harness.region.allocated() == 3 * SEGMENT_SIZE


def test_maintain_keeps_the_reserve_when_segments_are_taken(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    harness.log.maintain(idle=True)
    harness.log.take()
    harness.log.maintain(idle=True)
    assert harness.log.statistics().segments_ready == 2


def test_maintain_gives_back_what_is_beyond_the_reserve(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    freed(harness, 5)
    assert len(harness.ready()) == 5
    harness.log.maintain(idle=True)
    ready = harness.ready()
    assert len(ready) == 2
    assert harness.region.with_memory() == ready


def test_maintain_populates_up_to_the_limit_only(make_log: Maker) -> None:
    """And leaves one for an appender, which could not find it while it is being populated."""
    harness = make_log(8, reserve=4, limit=3)
    harness.log.take()
    harness.log.maintain(idle=True)
    assert harness.log.statistics().segments_ready == 1
    assert harness.region.allocated() == SEGMENT_SIZE
    harness.log.take()
    harness.log.take()


def test_maintain_with_nothing_to_do_changes_nothing(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    harness.log.maintain(idle=True)
    before = harness.snapshot()
    harness.log.maintain(idle=True)
    assert harness.snapshot() == before


def test_a_failed_populate_puts_the_segment_back_as_a_hole(make_log: Maker) -> None:
    """LOG-PLACE: what is taken off a list is put to use or back."""
    harness = make_log(4, reserve=2)
    harness.region.refuse = 1
    with pytest.raises(OSError, match="no memory"):
        harness.log.maintain(idle=True)
    assert harness.states() == [_HOLE] * 4
    assert sorted(holes(harness.log)) == [0, 1, 2, 3]
    assert harness.log._in_use == 0


def test_maintain_tries_again_after_a_failed_populate(make_log: Maker) -> None:
    harness = make_log(4, reserve=2)
    harness.region.refuse = 1
    with pytest.raises(OSError, match="no memory"):
        harness.log.maintain(idle=True)
    harness.log.maintain(idle=True)
    assert harness.log.statistics().segments_ready == 2


def test_a_populate_that_fails_half_way_leaves_no_memory_behind(make_log: Maker) -> None:
    """LOG-PLACE: a hole has no memory behind it, or the limit would not bound memory."""
    harness = make_log(4, reserve=1)
    harness.region.refuse, harness.region.refused_after = 1, SEGMENT_SIZE // 2
    with pytest.raises(OSError, match="no memory"):
        harness.log.maintain(idle=True)
    assert harness.states() == [_HOLE] * 4
    assert harness.region.allocated() == 0


def test_a_busy_log_keeps_what_it_will_need_again(make_log: Maker) -> None:
    harness = make_log(12, reserve=2)
    freed(harness, 8)
    harness.log.maintain(idle=False)
    assert harness.log.statistics().segments_ready == 8


def test_a_busy_log_keeps_four_times_the_reserve_at_most(make_log: Maker) -> None:
    harness = make_log(12, reserve=2)
    freed(harness, 11)
    harness.log.maintain(idle=False)
    assert harness.log.statistics().segments_ready == 8
    assert harness.region.with_memory() == harness.ready()


def test_a_busy_log_is_given_its_reserve(make_log: Maker) -> None:
    harness = make_log(12, reserve=2)
    harness.log.maintain(idle=False)
    assert harness.log.statistics().segments_ready == 2


def woken_by(harness: Harness, calls: Iterable[Callable[[], object]]) -> list[int]:
    """How often each call woke the background."""
    counts = []
    for call in calls:
        before = harness.wakes
        call()
        counts.append(harness.wakes - before)
    return counts


def test_taking_below_half_the_reserve_wakes_the_background(make_log: Maker) -> None:
    harness = make_log(8, reserve=4)
    harness.log.maintain(idle=True)
    assert woken_by(harness, [harness.log.take] * 4) == [0, 0, 1, 1]


def test_taking_the_only_segment_of_the_reserve_wakes_the_background(make_log: Maker) -> None:
    """None is below half of one."""
    harness = make_log(8, reserve=1)
    harness.log.maintain(idle=True)
    assert woken_by(harness, [harness.log.take]) == [1]


def test_a_log_that_keeps_no_reserve_is_not_woken_for_one(make_log: Maker) -> None:
    harness = make_log(8, reserve=0)
    assert woken_by(harness, [harness.log.take] * 3) == [0, 0, 0]


def test_freeing_beyond_the_reserve_wakes_the_background_once(make_log: Maker) -> None:
    """And again for each beyond four times the reserve."""
    harness = make_log(12, reserve=2)
    taken = [harness.log.take() for _ in range(10)]
    seals = [partial(harness.log.seal, segment) for segment in taken]
    assert woken_by(harness, seals) == [0, 0, 1, 0, 0, 0, 0, 0, 1, 1]


def test_freeing_without_a_reserve_wakes_the_background(make_log: Maker) -> None:
    harness = make_log(8, reserve=0)
    taken = [harness.log.take() for _ in range(2)]
    assert woken_by(harness, [partial(harness.log.seal, segment) for segment in taken]) == [1, 1]


def test_statistics_count_the_segments_of_each_place(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    harness.log.maintain(idle=True)
    full = harness.log.take()
    harness.add(unit(full), 1)
    harness.log.seal(full)
    harness.log.take()
    statistics = harness.log.statistics()
    assert statistics.segments_open == 1
    assert statistics.segments_sealed == 1
    assert statistics.segments_ready == 0
    assert statistics.segments_max == 2


def test_segments_max_does_not_fall(make_log: Maker) -> None:
    harness = make_log(8)
    freed(harness, 5)
    harness.log.maintain(idle=True)
    assert harness.log._in_use == 0
    assert harness.log.statistics().segments_max == 5


# --- The lock ---------------------------------------------------------------------------


class Guard:
    """Stands for one of the log's arrays or lists; notes each use without the lock."""

    def __init__(self, guarded: Any, lock: threading.Lock, unlocked: list[str]) -> None:  # noqa: ANN401
        self._guarded = guarded
        self._lock = lock
        self._unlocked = unlocked

    def _check(self, use: str) -> None:
        if not self._lock.locked():
            self._unlocked.append(f"{type(self._guarded).__name__}.{use}")

    def __len__(self) -> int:
        self._check("len")
        return len(self._guarded)

    def __getitem__(self, at: int) -> object:
        self._check("getitem")
        return self._guarded[at]

    def __setitem__(self, at: int, value: object) -> None:
        self._check("setitem")
        self._guarded[at] = value

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        self._check(name)
        return getattr(self._guarded, name)


def use_all(harness: Harness) -> None:
    """All that is done with a log."""
    log = harness.log
    freed(harness, 9)
    segment = log.take()
    harness.add(unit(segment), 2)
    log.seal(segment)
    log.drop(each_page(unit(segment), 2))
    for idle in (False, True):
        log.maintain(idle)
        log.take()
    harness.region.refuse = 1
    with pytest.raises(OSError, match="no memory"):
        log.maintain(idle=True)
    log.statistics()


def test_every_use_of_what_the_lock_protects_is_under_it(make_log: Maker) -> None:
    """LOG-LIVE and LOG-PLACE: all methods do their own locking."""
    harness = make_log(12, reserve=2)
    unlocked: list[str] = []
    for name in ("_state", "_pages", "_bytes", "_ready", "_holes"):
        guard = Guard(getattr(harness.log, name), harness.log._lock, unlocked)
        setattr(harness.log, name, guard)
    use_all(harness)
    assert unlocked == []


def test_memory_is_populated_and_punched_without_the_lock(
    make_log: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes its time for it, and data threads wait for the lock."""
    harness = make_log(12, reserve=2)
    locked: list[bool] = []
    for name in ("populate", "punch"):
        method = getattr(harness.region, name)

        def noting(*args: int, method: Callable[..., None] = method) -> None:
            locked.append(harness.log._lock.locked())
            method(*args)

        monkeypatch.setattr(harness.region, name, noting)
    use_all(harness)
    assert set(locked) == {False}


# --- Any order of it all ----------------------------------------------------------------


class LogMachine(RuleBasedStateMachine):
    """Any calls in any order that appenders and writers could make them in."""

    SEGMENTS = 8
    LIMIT = 7
    RESERVE = 1

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(self.SEGMENTS, self.RESERVE, self.LIMIT)
        self.log = self.harness.log
        self.open: list[int] = []
        self.sealed: set[int] = set()
        self.live: list[int] = []
        self.units = 0

    def _live_in(self) -> Counter[int]:
        return Counter(entry.segment_of(page) for page in self.live)

    def _forget_freed(self) -> None:
        self.sealed = {segment for segment in self.sealed if self._live_in()[segment]}

    @rule()
    def take(self) -> None:
        busy = len(self.open) + len(self.sealed)
        try:
            segment = self.log.take()
        except FullError:
            assert busy == self.LIMIT
            return
        assert busy < self.LIMIT
        assert segment not in self.open
        assert segment not in self.sealed
        assert not self._live_in()[segment]
        self.open.append(segment)

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, 99),
        pages=st.integers(1, 16),
        share=st.integers(1, 1027),
        huge=st.booleans(),
    )
    def add(self, which: int, pages: int, share: int, huge: bool) -> None:
        segment = self.open[which % len(self.open)]
        self.units += 1
        first = unit(segment, share * 4, entry.HUGE * huge, self.units * 4)
        self.harness.add(first, pages)
        self.live += each_page(first, pages)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def seal(self, which: int) -> None:
        segment = self.open.pop(which % len(self.open))
        self.log.seal(segment)
        self.sealed.add(segment)
        self._forget_freed()

    @precondition(lambda self: self.live)
    @rule(seed=st.integers(0, 1000), count=st.integers(1, 40))
    def drop(self, seed: int, count: int) -> None:
        random.Random(seed).shuffle(self.live)
        dropped, self.live = self.live[:count], self.live[count:]
        self.log.drop(dropped)
        self._forget_freed()

    @rule(idle=st.booleans(), refuse=st.sampled_from((0, 0, 1)))
    def maintain(self, idle: bool, refuse: int) -> None:
        ready = self.log.statistics().segments_ready
        self.harness.region.refuse = refuse
        try:
            self.log.maintain(idle)
        except OSError:
            return
        finally:
            self.harness.region.refuse = 0
        room = self.LIMIT - len(self.open) - len(self.sealed)
        least = min(self.RESERVE, room - 1)
        most = self.RESERVE if idle else 4 * self.RESERVE
        assert self.log.statistics().segments_ready == min(max(ready, least), most)

    @invariant()
    def live_counts_are_right(self) -> None:
        """LOG-LIVE"""
        shares = Counter[int]()
        for page in self.live:
            shares[entry.segment_of(page)] += entry.share_of(page)
        live = self._live_in()
        assert self.log.pages.tolist() == [live[segment] for segment in range(self.SEGMENTS)]
        assert self.log.bytes.tolist() == [shares[segment] for segment in range(self.SEGMENTS)]
        statistics = self.log.statistics()
        assert statistics.pages_live == len(self.live)
        assert statistics.bytes_live == sum(shares.values())
        assert statistics.huge_pages == sum(page & entry.HUGE for page in self.live)

    @invariant()
    def segments_are_in_one_place_each(self) -> None:
        """LOG-PLACE and LOG-REUSE"""
        log, states = self.log, self.harness.states()
        expected = [_HOLE] * self.SEGMENTS
        for segment in log._ready:
            expected[segment] = _READY
        for segment in self.sealed:
            expected[segment] = _SEALED
        for segment in self.open:
            expected[segment] = _OPEN
        assert states == expected
        assert _BUSY not in states
        assert sorted(holes(log)) == [s for s, state in enumerate(states) if state == _HOLE]
        assert len(set(log._ready)) == len(log._ready)
        assert log._in_use == self.SEGMENTS - len(holes(log)) <= self.LIMIT

    def teardown(self) -> None:
        self.harness.region.close()


LogMachine.TestCase.settings = effort(60, steps=40)
TestLogMachine = LogMachine.TestCase
