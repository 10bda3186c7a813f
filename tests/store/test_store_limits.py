"""The memory limit: that it holds for all memory, and what there is room for under it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from model.pages import filled, noise, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content, limit_of, state_of

from vswap.errors import FullError, UserError
from vswap.geometry import (
    PAGE_SIZE,
    SEGMENT_SIZE,
)
from vswap.store import Lane, Policy, Store, least_memory
from vswap.store.places import KEPT


def write(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


def fill(store: Store, lane: Lane, slots: int) -> int:
    """Write noise page by page until there is no room; how many pages were taken."""
    for slot in range(slots):
        try:
            write(lane, slot, noise(1, slot % 200))
        except FullError:
            return slot
    pytest.fail("there was room for everything")


LEAST = 3 + KEPT
"""Segments: the least that a store of one lane can work with."""


def test_the_memory_limit_holds_for_all_memory(make: StoreMaker) -> None:
    """Segments, table, zeromap and all: whatever is written, and whatever is kept ready."""
    limit = limit_of(8, slots=3000)
    store = make(Policy(memory_limit=limit, reserve=4), slots=3000)
    lane = store.lane()
    used = []
    with pytest.raises(FullError):
        for slot in range(0, 3000, 50):
            write(lane, slot, noise(40, slot) + zero(5) + filled(5, slot))
            store.maintain()
            used.append(store.statistics().mem_used_total)
    assert max(used) <= store.statistics().mem_limit == limit
    assert store.statistics().mem_used_max <= limit
    assert store.statistics().stored_pages >= 6 * 240


def test_a_store_that_was_full_takes_writes_again_after_a_discard(make: StoreMaker) -> None:
    store = make(Policy(memory_limit=limit_of(LEAST, 2000)), slots=2000)
    lane = store.lane()
    fill(store, lane, 2000)
    lane.discard(0, 300 * PAGE_SIZE)
    write(lane, 1999, noise(1, 7))
    assert content(lane, 1999 * PAGE_SIZE, PAGE_SIZE) == noise(1, 7)


@pytest.mark.parametrize("least", [True, False])
def test_what_is_dead_in_a_full_store_is_room(make: StoreMaker, least: bool) -> None:
    """Whatever the limit is: nothing of a page in eight keeps the rest of its segment."""
    segments = LEAST if least else LEAST + 3
    slots = segments * 256
    store = make(Policy("stored", 1, limit_of(segments, slots)), slots=slots)
    lane = store.lane()
    written = fill(store, lane, slots)
    for slot in range(written):
        if slot % 8:
            lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    again = 0
    for slot in range(written):
        if slot % 8:
            try:
                write(lane, slot, noise(1, slot % 100))
            except FullError:
                break
            again += 1
    assert again >= (written - written // 8) * 0.7
    for slot in range(0, written, 8):
        assert content(lane, slot * PAGE_SIZE, PAGE_SIZE) == noise(1, slot % 200)


def test_room_that_is_won_after_a_write_was_refused_is_used(make: StoreMaker) -> None:
    """Whoever won it: here a command, which finds what a writer does not look for."""
    store = make(Policy("stored", 1, limit_of(LEAST, 2000)), slots=2000)
    lane = store.lane()
    written = fill(store, lane, 2000)
    for slot in range(written):
        if slot % 8:
            lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    with suppress(FullError):
        write(lane, 1, noise())
    store.compact()
    assert store._log.room() > KEPT
    write(lane, 1, noise())
    assert content(lane, PAGE_SIZE, PAGE_SIZE) == noise()


def test_zeros_are_taken_when_all_memory_is_used(make: StoreMaker) -> None:
    """They need none."""
    store = make(Policy(memory_limit=limit_of(LEAST, 2000)), slots=2000)
    lane = store.lane()
    fill(store, lane, 2000)
    write(lane, 0, zero(100))
    assert content(lane, 0, 100 * PAGE_SIZE) == zero(100)


def test_the_least_memory_is_what_a_store_of_its_lanes_needs(make: StoreMaker) -> None:
    """For all that is not segments, and for each lane two of these, and the cleaner's."""
    shape = state_of(make()).shape
    least = least_memory(shape)
    assert least == shape.overhead() + LEAST * SEGMENT_SIZE == limit_of(LEAST)
    store = make(Policy("stored", 1, least))
    assert fill(store, store.lane(), DEFAULT_SLOTS) >= 2 * 255


@pytest.mark.parametrize("below", [1, SEGMENT_SIZE, None])
def test_a_limit_that_no_device_could_work_with_is_refused(
    make: StoreMaker, below: int | None
) -> None:
    """In one line, with the least that there must be."""
    least = limit_of(LEAST)
    limit = 0 if below is None else least - below
    with pytest.raises(UserError, match=r"at least 6M .* not \d+ bytes"):
        make(Policy(memory_limit=limit))
    store = make(Policy(memory_limit=least))
    with pytest.raises(UserError, match="at least 6M"):
        store.set_memory_limit(limit)
    assert store.statistics().mem_limit == least


def test_a_lane_without_a_segment_is_none(make: StoreMaker) -> None:
    store = make(Policy(memory_limit=limit_of(LEAST)))
    lanes = 0
    with pytest.raises(FullError):
        while True:
            store.lane()
            lanes += 1
    assert store.statistics().segments_open == lanes == 3


def test_a_limit_that_is_raised_takes_writes_at_once(make: StoreMaker) -> None:
    """However much was refused before."""
    store = make(Policy("stored", 1, limit_of(LEAST, 3000)), slots=3000)
    lane = store.lane()
    written = fill(store, lane, 3000)
    store.set_memory_limit(limit_of(LEAST + 1, 3000))
    assert store.statistics().mem_limit == limit_of(LEAST + 1, 3000)
    write(lane, written, noise())
    store.set_memory_limit(None)
    for slot in range(written, 3000):
        write(lane, slot, noise(1, slot % 200))
    assert store.statistics().mem_limit == 0


def test_a_limit_that_is_lowered_gives_memory_back_by_cleaning(make: StoreMaker) -> None:
    """As far as there is dead space, and loses nothing."""
    store = make(Policy("stored", 1, reserve=2), slots=3000)
    lane = store.lane()
    for slot in range(3000):
        write(lane, slot, noise(1, slot % 200))
    for slot in range(3000):
        if slot % 4:
            lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    before = store.statistics().mem_used_total
    limit = limit_of(8, 3000)
    assert before > limit
    store.set_memory_limit(limit)
    store.compact()
    store.maintain()
    assert store.statistics().mem_used_total <= limit
    for slot in range(0, 3000, 4):
        assert content(lane, slot * PAGE_SIZE, PAGE_SIZE) == noise(1, slot % 200)


def test_maintain_is_asked_for_when_the_reserve_is_low(make: StoreMaker) -> None:
    wakes: list[int] = []
    store = make(Policy(reserve=8), wake=lambda: wakes.append(1))
    before = len(wakes)
    store.lane()
    assert len(wakes) == before + 1


def test_maintain_is_asked_for_when_the_limit_has_changed(make: StoreMaker) -> None:
    wakes: list[int] = []
    store = make(Policy(reserve=0), wake=lambda: wakes.append(1))
    before = len(wakes)
    store.set_memory_limit(limit_of(20))
    assert len(wakes) == before + 1
