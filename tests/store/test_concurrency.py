"""Threads: what the locks promise, looked at under them, and under load.

The first tests hold the rules of docs/concurrency.md one by one, without chance. The last
let threads race, over segments that are recycled as fast as can be, and check what they see.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from model.pages import KINDS, mixed, noise, read_stamp, stamped, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content
from model.threads import hurried, run_threads

from vswap.errors import FullError, NoDataError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE, ZERO_PAGE
from vswap.store import Lane, Policy, Store, appender
from vswap.store.cache import FrontCache
from vswap.store.log import Log
from vswap.store.table import SwapTable
from vswap.store.unit import MAX_UNIT_SIZE, Decoder
from vswap.store.zeromap import Zeromap

SIZE = DEFAULT_SLOTS * PAGE_SIZE
Method = Callable[..., Any]


def put(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


def everything(lane: Lane) -> None:
    """Requests that go every way there is through the store."""
    end = CLUSTER_SLOTS * PAGE_SIZE
    for data in (text(40), mixed(600, 1), zero(600)):
        put(lane, CLUSTER_SLOTS - 20, data)
    put(lane, 0, text())
    put(lane, 1, zero())
    lane.write(end - 100, memoryview(noise())[:200])
    for offset, size in ((0, PAGE_SIZE), (100, 200), (end - PAGE_SIZE, 9 * PAGE_SIZE), (0, SIZE)):
        lane.read(offset, size)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        lane.seek(0, whence)
    lane.discard(100, 3 * PAGE_SIZE)
    lane.discard(0, SIZE)


# --- What is done under which lock ------------------------------------------------------


def before_each(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, check: Method) -> None:
    """Call `check` with the arguments, self left out, before each call of a method."""
    method: Method = getattr(owner, name)

    def checked(self: object, *args: Any) -> Any:  # noqa: ANN401
        check(*args)
        return method(self, *args)

    monkeypatch.setattr(owner, name, checked)


BY_RANGE = [
    (SwapTable, "entries"),
    (SwapTable, "exchange"),
    (Zeromap, "set"),
    (Zeromap, "clear"),
    (FrontCache, "presence"),
]


@pytest.mark.parametrize(
    ("owner", "name"), BY_RANGE, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_range_is_touched_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """ONE-STATE and STABLE-PRESENCE: and it never spans clusters."""
    seen = []

    def check(slot: int, what: int | list[int], *_: int) -> None:
        seen.append(slot)
        count = what if isinstance(what, int) else len(what)
        assert slot // CLUSTER_SLOTS == (slot + count - 1) // CLUSTER_SLOTS
        assert store._parts.locks[slot // CLUSTER_SLOTS].locked()

    before_each(monkeypatch, owner, name, check)
    everything(store.lane())
    assert seen


def test_an_entry_is_looked_up_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONE-STATE"""
    seen = []

    def check(slot: int) -> None:
        seen.append(slot)
        assert store._parts.locks[slot // CLUSTER_SLOTS].locked()

    before_each(monkeypatch, SwapTable, "get", check)
    everything(store.lane())
    assert seen


def test_a_table_page_is_given_back_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TABLE-HOLE: nobody may publish into a page that is being punched."""
    seen = []

    def check(cluster: int) -> None:
        seen.append(cluster)
        assert store._parts.locks[cluster].locked()

    before_each(monkeypatch, SwapTable, "release", check)
    everything(store.lane())
    assert seen


def test_a_unit_is_decoded_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-REUSE: so that it cannot die, nor its segment be freed, meanwhile."""
    seen = []

    def check(_entry: int, slot: int) -> None:
        seen.append(slot)
        assert store._parts.locks[slot // CLUSTER_SLOTS].locked()

    before_each(monkeypatch, Decoder, "unit", check)
    everything(store.lane())
    assert seen


def test_a_unit_is_complete_before_an_entry_names_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-LIVE: complete in memory, and counted, or a crash or a free would lose it."""
    lane = store.lane()
    decoder = lane._reader._decoder
    seen = []

    def check(slot: int, entries: list[int]) -> None:
        for at, entry in enumerate(entries, slot):
            seen.append(at)
            assert decoder.unit(entry, at)[1] == 4
        assert store._parts.log.pages[lane._writer._appender._segment] >= len(entries)

    before_each(monkeypatch, SwapTable, "exchange", check)
    for slot in range(0, 64, 16):
        put(lane, slot, text(16, seed=slot))
    assert len(seen) == 64


def test_a_write_stages_all_its_units_before_it_frees_anything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STAGED-FIRST"""
    lane = store.lane()
    put(lane, CLUSTER_SLOTS - 8, text(16))
    steps: list[str] = []
    for owner, name in (
        (appender.Appender, "append"),
        (SwapTable, "exchange"),
        (Log, "drop"),
    ):
        before_each(monkeypatch, owner, name, lambda *_, step=name: steps.append(step))
    put(lane, CLUSTER_SLOTS - 8, noise(16))
    each_cluster = ["exchange", "drop"]
    assert steps == ["append"] * 4 + each_cluster * 2


def test_clusters_are_freed_one_lock_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread holds two cluster locks: stripes make any order of two a deadlock."""
    held = []

    def check(*_: int) -> None:
        held.append(sum(lock.locked() for lock in store._parts.locks._locks))

    for owner, name in BY_RANGE:
        before_each(monkeypatch, owner, name, check)
    everything(store.lane())
    assert set(held) == {1}


def test_clusters_that_share_a_stripe_are_no_danger(make: StoreMaker) -> None:
    """256 clusters apart: a request over both takes the one lock twice, one after the other."""
    slots = 257 * CLUSTER_SLOTS
    lane = make(slots=slots, segments=4).lane()
    put(lane, 0, text())
    put(lane, slots - 1, text(seed=1))
    lane.discard(0, slots * PAGE_SIZE)
    run_threads([lambda: lane.read(0, slots * PAGE_SIZE)], timeout=20)


def test_a_reader_keeps_a_writer_of_its_slot_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-REUSE: what it reads is not freed before it has been read, however long that takes."""
    reading, writing = store.lane(), store.lane()
    put(writing, 0, noise())
    freed_while_reading = []
    decoding = threading.Event()
    staged = threading.Event()
    unit = Decoder.unit

    def slow_unit(self: Decoder, entry: int, slot: int) -> object:
        decoding.set()
        assert staged.wait(20)
        freed_while_reading.append(store._parts.table.get(0) != entry)
        return unit(self, entry, slot)

    def write() -> None:
        assert decoding.wait(20)
        put(writing, 0, noise(seed=1))

    monkeypatch.setattr(Decoder, "unit", slow_unit)
    before_each(monkeypatch, appender.Appender, "settle", staged.set)
    found: list[bytes] = []
    run_threads([lambda: found.append(content(reading, 0, PAGE_SIZE)), write])
    assert freed_while_reading == [False]
    assert found == [noise()]


def test_a_seek_finds_data_that_is_being_overwritten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONE-STATE: the slot holds data before and after, so there is no time when it does not."""
    writing, seeking = store.lane(), store.lane()
    put(writing, 0, text())
    found: list[str] = []
    exchange = SwapTable.exchange

    def seek() -> None:
        try:
            found.append(str(seeking.seek(0, os.SEEK_DATA)))
        except NoDataError:
            found.append("no data")

    seeker = threading.Thread(target=seek, daemon=True)

    def overtaken(self: SwapTable, slot: int, entries: list[int]) -> list[int]:
        """A seek in the midst of the overwrite: it answers now, or waits for the lock."""
        seeker.start()
        seeker.join(0.2)
        return exchange(self, slot, entries)

    monkeypatch.setattr(SwapTable, "exchange", overtaken)
    put(writing, 0, noise())
    seeker.join(20)
    assert found == ["0"]


# --- Under load -------------------------------------------------------------------------

SMALL_SEGMENT = 80 << 10
"""What appenders take for a segment's size here: recycled after some 19 stored pages."""
assert SMALL_SEGMENT > MAX_UNIT_SIZE

WRITERS = 2
READERS = 2
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

    The test fails unless its segments were written over again and again.
    """
    monkeypatch.setattr(appender, "SEGMENT_SIZE", SMALL_SEGMENT)
    takes: list[int] = []
    before_each(monkeypatch, Log, "take", lambda: takes.append(1))
    with hurried():
        yield make(Policy("lz4", 4, SEGMENTS * SEGMENT_SIZE, reserve=1))
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


def maintain(store: Store) -> None:
    for i in range(1000):
        store.maintain(idle=i % 2 == 0)


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
    bodies: list[Callable[[], object]] = [partial(maintain, busy)]
    for writer in range(WRITERS):
        own = [block for block in BLOCKS if owners[block] == writer]
        bodies.append(partial(change_blocks, busy.lane(), histories, own, writer, 4000))
    for reader in range(READERS):
        bodies.append(partial(read_blocks, busy.lane(), histories, reader, 5000))
    run_threads(bodies)
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
    bodies: list[Callable[[], object]] = [partial(maintain, busy)]
    bodies += [partial(write_anywhere, busy.lane(), number, 4000) for number in range(WRITERS)]
    bodies += [partial(read_anywhere, busy.lane(), number, 2500) for number in range(READERS)]
    run_threads(bodies)
    lane = busy._lanes[0]
    lane.discard(0, SIZE)
    assert busy.statistics().stored_pages == 0


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
    store = make(Policy("stored", 4, 8 * SEGMENT_SIZE), slots=4096)
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
