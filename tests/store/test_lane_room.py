"""Lanes at the memory limit: what is refused, what is not, and what is left behind."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from model.audit import audit
from model.pages import filled, noise, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content, limit_of

from vswap.codec import Bytes, Lz4
from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Store
from vswap.store.entry import segment_of
from vswap.store.places import KEPT

SIZE = DEFAULT_SLOTS * PAGE_SIZE


def put(lane: Lane, offset: int, data: bytes) -> None:
    lane.write(offset, memoryview(data))


LIMIT = 3 + KEPT
"""Segments: the least that a store of one lane can work with."""

FILLED = 3 * (SEGMENT_SIZE // 4108)


def fill_up(lane: Lane) -> None:
    """Write all there is room for."""
    for slot in range(FILLED):
        put(lane, slot * PAGE_SIZE, noise(1, slot % 200))


@pytest.fixture
def full(make: StoreMaker) -> Store:
    """A store whose three segments are written full, the first slots in order."""
    store = make(Policy(codec="stored", unit_pages=1, memory_limit=limit_of(LIMIT)))
    fill_up(store.lane())
    return store


def first_lane(store: Store) -> Lane:
    return store._lanes[0]


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, PAGE_SIZE),
        (0, 8 * PAGE_SIZE),
        (100, 200),
        (900 * PAGE_SIZE, PAGE_SIZE),
        ((FILLED - 2) * PAGE_SIZE, 4 * PAGE_SIZE),
    ],
)
def test_a_write_that_finds_no_room_leaves_the_old_data(
    full: Store, offset: int, size: int
) -> None:
    """LOG-LIVE: nor does it leave anything counted."""
    lane = first_lane(full)
    before = content(lane, 0, SIZE)
    live = full._parts.log.ledger.totals()
    with pytest.raises(FullError):
        put(lane, offset, noise(8, 999)[:size])
    assert content(lane, 0, SIZE) == before
    assert full._parts.log.ledger.totals() == live
    assert audit(full) == []


def test_a_write_that_runs_out_of_room_half_way_leaves_nothing(make: StoreMaker) -> None:
    """LOG-LIVE: what was staged is dead, the rest was never written."""
    store = make(Policy(codec="stored", unit_pages=4, memory_limit=limit_of(LIMIT)))
    lane = store.lane()
    put(lane, 0, noise(16))
    with pytest.raises(FullError):
        put(lane, 4 * PAGE_SIZE, filled(8) + noise(900) + filled(4, 1))
    assert content(lane, 0, 16 * PAGE_SIZE) == noise(16)
    assert content(lane, 16 * PAGE_SIZE, 900 * PAGE_SIZE) == zero(900)
    statistics = store.statistics()
    assert (statistics.stored_pages, statistics.fill_pages) == (16, 0)
    assert audit(store) == []


class FailingCodec(Lz4):
    """Compresses a few units, and then there is no memory for more."""

    def __init__(self, units: int) -> None:
        self.units = units

    def compress(self, data: Bytes) -> bytes:
        if not self.units:
            raise MemoryError
        self.units -= 1
        return super().compress(data)


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, PAGE_SIZE), (0, 16 * PAGE_SIZE), (100, 200), (100, 12 * PAGE_SIZE)],
)
def test_a_write_that_fails_for_any_reason_leaves_nothing_counted(
    store: Store, offset: int, size: int
) -> None:
    """LOG-LIVE: what was staged is dead; nobody will ever name it."""
    lane = store.lane()
    put(lane, 0, text(16))
    lane._writer._codec = FailingCodec(units=0 if size < 2 * PAGE_SIZE else 2)
    with pytest.raises(MemoryError):
        put(lane, offset, noise(16)[:size])
    assert audit(store) == []


def test_what_needs_no_room_is_taken_by_a_full_store(full: Store) -> None:
    """Zeros, and pages of one word."""
    lane = first_lane(full)
    put(lane, 0, zero(4) + filled(4))
    assert content(lane, 0, 9 * PAGE_SIZE) == zero(4) + filled(4) + noise(1, 8)
    assert full.statistics().same_pages == 8


def test_a_full_store_refuses_at_once_until_enough_has_been_freed(full: Store) -> None:
    """Or it would clean for every single page."""
    lane = first_lane(full)
    for slot in range(0, 20):
        with pytest.raises(FullError):
            put(lane, 0, noise(1, 999))
        lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    lane.discard(0, FILLED // 2 * PAGE_SIZE)
    put(lane, 0, noise(1, 999))
    assert content(lane, 0, PAGE_SIZE) == noise(1, 999)


def thin_out(lane: Lane) -> None:
    """Of what `fill_up` has written, let a page in three live: no segment is empty then."""
    for slot in range(FILLED):
        if slot % 3:
            lane.discard(slot * PAGE_SIZE, PAGE_SIZE)


def test_a_writer_that_finds_no_room_cleans_for_itself(full: Store) -> None:
    """Without any background."""
    lane = first_lane(full)
    thin_out(lane)
    for slot in range(1, FILLED // 2, 3):
        put(lane, slot * PAGE_SIZE, noise(1, 500))
    assert full.statistics().segments_cleaned > 0
    for slot in range(FILLED):
        written = slot % 3 == 1 and slot < FILLED // 2
        expected = noise(1, slot % 200) if not slot % 3 else noise(1, 500) if written else zero()
        assert content(lane, slot * PAGE_SIZE, PAGE_SIZE) == expected


def test_others_are_served_while_a_writer_makes_room(make: StoreMaker) -> None:
    """It says when it begins to clean, and not when there is room anyway."""
    store = make(Policy(codec="stored", unit_pages=1, memory_limit=limit_of(LIMIT)))
    steps: list[str] = []

    lane = store.lane(lambda: steps.append("begins"))
    fill_up(lane)
    assert steps == []
    thin_out(lane)
    put(lane, 0, noise(1, 500))
    assert steps == ["begins"]
    assert store.statistics().segments_cleaned > 0


def test_a_writer_wins_back_what_has_died_in_its_own_full_segment(make: StoreMaker) -> None:
    """However full the store was: all of the last segment but a page is dead, and some more."""
    store = make(Policy(codec="stored", unit_pages=1, memory_limit=limit_of(LIMIT)))
    lane = store.lane()
    fill_up(lane)
    last = lane._writer._appender._segment
    entries = {slot: store._parts.table.get(slot) for slot in range(DEFAULT_SLOTS)}
    mine = [slot for slot, entry in entries.items() if entry and segment_of(entry) == last]
    for slot in (*mine[1:], *range(10)):
        lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    for slot in mine[1:-2]:
        put(lane, slot * PAGE_SIZE, noise(1, 500 + slot))
    assert content(lane, mine[1] * PAGE_SIZE, PAGE_SIZE) == noise(1, 500 + mine[1])


def test_a_discard_of_whole_pages_needs_no_room(full: Store) -> None:
    lane = first_lane(full)
    lane.discard(0, 300 * PAGE_SIZE)
    assert content(lane, 0, 300 * PAGE_SIZE) == zero(300)


def test_a_full_store_is_still_read(full: Store) -> None:
    lane = first_lane(full)
    assert content(lane, 77 * PAGE_SIZE, PAGE_SIZE) == noise(1, 77)


def test_a_failed_write_is_counted_and_not_as_written(full: Store) -> None:
    lane = first_lane(full)
    before = asdict(lane.counters)
    with pytest.raises(FullError):
        put(lane, 0, noise(4))
    assert lane.counters.failed_writes == before["failed_writes"] + 1
    assert lane.counters.pages_written == before["pages_written"]
