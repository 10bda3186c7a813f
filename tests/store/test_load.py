"""Threads that race, over segments that are recycled as fast as can be, and what they see.

The background, commands and self audits go on beside them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from model.pages import KINDS, noise, read_stamp, stamped
from model.stores import DEFAULT_SLOTS, StoreMaker, content, limit_of
from model.threads import before_each, hurried, run_threads

from vswap.errors import FullError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, ZERO_PAGE
from vswap.store import Lane, Policy, Presence, Selection, Store, appender, jobs, plan, upkeep
from vswap.store.log import Log
from vswap.store.unit import MAX_UNIT_SIZE

SIZE = DEFAULT_SLOTS * PAGE_SIZE


def put(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


SMALL_SEGMENT = 80 << 10
"""What appenders take for a segment's size here: recycled after some 19 stored pages."""
assert SMALL_SEGMENT > MAX_UNIT_SIZE

WRITERS = 2
READERS = 2
ROUNDS = 4000
BLOCK = 8
"""Slots that are written together, now and then."""

BASES = (0, CLUSTER_SLOTS - 2 * BLOCK, 2 * CLUSTER_SLOTS)
BLOCKS = [base + i * BLOCK for base in BASES for i in range(4)]
"""First slots of the blocks in use: in three clusters, some at a cluster's end."""


SEGMENTS = 16
"""As many as there may be: a lane's for each thread, and little more than the blocks need."""


@pytest.fixture
def busy(make: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with a small log, no reserve to speak of, small segments, and hasty threads.

    Its background has no consideration, and thinks that whatever is there is old. The test
    fails unless its segments were written over again and again.
    """
    for module in (appender, plan):
        monkeypatch.setattr(module, "SEGMENT_SIZE", SMALL_SEGMENT)
    for module, name, value in (
        (upkeep, "_BUSY_REQUESTS", 1 << 40),
        (upkeep, "_COLD_SECONDS", 1e-6),
        (jobs, "_FRUITLESS_SECONDS", 0.0),
        (jobs, "_PUBLISHING_SECONDS", 1e-6),
    ):
        monkeypatch.setattr(module, name, value)
    takes: list[int] = []
    before_each(monkeypatch, Log, "take", lambda *_: takes.append(1))
    with hurried():
        yield make(Policy("lz4", 4, limit_of(SEGMENTS), reserve=1))
    assert len(takes) > 10 * SEGMENTS


class History:
    """What the only writer of a slot has done to it, so that a reader can tell what may be there.

    Change n of a slot is `begun` before it is made and `done` after it: a read that started
    when `done` changes were through and ended when `begun` had been started must find what
    one of those from `done` to `begun` leaves, the first of all being the empty slot.
    """

    def __init__(self, slot: int, writer: int) -> None:
        self.slot = slot
        self.writer = writer
        self.leaves_zeros = [True]
        self.done = 0

    @property
    def begun(self) -> int:
        return len(self.leaves_zeros) - 1

    def page(self, change: int) -> bytes:
        kind = KINDS[change % len(KINDS)]
        return stamped(kind, (self.slot, self.writer, change))

    def next(self, zeros: bool) -> bytes:
        """Begin a change; the page that it makes."""
        self.leaves_zeros.append(zeros)
        return ZERO_PAGE if zeros else self.page(self.begun)

    def check(self, found: bytes, done: int) -> None:
        """`found` was read after `done` changes and before now."""
        begun = self.begun
        if found == ZERO_PAGE:
            assert any(self.leaves_zeros[done : begun + 1]), f"slot {self.slot}: zeros"
            return
        stamp = read_stamp(found)
        assert stamp is not None, f"slot {self.slot}: a torn page"
        slot, writer, change = stamp
        assert (slot, writer) == (self.slot, self.writer)
        assert not self.leaves_zeros[change]
        assert done <= change <= begun, f"slot {slot}: {change}, not of {done} to {begun}"


class Background:
    """What goes on in a store as long as any of its requests does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._left = 0
        self._lock = threading.Lock()

    def beside(self, bodies: list[Callable[[], object]]) -> list[Callable[[], object]]:
        """These bodies, and upkeep of all sorts until the last of them has ended."""
        self._left = len(bodies)
        works = (self._maintain, self._step, self._commands, self._looks)
        return [
            *(partial(self._until_done, body) for body in bodies),
            *(partial(self._repeat, work) for work in works),
        ]

    def _until_done(self, body: Callable[[], object]) -> None:
        try:
            body()
        finally:
            with self._lock:
                self._left -= 1

    def _repeat(self, work: Callable[[], object]) -> None:
        while self._left:
            work()

    def _maintain(self) -> None:
        self._store.maintain()

    def _step(self) -> None:
        assert self._store.step() >= 0

    def _commands(self) -> None:
        self._store.compact()
        self._store.recompress(Selection(), max_pages=40)
        self._store.mark_idle()
        self._store.recompress(Selection(idle=True, threshold=100), max_pages=40)
        self._store.recompress(Selection(huge=True))

    def _looks(self) -> None:
        assert self._store.check().problems == ()
        self._store.statistics()
        state, run = self._store.presence(0, DEFAULT_SLOTS)
        assert (state is Presence.MIXED) == (run < DEFAULT_SLOTS)


def change_blocks(
    lane: Lane, histories: dict[int, History], blocks: list[int], writer: int, rounds: int
) -> int:
    """Write, zero and discard parts of the blocks; how often there was no room."""
    full = 0
    for i in range(rounds):
        block = blocks[(i * 7 + writer) % len(blocks)]
        count = (1, 3, BLOCK, 2)[i % 4]
        first = block + (i * 5) % (BLOCK - count + 1)
        changed = [histories[slot] for slot in range(first, first + count)]
        if i % 5 == 4:
            for history in changed:
                history.next(zeros=True)
            lane.discard(first * PAGE_SIZE, count * PAGE_SIZE)
        else:
            pages = [history.next(zeros=(i + n) % 6 == 0) for n, history in enumerate(changed)]
            try:
                put(lane, first, b"".join(pages))
            except FullError:  # nothing was changed; make room, and that is the change
                full += 1
                for history in changed:
                    history.leaves_zeros[-1] = True
                lane.discard(first * PAGE_SIZE, count * PAGE_SIZE)
        for history in changed:
            history.done = history.begun
    return full


def read_blocks(lane: Lane, histories: dict[int, History], reader: int, rounds: int) -> None:
    """Read parts of the blocks, and check every page."""
    for i in range(rounds):
        block = BLOCKS[(i * 5 + reader) % len(BLOCKS)]
        count = (1, BLOCK, 4)[i % 3]
        first = block + (i * 3) % (BLOCK - count + 1)
        done = {slot: histories[slot].done for slot in range(first, first + count)}
        data = content(lane, first * PAGE_SIZE, count * PAGE_SIZE)
        for at, slot in enumerate(done):
            page = data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE]
            histories[slot].check(page, done[slot])


def test_a_read_never_sees_what_is_older_or_torn_or_anothers(busy: Store) -> None:
    """LOG-REUSE: under load, with each slot's changes made by one writer."""
    owners = {block: number % WRITERS for number, block in enumerate(BLOCKS)}
    histories = {
        block + i: History(block + i, writer)
        for block, writer in owners.items()
        for i in range(BLOCK)
    }
    bodies: list[Callable[[], object]] = []
    for writer in range(WRITERS):
        own = [block for block in BLOCKS if owners[block] == writer]
        bodies.append(partial(change_blocks, busy.lane(), histories, own, writer, ROUNDS))
    for reader in range(READERS):
        bodies.append(partial(read_blocks, busy.lane(), histories, reader, ROUNDS))
    run_threads(Background(busy).beside(bodies))
    assert busy.statistics().segments_cleaned > 0
    assert busy.statistics().pages_recompressed > 0
    lane = busy.lane()
    for slot, history in histories.items():
        history.check(content(lane, slot * PAGE_SIZE, PAGE_SIZE), history.begun)


def write_anywhere(lane: Lane, writer: int, rounds: int) -> None:
    """Overwrite and discard the same blocks as the other writers do."""
    for i in range(rounds):
        block = BLOCKS[(i * 7 + writer) % len(BLOCKS)]
        count = (1, 3, BLOCK, 2)[(i + writer) % 4]
        first = block + (i * 5) % (BLOCK - count + 1)
        kind = KINDS[(i + writer) % len(KINDS)]
        if i % 6 == 5:
            lane.discard(first * PAGE_SIZE, count * PAGE_SIZE)
            continue
        try:
            pages = [stamped(kind, (slot, writer, i)) for slot in range(first, first + count)]
            put(lane, first, b"".join(pages))
        except FullError:
            lane.discard(block * PAGE_SIZE, BLOCK * PAGE_SIZE)


def read_anywhere(lane: Lane, reader: int, rounds: int) -> None:
    """Every page is zeros or, whole, its slot's; and of each writer never an older one again."""
    newest: dict[tuple[int, int], int] = {}
    for i in range(rounds):
        block = BLOCKS[(i * 5 + reader) % len(BLOCKS)]
        data = content(lane, block * PAGE_SIZE, BLOCK * PAGE_SIZE)
        for at in range(BLOCK):
            page = data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE]
            if page == ZERO_PAGE:
                continue
            stamp = read_stamp(page)
            assert stamp is not None, f"slot {block + at}: a torn page"
            slot, writer, generation = stamp
            assert slot == block + at
            assert generation >= newest.get((slot, writer), 0)
            newest[slot, writer] = generation


def test_writers_of_the_same_slots_leave_whole_pages(busy: Store) -> None:
    """LOG-REUSE and LOG-LIVE: with every slot overwritten by every writer."""
    bodies: list[Callable[[], object]] = []
    bodies += [partial(write_anywhere, busy.lane(), number, ROUNDS) for number in range(WRITERS)]
    bodies += [partial(read_anywhere, busy.lane(), number, ROUNDS) for number in range(READERS)]
    run_threads(Background(busy).beside(bodies))
    lane = busy._lanes[0]
    lane.discard(0, SIZE)
    assert busy.statistics().stored_pages == 0
    assert busy.statistics().fill_pages == 0


def test_parts_of_a_page_written_at_once_are_all_there(store: Store) -> None:
    """ONE-STATE: each is read, changed and written under the lock, so none is lost."""
    sectors = 8
    lanes = [store.lane() for _ in range(4)]

    def write_own(lane: Lane, number: int) -> None:
        for i in range(250):
            for sector in (number, number + 4):
                lane.write(sector * 512, memoryview(bytes([i, sector]) * 256))
                assert content(lane, sector * 512, 512) == bytes([i, sector]) * 256

    with hurried():
        run_threads([partial(write_own, lane, number) for number, lane in enumerate(lanes)])
    expected = b"".join(bytes([249, sector]) * 256 for sector in range(sectors))
    assert content(lanes[0], 0, PAGE_SIZE) == expected


def test_lanes_that_use_up_the_log_at_once_fail_whole(make: StoreMaker) -> None:
    """STAGED-FIRST: what fits is there, what did not fit has changed nothing."""
    store = make(Policy("stored", 4, limit_of(8, 4096)), slots=4096)
    lanes = [store.lane() for _ in range(3)]
    written: list[int] = []

    def fill(lane: Lane, number: int) -> None:
        for slot in range(number * 32, 4096 - 96, 96):
            try:
                put(lane, slot, noise(32, slot))
            except FullError:
                continue
            written.append(slot)

    with hurried():
        run_threads([partial(fill, lane, number) for number, lane in enumerate(lanes)])
    assert store.statistics().stored_pages == 32 * len(written)
    assert 0 < len(written) < 4096 // 32 - 3
    for slot in written:
        assert content(lanes[0], slot * PAGE_SIZE, 32 * PAGE_SIZE) == noise(32, slot)
