"""A store on what an earlier worker left: each thing that is derived, and torn states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from model.audit import appenders, audit
from model.memory import data_pages
from model.moves import new_clock, seal
from model.pages import filled, mixed, noise, text, zero
from model.stores import (
    content,
    limit_of,
    make_store,
    pages_in,
    state_of,
    take_over,
)

from vswap.errors import FullError, StateError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Selection, Store
from vswap.store.derive import LEAST_TAIL
from vswap.store.entry import HUGE, pack, pack_backing, pack_fill
from vswap.store.ledger import Ledger
from vswap.store.places import HOLE, KEPT, OPEN, READY, SEALED
from vswap.store.unit import MAX_UNIT_SIZE

SLOTS = 4 * CLUSTER_SLOTS + 100
PLAIN = Policy("stored", 1, reserve=0)
PAGES_IN_SEGMENT = SEGMENT_SIZE // 4108

Worker = Callable[..., Store]


@pytest.fixture
def start() -> Iterator[Worker]:
    """Makes a store, or the next one on the same memory; none may have problems in the end."""
    stores: list[Store] = []

    def starter(
        before: Store | None = None,
        policy: Policy = PLAIN,
        slots: int = SLOTS,
        segments: int | None = None,
    ) -> Store:
        if before is None:
            stores.append(make_store(policy, slots=slots, segments=segments))
        else:
            stores.remove(before)
            stores.append(take_over(before, policy if policy is not PLAIN else None))
        return stores[-1]

    yield starter
    for store in stores:
        assert audit(store, lowered=store._log._places._ceiling > store._log.limit) == []
        state_of(store).close()


def write(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


def discard(lane: Lane, slot: int, count: int = 1) -> None:
    lane.discard(slot * PAGE_SIZE, count * PAGE_SIZE)


def put_word(store: Store, slot: int, entry: int) -> None:
    """Store an entry behind the store's back, as a worker that dies after it."""
    state_of(store).table.view.cast("Q")[slot] = entry


def books(ledger: Ledger) -> tuple[object, ...]:
    return (*(one.tolist() for one in (ledger.pages, ledger.bytes, ledger.hot)), ledger.totals())


# --- What is derived ------------------------------------------------------------------------


def test_a_new_state_is_one_in_which_nothing_is_found(start: Worker) -> None:
    """And looking for it costs nothing."""
    store = start()
    before = [region.allocated() for region in state_of(store).regions()]
    store = start(store)
    assert [region.allocated() for region in state_of(store).regions()] == before
    assert store.statistics().segments_open == 0
    store.lane()


def test_everything_is_counted_as_it_was(start: Worker) -> None:
    """LOG-LIVE, TABLE-COUNT, FILL-COUNT: pages of all kinds, also cold, huge and read ones."""
    store = start(policy=Policy("lz4", 4, reserve=0))
    lane = store.lane()
    write(lane, 0, mixed(300, 4) + text(200, seed=1) + noise(60))
    write(lane, CLUSTER_SLOTS, zero(20) + filled(9) + text(30, seed=2))
    store.recompress(Selection(slots=(0, 100)))
    content(lane, 0, 50 * PAGE_SIZE)
    for slot in range(0, 500, 7):
        discard(lane, slot)
    parts = store._parts
    counted = books(parts.log.ledger), parts.table.counts.tolist(), parts.zeromap.counts.tolist()
    words = parts.words.count.tolist(), parts.words.pages, parts.words._numbers
    before = content(lane, 0, lane.size)
    store = start(store)
    parts = store._parts
    assert counted == (
        *(books(parts.log.ledger), parts.table.counts.tolist()),
        parts.zeromap.counts.tolist(),
    )
    assert words == (parts.words.count.tolist(), parts.words.pages, parts.words._numbers)
    assert audit(store) == []
    lane = store.lane()
    assert content(lane, 0, lane.size) == before


def test_words_keep_their_numbers(start: Worker) -> None:
    """FILL-WORD: the same word has the same number, and a free number is taken for another."""
    store = start()
    lane = store.lane()
    write(lane, 0, filled(1, 1) + filled(1, 2) + filled(1, 3))
    discard(lane, 1)
    store = start(store)
    lane = store.lane()
    write(lane, 10, filled(2, 3) + filled(2, 4))
    assert len(store._parts.words._numbers) == 3
    assert content(lane, 0, 3 * PAGE_SIZE) == filled(1, 1) + zero() + filled(1, 3)
    assert content(lane, 10 * PAGE_SIZE, 4 * PAGE_SIZE) == filled(2, 3) + filled(2, 4)


def test_segments_have_their_places_again(start: Worker) -> None:
    """LOG-PLACE, LOG-AGE: what lives is sealed, what has memory is ready, the rest are holes."""
    store = start(segments=20)
    lane = store.lane()
    write(lane, 0, noise(5 * PAGES_IN_SEGMENT))
    for gone in (1, 3):
        discard(lane, gone * PAGES_IN_SEGMENT, PAGES_IN_SEGMENT)
    store._log._reserve._region.punch(3 * SEGMENT_SIZE, SEGMENT_SIZE)
    store._log._reserve._region.populate(9 * SEGMENT_SIZE, PAGE_SIZE)
    store = start(store)
    log, places = store._log, store._log._places
    assert list(places.state[:10]) == [SEALED, READY, SEALED, HOLE, SEALED] + [HOLE] * 4 + [READY]
    assert (places._untouched, list(places._holes)) == (10, [3, 5, 6, 7, 8])
    assert len(set(log.sequence[[0, 2, 4]].tolist())) == 3


def test_pages_are_as_old_as_the_worker(start: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG-AGE: nobody knows better, and they are not taken for older than they are."""
    store = start()
    write(store.lane(), 0, noise(3))
    clock = new_clock(monkeypatch)
    clock.advance(500)
    store = start(store)
    assert store._log.born[0] == clock.now
    lane = store.lane()  # which goes on there
    clock.advance(100)
    write(lane, 10, noise(2 * PAGES_IN_SEGMENT, 2))
    assert store._log.born[0] == clock.now


# --- Torn states ----------------------------------------------------------------------------


def test_where_a_slot_has_both_the_entry_counts(start: Worker) -> None:
    """ONE-STATE: the bit is of a page of zeros that has not come, or is still to be cleared."""
    store = start()
    write(store.lane(), 0, noise(4) + zero(4))
    for slot in (1, 2, CLUSTER_SLOTS):
        state_of(store).zeromap.view[slot // 8] |= 1 << slot % 8
    store = start(store)
    assert store._parts.zeromap.counts.tolist()[:2] == [4, 1]
    assert pages_in(store).keys() == {0, 1, 2, 3}
    assert content(store.lane(), 0, 8 * PAGE_SIZE) == noise(4) + zero(4)


def test_table_pages_without_entries_are_given_back(start: Worker) -> None:
    """TABLE-HOLE: killed before it was punched, or populated by whoever keeps the memory."""
    store = start(slots=200 * CLUSTER_SLOTS)
    lane = store.lane()
    write(lane, 130 * CLUSTER_SLOTS, noise(2))
    for cluster in (0, 63, 64, 131, 199):
        state_of(store).table.populate(cluster * PAGE_SIZE, PAGE_SIZE)
    store = start(store)
    assert data_pages(state_of(store).table) == {130}


def test_what_a_killed_worker_has_appended_and_not_published_is_dead_space(start: Worker) -> None:
    """STAGED-FIRST: the segment goes when what else is in it does."""
    store = start()
    lane = store.lane()
    write(lane, 0, noise(2))
    lane._writer._stage(5, memoryview(noise(3, 1)))
    store = start(store)
    assert store._log._used[0] == 2 * 4108
    assert store.statistics().stored_pages == 2


@pytest.mark.parametrize(
    "entry",
    [
        pack(1000 * SEGMENT_SIZE, 400, 0),
        pack_backing(1 << 20, 0, 1, 400, 0),
        pack_fill(5000),
    ],
)
def test_entries_that_name_what_there_is_not_are_refused(start: Worker, entry: int) -> None:
    store = start()
    write(store.lane(), 0, noise())
    put_word(store, 1, entry)
    with pytest.raises(StateError, match="name places that it does not have"):
        Store(state_of(store), PLAIN)
    put_word(store, 1, 0)


def test_behind_a_unit_with_a_damaged_header_nothing_is_appended(start: Worker) -> None:
    """Its size is not known. Reading it is an error, as before, and its neighbours can be read."""
    store = start()
    write(store.lane(), 0, noise(3))
    view = state_of(store).segments.view
    damaged = 2 * 4108 + 6  # the page count of the last unit
    view[damaged] = 77
    store = start(store)
    assert store._log._used[0] == SEGMENT_SIZE
    assert appenders(store)[0]._segment is None
    view = state_of(store).segments.view
    view[damaged] = 1
    assert content(store.lane(), 0, 3 * PAGE_SIZE) == noise(3)


# --- Going on -------------------------------------------------------------------------------


def test_what_was_open_is_gone_on_with(start: Worker) -> None:
    """From the end of the last unit that lives; and a cleaning finds all that is in it."""
    store = start()
    lane = store.lane()
    write(lane, 0, noise(20))
    discard(lane, 15, 5)
    store = start(store)
    lane = store.lane()
    one = appenders(store)[0]
    assert (one._segment, one._used) == (0, 15 * 4108)
    write(lane, 30, noise(10, 1))
    assert store.statistics().segments_sealed == 0
    assert audit(store) == []
    seal(lane)
    for slot in range(0, 15, 2):
        discard(lane, slot)
    store.compact()
    assert not store._log.ledger.pages[0]
    assert content(lane, 30 * PAGE_SIZE, 10 * PAGE_SIZE) == noise(10, 1)


def test_who_comes_first_gets_the_most_room(start: Worker) -> None:
    """And too little of it is not worth it: a unit must find room."""
    store = start()
    lanes = [store.lane() for _ in range(3)]
    for lane, slot, pages in zip(lanes, (0, 300, 600), (200, 100, 230), strict=True):
        write(lane, slot, noise(pages, pages))
    store = start(store)
    for _ in range(3):
        store.lane()
    assert [one._used for one in appenders(store)[:3]] == [100 * 4108, 200 * 4108, 0]
    assert SEGMENT_SIZE - 230 * 4108 < LEAST_TAIL
    assert LEAST_TAIL >= MAX_UNIT_SIZE
    assert store._log._places.state[appenders(store)[0]._segment or 0] == OPEN


def test_the_cleaner_does_not_go_on_in_what_it_empties(start: Worker) -> None:
    store = start()
    lane = store.lane()
    write(lane, 0, noise(30))
    for slot in range(0, 29, 2):
        discard(lane, slot)
    store = start(store)
    assert store.compact() == 1
    assert not store._log.ledger.pages[0]
    assert pages_in(store).keys() == {*range(1, 29, 2), 29}


def test_one_in_which_everything_dies_meanwhile_is_free(start: Worker) -> None:
    """LOG-REUSE: before it was given to anybody, and after."""
    store = start()
    lanes = [store.lane() for _ in range(2)]
    write(lanes[0], 0, noise(4))
    write(lanes[1], 10, noise(8))
    store = start(store)
    lane = store.lane()
    segment = appenders(store)[0]._segment
    discard(lane, 0, 20)
    assert sorted(store._log._places.state[:2]) == [READY, OPEN]
    write(lane, 0, noise(PAGES_IN_SEGMENT - appenders(store)[0]._used // 4108))
    discard(lane, 0, PAGES_IN_SEGMENT)
    write(lane, 0, noise(1))
    assert (appenders(store)[0]._segment, appenders(store)[0]._used) == (segment, 4108)


# --- Limits ---------------------------------------------------------------------------------


def test_a_worker_has_its_lanes_on_a_device_that_is_full_to_its_limit(start: Worker) -> None:
    """They begin without a segment, where there is none, and writes fail as they would have."""
    store = start(policy=Policy("stored", 1, limit_of(6, SLOTS), reserve=0))
    lane = store.lane()
    slot = 0
    with pytest.raises(FullError):
        while slot < SLOTS:
            write(lane, slot, noise(1, slot))
            slot += 1
    for _ in range(3):
        store = start(store)
        lanes = [store.lane() for _ in range(6)]
        found = store._log.statistics()
        assert found.segments_in_use <= found.segments_limit
        with pytest.raises(FullError):
            for more in range(slot, slot + 2 * PAGES_IN_SEGMENT):
                write(lanes[more % 6], more, noise(1, more))
        discard(lanes[0], slot, SLOTS - slot)
    assert content(lanes[0], 0, slot * PAGE_SIZE) == b"".join(noise(1, at) for at in range(slot))
    discard(lanes[0], 0, slot)
    write(lanes[1], 0, noise(4))


def test_the_cleaner_has_what_it_keeps(start: Worker) -> None:
    """KEPT: also if the first one was killed in the midst of cleaning, at the limit."""
    store = start(policy=Policy("stored", 1, limit_of(5 + KEPT, SLOTS), reserve=0))
    lane = store.lane()
    write(lane, 0, noise(5 * PAGES_IN_SEGMENT))
    for slot in range(0, 5 * PAGES_IN_SEGMENT, 4):
        discard(lane, slot)
    view = state_of(store).segments.view
    for slot in (253, 254):  # are all that lives in the cleaner's segments, at their ends
        to = store._log.take(0) * SEGMENT_SIZE
        view[to : to + SEGMENT_SIZE] = view[:SEGMENT_SIZE]
        put_word(store, slot, pack(to + slot * 4108, 4108, HUGE))
    assert store._log.room() == 0
    store = start(store)
    assert store._log.room() >= KEPT
    lane = store.lane()
    write(lane, 5 * PAGES_IN_SEGMENT, noise(60, 7))
    store.maintain()
    assert store._log.statistics().segments_in_use <= store._log.limit


@pytest.mark.parametrize("segments", [None, 9, 30])
def test_the_limit_in_force_outlives_the_worker(start: Worker, segments: int | None) -> None:
    store = start(policy=Policy("stored", 1, limit_of(20, SLOTS), reserve=0))
    assert store.statistics().mem_limit == limit_of(20, SLOTS)
    limit = None if segments is None else limit_of(segments, SLOTS)
    store.set_memory_limit(limit)
    for _ in range(2):
        store = start(store, Policy("stored", 1, limit_of(12, SLOTS), reserve=0))
        assert store.statistics().mem_limit == (limit or 0)
        assert store._log.limit == (segments or store._log.statistics().segments_limit)


def test_a_limit_that_was_lowered_below_what_is_in_use(start: Worker) -> None:
    """The ceiling sinks on, as it would have for the first worker."""
    store = start()
    lane = store.lane()
    write(lane, 0, noise(1000))
    store.set_memory_limit(limit_of(3 + KEPT, SLOTS))
    store = start(store)
    log = store._log
    assert log.room() >= KEPT
    lane = store.lane()
    discard(lane, 0, 900)
    store.compact()
    store.maintain()
    assert (log._places._ceiling, log._places.in_use <= log.limit) == (log.limit, True)


# --- Memory that has come back ----------------------------------------------------------------


def test_memory_that_comes_back_to_a_hole_is_given_back(start: Worker) -> None:
    """LOG-PLACE: also behind all segments that were ever used."""
    store = start(segments=20)
    lane = store.lane()
    write(lane, 0, noise(2 * PAGES_IN_SEGMENT))
    discard(lane, 0, 2 * PAGES_IN_SEGMENT)
    store._log.maintain(idle=True)
    region = state_of(store).segments
    holes = [at for at in range(20) if store._log._places.state[at] == HOLE]
    for segment in (holes[0], holes[5], holes[-1]):
        region.populate(segment * SEGMENT_SIZE, SEGMENT_SIZE)
    explained = store._log.statistics().segments_in_use
    assert region.allocated() > explained * SEGMENT_SIZE
    store._log.maintain(idle=False)
    assert region.allocated() > explained * SEGMENT_SIZE
    store._log.maintain(idle=True)
    assert region.allocated() <= explained * SEGMENT_SIZE
    assert audit(store) == []
    assert store._log.statistics().segments_in_use == explained


def test_nobody_can_take_the_segment_meanwhile(
    start: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what an appender has taken before is not punched."""
    store = start(segments=20)
    store.lane()
    region = state_of(store).segments
    taken = []
    punch = type(region).punch

    def take_and_punch(self: object, offset: int, length: int) -> None:
        taken.append(store._log.take())
        assert taken[-1] != offset // SEGMENT_SIZE
        punch(region, offset, length)

    for segment in (3, 4):
        region.populate(segment * SEGMENT_SIZE, SEGMENT_SIZE)
    region.populate(0, SEGMENT_SIZE)
    monkeypatch.setattr(type(region), "punch", take_and_punch)
    store._log.maintain(idle=True)
    monkeypatch.undo()
    assert len(taken) == 2
    for segment in taken:
        store._log.seal(segment, 0)


def test_a_hole_that_is_wanted_is_left_alone(start: Worker) -> None:
    """At the limit the last segments are the cleaner's."""
    store = start(policy=Policy("stored", 1, limit_of(5, SLOTS), reserve=0), segments=20)
    held = [store._log.take(0) for _ in range(5)]
    region = state_of(store).segments
    for segment in range(7):
        region.populate(segment * SEGMENT_SIZE, SEGMENT_SIZE)
    store._log.maintain(idle=True)
    assert region.allocated() == 7 * SEGMENT_SIZE
    for segment in held:
        store._log.seal(segment, 0)
    store._log.maintain(idle=True)
    assert region.allocated() <= 5 * SEGMENT_SIZE


def test_entries_are_counted_in_clusters_that_come_singly(start: Worker) -> None:
    """The scan goes by groups of clusters, of which any may be holes."""
    store = start(slots=150 * CLUSTER_SLOTS + 3)
    lane = store.lane()
    clusters = [0, 1, 5, 63, 64, 100, 127, 128, 150]
    for cluster in clusters:
        write(lane, cluster * CLUSTER_SLOTS, noise(1, cluster) + filled() + zero())
    write(lane, 70 * CLUSTER_SLOTS, zero(3))
    store = start(store)
    assert np.flatnonzero(store._parts.table.counts).tolist() == clusters
    assert np.flatnonzero(store._parts.zeromap.counts).tolist() == sorted([*clusters, 70])
