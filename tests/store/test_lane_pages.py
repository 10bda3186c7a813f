"""Lanes: pages of one word, the marks that reading leaves, and pages that cannot be read."""

from __future__ import annotations

import os

import pytest
from model.pages import filled, noise, text, zero
from model.stores import content, state_of

from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Store
from vswap.store.entry import COLD, IDLE, LOADED, position_of

DATA, HOLE = os.SEEK_DATA, os.SEEK_HOLE


def put(lane: Lane, offset: int, data: bytes) -> None:
    lane.write(offset, memoryview(data))


# --- Pages of one word ------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, 3, 8, 64])
def test_pages_of_one_word_cost_an_entry_and_nothing_else(store: Store, pages: int) -> None:
    lane = store.lane()
    put(lane, (CLUSTER_SLOTS - 2) * PAGE_SIZE, filled(pages))
    assert content(lane, (CLUSTER_SLOTS - 2) * PAGE_SIZE, pages * PAGE_SIZE) == filled(pages)
    statistics = store.statistics()
    assert (statistics.fill_pages, statistics.stored_pages) == (pages, 0)
    assert statistics.compr_data_size == statistics.segment_bytes == 0


def test_a_part_of_a_page_of_one_word_is_written_like_any(store: Store) -> None:
    """ONE-STATE and FILL-COUNT: it is stored then, and of one word again when undone."""
    lane = store.lane()
    put(lane, 0, filled(4))
    put(lane, PAGE_SIZE + 100, b"abc")
    expected = bytearray(filled(4))
    expected[PAGE_SIZE + 100 : PAGE_SIZE + 103] = b"abc"
    assert content(lane, 0, 4 * PAGE_SIZE) == bytes(expected)
    assert (store.statistics().fill_pages, store.statistics().stored_pages) == (3, 1)
    put(lane, PAGE_SIZE + 100, filled()[100:103])
    assert content(lane, 0, 4 * PAGE_SIZE) == filled(4)
    assert (store.statistics().fill_pages, store.statistics().stored_pages) == (4, 0)


def test_a_page_of_one_word_is_data_to_a_seek(lane: Lane) -> None:
    put(lane, PAGE_SIZE, filled())
    assert lane.seek(0, DATA) == PAGE_SIZE
    assert lane.seek(PAGE_SIZE, HOLE) == 2 * PAGE_SIZE


def test_words_beside_each_other_are_read_each_as_it_is(lane: Lane) -> None:
    data = filled(2, 1) + filled(2, 2) + text(2) + filled(1, 1) + zero() + filled(1, 1)
    put(lane, PAGE_SIZE, data)
    assert content(lane, PAGE_SIZE, len(data)) == data
    assert content(lane, 0, PAGE_SIZE * 12) == zero() + data + zero(2)


# --- What reading leaves behind ---------------------------------------------------------


def flags(store: Store, slot: int, count: int) -> list[int]:
    found = store._parts.table.entries(slot, count)
    return [one & (LOADED | IDLE | COLD) for one in found]


@pytest.mark.parametrize("size", [1, 2])
def test_reading_a_page_marks_it_as_loaded_and_no_other(store: Store, size: int) -> None:
    """Whoever read it has it now: this copy is the coldest there is."""
    lane = store.lane()
    put(lane, 0, text(4))
    lane.read(PAGE_SIZE, size * PAGE_SIZE)
    assert flags(store, 0, 4) == ([0, LOADED, 0, 0] if size == 1 else [0, LOADED, LOADED, 0])


def test_reading_takes_the_idle_mark_away_and_writing_does_too(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, text(8))
    assert store.mark_idle() == 8
    assert flags(store, 0, 8) == [IDLE] * 8
    lane.read(PAGE_SIZE, PAGE_SIZE)
    lane.read(2 * PAGE_SIZE, 2 * PAGE_SIZE)
    put(lane, 4 * PAGE_SIZE, text(4, seed=1))
    assert flags(store, 0, 8) == [IDLE, LOADED, LOADED, LOADED, 0, 0, 0, 0]


def test_a_page_written_in_the_place_of_a_loaded_one_has_not_been_loaded(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, text(2))
    lane.read(0, 2 * PAGE_SIZE)
    put(lane, 0, text(1, seed=1))
    assert flags(store, 0, 2) == [0, LOADED]


# --- When a page cannot be read ---------------------------------------------------------


def flip(store: Store, slot: int) -> None:
    """Damage the unit that holds `slot`, or undo it."""
    state_of(store).segments.view[position_of(store._parts.table.get(slot)) + 20] ^= 1


def test_a_damaged_page_is_an_error_and_never_other_data(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, text(4))
    flip(store, 0)
    for offset, size in ((0, PAGE_SIZE), (0, 4 * PAGE_SIZE), (0, 2 * PAGE_SIZE), (100, 10)):
        with pytest.raises(CorruptError):
            lane.read(offset, size)
    flip(store, 0)


def test_damage_to_one_unit_leaves_the_others_readable(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, text(8))
    flip(store, 0)
    assert content(lane, 4 * PAGE_SIZE, 4 * PAGE_SIZE) == text(8)[4 * PAGE_SIZE :]
    flip(store, 0)


def test_a_part_of_a_damaged_page_cannot_be_written(store: Store) -> None:
    """The rest of the page is not known, and must not become something else."""
    lane = store.lane()
    put(lane, 0, text())
    flip(store, 0)
    with pytest.raises(CorruptError):
        put(lane, 100, b"abc")
    flip(store, 0)
    assert content(lane, 0, PAGE_SIZE) == text()


def test_a_damaged_page_can_be_overwritten_and_discarded(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, text(8))
    flip(store, 0)
    flip(store, 4)
    put(lane, 0, noise(4))
    lane.discard(4 * PAGE_SIZE, 4 * PAGE_SIZE)
    assert content(lane, 0, 8 * PAGE_SIZE) == noise(4) + zero(4)


def test_a_failed_read_is_counted(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, text(2))
    flip(store, 0)
    for size in (PAGE_SIZE, 2 * PAGE_SIZE):
        with pytest.raises(CorruptError):
            lane.read(0, size)
    flip(store, 0)
    assert lane.counters.failed_reads == 2
