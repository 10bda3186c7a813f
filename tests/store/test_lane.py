"""Lanes: requests in bytes, anywhere on the device."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.audit import audit
from model.device import ModelDevice
from model.effort import effort
from model.memory import data_pages
from model.moves import places, put_on_disk
from model.pages import filled, mixed, noise, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content, make_store, state_of

from vswap.errors import NoDataError, RangeError, UnsupportedError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy, Store
from vswap.store.places import KEPT

DATA, HOLE = os.SEEK_DATA, os.SEEK_HOLE
CLUSTER = CLUSTER_SLOTS * PAGE_SIZE
SIZE = DEFAULT_SLOTS * PAGE_SIZE
SECTOR = 512


def put(lane: Lane, offset: int, data: bytes) -> None:
    lane.write(offset, memoryview(data))


def counted(lane: Lane) -> dict[str, int]:
    """The counters that are not zero."""
    return {name: value for name, value in asdict(lane.counters).items() if value}


# --- Reading what was written -----------------------------------------------------------


def test_a_new_device_reads_as_zeros(lane: Lane) -> None:
    assert content(lane, 0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize("pages", [1, 2, 4, 7, 64])
@pytest.mark.parametrize("slot", [0, 1, 3, CLUSTER_SLOTS - 2, DEFAULT_SLOTS - 64])
def test_whole_pages_are_read_back(lane: Lane, slot: int, pages: int) -> None:
    put(lane, slot * PAGE_SIZE, mixed(pages, slot))
    assert content(lane, slot * PAGE_SIZE, pages * PAGE_SIZE) == mixed(pages, slot)


def test_a_write_across_clusters_is_read_back(make: StoreMaker) -> None:
    lane = make(slots=4 * CLUSTER_SLOTS).lane()
    data = mixed(2 * CLUSTER_SLOTS + 7, 1)
    put(lane, (CLUSTER_SLOTS - 3) * PAGE_SIZE, data)
    assert content(lane, (CLUSTER_SLOTS - 3) * PAGE_SIZE, len(data)) == data


def test_each_page_of_a_large_write_can_be_read_alone(lane: Lane) -> None:
    put(lane, 5 * PAGE_SIZE, text(30))
    pages = [content(lane, slot * PAGE_SIZE, PAGE_SIZE) for slot in range(5, 35)]
    assert b"".join(pages) == text(30)


def test_a_read_may_begin_and_end_within_units(lane: Lane) -> None:
    put(lane, 0, text(16))
    for first in range(8):
        for last in range(first + 1, 9):
            found = content(lane, first * PAGE_SIZE, (last - first) * PAGE_SIZE)
            assert found == text(16)[first * PAGE_SIZE : last * PAGE_SIZE]


def test_a_mixed_range_is_assembled_run_by_run(lane: Lane) -> None:
    put(lane, 0, text(3))
    put(lane, 5 * PAGE_SIZE, zero(2))
    put(lane, 7 * PAGE_SIZE, noise(2))
    expected = text(3) + zero(2) + zero(2) + noise(2) + zero(3)
    assert content(lane, 0, 12 * PAGE_SIZE) == expected


def test_the_last_write_wins(lane: Lane) -> None:
    for data in (text(4), noise(4), zero(4), text(4, seed=9)):
        put(lane, 0, data)
    assert content(lane, 0, 4 * PAGE_SIZE) == text(4, seed=9)


def test_what_was_read_stays_when_it_is_overwritten(lane: Lane) -> None:
    """Replies are sent after the locks are given up: they must not change under way."""
    put(lane, 0, noise(8))
    before = lane.read(0, 8 * PAGE_SIZE)
    for generation in range(70):  # more than a segment: the old one is written over
        put(lane, 0, noise(8, generation + 1))
    assert b"".join(before) == noise(8)


def test_the_buffer_of_a_write_may_be_used_again(lane: Lane) -> None:
    buffer = bytearray(noise(4))
    lane.write(0, memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert content(lane, 0, len(buffer)) == noise(4)


# --- Bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, SECTOR),
        (PAGE_SIZE - SECTOR, SECTOR),
        (3 * SECTOR, 2 * SECTOR),
        (PAGE_SIZE - SECTOR, 2 * SECTOR),  # across two pages
        (SECTOR, 4 * PAGE_SIZE),
        (SECTOR, 4 * PAGE_SIZE - SECTOR),  # ends with a page
        (PAGE_SIZE, 2 * PAGE_SIZE + SECTOR),  # begins with one
        (1, 1),
        (PAGE_SIZE - 1, 2),
        (1, 3 * PAGE_SIZE - 2),
        (CLUSTER - 100, 200),  # across two clusters
        (CLUSTER - PAGE_SIZE - 1, 2 * PAGE_SIZE + 2),
        (SIZE - 1, 1),
        (SIZE - SECTOR, SECTOR),
    ],
)
def test_bytes_anywhere_are_written_and_no_others(lane: Lane, offset: int, size: int) -> None:
    first = max(0, offset // PAGE_SIZE - 1) * PAGE_SIZE
    before = mixed(min(size // PAGE_SIZE + 4, (SIZE - first) // PAGE_SIZE), 5)
    put(lane, first, before)
    put(lane, offset, noise(5, 1)[:size])
    at = offset - first
    expected = before[:at] + noise(5, 1)[:size] + before[at + size :]
    assert content(lane, first, len(before)) == expected
    assert content(lane, offset, size) == noise(5, 1)[:size]


def test_a_part_of_an_empty_page_leaves_zeros_around_it(lane: Lane) -> None:
    put(lane, 100, b"abc")
    assert content(lane, 0, PAGE_SIZE) == bytes(100) + b"abc" + bytes(PAGE_SIZE - 103)


def test_a_part_of_a_zero_page_leaves_zeros_around_it(store: Store) -> None:
    """ONE-STATE: the page is stored then, and no longer zero."""
    lane = store.lane()
    put(lane, 0, zero())
    put(lane, 100, b"abc")
    assert content(lane, 0, PAGE_SIZE) == bytes(100) + b"abc" + bytes(PAGE_SIZE - 103)
    assert (store.statistics().stored_pages, store.statistics().zero_pages) == (1, 0)


def test_a_page_whose_last_byte_is_zeroed_is_a_zero_page(store: Store) -> None:
    """ONE-STATE"""
    lane = store.lane()
    put(lane, 100, b"abc")
    put(lane, 100, bytes(3))
    assert (store.statistics().stored_pages, store.statistics().zero_pages) == (0, 1)


def test_a_write_of_nothing_does_nothing(lane: Lane) -> None:
    put(lane, 0, text())
    put(lane, 0, b"")
    put(lane, 100, b"")
    put(lane, SIZE, b"")
    assert content(lane, 0, PAGE_SIZE) == text()


# --- The end of the device --------------------------------------------------------------


def test_the_last_page_is_a_page_like_others(lane: Lane) -> None:
    put(lane, SIZE - PAGE_SIZE, text())
    assert content(lane, SIZE - PAGE_SIZE, PAGE_SIZE) == text()


@pytest.mark.parametrize(
    ("offset", "size", "length"),
    [
        (SIZE - PAGE_SIZE, 2 * PAGE_SIZE, PAGE_SIZE),
        (SIZE - 3 * PAGE_SIZE, 1 << 20, 3 * PAGE_SIZE),
        (SIZE - 100, PAGE_SIZE, 100),
        (SIZE - 100, 101, 100),
        (SIZE, PAGE_SIZE, 0),
        (SIZE, 1, 0),
        (SIZE + 5 * PAGE_SIZE, PAGE_SIZE, 0),
        (1 << 62, PAGE_SIZE, 0),
        (1 << 62, 100, 0),
    ],
)
def test_a_read_beyond_the_end_is_short(lane: Lane, offset: int, size: int, length: int) -> None:
    put(lane, SIZE - 3 * PAGE_SIZE, text(3))
    assert content(lane, offset, size) == text(3)[3 * PAGE_SIZE - (SIZE - offset) :][:length]


BEYOND = [
    (SIZE, PAGE_SIZE),
    (SIZE, 1),
    (SIZE - PAGE_SIZE, 2 * PAGE_SIZE),
    (SIZE - 100, 101),
    (SIZE - 4 * PAGE_SIZE, 5 * PAGE_SIZE),
    (1 << 62, PAGE_SIZE),
    (-PAGE_SIZE, PAGE_SIZE),
    (-1, 2),
]


@pytest.mark.parametrize(("offset", "size"), BEYOND)
def test_a_write_beyond_the_end_leaves_the_store_untouched(
    store: Store, offset: int, size: int
) -> None:
    lane = store.lane()
    put(lane, SIZE - 4 * PAGE_SIZE, text(4))
    before = store._parts.log.statistics()
    with pytest.raises(RangeError):
        put(lane, offset, noise(5)[:size])
    assert content(lane, SIZE - 4 * PAGE_SIZE, 4 * PAGE_SIZE) == text(4)
    assert store._parts.log.statistics() == before


@pytest.mark.parametrize(("offset", "size"), [*BEYOND, (0, -1)])
def test_a_discard_beyond_the_end_leaves_the_store_untouched(
    store: Store, offset: int, size: int
) -> None:
    lane = store.lane()
    put(lane, SIZE - 4 * PAGE_SIZE, text(4))
    before = store._parts.log.statistics()
    with pytest.raises(RangeError):
        lane.discard(offset, size)
    assert content(lane, SIZE - 4 * PAGE_SIZE, 4 * PAGE_SIZE) == text(4)
    assert store._parts.log.statistics() == before


# --- Discards ---------------------------------------------------------------------------


def test_a_discarded_range_reads_as_zeros_and_its_neighbours_do_not(lane: Lane) -> None:
    put(lane, 0, text(12))
    lane.discard(3 * PAGE_SIZE, 5 * PAGE_SIZE)
    expected = text(12)[: 3 * PAGE_SIZE] + zero(5) + text(12)[8 * PAGE_SIZE :]
    assert content(lane, 0, 12 * PAGE_SIZE) == expected


def test_a_discard_frees_stored_and_zero_pages(store: Store) -> None:
    """ONE-STATE: they are empty then, which zero pages are not."""
    lane = store.lane()
    put(lane, 0, text(4) + zero(4))
    lane.discard(2 * PAGE_SIZE, 4 * PAGE_SIZE)
    statistics = store.statistics()
    assert (statistics.stored_pages, statistics.zero_pages) == (2, 2)


def test_a_discard_frees_zero_pages_where_nothing_else_is(store: Store) -> None:
    """ONE-STATE: in a cluster with no stored page at all."""
    lane = store.lane()
    put(lane, CLUSTER, zero(10))
    lane.discard(CLUSTER, 4 * PAGE_SIZE)
    assert store.statistics().zero_pages == 6
    assert lane.counters.notify_free == 4


def test_a_discard_may_cross_clusters(make: StoreMaker) -> None:
    """TABLE-HOLE: the emptied ones' pages go."""
    store = make(slots=4 * CLUSTER_SLOTS)
    lane = store.lane()
    put(lane, 0, text(16) * (4 * CLUSTER_SLOTS // 16))
    lane.discard(CLUSTER - PAGE_SIZE, 2 * CLUSTER + 2 * PAGE_SIZE)
    assert store.statistics().stored_pages == 2 * CLUSTER_SLOTS - 2
    assert data_pages(state_of(store).table) == {0, 3}


def test_a_discard_of_parts_of_pages_zeroes_just_them(lane: Lane) -> None:
    put(lane, 0, noise(4))
    lane.discard(100, 3 * PAGE_SIZE)
    at = 100 + 3 * PAGE_SIZE
    assert content(lane, 0, 4 * PAGE_SIZE) == noise(4)[:100] + zero(3) + noise(4)[at:]


def test_the_whole_pages_of_an_unaligned_discard_are_free(store: Store) -> None:
    lane = store.lane()
    put(lane, 0, noise(4))
    lane.discard(100, 3 * PAGE_SIZE)
    assert store.statistics().stored_pages == 2


def test_a_discard_within_one_page_zeroes_just_that(lane: Lane) -> None:
    put(lane, 0, noise())
    lane.discard(SECTOR, SECTOR)
    assert content(lane, 0, PAGE_SIZE) == noise()[:SECTOR] + bytes(SECTOR) + noise()[2 * SECTOR :]


def test_a_discard_within_an_empty_page_leaves_it_empty(store: Store) -> None:
    """ONE-STATE: nothing was written there, so there is nothing to remember."""
    store.lane().discard(SECTOR, SECTOR)
    assert store.statistics().zero_pages == 0


def test_a_discard_of_nothing_does_nothing(lane: Lane) -> None:
    put(lane, 0, text())
    lane.discard(0, 0)
    lane.discard(100, 0)
    lane.discard(SIZE, 0)
    assert content(lane, 0, PAGE_SIZE) == text()


def test_a_discard_twice_is_a_discard_once(lane: Lane) -> None:
    """A new worker may execute a request again."""
    put(lane, 0, text(4))
    lane.discard(0, 4 * PAGE_SIZE)
    lane.discard(0, 4 * PAGE_SIZE)
    assert lane.counters.notify_free == 4


def test_the_memory_of_a_discard_is_reusable_when_it_returns(make: StoreMaker) -> None:
    """LOG-REUSE: without any background work."""
    store = make(Policy(reserve=0), segments=3 + KEPT)
    lane = store.lane()
    for generation in range(20):
        put(lane, 0, noise(300, generation))
        lane.discard(0, 300 * PAGE_SIZE)
    assert store.statistics().stored_pages == 0


@pytest.mark.parametrize("pages", [8, 31, 32, 400])
def test_a_discard_of_any_length_frees_pages_of_every_sort(store: Store, pages: int) -> None:
    """ONE-STATE, FILL-COUNT and TABLE-HOLE: long ones go another way than short ones."""
    lane = store.lane()
    put(lane, 0, mixed(2 * pages, 9))
    lane.discard(0, pages * PAGE_SIZE)
    assert content(lane, 0, pages * PAGE_SIZE) == zero(pages)
    assert (
        content(lane, pages * PAGE_SIZE, pages * PAGE_SIZE)
        == mixed(2 * pages, 9)[-pages * PAGE_SIZE :]
    )
    assert lane.counters.notify_free == pages
    lane.discard(0, 2 * pages * PAGE_SIZE)
    assert lane.counters.notify_free == 2 * pages
    assert data_pages(state_of(store).table) == set()
    assert store.statistics().same_pages == 0


@pytest.mark.parametrize("pages", [1, 5, 31, 32, 33, 64, 512])
@pytest.mark.parametrize("kinds", ["d", "dw", "dm", "d.", "wmd.", "wwwwmmmmdddd...."])
def test_a_discard_of_pages_on_disk_frees_them_there(
    store: Store, lane: Lane, pages: int, kinds: str
) -> None:
    """DISK-LIVE: among pages of all sorts, few and many of which are freed in different ways."""
    pattern = (kinds * pages)[:pages]
    put_on_disk(store, lane, 0, b"".join(noise(1, seed % 50) for seed in range(pages + 8)))
    for slot, kind in enumerate(pattern, 4):
        if kind != "d":
            put(lane, slot * PAGE_SIZE, {"w": filled(), "m": text(), ".": zero()}[kind])
    assert places(store, 0, pages + 8) == f"dddd{pattern}dddd"
    before = store.statistics()
    assert before.backing_pages == 8 + pattern.count("d")
    lane.discard(4 * PAGE_SIZE, pages * PAGE_SIZE)
    assert places(store, 0, pages + 8) == f"dddd{'.' * pages}dddd"
    after = store.statistics()
    assert after.backing_pages == 8
    assert after.stored_pages == after.same_pages == 0
    assert after.notify_free == before.notify_free + pages
    assert content(lane, 0, (pages + 8) * PAGE_SIZE) == (
        b"".join(noise(1, seed) for seed in range(4))
        + bytes(pages * PAGE_SIZE)
        + b"".join(noise(1, seed % 50) for seed in range(pages + 4, pages + 8))
    )
    assert audit(store) == []


@pytest.mark.parametrize("pages", [8, 40])
def test_the_last_page_that_is_discarded_frees_its_disk_segment(
    store: Store, lane: Lane, pages: int
) -> None:
    """DISK-REUSE: at once."""
    put_on_disk(store, lane, 0, noise(pages))
    free = store.statistics().backing_segments_free
    lane.discard(PAGE_SIZE, lane.size - PAGE_SIZE)
    assert store.statistics().backing_segments_free == free
    lane.discard(0, PAGE_SIZE)
    statistics = store.statistics()
    assert statistics.backing_segments_free == free + 1
    assert statistics.backing_pages == statistics.backing_dead_bytes == statistics.table_bytes == 0


# --- Seeks ------------------------------------------------------------------------------


@effort(60)
@given(
    st.sets(st.integers(0, DEFAULT_SLOTS - 1) | st.integers(500, 530), max_size=8),
    st.sets(st.integers(0, DEFAULT_SLOTS - 1) | st.integers(500, 530), max_size=8),
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.sampled_from((DATA, HOLE))), max_size=20),
)
def test_seek_finds_what_the_model_finds(
    stored: set[int], zeros: set[int], seeks: list[tuple[int, int]]
) -> None:
    store = make_store(Policy())
    lane, model = store.lane(), ModelDevice(DEFAULT_SLOTS)
    try:
        for slots, page in ((stored, text()), (zeros, zero())):
            for slot in slots:
                put(lane, slot * PAGE_SIZE, page)
                model.put(slot, page)
        around = [(slot * PAGE_SIZE, whence) for slot in stored | zeros for whence in (DATA, HOLE)]
        for offset, whence in seeks + around:
            expected = model.seek(offset, whence)
            if expected is None:
                with pytest.raises(NoDataError):
                    lane.seek(offset, whence)
            else:
                assert lane.seek(offset, whence) == expected
        assert audit(store) == []
    finally:
        state_of(store).close()


def test_seeks_take_zero_pages_for_holes(lane: Lane) -> None:
    put(lane, 0, text() + zero() + text())
    assert lane.seek(0, HOLE) == PAGE_SIZE
    assert lane.seek(PAGE_SIZE, DATA) == 2 * PAGE_SIZE


def test_a_page_on_disk_is_data_to_a_seek(store: Store, lane: Lane) -> None:
    put_on_disk(store, lane, 5, text(3))
    assert lane.seek(0, DATA) == 5 * PAGE_SIZE
    assert lane.seek(5 * PAGE_SIZE, HOLE) == 8 * PAGE_SIZE


def test_a_seek_from_within_a_page_answers_where_it_is(lane: Lane) -> None:
    put(lane, 0, text())
    assert lane.seek(100, DATA) == 100
    assert lane.seek(PAGE_SIZE + 100, HOLE) == PAGE_SIZE + 100


def test_there_is_a_hole_at_the_end_of_the_device(lane: Lane) -> None:
    put(lane, 0, text(2) * (DEFAULT_SLOTS // 2))
    assert lane.seek(0, HOLE) == SIZE


def test_there_is_no_data_behind_the_last(lane: Lane) -> None:
    put(lane, 0, text())
    with pytest.raises(NoDataError):
        lane.seek(PAGE_SIZE, DATA)


@pytest.mark.parametrize("whence", [DATA, HOLE])
@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 1 << 62, -1])
def test_a_seek_from_beyond_the_end_finds_nothing(lane: Lane, offset: int, whence: int) -> None:
    with pytest.raises(NoDataError):
        lane.seek(offset, whence)


@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 5])
def test_only_seeks_for_data_and_holes_are_known(lane: Lane, whence: int) -> None:
    with pytest.raises(UnsupportedError):
        lane.seek(0, whence)


def test_seeking_allocates_nothing(store: Store) -> None:
    """TABLE-HOLE"""
    lane = store.lane()
    put(lane, 2 * CLUSTER, text())
    lane.seek(0, DATA)
    lane.seek(0, HOLE)
    assert data_pages(state_of(store).table) == {2}


# --- Counters ---------------------------------------------------------------------------


def test_reads_count_requests_and_pages(lane: Lane) -> None:
    lane.read(0, PAGE_SIZE)
    lane.read(0, 4 * PAGE_SIZE)
    lane.read(100, PAGE_SIZE)
    assert counted(lane) == {"reads": 3, "pages_read": 1 + 4 + 2}


def test_reading_ahead_is_no_request(lane: Lane) -> None:
    """Nobody has asked for these pages."""
    put(lane, 0, text(64))
    for slot in range(0, 32, 8):
        lane.read(slot * PAGE_SIZE, 8 * PAGE_SIZE)
    before = counted(lane)
    turns = 0
    while lane.read_ahead():
        turns += 1
    assert turns
    assert counted(lane) == before


def test_writes_count_requests_and_pages(lane: Lane) -> None:
    put(lane, 0, text())
    put(lane, 0, text(4))
    put(lane, 0, zero(3))
    assert counted(lane) == {"writes": 3, "pages_written": 8}


def test_an_unaligned_write_counts_every_page_it_touches(lane: Lane) -> None:
    """As an unaligned read does."""
    put(lane, 100, text())
    assert lane.counters.pages_written == 2


def test_discards_count_requests_and_the_pages_that_became_free(lane: Lane) -> None:
    put(lane, 0, text(3) + zero(2))
    lane.discard(0, 100 * PAGE_SIZE)
    assert counted(lane) == {"writes": 1, "pages_written": 5, "discards": 1, "notify_free": 5}


def test_a_request_beyond_the_end_is_counted_as_invalid(lane: Lane) -> None:
    with pytest.raises(RangeError):
        put(lane, SIZE, text())
    with pytest.raises(RangeError):
        lane.discard(SIZE, PAGE_SIZE)
    assert lane.counters.invalid_io == 2
    assert lane.counters.pages_written == 0
