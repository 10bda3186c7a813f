"""The store's background work, its commands, and what can be asked of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from model.pages import filled, noise, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content, state_of

from vswap.errors import UserError
from vswap.geometry import (
    CLUSTER_SLOTS,
    MAX_UNIT_PAGES,
    PAGE_SIZE,
)
from vswap.store import Lane, Policy, Presence, Selection, Store
from vswap.store.entry import COLD, position_of, segment_of

NEW = 2 * PAGE_SIZE
"""What a new store costs: its header, its key, and a look at whether it has a dictionary."""


def write(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


# --- Background work ----------------------------------------------------------------------


def worn(make: StoreMaker, policy: Policy = Policy("lz4", 4, reserve=0)) -> tuple[Store, Lane]:  # noqa: B008
    """A store of 1000 pages, three in four of each of them written over one by one."""
    store = make(policy)
    lane = store.lane()
    write(lane, 0, text(1000, seed=1))
    for slot in range(1000):
        if slot % 4:
            write(lane, slot, text(1, seed=slot))
    return store, lane


def assert_worn(lane: Lane) -> None:
    first = text(1000, seed=1)
    for slot in range(1000):
        expected = text(1, seed=slot) if slot % 4 else first[slot * PAGE_SIZE :][:PAGE_SIZE]
        assert content(lane, slot * PAGE_SIZE, PAGE_SIZE) == expected


def test_compact_wins_back_dead_space_and_keeps_every_page(make: StoreMaker) -> None:
    store, lane = worn(make)
    before = store.statistics()
    assert store.compact() == store.statistics().segments_cleaned > 0
    after = store.statistics()
    assert after.dead_bytes < before.dead_bytes // 4
    assert after.segment_bytes < before.segment_bytes
    assert after.pages_compacted > 0
    assert after.stored_pages == before.stored_pages
    assert_worn(lane)


def test_compact_of_what_is_compact_does_nothing(make: StoreMaker) -> None:
    store, _ = worn(make)
    store.compact()
    before = store.statistics()
    assert store.compact() == 0
    assert store.statistics() == before


def test_compact_of_an_empty_store_does_nothing(store: Store) -> None:
    assert store.compact() == 0


def test_recompress_moves_what_is_selected_down(make: StoreMaker) -> None:
    store, lane = worn(make)
    before = store.statistics()
    moved = store.recompress(Selection())
    after = store.statistics()
    assert moved == after.pages_recompressed == after.cold_pages == 1000
    assert after.compr_data_size < before.compr_data_size * 0.9
    assert_worn(lane)


def test_recompress_again_finds_nothing_to_do(make: StoreMaker) -> None:
    """What has been through the cold codec does not go again."""
    store, _ = worn(make)
    store.recompress(Selection())
    assert store.recompress(Selection()) == 0


def test_recompress_moves_about_as_many_pages_as_it_may(make: StoreMaker) -> None:
    store, _ = worn(make)
    assert 100 <= store.recompress(Selection(), max_pages=100) < 100 + MAX_UNIT_PAGES
    assert store.recompress(Selection(), max_pages=0) == 0


def test_recompress_of_idle_pages_leaves_those_that_were_read(make: StoreMaker) -> None:
    store, lane = worn(make)
    assert store.mark_idle() == 1000
    for slot in range(0, 1000, 2):
        lane.read(slot * PAGE_SIZE, PAGE_SIZE)
    write(lane, 0, text(16, seed=77))
    store.recompress(Selection(idle=True))
    loaded = [slot for slot in range(0, 16) if store._parts.table.get(slot) & COLD]
    assert loaded == []
    assert store.statistics().cold_pages >= 450


def test_recompress_of_huge_pages_marks_those_that_stay_huge(make: StoreMaker) -> None:
    store = make()
    lane = store.lane()
    write(lane, 0, noise(32) + text(32))
    assert store.recompress(Selection(huge=True)) == 0
    assert (store.statistics().cold_pages, store.statistics().huge_pages) == (32, 32)
    assert content(lane, 0, 64 * PAGE_SIZE) == noise(32) + text(32)


def test_mark_idle_by_age_leaves_what_is_young(make: StoreMaker) -> None:
    """And what is in an open segment, which is of no age."""
    store, _ = worn(make)
    born = store._log.born
    sealed = store._log.sealed().segments
    born[sealed[: len(sealed) // 2]] -= 100
    entries = np.concatenate([store._parts.table.page(cluster) for cluster in range(2)])
    old = np.isin([segment_of(entry) for entry in entries.tolist()], sealed[: len(sealed) // 2])
    assert store.mark_idle(50) == np.count_nonzero(old & (entries != 0)) > 0
    assert store.mark_idle(1000) == 0


def test_steps_clean_and_move_down_until_all_is_at_rest(make: StoreMaker) -> None:
    store, lane = worn(make)
    for slot in range(0, 1000, 8):
        lane.read(slot * PAGE_SIZE, PAGE_SIZE)
    store._upkeep._busy = False
    store._upkeep._seen = store._requests(), math.inf
    pauses = [store.step() for _ in range(2000)]
    assert 0.0 in pauses
    assert pauses[-1] > 0
    statistics = store.statistics()
    assert statistics.pages_recompressed > 0
    assert statistics.segments_cleaned > 0
    assert_worn(lane)


def test_steps_of_an_empty_store_rest(store: Store) -> None:
    assert [store.step() > 0 for _ in range(3)] == [True] * 3


def test_the_log_is_at_rest_when_the_store_is(make: StoreMaker) -> None:
    """A step that finds nothing to do, and nobody waiting, gives back what is not needed."""
    store = make(Policy(reserve=8))
    store.maintain()
    assert store.statistics().segments_ready == 8
    store._upkeep._busy = False
    store._upkeep._seen = 0, math.inf
    for _ in range(4):  # it looks for what to move down first
        store.step()
    assert store.statistics().segments_ready == 2


# --- Presence and check -------------------------------------------------------------------


def test_presence_of_a_range_over_clusters(make: StoreMaker) -> None:
    store = make()
    lane = store.lane()
    write(lane, 10, text(2 * CLUSTER_SLOTS))
    slots = DEFAULT_SLOTS
    assert store.presence(0, slots) == (Presence.MIXED, 10)
    assert store.presence(10, 2 * CLUSTER_SLOTS) == (Presence.ALL, 2 * CLUSTER_SLOTS)
    assert store.presence(10, slots - 10) == (Presence.MIXED, 2 * CLUSTER_SLOTS)
    assert store.presence(slots - 50, 50) == (Presence.NONE, 50)
    lane.discard(CLUSTER_SLOTS * PAGE_SIZE, PAGE_SIZE)
    assert store.presence(20, slots - 20) == (Presence.MIXED, CLUSTER_SLOTS - 20)
    assert store.presence(CLUSTER_SLOTS, CLUSTER_SLOTS) == (Presence.MIXED, 1)


def test_pages_of_zeros_are_not_present_and_pages_of_one_word_are(store: Store) -> None:
    write(store.lane(), 0, zero(4) + filled(4) + text(4))
    assert store.presence(0, 4) == (Presence.NONE, 4)
    assert store.presence(4, 8) == (Presence.ALL, 8)


@pytest.mark.parametrize(
    ("slot", "count"), [(-1, 2), (0, 0), (0, -1), (DEFAULT_SLOTS, 1), (0, DEFAULT_SLOTS + 1)]
)
def test_presence_of_what_is_not_on_the_device_is_a_mistake(
    store: Store, slot: int, count: int
) -> None:
    with pytest.raises(UserError, match="the device has no"):
        store.presence(slot, count)


def test_check_looks_at_every_page_and_every_unit(store: Store) -> None:
    write(store.lane(), 0, text(8) + zero(4) + filled(4) + noise(4))
    findings = store.check()
    assert findings.problems == ()
    assert (findings.pages, findings.units) == (16, 3)
    assert findings.stopped >= 0


def test_check_finds_a_page_that_cannot_be_read(store: Store) -> None:
    write(store.lane(), 0, text(8))
    at = position_of(store._parts.table.get(4)) + 20
    state_of(store).segments.view[at] ^= 1
    problems = store.check().problems
    state_of(store).segments.view[at] ^= 1
    assert problems
    assert all(problem.startswith("UNIT: slot ") for problem in problems)


def test_check_of_an_empty_store_allocates_nothing(store: Store) -> None:
    """TABLE-HOLE"""
    assert store.check().problems == ()
    assert store.statistics().mem_used_total == NEW
