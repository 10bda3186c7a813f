"""Room for writers at the limit: work for it, or no, and yes again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from model.moves import discard, put, sealed_segments
from model.pages import noise
from model.stores import StoreMaker, content, limit_of

from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Store
from vswap.store import room as room_module
from vswap.store.log import Log
from vswap.store.places import KEPT, READY
from vswap.store.region import Region
from vswap.store.room import ACCEPT, Room

MakeRegion = Callable[[int], Region]

SEGMENTS = 6


@pytest.fixture
def log(make_region: MakeRegion) -> Log:
    return Log(make_region(SEGMENTS * SEGMENT_SIZE), reserve=0)


def never(_room: int) -> bool:
    raise AssertionError("nothing is to be reclaimed")


def filled(log: Log, pages: int = 100) -> list[int]:
    """Take all that writers get, with live pages in each."""
    taken = [log.take() for _ in range(log.limit - KEPT)]
    for segment in taken:
        log.add(segment, pages, pages * 4000, pages, 0, 0)
        log.publish(pages, [])
    return taken


def lose(log: Log, pages: int) -> None:
    """Let so many bytes of live pages, 4000 each, be gone from what the log counts."""
    log.ledger.live_bytes -= pages * 4000


# --- A segment, or work for one ---------------------------------------------------------


def test_while_there_is_room_nothing_is_reclaimed(log: Log) -> None:
    room = Room(log, never)
    assert len({room.take() for _ in range(SEGMENTS - KEPT)}) == SEGMENTS - KEPT


def test_work_that_wins_nothing_comes_to_an_end(log: Log) -> None:
    """Others may take what is won, or hold what would have to go: for ever, it may be."""
    filled(log)
    pieces = 0

    def reclaim(_room: int) -> bool:
        nonlocal pieces
        pieces += 1
        return True

    with pytest.raises(FullError):
        Room(log, reclaim).take()
    assert pieces > 2 * SEGMENTS


def test_at_the_limit_room_is_made_until_there_is_some(log: Log) -> None:
    """Piece by piece: not every piece frees a segment."""
    taken = filled(log, 0)
    pieces = 0

    def reclaim(_room: int) -> bool:
        nonlocal pieces
        pieces += 1
        if pieces == 5:
            log.seal(taken[0], 0)
        return True

    assert Room(log, reclaim).take() == taken[0]
    assert pieces == 5


def test_work_is_done_within_what_lets_others_go_on(log: Log) -> None:
    """Taking a segment that is there needs nobody to go on."""
    inside: list[str] = []

    def begin() -> None:
        inside.append("begin")

    taken = filled(log, 0)

    def reclaim(_room: int) -> bool:
        inside.append("work")
        log.seal(taken[0], 0)
        return True

    room = Room(log, reclaim)
    assert room.take(begin) == taken[0]
    assert inside == ["begin", "work"]
    log.seal(taken[1], 0)
    assert room.take(begin) == taken[1]
    assert len(inside) == 2


def test_nothing_left_to_win_is_full(log: Log) -> None:
    filled(log)
    room = Room(log, lambda _: False)
    with pytest.raises(FullError):
        room.take()


def test_what_came_while_the_last_piece_failed_is_taken(log: Log) -> None:
    """A discard in another thread, between the attempt and the answer that nothing is left."""
    taken = filled(log, 0)

    def reclaim(_room: int) -> bool:
        log.seal(taken[2], 0)
        return False

    assert Room(log, reclaim).take() == taken[2]


def test_a_segment_in_maintenance_is_waited_for(make_region: MakeRegion) -> None:
    """It is in no list, and will be in one again: that is not full."""
    log = Log(make_region(SEGMENTS * SEGMENT_SIZE), reserve=2)
    for _ in range(SEGMENTS - KEPT - 2):
        log.take()
    job = log._reserve._begin(idle=False)
    segment = SEGMENTS - KEPT - 2
    assert job == (segment, True)
    log.take()
    looks = 0

    def reclaim(_room: int) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            log._reserve._settle(segment, READY)
        return False

    assert Room(log, reclaim).take() == segment
    assert looks == 3


# --- Full -------------------------------------------------------------------------------


def test_once_full_writes_fail_at_once(log: Log) -> None:
    """Nothing is tried again for each single page."""
    filled(log)
    tries = 0

    def reclaim(_room: int) -> bool:
        nonlocal tries
        tries += 1
        return False

    room = Room(log, reclaim)
    for _ in range(10):
        with pytest.raises(FullError):
            room.take()
    assert tries == 1


def free(log: Log, segment: int) -> None:
    """All that lives in an open segment dies, and it is free."""
    log.ledger.pages[segment] = 0
    log.seal(segment, 0)


@pytest.fixture
def large(make_region: MakeRegion) -> Log:
    """A twentieth of it is two segments."""
    return Log(make_region(40 * SEGMENT_SIZE), reserve=0)


def test_it_accepts_again_when_a_twentieth_is_gone(large: Log) -> None:
    taken = filled(large)
    room = Room(large, lambda _: False)
    with pytest.raises(FullError):
        room.take()
    assert ACCEPT == 0.95
    free(large, taken[0])
    lose(large, 189)  # of 3800
    with pytest.raises(FullError, match="little has been freed"):
        room.take()
    lose(large, 1)
    assert room.take() == taken[0]


def test_it_accepts_again_when_room_for_a_twentieth_was_won(large: Log) -> None:
    """By cleaning: all that lived still does."""
    taken = filled(large)
    room = Room(large, lambda _: False)
    with pytest.raises(FullError):
        room.take()
    for segment in taken[:2]:
        free(large, segment)
        with pytest.raises(FullError, match="little has been freed"):
            room.take()
    free(large, taken[2])
    assert room.take() == taken[2]


def test_what_failed_writes_had_staged_does_not_count_as_having_lived(large: Log) -> None:
    """It is gone when they have failed: by that alone nothing is accepted again."""
    taken = filled(large)
    large.add(taken[0], 1000, 4_000_000, 1000, 0, 0)
    room = Room(large, lambda _: False)
    with pytest.raises(FullError):
        room.take()
    large.publish(1000, [])
    lose(large, 1000)
    large.ledger.live_pages -= 1000
    with pytest.raises(FullError, match="little has been freed"):
        room.take()


def test_what_a_write_is_about_to_publish_is_waited_for(log: Log) -> None:
    """It kept a segment that is empty but for it."""
    taken = filled(log)
    tries: list[str] = []

    def retry() -> bool:
        tries.append("retry")
        if len(tries) == 3:
            free(log, taken[0])
        return True

    assert Room(log, lambda _: False, retry).take() == taken[0]
    assert len(tries) == 3


def test_many_pages_are_prepared_for(log: Log) -> None:
    """Before a write has staged anything, room is made for a segment and one more."""
    taken = filled(log)
    asked: list[int] = []

    def reclaim(room: int) -> bool:
        asked.append(room)
        free(log, taken[len(asked) - 1])
        return True

    begun: list[str] = []
    room = Room(log, reclaim)
    room.prepare(lambda: begun.append("begin"))
    assert (asked, begun) == ([KEPT + 1] * 2, ["begin"])
    room.prepare(lambda: begun.append("again"))
    assert (len(asked), begun) == (2, ["begin"])


def test_preparing_ends_where_nothing_can_be_won(log: Log) -> None:
    filled(log)
    Room(log, lambda _: False).prepare()
    assert log.room() == KEPT


def test_nothing_is_waited_for_for_ever(log: Log) -> None:
    filled(log)
    tries: list[str] = []

    def retry() -> bool:
        tries.append("retry")
        return True

    with pytest.raises(FullError):
        Room(log, lambda _: False, retry).take()
    assert len(tries) == room_module._PUBLISHING_TRIES


def test_after_it_accepted_it_is_full_at_another_level(log: Log) -> None:
    """What counts is what lived when it was full the last time."""
    filled(log)
    tries = 0

    def reclaim(_room: int) -> bool:
        nonlocal tries
        tries += 1
        return False

    room = Room(log, reclaim)
    for expected in (1, 2, 3):
        for _ in range(2):
            with pytest.raises(FullError):
                room.take()
        assert tries == expected
        lose(log, 21)  # of 400, 379, 358: no segment is free by that


def test_a_changed_limit_is_tried_at_once(log: Log) -> None:
    log.set_limit(SEGMENTS - 1)
    filled(log)
    room = Room(log, lambda _: False)
    with pytest.raises(FullError):
        room.take()
    log.set_limit(SEGMENTS)
    room.reopen()
    assert room.take() >= 0


# --- A store ----------------------------------------------------------------------------

SLOTS = 4096
LIMIT = 8
"""Segments."""


def full(make: StoreMaker) -> tuple[Store, Lane, int]:
    """A store with as much noise as it takes; how many pages that are."""
    store = make(
        Policy(memory_limit=limit_of(LIMIT, SLOTS), reserve=0), slots=SLOTS, segments=LIMIT
    )
    lane = store.lane()
    for slot in range(0, SLOTS, 4):
        try:
            put(lane, slot, noise(4, seed=slot))
        except FullError:
            return store, lane, slot
    raise AssertionError("the limit does not bound anything")


def writes(lane: Lane, slot: int) -> bool:
    try:
        put(lane, slot, noise(16, seed=7))
    except FullError:
        return False
    return True


def test_a_store_takes_all_but_what_the_cleaner_keeps(make: StoreMaker) -> None:
    store, _, pages = full(make)
    assert pages * PAGE_SIZE > (LIMIT - KEPT) * SEGMENT_SIZE * 0.97
    assert store.statistics().mem_used_total <= limit_of(LIMIT, SLOTS)


def test_a_refused_write_touches_nothing(make: StoreMaker) -> None:
    """STAGED-FIRST"""
    store, lane, pages = full(make)
    before = content(lane, 0, lane.size)
    live = store._parts.log.ledger.live_bytes
    for slot in (0, pages - 100, pages):
        assert not writes(lane, slot)
    assert content(lane, 0, lane.size) == before
    assert store._parts.log.ledger.live_bytes == live


def test_refused_writes_are_counted(make: StoreMaker) -> None:
    store, lane, pages = full(make)
    before = store.statistics()
    assert not any(writes(lane, pages) for _ in range(3))
    after = store.statistics()
    assert after.pool_limit_hit == before.pool_limit_hit + 3
    assert after.failed_writes == before.failed_writes + 3


def test_a_full_store_accepts_when_enough_has_been_discarded(make: StoreMaker) -> None:
    """Not after the first page that goes, and not only when a whole segment has died."""
    store, lane, pages = full(make)
    assert not writes(lane, pages)
    accepted = False
    for gone, slot in enumerate(range(0, pages, 2), 1):
        discard(lane, slot)
        if gone % 8 == 0 and writes(lane, pages):
            accepted = True
            break
    assert accepted
    assert gone >= 0.05 * pages
    assert content(lane, pages * PAGE_SIZE, 16 * PAGE_SIZE) == noise(16, seed=7)
    assert store.statistics().segments_cleaned > 0
    assert store.statistics().mem_used_total <= limit_of(LIMIT, SLOTS)


def test_a_full_store_accepts_when_its_limit_is_raised(make: StoreMaker) -> None:
    store = make(
        Policy(memory_limit=limit_of(LIMIT, SLOTS), reserve=0), slots=SLOTS, segments=2 * LIMIT
    )
    lane = store.lane()
    slot = 0
    with pytest.raises(FullError):
        while True:
            put(lane, slot, noise(4, seed=slot))
            slot += 4
    assert not writes(lane, slot)
    store.set_memory_limit(None)
    assert writes(lane, slot)
    assert len(sealed_segments(store)) >= LIMIT - KEPT - 1
