"""The store as a whole: what it says about itself, and that it gives memory back."""

from __future__ import annotations

import os

import pytest
from model.memory import data_pages
from model.pages import mixed, noise, process_memory, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content, state_of

from vswap.codec import CODECS
from vswap.geometry import (
    CLUSTER_SLOTS,
    MAX_DEVICE_SIZE,
    PAGE_SIZE,
    SEGMENT_SIZE,
    Geometry,
)
from vswap.store import Lane, Policy, Store, segments_for
from vswap.store.entry import SEGMENT_MASK, share_of
from vswap.store.places import KEPT

EVERY_POLICY = [
    Policy(codec=codec, unit_pages=pages) for codec in sorted(CODECS) for pages in (1, 2, 4, 8, 16)
]


NEW = 2 * PAGE_SIZE
"""What a new store costs: its header, its key, and a look at whether it has a dictionary."""


def write(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


def rest(store: Store) -> None:
    """As the background leaves a store that has nothing to do: no more ready than is kept then."""
    store._log.maintain(idle=True)


# --- What is written is read ------------------------------------------------------------


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=lambda p: f"{p.codec}-{p.unit_pages}")
def test_what_is_written_is_read_with_every_policy(make: StoreMaker, policy: Policy) -> None:
    lane = make(policy).lane()
    data = mixed(300, seed=policy.unit_pages)
    write(lane, 333, data)
    assert content(lane, 333 * PAGE_SIZE, len(data)) == data


def test_real_process_memory_is_read_back(make: StoreMaker) -> None:
    memory = process_memory(2000)
    store = make(slots=len(memory) // PAGE_SIZE)
    lane = store.lane()
    for at in range(0, len(memory), 64 * PAGE_SIZE):
        lane.write(at, memoryview(memory)[at : at + 64 * PAGE_SIZE])
    assert content(lane, 0, len(memory)) == memory


def test_lanes_read_what_other_lanes_wrote(store: Store) -> None:
    one, other = store.lane(), store.lane()
    write(one, 3, text(5))
    assert content(other, 3 * PAGE_SIZE, 5 * PAGE_SIZE) == text(5)


def test_lanes_overwrite_what_other_lanes_wrote(store: Store) -> None:
    one, other = store.lane(), store.lane()
    write(one, 0, text(8))
    write(other, 2, noise(2))
    expected = text(8)[: 2 * PAGE_SIZE] + noise(2) + text(8)[4 * PAGE_SIZE :]
    assert content(one, 0, 8 * PAGE_SIZE) == expected


def test_a_unit_lives_on_in_the_pages_that_were_not_overwritten(store: Store) -> None:
    """LOG-LIVE: the others just die, and nothing is decompressed for it."""
    lane = store.lane()
    write(lane, 0, text(4))
    before = store.statistics().compr_data_size
    write(lane, 1, zero())
    assert store.statistics().stored_pages == 3
    assert store.statistics().compr_data_size == before * 3 // 4


# --- Statistics -------------------------------------------------------------------------


def test_a_new_store_holds_nothing(store: Store) -> None:
    statistics = store.statistics()
    assert statistics.size == DEFAULT_SLOTS * PAGE_SIZE
    assert statistics.stored_pages == statistics.zero_pages == statistics.clusters_used == 0
    assert statistics.orig_data_size == statistics.compr_data_size == 0
    assert statistics.table_bytes == statistics.segment_bytes == statistics.zeromap_bytes == 0


def test_stored_and_zero_pages_are_counted_apart(store: Store) -> None:
    lane = store.lane()
    write(lane, 0, text(3) + zero(5) + noise(2))
    statistics = store.statistics()
    assert (statistics.stored_pages, statistics.zero_pages) == (5, 5)
    assert statistics.orig_data_size == 5 * PAGE_SIZE


def test_compressed_size_is_the_sum_of_the_live_shares(store: Store) -> None:
    lane = store.lane()
    write(lane, 0, text(3) + noise(2))
    entries = store._parts.table.entries(0, 5)
    assert store.statistics().compr_data_size == sum(share_of(entry) for entry in entries)


def test_huge_pages_are_those_that_did_not_compress(store: Store) -> None:
    lane = store.lane()
    write(lane, 0, text(4) + noise(4))
    write(lane, 4, text(3))
    statistics = store.statistics()
    assert (statistics.huge_pages, statistics.huge_pages_since) == (1, 4)


def test_clusters_used_are_those_with_a_stored_page(store: Store) -> None:
    lane = store.lane()
    write(lane, 0, text())
    write(lane, CLUSTER_SLOTS, zero(4))
    write(lane, 2 * CLUSTER_SLOTS, text())
    statistics = store.statistics()
    assert statistics.clusters_used == 2
    assert statistics.table_bytes == 2 * PAGE_SIZE


def test_zero_pages_cost_no_table_and_no_segment(store: Store) -> None:
    """TABLE-HOLE"""
    lane = store.lane()
    write(lane, 0, zero(DEFAULT_SLOTS))
    statistics = store.statistics()
    assert statistics.zero_pages == DEFAULT_SLOTS
    assert statistics.table_bytes == statistics.segment_bytes == 0


def test_memory_used_is_the_kernels_own_count(store: Store) -> None:
    lane = store.lane()
    write(lane, 5, mixed(500, 1))
    rest(store)
    blocks = sum(os.fstat(fd).st_blocks for fd in state_of(store).fds())
    assert store.statistics().mem_used_total == blocks * 512


def test_memory_used_is_made_of_its_parts(store: Store) -> None:
    write(store.lane(), 5, mixed(500, 1))
    state_of(store).buffer(0)[0] = 1
    statistics = store.statistics()
    parts = (
        statistics.segment_bytes
        + statistics.table_bytes
        + statistics.zeromap_bytes
        + statistics.buffer_bytes
    )
    words = state_of(store).words.allocated()
    assert statistics.buffer_bytes == words == PAGE_SIZE
    assert statistics.mem_used_total == parts + words + NEW


def test_the_most_memory_used_does_not_fall(make: StoreMaker) -> None:
    store = make(Policy(reserve=0))
    lane = store.lane()
    write(lane, 0, noise(1000))
    used = store.statistics().mem_used_total
    lane.discard(0, lane.size)
    rest(store)
    statistics = store.statistics()
    assert statistics.mem_used_total < used // 2
    assert statistics.mem_used_max == used


def test_a_step_notes_how_much_memory_is_used(make: StoreMaker) -> None:
    """Or the most would be what somebody happened to look at."""
    store = make(Policy(reserve=3))
    store.maintain()
    store.step()
    assert store._memory_used_max >= 2 * SEGMENT_SIZE


def test_counters_are_the_sum_of_all_lanes(store: Store) -> None:
    one, other = store.lane(), store.lane()
    write(one, 0, text(4))
    write(other, 4, text(2))
    content(other, 0, PAGE_SIZE)
    one.discard(0, PAGE_SIZE)
    statistics = store.statistics()
    assert (statistics.writes, statistics.pages_written) == (2, 6)
    assert (statistics.reads, statistics.discards, statistics.notify_free) == (1, 1, 1)


def test_segments_are_counted_by_place(make: StoreMaker) -> None:
    store = make(Policy(reserve=2))
    lane = store.lane()
    write(lane, 0, noise(300))
    rest(store)
    statistics = store.statistics()
    assert statistics.segments_open == 1
    assert statistics.segments_sealed == 1
    assert statistics.segments_ready == 2


# --- Memory comes back ------------------------------------------------------------------


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=lambda p: f"{p.codec}-{p.unit_pages}")
def test_a_full_discard_gives_all_memory_back(make: StoreMaker, policy: Policy) -> None:
    """TABLE-HOLE and LOG-REUSE: but for the open segment, and what is kept ready."""
    store = make(policy)
    lane = store.lane()
    rest(store)
    before = store.statistics().segment_bytes
    for slot in range(0, DEFAULT_SLOTS - 100, 100):
        write(lane, slot, mixed(100, slot))
    lane.discard(0, lane.size)
    rest(store)
    statistics = store.statistics()
    assert statistics.stored_pages == statistics.zero_pages == 0
    assert statistics.orig_data_size == statistics.compr_data_size == statistics.huge_pages == 0
    assert statistics.clusters_used == statistics.table_bytes == 0
    assert abs(statistics.segment_bytes - before) <= SEGMENT_SIZE


def test_memory_comes_back_when_the_slots_are_freed_one_by_one(make: StoreMaker) -> None:
    store = make(Policy(reserve=0))
    lane = store.lane()
    write(lane, 0, mixed(DEFAULT_SLOTS, 3))
    for slot in range(0, DEFAULT_SLOTS, 2):
        lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    for slot in range(1, DEFAULT_SLOTS, 2):
        lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
    rest(store)
    statistics = store.statistics()
    assert statistics.stored_pages == statistics.zero_pages == statistics.table_bytes == 0
    assert statistics.segment_bytes <= SEGMENT_SIZE


def test_a_discard_of_the_whole_new_device_allocates_nothing(make: StoreMaker) -> None:
    """TABLE-HOLE: swapon discards the whole device first."""
    store = make(slots=1 << 22)
    lane = store.lane()
    lane.discard(0, lane.size)
    assert store.statistics().mem_used_total == NEW


def test_reading_the_whole_new_device_allocates_nothing(make: StoreMaker) -> None:
    """TABLE-HOLE"""
    store = make()
    lane = store.lane()
    assert content(lane, 0, lane.size) == bytes(lane.size)
    assert store.statistics().mem_used_total == NEW


def test_zeros_written_over_a_cluster_free_its_table_page(store: Store) -> None:
    """TABLE-HOLE: emptied by an overwrite as well as by a discard."""
    lane = store.lane()
    write(lane, CLUSTER_SLOTS, text(16))
    assert data_pages(state_of(store).table) == {1}
    write(lane, CLUSTER_SLOTS, zero(16))
    assert data_pages(state_of(store).table) == set()


def test_overwriting_forever_needs_no_more_than_a_few_segments(make: StoreMaker) -> None:
    """LOG-REUSE: what died is written over, not written beside."""
    store = make(Policy(reserve=0), segments=3 + KEPT)
    lane = store.lane()
    for generation in range(40):
        write(lane, 0, noise(100, generation))
    assert content(lane, 0, 100 * PAGE_SIZE) == noise(100, 39)
    assert store.statistics().segment_bytes <= 3 * SEGMENT_SIZE


# --- Sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [0, 3, 32])
def test_units_of_other_sizes_are_refused(pages: int) -> None:
    with pytest.raises(AssertionError):
        Policy(unit_pages=pages)


def test_the_segments_for_the_largest_device_have_numbers_that_fit_an_entry() -> None:
    """Or the number of the last would run over into the entry's kind."""
    most = segments_for(Geometry(MAX_DEVICE_SIZE), lanes=64)
    assert most <= SEGMENT_MASK + 1


@pytest.mark.parametrize("slots", [1, 255, 256, 5000])
def test_the_segments_for_a_device_hold_all_its_pages_uncompressed(
    make: StoreMaker, slots: int
) -> None:
    """Written in order, by as many lanes as were asked for."""
    geometry = Geometry(slots * PAGE_SIZE)
    store = make(Policy(codec="stored"), slots=slots, segments=segments_for(geometry, 2))
    lanes = [store.lane(), store.lane()]
    for slot in range(slots):
        write(lanes[slot % 2], slot, noise(1, slot % 200))
    assert store.statistics().stored_pages == slots
