"""The self audit: each kind of damage has its name, and there are no false alarms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from model.moves import entries_at, places, put, seal, segments_of, unit_at
from model.pages import filled, mixed, noise, text, zero
from model.stores import StoreMaker, content, make_store, state_of
from model.threads import before_each, run_threads

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Selection, Store, audit
from vswap.store.backing import MemoryBacking
from vswap.store.decoder import Decoder
from vswap.store.entry import (
    COLD,
    HUGE,
    KIND_BACKING,
    KIND_SHIFT,
    SEGMENT_OFFSET_SHIFT,
    extent_of,
    pack_fill,
    segment_of,
)
from vswap.store.places import READY
from vswap.store.unit import HEADER

SLOTS = 4 * CLUSTER_SLOTS - 100


def populated(store: Store) -> Lane:
    """A lane of the store, with some of everything written by it.

    Slots 0 to 7 are text, 8 to 15 noise, 16 to 19 one word, 20 to 23 zeros.
    """
    lane = store.lane()
    put(lane, 512, text(64))
    assert store.recompress(Selection(), max_pages=32) == 32
    put(lane, 0, text(8))
    put(lane, 8, noise(8))
    put(lane, 16, filled(4))
    put(lane, 20, zero(4))
    seal(lane)
    put(lane, 600, mixed(64))
    return lane


def test_a_clean_store_has_no_problems(make: StoreMaker) -> None:
    store = make(slots=SLOTS)
    populated(store)
    found = store.check()
    assert found.problems == ()
    statistics = store.statistics()
    assert found.pages == statistics.stored_pages + statistics.fill_pages
    assert 0 < found.units <= statistics.stored_pages


def test_an_empty_store_has_none_either(make: StoreMaker) -> None:
    found = make().check()
    assert (found.problems, found.pages, found.units) == ((), 0, 0)


def test_an_audit_decodes_each_unit_once(make: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(Policy(unit_pages=4))
    put(store.lane(), 0, text(64))
    decoded = []
    before_each(monkeypatch, Decoder, "decode", lambda *_: decoded.append(1))
    assert not store.check().problems
    assert len(decoded) == 16


def test_an_audit_allocates_nothing(make: StoreMaker) -> None:
    """TABLE-HOLE: it does not look where nothing is."""
    store = make(slots=SLOTS)
    populated(store)
    before = store.statistics()
    store.check()
    after = store.statistics()
    assert (after.table_bytes, after.segment_bytes) == (before.table_bytes, before.segment_bytes)
    assert after.zeromap_bytes == before.zeromap_bytes


def test_what_stopped_the_store_is_reported(
    make: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when the last lock was taken to when the copies were made."""
    store = make(slots=SLOTS)
    populated(store)

    class Ticks:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.25
            return self.now

    monkeypatch.setattr(audit, "time", Ticks())
    assert store.check().stopped == 0.25


def test_all_locks_are_free_afterwards(make: StoreMaker) -> None:
    store = make(slots=SLOTS)
    lane = populated(store)
    store.check()
    put(lane, 0, noise(8))
    assert content(lane, 0, 8 * PAGE_SIZE) == noise(8)


# --- Damage -----------------------------------------------------------------------------


def table_count(store: Store) -> None:
    store._parts.table.counts[1] += 1


def table_count_of_an_empty_cluster(store: Store) -> None:
    store._parts.table.counts[2] = 1


def zeromap_count(store: Store) -> None:
    store._parts.zeromap.counts[0] -= 1


def zero_bit_of_a_stored_slot(store: Store) -> None:
    store._parts.zeromap.set(3, 1)


def zero_bit_of_a_filled_slot(store: Store) -> None:
    store._parts.zeromap.set(17, 1)


def entry_beyond_the_end(store: Store) -> None:
    last = 3 * CLUSTER_SLOTS
    table = store._parts.table
    table.exchange(last + CLUSTER_SLOTS - 1, entries_at(store, 0, 1))


def entry_of_no_kind(store: Store) -> None:
    table = store._parts.table
    table.replace(0, table.get(0) & ~(3 << KIND_SHIFT))


def entry_of_another_kind(store: Store) -> None:
    table = store._parts.table
    table.replace(0, table.get(0) & ~(3 << KIND_SHIFT) | KIND_BACKING << KIND_SHIFT)


def entry_to_a_free_segment(store: Store) -> None:
    (segment,) = segments_of(store, 0, 8)
    store._parts.log._places.state[segment] = READY


def entry_to_no_segment(store: Store) -> None:
    store._parts.table.replace(0, entries_at(store, 0, 1)[0] | 0xFFFF << SEGMENT_OFFSET_SHIFT)


def entry_of_another_segment(store: Store) -> None:
    table = store._parts.table
    table.replace(0, table.get(0) ^ 1 << SEGMENT_OFFSET_SHIFT)


def fill_count(store: Store) -> None:
    counts = store._parts.words.count
    counts[np.flatnonzero(counts)[0]] += 1


def fill_count_too_low(store: Store) -> None:
    counts = store._parts.words.count
    counts[np.flatnonzero(counts)[0]] -= 1


def fill_of_another_word(store: Store) -> None:
    store._parts.table.replace(16, pack_fill(77))


def fill_of_no_word(store: Store) -> None:
    store._parts.table.replace(16, pack_fill(1 << 20))


def live_pages(store: Store) -> None:
    store._parts.log.ledger.pages[min(segments_of(store, 0, 8))] += 1


def live_bytes(store: Store) -> None:
    store._parts.log.ledger.bytes[min(segments_of(store, 0, 8))] -= 4


def live_hot(store: Store) -> None:
    store._parts.log.ledger.hot[min(segments_of(store, 0, 8))] -= 1


def total_pages(store: Store) -> None:
    store._parts.log.ledger.live_pages -= 1


def total_bytes(store: Store) -> None:
    store._parts.log.ledger.live_bytes += 4


def total_huge(store: Store) -> None:
    store._parts.log.ledger.huge += 1


def total_cold(store: Store) -> None:
    store._parts.log.ledger.cold += 1


def staged_for_ever(store: Store) -> None:
    store._parts.log.ledger.staged += 1


def share(store: Store) -> None:
    table = store._parts.table
    table.replace(5, table.get(5) + (1 << 5))


def flag_huge(store: Store) -> None:
    table = store._parts.table
    table.replace(5, table.get(5) ^ HUGE)


def flag_cold(store: Store) -> None:
    table = store._parts.table
    table.replace(5, table.get(5) ^ COLD)


def payload(store: Store) -> None:
    store._parts.memory[unit_at(store, 4).position + HEADER.size + 50] ^= 4


def header(store: Store) -> None:
    store._parts.memory[unit_at(store, 4).position + 4] ^= 1


def swap_entries(store: Store, one: int, other: int) -> None:
    table = store._parts.table
    entry = table.get(one)
    table.replace(one, table.get(other))
    table.replace(other, entry)


def swapped_units(store: Store) -> None:
    swap_entries(store, 0, 4)


def swapped_pages(store: Store) -> None:
    swap_entries(store, 4, 5)


def swapped_later_pages(store: Store) -> None:
    swap_entries(store, 5, 6)


DAMAGE: list[tuple[Callable[[Store], None], str]] = [
    (table_count, "TABLE-COUNT: cluster 1"),
    (table_count_of_an_empty_cluster, "TABLE-COUNT: cluster 2 has 0 entries, its count is 1"),
    (zeromap_count, "ZERO-COUNT: cluster 0 has 4 bits, its count is 3"),
    (zero_bit_of_a_stored_slot, "ONE-STATE: slot 3"),
    (zero_bit_of_a_filled_slot, "ONE-STATE: slot 17"),
    (entry_beyond_the_end, "ONE-STATE: slot 2047"),
    (entry_of_no_kind, "UNIT: 0x"),
    (entry_of_another_kind, "DISK-REUSE: pages live in segment"),
    (entry_to_a_free_segment, "LOG-REUSE: pages live in segment"),
    (entry_to_no_segment, "LOG-REUSE: an entry names segment 65535"),
    (entry_of_another_segment, "LOG-LIVE: segment"),
    (fill_count, "FILL-COUNT"),
    (fill_count_too_low, "FILL-COUNT"),
    (fill_of_another_word, "FILL-COUNT"),
    (fill_of_no_word, "FILL-COUNT"),
    (live_pages, "LOG-LIVE: segment"),
    (live_bytes, "LOG-LIVE: segment"),
    (live_hot, "LOG-LIVE: segment"),
    (total_pages, "LOG-LIVE:"),
    (total_bytes, "LOG-LIVE:"),
    (total_huge, "LOG-LIVE:"),
    (total_cold, "LOG-LIVE:"),
    (staged_for_ever, "LOG-LIVE:"),
    (share, "LOG-LIVE: segment"),
    (flag_huge, "LOG-LIVE:"),
    (flag_cold, "LOG-LIVE:"),
    (payload, "UNIT: slot 4"),
    (header, "UNIT: slot 4"),
    (swapped_units, "UNIT: slot 0"),
    (swapped_pages, "UNIT: slot 4"),
    (swapped_later_pages, "UNIT: slot 5"),
]


@pytest.mark.parametrize(("damage", "name"), DAMAGE, ids=lambda case: getattr(case, "__name__", ""))
def test_damage_is_named(damage: Callable[[Store], None], name: str) -> None:
    store = make_store(Policy(), slots=SLOTS)
    try:
        populated(store)
        assert store.check().problems == ()
        damage(store)
        problems = store.check().problems
        assert any(problem.startswith(name) for problem in problems), problems
    finally:
        state_of(store).close()


def with_a_disk(store: Store) -> None:
    """Let slots 4 to 11 of `populated` be on disk: a unit of text and one of noise."""
    disk = MemoryBacking(4 * SEGMENT_SIZE)
    store.backing.attach(disk)
    assert store.backing.write_back(Selection(huge=None, cold=None, slots=(4, 12))) == 8
    assert places(store, 0, 16) == "mmmmddddddddmmmm"


def disk_segment(store: Store) -> int:
    return segment_of(entries_at(store, 4, 1)[0])


def disk_pages(store: Store) -> None:
    store._parts.disk.log.ledger.pages[disk_segment(store)] += 1


def disk_bytes(store: Store) -> None:
    store._parts.disk.log.ledger.bytes[disk_segment(store)] -= 4


def disk_hot(store: Store) -> None:
    store._parts.disk.log.ledger.hot[disk_segment(store)] -= 1


def disk_total_pages(store: Store) -> None:
    store._parts.disk.log.ledger.live_pages += 1


def disk_total_bytes(store: Store) -> None:
    store._parts.disk.log.ledger.live_bytes -= 4


def disk_total_huge(store: Store) -> None:
    store._parts.disk.log.ledger.huge -= 1


def disk_total_cold(store: Store) -> None:
    store._parts.disk.log.ledger.cold += 1


def disk_staged_for_ever(store: Store) -> None:
    store._parts.disk.log.ledger.staged += 1


def disk_segment_is_free(store: Store) -> None:
    store._parts.disk.log._state[disk_segment(store)] = 0


def entry_to_no_disk_segment(store: Store) -> None:
    store._parts.table.replace(4, entries_at(store, 4, 1)[0] | 0xFFFF << SEGMENT_OFFSET_SHIFT)


def entry_of_another_disk_segment(store: Store) -> None:
    table = store._parts.table
    table.replace(4, table.get(4) ^ 1 << SEGMENT_OFFSET_SHIFT)


def disk_share(store: Store) -> None:
    table = store._parts.table
    table.replace(4, table.get(4) + (1 << 5))


def sequence(store: Store) -> None:
    store._parts.disk.log.sequence[disk_segment(store)] += 1


def sealed_bit(store: Store) -> None:
    backing, extent = store._parts.disk._backing, extent_of(entries_at(store, 4, 1)[0])
    assert isinstance(backing, MemoryBacking)
    backing.data[extent.segment * SEGMENT_SIZE + extent.offset + 20] ^= 1


def backing_is_gone(store: Store) -> None:
    store._parts.disk.let_go()


def zero_bit_of_a_slot_on_disk(store: Store) -> None:
    store._parts.zeromap.set(7, 1)


def swapped_units_on_disk(store: Store) -> None:
    for slot in range(4, 8):
        swap_entries(store, slot, slot + 4)


def unit_in_memory_for_one_on_disk(store: Store) -> None:
    for slot in range(4):
        swap_entries(store, slot, slot + 4)


DISK_DAMAGE: list[tuple[Callable[[Store], None], str]] = [
    (disk_pages, "DISK-LIVE: segment"),
    (disk_bytes, "DISK-LIVE: segment"),
    (disk_hot, "DISK-LIVE: segment"),
    (disk_total_pages, "DISK-LIVE:"),
    (disk_total_bytes, "DISK-LIVE:"),
    (disk_total_huge, "DISK-LIVE:"),
    (disk_total_cold, "DISK-LIVE:"),
    (disk_staged_for_ever, "DISK-LIVE:"),
    (disk_segment_is_free, "DISK-REUSE: pages live in segment"),
    (entry_to_no_disk_segment, "DISK-REUSE: an entry names segment 65535"),
    (entry_of_another_disk_segment, "DISK-LIVE: segment"),
    (disk_share, "DISK-LIVE: segment"),
    (zero_bit_of_a_slot_on_disk, "ONE-STATE: slot 7"),
    (sequence, "UNIT: slot 4: its unit on disk"),
    (sealed_bit, "UNIT: slot 4: its unit on disk"),
    (backing_is_gone, "UNIT: slot 4: its unit on disk"),
    (swapped_units_on_disk, "UNIT: slot 4"),
    (unit_in_memory_for_one_on_disk, "UNIT: slot 0"),
]


@pytest.mark.parametrize(
    ("damage", "name"), DISK_DAMAGE, ids=lambda case: getattr(case, "__name__", "")
)
def test_damage_to_the_disk_is_named(damage: Callable[[Store], None], name: str) -> None:
    store = make_store(Policy(), slots=SLOTS)
    try:
        populated(store)
        with_a_disk(store)
        damage(store)
        problems = store.check().problems
        assert any(problem.startswith(name) for problem in problems), problems
    finally:
        state_of(store).close()


def test_each_unit_on_disk_is_looked_at(make: StoreMaker) -> None:
    """As it was in memory."""
    store = make(slots=SLOTS)
    populated(store)
    before = store.check()
    with_a_disk(store)
    found = store.check()
    assert found.problems == ()
    assert (found.pages, found.units) == (before.pages, before.units)


def test_no_more_is_said_than_anybody_reads() -> None:
    store = make_store(Policy(), slots=SLOTS)
    try:
        lane = store.lane()
        put(lane, 0, b"".join(noise(seed=seed) for seed in range(400)))
        for slot in range(0, 400, 4):
            store._parts.memory[unit_at(store, slot).position + HEADER.size] ^= 1
        store._parts.table.counts[0] -= 1
        assert len(store.check().problems) >= 1
        store._parts.table.counts[0] += 1
        assert len(store.check().problems) == 100
    finally:
        state_of(store).close()


# --- Beside others ----------------------------------------------------------------------


def test_what_is_staged_is_no_problem(make: StoreMaker) -> None:
    """LOG-LIVE, FILL-COUNT: counted, and named by nothing yet."""
    store = make(slots=SLOTS)
    lane = populated(store)
    staged = lane._writer._stage(32, memoryview(text(4) + filled(3, seed=9) + noise(2) + zero()))
    assert store.check().problems == ()
    with store._parts.locks[0]:
        store._parts.put(32, 10, staged)
    assert store.check().problems == ()


def test_no_false_alarm_beside_writers(make: StoreMaker) -> None:
    """Nor beside discards, cleaning and moving down."""
    store = make(slots=SLOTS)
    populated(store)
    found: list[tuple[str, ...]] = []
    ended: list[int] = []

    def write(seed: int) -> None:
        lane = store.lane()
        for turn in range(60):
            slot = (turn * 37 + seed * 512) % 1024
            put(lane, slot, mixed(16, seed=seed * 64 + turn))
            if turn % 5 == 0:
                lane.discard(slot * PAGE_SIZE, 40 * PAGE_SIZE)
        ended.append(seed)

    def keep() -> None:
        while len(ended) < 2:
            store.recompress(Selection(), max_pages=64)
            store.compact()

    def check() -> None:
        while len(ended) < 2:
            found.append(store.check().problems)

    run_threads([lambda: write(0), lambda: write(1), keep, check])
    assert set(found) <= {()}
    assert store.check().problems == ()
