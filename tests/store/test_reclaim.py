"""Upkeep comes to an end: for a writer without room, and for commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from model.moves import (
    Clock,
    discard,
    new_clock,
    put,
    relocator_of,
    seal,
    sealed_segments,
    unit_at,
)
from model.pages import noise, text
from model.stores import StoreMaker, content, limit_of

from vswap.errors import FullError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Selection, Store, plan
from vswap.store.entry import SHARE_MAX
from vswap.store.places import KEPT
from vswap.store.unit import HEADER, pack_payload, unit_size

SLOTS = 8 * CLUSTER_SLOTS
LIMIT = 8
"""Segments."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return new_clock(monkeypatch)


@pytest.fixture
def tight(clock: Clock, make: StoreMaker) -> Store:
    """A store with little room whose time stands still."""
    assert clock.now
    return make(Policy(memory_limit=limit_of(LIMIT, SLOTS), reserve=0), slots=SLOTS, segments=LIMIT)


Content = Callable[[int, int], bytes]


def fill(store: Store, lane: Lane, content_of: Content, step: int = 4) -> int:
    """Write until no room is left; how many pages were."""
    slot = 0
    while store._parts.log.room() > KEPT:
        put(lane, slot, content_of(step, slot))
        slot += step
    seal_all(lane)
    return slot


def seal_all(lane: Lane) -> None:
    """Let the open segment be full, so that the next write asks for room."""
    lane._writer._appender._used = SEGMENT_SIZE


def reclaimed(store: Store, most: int = 1000) -> int:
    """How often reclaiming won something, until it did not."""
    wins = 0
    while store._parts.log.room() <= KEPT and store._upkeep.reclaim():
        wins += 1
        assert wins < most, "reclaiming does not come to an end"
    return wins


def test_reclaim_goes_on_until_there_is_room(tight: Store) -> None:
    lane = tight.lane()
    pages = fill(tight, lane, noise)
    discard(lane, *range(0, pages, 2))
    before = content(lane, 0, lane.size)
    assert reclaimed(tight) > 1
    assert tight._parts.log.room() > KEPT
    assert tight._upkeep.reclaim()
    assert content(lane, 0, lane.size) == before


def test_reclaim_ends_when_nothing_is_left_to_win(tight: Store) -> None:
    lane = tight.lane()
    fill(tight, lane, noise)
    assert reclaimed(tight) == 0
    assert not tight._upkeep.reclaim()


def test_reclaim_ends_though_some_dead_space_is_left(tight: Store) -> None:
    """Less than a segment in all."""
    lane = tight.lane()
    pages = fill(tight, lane, noise)
    discard(lane, *range(0, pages, 16))
    assert reclaimed(tight) == 0
    assert 0 < tight.statistics().dead_bytes < SEGMENT_SIZE


def test_reclaim_moves_down_when_no_dead_space_is_left(tight: Store) -> None:
    """Room is won from pages that are alive; when none is hot any more that is the end."""
    lane = tight.lane()
    fill(tight, lane, text)
    before = content(lane, 0, lane.size)
    reclaimed(tight)
    assert tight.statistics().cold_pages > 0
    assert content(lane, 0, lane.size) == before


def test_a_reclaim_during_a_sweep_still_gets_room(tight: Store, clock: Clock) -> None:
    """A sweep wins no segments by itself, so it is dropped."""
    lane = tight.lane()
    pages = fill(
        tight, lane, lambda count, seed: text(count, seed) if seed < 64 else noise(4, seed)
    )
    discard(lane, *range(64, pages, 5))
    tight._upkeep._job = tight._upkeep.jobs.sweep(tight._upkeep._tiers[0], clock.now)
    tight._upkeep._advance()
    discard(lane, *range(65, pages, 5), *range(66, pages, 5))
    assert tight._upkeep.reclaim()
    assert tight.statistics().pages_compacted > 0
    assert reclaimed(tight) > 0
    assert tight._parts.log.room() > KEPT


def test_a_reclaim_goes_on_with_a_cleaning_that_was_begun(tight: Store) -> None:
    """A second victim would need more of what little room there is."""
    lane = tight.lane()
    pages = fill(tight, lane, noise)
    discard(lane, *range(0, pages, 2))
    assert tight._upkeep.reclaim()
    job = tight._upkeep._job
    assert job is not None
    assert tight._upkeep.reclaim()
    assert tight._upkeep._job is job


def test_a_writer_reclaims_for_itself(tight: Store) -> None:
    lane = tight.lane()
    pages = fill(tight, lane, noise)
    discard(lane, *range(0, pages, 2))
    for slot in range(0, 256, 4):
        put(lane, slot, noise(4, seed=slot + 1))
    assert content(lane, 0, 4 * PAGE_SIZE) == noise(4, seed=1)
    assert tight.statistics().segments_cleaned > 0
    assert tight.statistics().pool_limit_hit == 0


# --- Things that cannot be won ----------------------------------------------------------


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing a victim so often is going on for ever."""
    for name in ("best", "emptiest"):
        limit(monkeypatch, name)


def limit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    choice = getattr(plan, name)
    calls = 0

    def counted(*args: object) -> object:
        nonlocal calls
        calls += 1
        assert calls < 30, "there is no end to cleaning"
        return choice(*args)

    monkeypatch.setattr(plan, name, counted)


def nearly_empty(store: Store) -> bytes:
    """A page, mostly zeros, of which sixteen make a unit that fifteen share in badly."""
    hot = relocator_of(store)._hot
    for count in range(1600, 1856):
        page = noise()[:count] + bytes(PAGE_SIZE - count)
        if unit_size(len(pack_payload(hot, page * 16)[1]), 16) == 1856:
            return page
    raise AssertionError("no page gives a unit of that size")


@pytest.mark.usefixtures("bounded")
def test_compact_ends_where_shares_leave_a_rest(make: StoreMaker) -> None:
    """A unit that was copied for its live pages may not divide by them: that is not dead space.

    Sixteen equal pages, of which one has died, are not made smaller by splitting. Shares are
    multiples of 4 bytes, so 56 bytes of 1856 are nobody's, which is more than LEAST_GAIN.
    """
    slots = 28 * CLUSTER_SLOTS * 2
    store = make(Policy(reserve=0, unit_pages=16), slots=slots)
    lane = store.lane()
    page = nearly_empty(store)
    for slot in range(0, slots, 256):
        put(lane, slot, page * 256)
    discard(lane, *range(7, slots, 16))
    assert len(sealed_segments(store)) >= 3
    assert store.compact() > 0
    assert content(lane, 0, 8 * PAGE_SIZE) == page * 7 + bytes(PAGE_SIZE)


@pytest.mark.usefixtures("bounded")
def test_compact_ends_where_units_cannot_be_read(make: StoreMaker) -> None:
    """MOVE-KEEPS: they are copied whole, and one page's share of a unit is bounded."""
    store = make(Policy(reserve=0, unit_pages=16), slots=SLOTS)
    lane = store.lane()
    for slot in range(0, 480, 16):
        put(lane, slot, noise(16, seed=slot))
    seal(lane)
    assert len(sealed_segments(store)) == 2
    for slot in (0, 240):
        unit = unit_at(store, slot)
        assert unit.size > SHARE_MAX
        store._parts.memory[unit.position + HEADER.size] ^= 1
        discard(lane, *range(slot + 1, slot + 16))
    try:
        store.compact()
    finally:
        discard(lane, 0, 240)


@pytest.mark.usefixtures("bounded")
def test_a_writer_is_refused_where_units_cannot_be_read(clock: Clock, make: StoreMaker) -> None:
    """It would clean for ever: together what they cost beyond their shares is a segment."""
    assert clock.now
    policy = Policy(memory_limit=limit_of(LIMIT, SLOTS), reserve=0, unit_pages=16)
    store = make(policy, slots=SLOTS, segments=LIMIT)
    lane = store.lane()
    slots = range(0, fill(store, lane, lambda _, slot: noise(16, slot), 16), 16)
    for slot in slots[::2]:
        store._parts.memory[unit_at(store, slot).position + HEADER.size] ^= 1
        discard(lane, *range(slot + 1, slot + 16))
    try:
        with pytest.raises(FullError):
            for slot in range(slots.stop, SLOTS, 16):
                put(lane, slot, noise(16, slot))
    finally:
        discard(lane, *slots[::2])


@pytest.mark.usefixtures("bounded")
def test_recompress_ends_without_any_room(make: StoreMaker) -> None:
    """Neither for the sweep nor for the cleaning that should make way for it."""
    store = make(Policy(reserve=0), slots=SLOTS, segments=LIMIT)
    lane = store.lane()
    for slot in range(0, 1024, 4):
        put(lane, slot, (text if slot < 256 else noise)(4, slot))
    seal(lane)
    discard(lane, *range(1, 1024, 2))
    taken = [store._parts.log.take(0) for _ in range(store._parts.log.room())]
    before = content(lane, 0, lane.size)
    try:
        assert store.recompress(Selection()) == 0
        assert content(lane, 0, lane.size) == before
    finally:
        for segment in taken:
            store._parts.log.seal(segment, 0)


def test_compact_ends_without_any_room(make: StoreMaker) -> None:
    store = make(Policy(reserve=0), slots=SLOTS, segments=LIMIT)
    lane = store.lane()
    for slot in range(0, 1024, 4):
        put(lane, slot, noise(4, slot))
    seal(lane)
    discard(lane, *range(1, 1024, 2))
    taken = [store._parts.log.take(0) for _ in range(store._parts.log.room())]
    assert store.compact() == 0
    with pytest.raises(FullError):
        for slot in range(1024, 2048, 4):
            put(lane, slot, noise(4, slot))
    for segment in taken:
        store._parts.log.seal(segment, 0)
    assert store.compact() > 0
