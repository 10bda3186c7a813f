"""Cleaning a segment: everything is moved out of it, and it is free."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from model.moves import (
    cleaner_of,
    discard,
    entries_at,
    halves,
    put,
    relocator_of,
    seal,
    sealed_segments,
    segments_of,
    unit_at,
    victim_of,
    without_room,
)
from model.pages import noise, text
from model.stores import StoreMaker, content

from vswap.errors import CorruptError, FullError
from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Store
from vswap.store.entry import COLD, HUGE
from vswap.store.places import OPEN, READY
from vswap.store.unit import HEADER, write_unit


def clean(store: Store, segment: int, down: bool = False) -> int:
    return sum(cleaner_of(store).clean(victim_of(store, segment), down))


def filled(store: Store, lane: Lane, pages: int = 64) -> int:
    """A sealed segment with pages of several sorts in it, from slot 0 on."""
    for slot in range(0, pages, 4):
        put(lane, slot, (halves, lambda seed, pages: noise(pages, seed))[slot & 4 > 0](slot, 4))
    (segment,) = segments_of(store, 0, pages)
    seal(lane)
    assert sealed_segments(store) == [segment]
    return segment


def all_of(lane: Lane) -> bytes:
    return content(lane, 0, lane.size)


# --- What is moved ----------------------------------------------------------------------


def test_a_victim_is_emptied_and_freed(store: Store, lane: Lane) -> None:
    segment = filled(store, lane)
    before = all_of(lane)
    assert clean(store, segment) == 64
    assert store._parts.log._places.state[segment] == READY
    assert segment not in segments_of(store, 0, 64)
    assert all_of(lane) == before


def test_a_full_victim_of_several_clusters_is_emptied(store: Store, lane: Lane) -> None:
    """Its units are of one cluster and another in turns."""
    for at in count(step=4):
        put(lane, at // 8 * 4 + (CLUSTER_SLOTS if at & 4 else 0), noise(4, seed=at))
        if sealed_segments(store):
            break
    before = all_of(lane)
    (segment,) = sealed_segments(store)
    pages = int(store._parts.log.ledger.pages[segment])
    assert clean(store, segment) == pages
    assert segment not in sealed_segments(store)
    assert all_of(lane) == before


def test_what_comes_out_is_dense(store: Store, lane: Lane) -> None:
    """Units that have lost pages are compressed without them."""
    segment = filled(store, lane)
    discard(lane, *range(1, 64, 3))
    before = all_of(lane)
    live = store._parts.log.ledger.live_bytes
    clean(store, segment)
    relocator_of(store)._appender._roll()
    assert store._parts.log.sealed().dead_bytes() == 0
    # Each run has a header of its own now, and padding.
    assert store._parts.log.ledger.live_bytes < live + 43 * 32
    assert all_of(lane) == before


def test_each_piece_is_at_most_a_mebibyte_of_pages(store: Store, lane: Lane) -> None:
    """Others wait for it to be done."""
    for slot in range(0, 1024, 4):
        put(lane, slot, text(4))
    seal(lane)
    pieces = [pages for segment in sealed_segments(store) for pages in clean_pieces(store, segment)]
    assert sum(pieces) == 1024
    assert max(pieces) << 12 <= SEGMENT_SIZE


def clean_pieces(store: Store, segment: int) -> Iterator[int]:
    return cleaner_of(store).clean(victim_of(store, segment))


def test_down_moves_what_is_hot_by_way_of_the_cold_codec(store: Store, lane: Lane) -> None:
    """Consecutive slots together; what is huge or cold already as it is."""
    for slot in range(0, 32, 4):
        put(lane, slot, text(4, seed=slot))
    put(lane, 32, noise(8))
    (segment,) = segments_of(store, 0, 40)
    seal(lane)
    before, live = all_of(lane), store._parts.log.ledger.live_bytes
    assert clean(store, segment, down=True) == 40
    assert store._parts.log._places.state[segment] == READY
    assert [unit_at(store, slot).pages for slot in (0, 16)] == [16, 16]
    sorts = {entry & (COLD | HUGE) for entry in entries_at(store, 0, 32)}
    assert sorts == {COLD}
    assert {entry & (COLD | HUGE) for entry in entries_at(store, 32, 8)} == {HUGE}
    assert store._parts.log.ledger.live_bytes < live
    assert all_of(lane) == before


def test_down_leaves_nothing_hot_behind_where_nothing_is_won(store: Store, lane: Lane) -> None:
    """Or the same segment would be the hottest for ever."""
    segment = filled(store, lane)
    relocator = relocator_of(store)
    relocator.cold = relocator._stored
    before = all_of(lane)
    assert clean(store, segment, down=True) == 64
    assert store._parts.log.ledger.hot.sum() == 0
    assert all_of(lane) == before


# --- What is not moved ------------------------------------------------------------------


def test_an_unpublished_write_keeps_the_segment(store: Store, lane: Lane) -> None:
    """LOG-REUSE: no entry names its units yet, and one soon will."""
    for slot in range(0, 16, 4):
        put(lane, slot, halves(slot, 4))
    data = halves(99, 8)
    staged = lane._writer._stage(16, memoryview(data))
    (segment,) = segments_of(store, 0, 16)
    seal(lane)
    assert clean(store, segment) == 16
    assert sealed_segments(store) == [segment]
    assert store._parts.log.ledger.pages[segment] == 8
    with store._parts.locks[0]:
        store._parts.put(16, 8, staged)
    assert content(lane, 16 * PAGE_SIZE, 8 * PAGE_SIZE) == data
    assert clean(store, segment) == 8
    assert sealed_segments(store) == []
    assert content(lane, 16 * PAGE_SIZE, 8 * PAGE_SIZE) == data


def a_header(slot: int, pages: int, length: int) -> bytes:
    return HEADER.pack(slot | (length - 1) << 32 | pages << 48, 0)


def stale_units(memory: memoryview, start: int, end: int) -> None:
    """As an earlier life of the segment may have left them, for slots that are in use."""
    while start + 4112 < end:
        write_unit(memory, start, start % 64, 1, 0, noise(seed=start % 7))
        start += 4108


GARBAGE: dict[str, Callable[[memoryview, int, int], None]] = {
    "stale units": stale_units,
    "noise": lambda memory, start, end: memory.__setitem__(
        slice(start, end), random.Random(1).randbytes(end - start)
    ),
    "ones": lambda memory, start, end: memory.__setitem__(
        slice(start, end), b"\xff" * (end - start)
    ),
    "a unit beyond the device": lambda memory, start, _: memory.__setitem__(
        slice(start, start + 12), a_header((1 << 32) - 512, 4, 100)
    ),
    "a unit beyond the segment": lambda memory, start, _: memory.__setitem__(
        slice(start, start + 12), a_header(0, 16, 65536)
    ),
    "a unit across clusters": lambda memory, start, _: memory.__setitem__(
        slice(start, start + 12), a_header(510, 4, 100)
    ),
    "a unit of no pages": lambda memory, start, _: memory.__setitem__(
        slice(start, start + 12), a_header(0, 0, 100)
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_follows_the_last_unit_is_harmless(store: Store, lane: Lane, kind: str) -> None:
    """Nothing tells where the units end: only what an entry names is one."""
    put(lane, 510, halves(3, 2))
    put(lane, 512, halves(4, 2))
    segment = filled(store, lane)
    end = (segment + 1) * SEGMENT_SIZE
    used = int(store._parts.log._used[segment])
    start = segment * SEGMENT_SIZE + used
    if kind == "a unit beyond the segment":
        memory = store._parts.memory
        gap = 65536 // 2
        while start + gap < end:  # headers up to where the next would not fit
            memory[start : start + 12] = a_header(0, 1, gap - 12)
            start += gap
    GARBAGE[kind](store._parts.memory, start, end)
    before = all_of(lane)
    assert clean(store, segment) == 68
    assert sealed_segments(store) == []
    assert all_of(lane) == before


def test_a_victim_filled_anew_during_the_walk_is_left_alone(store: Store, lane: Lane) -> None:
    """LOG-AGE: its units are of another life; what is walked over are hints of the old one."""
    segment = filled(store, lane, 128)
    pieces = cleaner_of(store).clean(victim_of(store, segment))
    assert next(pieces) == 64
    for slot in range(128):
        put(lane, slot, text())
    assert store._parts.log._places.state[segment] == READY
    other = store.lane()
    for slot in range(0, 128, 4):
        put(other, slot, (halves, lambda seed, pages: noise(pages, seed))[slot & 4 > 0](slot, 4))
    assert store._parts.log._places.state[segment] == OPEN
    before, entries = all_of(lane), entries_at(store, 0, 128)
    assert segments_of(store, 0, 128) == {segment}
    assert sum(pieces) == 0
    assert entries_at(store, 0, 128) == entries
    assert all_of(lane) == before


def test_a_unit_that_cannot_be_read_does_not_keep_the_segment(store: Store, lane: Lane) -> None:
    """MOVE-KEEPS: partly dead or whole."""
    segment = filled(store, lane)
    discard(lane, 9)
    for slot in (8, 16):
        store._parts.memory[unit_at(store, slot).position + HEADER.size + 100] ^= 1
    assert clean(store, segment) == 63
    assert sealed_segments(store) == []
    for slot in (8, 10, 11, 16, 19):
        with pytest.raises(CorruptError):
            lane.read(slot * PAGE_SIZE, PAGE_SIZE)
    discard(lane, *range(8, 20))


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("segments", [0, 1])
def test_running_out_of_room_in_the_middle_loses_nothing(
    store: Store, lane: Lane, monkeypatch: pytest.MonkeyPatch, down: bool, segments: int
) -> None:
    """Some of it is moved, the rest is where it was; with room again the rest follows."""
    for slot in range(0, 240, 4):
        put(lane, slot, halves(slot, 4))
    discard(lane, *range(1, 240, 5))
    seal(lane)
    victims = sealed_segments(store)
    before = all_of(lane)
    with monkeypatch.context() as patch:
        without_room(patch, store, segments)
        appender = relocator_of(store)._appender
        if segments:
            appender.ensure(1)  # of which a few units' room is left
            appender._used = SEGMENT_SIZE - 5 * 8192
        with pytest.raises(FullError):
            for victim in victims:
                clean(store, victim, down)
        assert all_of(lane) == before
        assert store.check().problems == ()
    for victim in victims:
        clean(store, victim, down)
    assert not set(victims) & set(sealed_segments(store))
    assert all_of(lane) == before


def test_no_lock_is_left_held_when_there_is_no_room(
    store: Store, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is made under its cluster's lock."""
    segment = filled(store, lane)
    without_room(monkeypatch, store)
    with pytest.raises(FullError):
        clean(store, segment)
    assert not store._parts.locks[0 << CLUSTER_SHIFT].locked()


def test_cleaning_twice_finds_nothing(make: StoreMaker) -> None:
    store = make()
    lane = store.lane()
    segment = filled(store, lane)
    assert clean(store, segment) == 64
    assert clean(store, segment) == 0
