"""Moving pages that others overwrite, discard, read or mark in the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from model.moves import (
    MOVES,
    Hooked,
    discard,
    entries_at,
    halves,
    put,
    relocator_of,
    seal,
    segments_of,
    twins,
    unit_at,
)
from model.pages import noise, text
from model.stores import StoreMaker, content

from vswap.codec import Codec
from vswap.geometry import PAGE_SIZE
from vswap.store import Lane, Policy, Store
from vswap.store.entry import COLD, EMPTY, IDLE, LOADED, OF_PAGE, position_of, share_of
from vswap.store.unit import pack_payload, unit_size

SIXTEEN = Policy(codec="zstd-fast", unit_pages=16)

# --- Overwritten ------------------------------------------------------------------------


def test_a_copy_in_place_of_mending_leaves_overwritten_pages_alone(make: StoreMaker) -> None:
    """MOVE-SAME: what was overwritten while it was tried to mend."""
    store = make(SIXTEEN)
    lane = store.lane()
    entries = twins(store, lane)
    relocator = relocator_of(store)
    relocator._hot = Hooked(relocator._hot, lambda: put(lane, 4, text(2)), before=7)
    assert relocator.mend(unit_at(store, 0), entries) == 7
    right = (noise() + bytes(PAGE_SIZE)) * 8
    right = right[: 4 * PAGE_SIZE] + text(2) + right[6 * PAGE_SIZE :]
    assert content(lane, 0, 16 * PAGE_SIZE) == right


def test_a_mended_run_that_was_overwritten_is_left_for_another_time(
    store: Store, lane: Lane
) -> None:
    """MOVE-SAME"""
    put(lane, 0, text(4))
    discard(lane, 1)
    unit, entries = unit_at(store, 0), entries_at(store, 0, 4)
    put(lane, 3, noise())
    right, now = content(lane, 0, 4 * PAGE_SIZE), entries_at(store, 0, 4)
    assert relocator_of(store).mend(unit, entries) == 0
    assert entries_at(store, 0, 4) == now
    assert content(lane, 0, 4 * PAGE_SIZE) == right


def test_a_page_overwritten_meanwhile_is_left_alone(store: Store, lane: Lane) -> None:
    """MOVE-SAME: between being loaded and being published."""
    data = text(8)
    put(lane, 0, data)
    relocator = relocator_of(store)
    relocator.cold = Hooked(relocator.cold, lambda: put(lane, 5, noise()))
    assert relocator.down(0, entries_at(store, 0, 8)) == 7
    assert [bool(entry & COLD) for entry in entries_at(store, 0, 8)] == [True] * 5 + [False] + [
        True
    ] * 2
    right = data[: 5 * PAGE_SIZE] + noise() + data[6 * PAGE_SIZE :]
    assert content(lane, 0, 8 * PAGE_SIZE) == right


def test_a_page_discarded_meanwhile_does_not_come_back(store: Store, lane: Lane) -> None:
    """MOVE-SAME"""
    put(lane, 0, text(8))
    relocator = relocator_of(store)
    relocator.cold = Hooked(relocator.cold, lambda: discard(lane, *range(8)))
    assert relocator.down(0, entries_at(store, 0, 8)) == 0
    assert entries_at(store, 0, 8) == [EMPTY] * 8
    assert store._parts.log.ledger.live_bytes == 0


def test_a_page_overwritten_before_it_is_loaded_stops_the_move(store: Store, lane: Lane) -> None:
    put(lane, 0, text(8))
    entries = entries_at(store, 0, 8)
    put(lane, 7, noise())
    now = entries_at(store, 0, 8)
    assert relocator_of(store).down(0, entries) == 0
    assert entries_at(store, 0, 8) == now


# --- The same place, another unit -------------------------------------------------------


def fill_anew(store: Store, lane: Lane, slot: int, data: bytes) -> None:
    """Free the segment that `slot` lives in, and put `data` there, to the same slots."""
    (segment,) = segments_of(store, slot, 1)
    put(lane, slot, data)
    other = store.lane()
    put(other, slot, data)
    assert segments_of(store, slot, 1) == {segment}


def of_share(codec: Codec, share: int, tries: Iterable[bytes]) -> bytes:
    """The first pages that give themselves this share of a unit."""
    for pages in tries:
        count = len(pages) // PAGE_SIZE
        if unit_size(len(pack_payload(codec, pages)[1]), count) == count * share:
            return pages
    raise AssertionError("no pages are of that size")


def test_pages_that_look_the_same_are_not_taken_for_those_that_were_read(
    store: Store, lane: Lane
) -> None:
    """MOVE-SAME, LOG-AGE: the entries are equal, and name another filling of the segment."""
    put(lane, 0, halves(2, 4))
    seal(lane)
    put(lane, 4, text(12))
    before = entries_at(store, 0, 16)
    relocator = relocator_of(store)
    new = of_share(relocator._hot, share_of(before[0]), (halves(i, 4) for i in range(3, 99)))
    hook = Hooked(relocator.cold, lambda: fill_anew(store, lane, 0, new))
    relocator.cold = hook
    assert relocator.down(0, before) == 0
    assert hook.calls == 1
    assert entries_at(store, 0, 16) == before
    assert content(lane, 0, 16 * PAGE_SIZE) == new + text(12)


def test_a_unit_that_looks_the_same_is_not_copied_for_the_one_that_was_tried_to_mend(
    make: StoreMaker,
) -> None:
    """MOVE-SAME, LOG-AGE: it is longer than that one was."""
    store = make(SIXTEEN)
    lane = store.lane()
    put(lane, 0, noise() * 4)
    seal(lane)
    discard(lane, 1, 3)
    unit, entries = unit_at(store, 0), entries_at(store, 0, 4)
    relocator = relocator_of(store)
    longer = b"".join(noise(seed=seed) * 4 for seed in range(4))
    tries = (longer[:-at] + noise(seed=9)[:at] for at in range(8, PAGE_SIZE, 8))
    new = of_share(relocator._hot, share_of(entries[0]), tries)
    relocator._hot = Hooked(relocator._hot, lambda: fill_anew(store, lane, 0, new))
    relocator.mend(unit, entries)
    assert content(lane, 0, 16 * PAGE_SIZE) == new


# --- Marks on pages ---------------------------------------------------------------------


@pytest.mark.parametrize("move", MOVES)
def test_marks_survive_a_move(store: Store, lane: Lane, move: Callable[[Store], int]) -> None:
    """They are of the page: one is loaded, one idle, one neither."""
    put(lane, 0, halves(1, 4))
    discard(lane, 3)
    store.mark_idle()
    content(lane, 0, PAGE_SIZE)
    table = store._parts.table
    table.replace(2, table.get(2) & ~OF_PAGE)
    before = entries_at(store, 0, 3)
    assert move(store) == 3
    after = entries_at(store, 0, 3)
    assert position_of(after[0]) != position_of(before[0])
    assert [entry & OF_PAGE for entry in after] == [LOADED, IDLE, 0]


def test_marks_set_during_a_move_survive_it(store: Store, lane: Lane) -> None:
    """A page that is read while it is compressed is still the page that was compressed."""
    put(lane, 0, halves(1, 4))
    relocator = relocator_of(store)

    def meanwhile() -> None:
        store.mark_idle()
        content(lane, PAGE_SIZE, PAGE_SIZE)

    relocator.cold = Hooked(relocator.cold, meanwhile)
    assert relocator.down(0, entries_at(store, 0, 4)) == 4
    after = entries_at(store, 0, 4)
    assert [entry & OF_PAGE for entry in after] == [IDLE, LOADED, IDLE, IDLE]
    assert all(entry & COLD for entry in after)
