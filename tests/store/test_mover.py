"""Moving down: a hand that goes over the used clusters and takes what was selected."""

from __future__ import annotations

from itertools import islice

import pytest
from model.moves import (
    Hooked,
    discard,
    entries_at,
    halves,
    looks_of,
    mover_of,
    names,
    new_clock,
    put,
    relocator_of,
    seal,
    segments_of,
    unit_at,
)
from model.pages import noise, text
from model.stores import StoreMaker, content

from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import Lane, Policy, Selection, Store
from vswap.store.entry import COLD
from vswap.store.mover import _GLANCES

ALL = Selection()
LOADED = Selection(loaded=True, age=float("inf"))


def sweep(store: Store, selection: Selection = ALL, now: float = 0.0) -> list[int]:
    return list(mover_of(store).sweep(selection, now))


def cold_slots(store: Store, slot: int, count: int) -> list[int]:
    entries = entries_at(store, slot, count)
    return [at for at, entry in enumerate(entries, slot) if entry & COLD]


def written(lane: Lane, *clusters: int) -> None:
    """Sixteen hot pages at the start of each cluster."""
    for cluster in clusters:
        for at in range(0, 16, 4):
            put(lane, (cluster << CLUSTER_SHIFT) + at, text(4, seed=cluster + at))


@pytest.fixture
def looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clusters that were looked at, in order."""
    return looks_of(store, monkeypatch)


# --- The hand ---------------------------------------------------------------------------


def test_one_round_looks_at_each_used_cluster_once(
    make: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(slots=9 * CLUSTER_SLOTS)
    lane = store.lane()
    written(lane, 7, 2, 4)
    lane.write(0, memoryview(bytes(PAGE_SIZE)))  # zero pages have no entries
    seen = looks_of(store, monkeypatch)
    assert sum(sweep(store)) == 48
    assert seen == [2, 4, 7]
    assert sum(sweep(store)) == 0
    assert seen == [2, 4, 7] * 2


def test_of_an_empty_device_there_is_nothing(store: Store, looks: list[int]) -> None:
    assert sweep(store) == []
    assert looks == []


def test_the_hand_goes_on_where_a_sweep_was_abandoned(
    make: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And round to where it began; what is behind it is not looked at first again and again."""
    store = make(slots=9 * CLUSTER_SLOTS)
    lane = store.lane()
    written(lane, 1, 3, 5, 8)
    seen = looks_of(store, monkeypatch)
    assert list(islice(mover_of(store).sweep(ALL, 0.0), 3)) == [16, 16, 16]
    assert seen == [1, 3, 5]
    del seen[:]
    assert sum(sweep(store)) == 16
    assert seen == [5, 8, 1, 3]
    del seen[:]
    sweep(store)
    assert seen == [1, 3, 5, 8]


def test_a_cluster_that_was_freed_meanwhile_is_passed_over(store: Store, lane: Lane) -> None:
    written(lane, 0, 1)
    pieces = mover_of(store).sweep(ALL, 0.0)
    assert next(pieces) == 16
    lane.discard(CLUSTER_SLOTS * PAGE_SIZE, CLUSTER_SLOTS * PAGE_SIZE)
    assert list(pieces) == []


def test_many_clusters_with_nothing_to_move_are_several_pieces(make: StoreMaker) -> None:
    """So that no piece takes long, even if there is nothing to do."""
    clusters = 2 * _GLANCES + 2
    store = make(slots=clusters * CLUSTER_SLOTS)
    lane = store.lane()
    for cluster in range(clusters):
        put(lane, cluster << CLUSTER_SHIFT, text(1))
    assert sweep(store, Selection(idle=True)) == [0, 0]


# --- What is moved together -------------------------------------------------------------


def test_a_group_is_sixteen_slots(store: Store, lane: Lane) -> None:
    """Aligned, so that a large write, or a range that is freed, has its units to itself."""
    for at in range(0, 64, 4):
        put(lane, at, text(4, seed=at))
    before = content(lane, 0, 64 * PAGE_SIZE)
    assert sweep(store) == [16, 16, 16, 16]
    for group in range(0, 64, MAX_UNIT_PAGES):
        unit = unit_at(store, group)
        assert (unit.slot, unit.pages) == (group, MAX_UNIT_PAGES)
    assert content(lane, 0, 64 * PAGE_SIZE) == before


def test_a_gap_ends_a_unit(store: Store, lane: Lane) -> None:
    """Units are of consecutive slots."""
    data = text(16, seed=5)
    for at in range(16):
        put(lane, at, data[at * PAGE_SIZE :][:PAGE_SIZE])
    discard(lane, 5)
    assert sweep(store) == [15]
    assert [unit_at(store, slot).pages for slot in (0, 6)] == [5, 10]
    assert content(lane, 0, 5 * PAGE_SIZE) == data[: 5 * PAGE_SIZE]


def test_a_page_in_a_unit_that_was_not_chosen_parts_those_beside_it(
    store: Store, lane: Lane
) -> None:
    data = text(12, seed=5)
    put(lane, 0, data[: 4 * PAGE_SIZE])
    put(lane, 4, noise(4))  # huge, and left alone
    put(lane, 8, data[4 * PAGE_SIZE : 8 * PAGE_SIZE])
    huge = entries_at(store, 4, 4)
    sweep(store)
    assert entries_at(store, 4, 4) == huge
    assert cold_slots(store, 0, 12) == [0, 1, 2, 3, 8, 9, 10, 11]


def test_units_of_different_segments_become_one(store: Store, lane: Lane) -> None:
    data = text(16, seed=9)
    for at in range(0, 16, 4):
        put(lane, at, data[at * PAGE_SIZE :][: 4 * PAGE_SIZE])
        seal(lane)
    assert len(segments_of(store, 0, 16)) == 4
    assert sweep(store) == [16]
    assert len(names(entries_at(store, 0, 16))) == 1
    assert content(lane, 0, 16 * PAGE_SIZE) == data


def test_a_loaded_page_brings_what_lives_in_its_unit(store: Store, lane: Lane) -> None:
    """Its unit would be half dead otherwise. Units beside it are none of this."""
    data = text(12, seed=2)
    for at in range(0, 12, 4):
        put(lane, at, data[at * PAGE_SIZE :][: 4 * PAGE_SIZE])
    before = entries_at(store, 0, 12)
    content(lane, 5 * PAGE_SIZE, PAGE_SIZE)
    moved = sum(sweep(store, LOADED))
    assert moved in (0, 4)  # alone, they may not get smaller
    assert cold_slots(store, 0, 12) == [4, 5, 6, 7]
    assert entries_at(store, 0, 4) == before[:4]
    assert entries_at(store, 8, 4) == before[8:]


def test_only_the_live_pages_of_a_unit_are_brought(store: Store, lane: Lane) -> None:
    put(lane, 0, halves(1, 4))
    put(lane, 4, halves(2, 4))
    discard(lane, 6)
    put(lane, 5, halves(3))
    for slot in (0, 4):
        content(lane, slot * PAGE_SIZE, PAGE_SIZE)
    sweep(store, LOADED)
    assert cold_slots(store, 0, 8) == [0, 1, 2, 3, 4, 7]
    right = halves(1, 4) + halves(2) + halves(3) + bytes(PAGE_SIZE)
    assert content(lane, 0, 7 * PAGE_SIZE) == right


def test_old_pages_are_told_by_their_segments(
    make: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = new_clock(monkeypatch)
    store = make()
    lane = store.lane()
    written(lane, 0)
    seal(lane)
    clock.advance(30)
    written(lane, 1)
    seal(lane)
    assert sum(sweep(store, Selection(age=20), clock.now)) == 16
    assert len(cold_slots(store, 0, 16)) == 16
    assert cold_slots(store, CLUSTER_SLOTS, 16) == []


@pytest.mark.parametrize("policy", [Policy(), Policy(codec="lz4", unit_pages=1)])
def test_what_was_moved_down_is_not_moved_again(make: StoreMaker, policy: Policy) -> None:
    """Whether it got smaller or not; nothing is even compressed."""
    store = make(policy)
    lane = store.lane()
    written(lane, 0)
    put(lane, 16, noise(8))
    for at in range(24, 40, 4):
        put(lane, at, halves(at, 4))
    sweep(store)
    sweep(store, Selection(huge=True))
    assert cold_slots(store, 0, 40) == list(range(40))
    relocator = relocator_of(store)
    hook = Hooked(relocator.cold)
    relocator.cold = hook
    assert sweep(store) == sweep(store, Selection(huge=True)) == []
    assert hook.calls == 0


def test_a_sweep_beside_writes_keeps_what_they_wrote(store: Store, lane: Lane) -> None:
    """MOVE-SAME"""
    written(lane, 0, 1)
    for at in range(0, 64, 4):
        put(lane, 16 + at, text(4, seed=at))
    for piece, _ in enumerate(mover_of(store).sweep(ALL, 0.0)):
        put(lane, 16 * piece + 20, noise(2, seed=piece))
    for piece in range(5):
        assert content(lane, (16 * piece + 20) * PAGE_SIZE, 2 * PAGE_SIZE) == noise(2, seed=piece)
