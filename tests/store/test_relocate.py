"""Moving pages in the log: what they are stays, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from model.audit import audit
from model.moves import (
    EVERYTHING,
    MOVES,
    HookedDisk,
    copy_at,
    discard,
    entries_at,
    halves,
    names,
    new_clock,
    places,
    put,
    put_on_disk,
    relocator_of,
    seal,
    sealed_segments,
    segments_of,
    twins,
    unit_at,
    without_room,
)
from model.pages import filled, noise, text
from model.sealed import unit_on_disk
from model.stores import StoreMaker, content

from vswap.codec import STORED, ZSTD, Stored
from vswap.errors import CorruptError, FullError
from vswap.geometry import PAGE_SIZE
from vswap.store import Lane, Policy, Selection, Store
from vswap.store.drain import Drain
from vswap.store.entry import (
    COLD,
    EMPTY,
    HUGE,
    KIND_BACKING,
    LOADED,
    SHARE_MAX,
    extent_of,
    index_of,
    segment_of,
    share_of,
)
from vswap.store.parts import entries_of
from vswap.store.unit import HEADER, unit_length

SIXTEEN = Policy(codec="zstd-fast", unit_pages=16)


def codec_at(store: Store, slot: int) -> int:
    """The number of the codec that the slot's unit is compressed by."""
    head, _ = HEADER.unpack_from(store._parts.memory, unit_at(store, slot).position)
    number: int = head >> 56
    return number


# --- Copying ----------------------------------------------------------------------------


def test_a_copied_unit_is_the_same_bytes_elsewhere(store: Store, lane: Lane) -> None:
    """MOVE-SAME"""
    put(lane, 0, text(4))
    before, unit = entries_at(store, 0, 4), unit_at(store, 0)
    there = bytes(store._parts.memory[unit.position : unit.position + unit.size])
    assert copy_at(store, 0, before) == 4
    moved = unit_at(store, 0)
    assert moved.position != unit.position
    assert bytes(store._parts.memory[moved.position : moved.position + moved.size]) == there
    after = entries_at(store, 0, 4)
    assert [index_of(entry) for entry in after] == [0, 1, 2, 3]
    assert [share_of(entry) for entry in after] == [share_of(entry) for entry in before]
    assert content(lane, 0, 4 * PAGE_SIZE) == text(4)


@pytest.mark.parametrize("live", [1, 2, 3, 7, 9, 15])
def test_shares_of_a_copy_are_at_most_the_unit(make: StoreMaker, live: int) -> None:
    """LOG-LIVE: what is left shares in all of it, but for what cannot be divided."""
    store = make(SIXTEEN)
    lane = store.lane()
    put(lane, 0, noise() * 16)
    discard(lane, *range(live, 16))
    size = unit_at(store, 0).size
    assert copy_at(store, 0, entries_at(store, 0, 16)) == live
    shares = sum(share_of(entry) for entry in entries_at(store, 0, live))
    assert size - 4 * live < shares <= size
    assert store._parts.log.ledger.live_bytes == shares


def test_only_slots_that_still_name_the_unit_get_the_copy(store: Store, lane: Lane) -> None:
    """MOVE-SAME"""
    put(lane, 0, text(4))
    before = entries_at(store, 0, 4)
    put(lane, 1, noise())
    put(lane, 2, bytes(PAGE_SIZE))
    new = entries_at(store, 1, 1)
    assert copy_at(store, 0, before) == 2
    assert entries_at(store, 1, 1) == new
    assert content(lane, 0, 4 * PAGE_SIZE) == (
        text(4)[:PAGE_SIZE] + noise() + bytes(PAGE_SIZE) + text(4)[3 * PAGE_SIZE :]
    )


# --- Mending ----------------------------------------------------------------------------


def test_what_is_left_of_a_unit_is_compressed_without_the_dead(store: Store, lane: Lane) -> None:
    """Run by run, as densely as if it had been written so."""
    put(lane, 0, halves(1, 4))
    discard(lane, 1)
    unit, entries = unit_at(store, 0), entries_at(store, 0, 4)
    assert relocator_of(store).mend(unit, entries) == 3
    one, two = unit_at(store, 0), unit_at(store, 2)
    assert [(one.slot, one.pages), (two.slot, two.pages)] == [(0, 1), (2, 2)]
    assert one.size + two.size == store._parts.log.ledger.live_bytes < unit.size
    assert not entries_at(store, 0, 1)[0] & COLD
    assert content(lane, PAGE_SIZE, 3 * PAGE_SIZE) == bytes(PAGE_SIZE) + halves(1, 4)[-8192:]


@pytest.mark.parametrize(("data", "codec"), [(noise(4), STORED), (text(4), ZSTD)])
def test_a_mended_unit_stays_what_it_was(store: Store, lane: Lane, data: bytes, codec: int) -> None:
    """Stored units stored, cold units cold."""
    put(lane, 0, data)
    relocator = relocator_of(store)
    relocator.down(0, entries_at(store, 0, 4))
    discard(lane, 0, 3)
    flags = [COLD | HUGE if codec == STORED else COLD] * 2
    assert relocator.mend(unit_at(store, 1), entries_at(store, 0, 4)) == 2
    assert [entry & (COLD | HUGE) for entry in entries_at(store, 1, 2)] == flags
    assert codec_at(store, 1) == codec
    assert content(lane, PAGE_SIZE, 2 * PAGE_SIZE) == data[PAGE_SIZE : 3 * PAGE_SIZE]


def test_a_unit_that_would_grow_is_copied(make: StoreMaker) -> None:
    """No cleaning may need more room than it frees."""
    store = make(SIXTEEN)
    lane = store.lane()
    entries = twins(store, lane)
    unit = unit_at(store, 0)
    assert relocator_of(store).mend(unit, entries) == 8
    after = entries_at(store, 0, 16)
    assert len(names(after)) == 1
    assert unit_at(store, 0).size == unit.size
    assert unit.size - 4 * 8 < sum(map(share_of, after)) <= unit.size
    assert content(lane, 0, 16 * PAGE_SIZE) == (noise() + bytes(PAGE_SIZE)) * 8


# --- Moving down ------------------------------------------------------------------------


def test_pages_of_several_units_become_one_cold_unit(store: Store, lane: Lane) -> None:
    """Whatever segments they were in."""
    data = text(16, seed=3)
    for at in range(0, 16, 4):
        put(lane, at, data[at * PAGE_SIZE :][: 4 * PAGE_SIZE])
        seal(lane)
    assert len(segments_of(store, 0, 16)) == 4
    before = store._parts.log.ledger.live_bytes
    assert relocator_of(store).down(0, entries_at(store, 0, 16)) == 16
    after = entries_at(store, 0, 16)
    assert len(names(after)) == 1
    assert [index_of(entry) for entry in after] == list(range(16))
    assert all(entry & COLD for entry in after)
    assert store._parts.log.ledger.live_bytes < before
    assert sealed_segments(store) == []
    assert content(lane, 0, 16 * PAGE_SIZE) == data


@pytest.mark.parametrize("kind", ["incompressible", "no gain"])
def test_pages_that_get_no_smaller_are_marked_where_they_are(
    store: Store, lane: Lane, kind: str
) -> None:
    """And are not tried again."""
    data = noise(8) if kind == "incompressible" else text(8)
    put(lane, 0, data)
    before = entries_at(store, 0, 8)
    relocator = relocator_of(store)
    relocator.cold = Stored()
    assert relocator.down(0, before) == 0
    after = entries_at(store, 0, 8)
    assert after == [entry | COLD for entry in before]
    for huge in (False, True):
        mask = Selection(huge=huge).mask(np.array(after, np.uint64), store._parts.log.born, 0)
        assert not mask.any()
    assert content(lane, 0, 8 * PAGE_SIZE) == data


# --- Units that cannot be read ----------------------------------------------------------


def damage(store: Store, slot: int) -> None:
    unit = unit_at(store, slot)
    store._parts.memory[unit.position + HEADER.size] ^= 1


def assert_unreadable(lane: Lane, *slots: int) -> None:
    for slot in slots:
        with pytest.raises(CorruptError):
            lane.read(slot * PAGE_SIZE, PAGE_SIZE)


@pytest.mark.parametrize("dead", [(), (0,), (1, 3)])
def test_an_undecodable_unit_is_moved_as_it_is(
    store: Store, lane: Lane, dead: tuple[int, ...]
) -> None:
    """MOVE-KEEPS: its pages stay EIO, and the segment it was in is free."""
    put(lane, 0, text(4))
    seal(lane)
    discard(lane, *dead)
    damage(store, 0 if 0 not in dead else 1)
    alive = [slot for slot in range(4) if slot not in dead]
    relocator = relocator_of(store)
    assert relocator.mend(unit_at(store, alive[0]), entries_at(store, 0, 4)) == len(alive)
    assert sealed_segments(store) == []
    assert_unreadable(lane, *alive)
    put(lane, 0, text(4))
    assert content(lane, 0, 4 * PAGE_SIZE) == text(4)


def test_undecodable_pages_are_not_moved_down_again_and_again(store: Store, lane: Lane) -> None:
    """MOVE-KEEPS: they are marked, and those beside them with them."""
    put(lane, 0, text(8))
    damage(store, 0)
    before = entries_at(store, 0, 8)
    assert relocator_of(store).down(0, before) == 0
    assert entries_at(store, 0, 8) == [entry | COLD for entry in before]
    assert_unreadable(lane, 0, 1, 2, 3)
    assert content(lane, 4 * PAGE_SIZE, 4 * PAGE_SIZE) == text(8)[4 * PAGE_SIZE :]
    put(lane, 0, text(4))


# --- Down to the disk, and up from it ---------------------------------------------------


def overwrite(lane: Lane, slot: int) -> None:
    put(lane, slot, noise(1, 50 + slot))


def fill(lane: Lane, slot: int) -> None:
    put(lane, slot, filled())


def make_zero(lane: Lane, slot: int) -> None:
    put(lane, slot, bytes(PAGE_SIZE))


def read(lane: Lane, slot: int) -> None:
    content(lane, slot * PAGE_SIZE, PAGE_SIZE)


CHANGES: dict[str, Callable[[Lane, int], None]] = {
    "o": overwrite,
    "w": fill,
    "z": make_zero,
    "x": discard,
    "r": read,
}
"""What may happen to a page on its way; after `r`, or nothing (-), it still is what it was."""

MEANWHILE = [
    "----------------",
    "rrrrrrrrrrrrrrrr",
    "oooooooooooooooo",
    "xxxxxxxxxxxxxxxx",
    "wwwwwwwwwwwwwwww",
    "zzzzzzzzzzzzzzzz",
    "o--x-w---zr-oooo",
    "oxwzoxwzoxwz-r--",
    "-ooooooooooooooo",
    "xxxxxxxxxxxxxxx-",
]


def change(lane: Lane, slot: int, meanwhile: str) -> None:
    for at, what in enumerate(meanwhile, slot):
        if what != "-":
            CHANGES[what](lane, at)


def after(before: bytes, slot: int, meanwhile: str) -> bytes:
    """What is there when these changes have been made."""
    pages = {"w": filled(), "z": bytes(PAGE_SIZE), "x": bytes(PAGE_SIZE)}
    found = []
    for at, what in enumerate(meanwhile):
        kept = before[at * PAGE_SIZE :][:PAGE_SIZE]
        found.append(noise(1, 50 + slot + at) if what == "o" else pages.get(what, kept))
    return b"".join(found)


def where(meanwhile: str, moved: str) -> str:
    """The places of pages that have moved, or have been changed before they could."""
    return meanwhile.translate(str.maketrans("-rozx", f"{moved}{moved}m.."))


@pytest.mark.parametrize("unit_pages", [1, 4, 16])
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_pages_that_changed_on_their_way_to_the_disk_do_not_go(
    make: StoreMaker, meanwhile: str, unit_pages: int
) -> None:
    """MOVE-SAME, BACK-COPY: and what was written for them in vain is dead there."""
    store = make(Policy(unit_pages=unit_pages))
    lane = store.lane()
    store.backing.attach(HookedDisk(hook=lambda: change(lane, 4, meanwhile)))
    data = halves(1, 24)
    put(lane, 0, data)
    seal(lane)
    stay = meanwhile.count("-") + meanwhile.count("r")
    assert store.backing.write_back(EVERYTHING) == 8 + stay
    assert places(store, 0, 24) == f"dddd{where(meanwhile, 'd')}dddd"
    statistics = store.statistics()
    assert statistics.backing_pages == 8 + stay
    assert statistics.stored_pages == meanwhile.count("o")
    (segment,) = {segment_of(entry) for entry in entries_at(store, 0, 4)}
    shares = sum(share_of(one) for one in entries_at(store, 0, 24) if one >> 62 == KIND_BACKING)
    written = store._parts.disk.log.used_of(segment)
    assert statistics.backing_data_size == shares <= written
    assert statistics.backing_dead_bytes == written - shares
    flags = [entry & LOADED for entry in entries_at(store, 4, 16)]
    assert flags == [LOADED if what == "r" else 0 for what in meanwhile]
    new = after(data[4 * PAGE_SIZE : 20 * PAGE_SIZE], 4, meanwhile)
    right = data[: 4 * PAGE_SIZE] + new + data[20 * PAGE_SIZE :]
    assert content(lane, 0, 24 * PAGE_SIZE) == right
    assert audit(store) == []


@pytest.mark.parametrize("unit_pages", [1, 4, 16])
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_pages_that_changed_before_they_came_up_stay_what_they_are(
    make: StoreMaker, meanwhile: str, unit_pages: int
) -> None:
    """MOVE-SAME: the copies of those that still were there are named, and of no others."""
    store = make(Policy(unit_pages=unit_pages))
    lane = store.lane()
    data = halves(1, 24)
    put_on_disk(store, lane, 0, data)
    drain = Drain(store._parts, relocator_of(store)).pieces()
    assert next(drain) == 0  # now the pages are found, and not yet read
    change(lane, 4, meanwhile)
    stay = meanwhile.count("-") + meanwhile.count("r")
    assert sum(drain) == 8 + stay
    assert places(store, 0, 24) == f"mmmm{where(meanwhile, 'm')}mmmm"
    statistics = store.statistics()
    assert statistics.backing_pages == statistics.backing_dead_bytes == 0
    assert statistics.backing_segments_free == 8
    assert statistics.stored_pages == 8 + stay + meanwhile.count("o")
    new = after(data[4 * PAGE_SIZE : 20 * PAGE_SIZE], 4, meanwhile)
    right = data[: 4 * PAGE_SIZE] + new + data[20 * PAGE_SIZE :]
    assert content(lane, 0, 24 * PAGE_SIZE) == right
    assert audit(store) == []


@pytest.mark.parametrize("dead", [(), (0,), (15,), (3, 4, 9), tuple(range(15))])
def test_a_unit_of_which_a_part_lives_is_moved_up_as_it_is(
    make: StoreMaker, dead: tuple[int, ...]
) -> None:
    """LOG-LIVE: what is left of it shares in all of it, as after a copy."""
    store = make(SIXTEEN)
    lane = store.lane()
    put_on_disk(store, lane, 0, halves(1, 16))
    discard(lane, *dead)
    live = 16 - len(dead)
    (extent,) = {extent_of(entry) for entry in entries_at(store, 0, 16) if entry}
    assert sum(Drain(store._parts, relocator_of(store)).pieces()) == live
    unit = unit_at(store, next(slot for slot in range(16) if slot not in dead))
    assert (unit.slot, unit.pages) == (0, 16)
    assert unit.size <= extent.size  # the tag does not come back, and the padding may be less
    share = min(unit.size // live & -4, SHARE_MAX)
    assert store._parts.log.ledger.live_bytes == share * live <= unit.size
    assert store.statistics().backing_pages == 0


def test_entries_of_the_disk_are_moved_up_among_those_that_were_withdrawn(
    store: Store, lane: Lane
) -> None:
    """DISK-LIVE, LOG-LIVE: in one call, and an empty old entry is nobody's."""
    put_on_disk(store, lane, 0, halves(1, 16))
    put(lane, 1, noise())
    parts = store._parts
    old = entries_at(store, 0, 4)
    unit = unit_on_disk(store, extent_of(old[0]))
    assert unit is not None
    payload = unit[HEADER.size : unit_length(memoryview(unit), 0)]
    appender = relocator_of(store)._appender
    made = appender.append(0, 4, codec=unit[7], payload=payload)
    appender.settle()
    with parts.locks[0]:
        moved = parts.move(0, [old[0], EMPTY, EMPTY, old[3]], entries_of(made, 4))
    assert moved == 2
    assert places(store, 0, 16) == "mmdm" + "d" * 12
    assert store.statistics().backing_pages == 13
    assert store.statistics().stored_pages == 3
    right = bytearray(halves(1, 16))
    right[PAGE_SIZE : 2 * PAGE_SIZE] = noise()
    assert content(lane, 0, 16 * PAGE_SIZE) == right
    assert audit(store) == []


# --- No room, and ages ------------------------------------------------------------------


def test_without_room_nothing_is_lost(
    store: Store, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lane, 0, halves(1, 4))
    discard(lane, 3)
    without_room(monkeypatch, store)
    before, statistics = entries_at(store, 0, 4), store._parts.log.statistics()
    for move in MOVES:
        with pytest.raises(FullError):
            move(store)
        assert entries_at(store, 0, 4) == before
        assert store._parts.log.statistics() == statistics
    assert content(lane, 0, 4 * PAGE_SIZE) == halves(1, 3) + bytes(PAGE_SIZE)


@pytest.mark.parametrize("down", [False, True])
def test_a_moved_page_stays_as_old_as_it_was(
    store: Store, lane: Lane, monkeypatch: pytest.MonkeyPatch, down: bool
) -> None:
    """LOG-AGE: the segment it comes to is as old as the youngest in it."""
    clock = new_clock(monkeypatch)
    for slot in (0, 4):
        clock.advance(100)
        put(lane, slot, text(4))
        seal(lane)
    clock.advance(100)
    relocator = relocator_of(store)
    for slot in (4, 0):
        entries = entries_at(store, slot, 4)
        assert (relocator.down(slot, entries) if down else copy_at(store, slot, entries)) == 4
    relocator._appender._roll()
    (segment,) = segments_of(store, 0, 8)
    assert store._parts.log.born[segment] == 1200


def test_a_page_from_an_open_segment_is_of_now(
    store: Store, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-AGE: nobody knows when it was written; not before that segment is sealed."""
    clock = new_clock(monkeypatch)
    put(lane, 0, text(4))
    clock.advance(7)
    relocator = relocator_of(store)
    relocator.down(0, entries_at(store, 0, 4))
    relocator._appender._roll()
    (segment,) = segments_of(store, 0, 4)
    assert store._parts.log.born[segment] == 1007
