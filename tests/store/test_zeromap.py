"""The zeromap, held against a set of slots."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, Geometry
from vswap.store.region import Region
from vswap.store.zeromap import Zeromap

MakeRegion = Callable[[int], Region]

GEOMETRY = Geometry(3 * CLUSTER_SLOTS * PAGE_SIZE)


@pytest.fixture
def zeromap(make_region: MakeRegion) -> Zeromap:
    return Zeromap(make_region(Zeromap.region_size(GEOMETRY)), GEOMETRY)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    """A range of slots that lies in one cluster."""
    slot = draw(st.integers(0, 3 * CLUSTER_SLOTS - 1))
    room = CLUSTER_SLOTS - slot % CLUSTER_SLOTS
    return slot, draw(st.integers(1, room))


def expected_run(model: set[int], slot: int, count: int) -> tuple[bool, int]:
    state = slot in model
    for run in range(count):
        if (slot + run in model) != state:
            return state, run
    return state, count


@effort(150)
@given(st.lists(st.tuples(st.sampled_from(("set", "clear", "run")), ranges()), max_size=30))
def test_it_does_what_a_set_does(steps: list[tuple[str, tuple[int, int]]]) -> None:
    region = Region.create("zeromap", Zeromap.region_size(GEOMETRY))
    zeromap, model = Zeromap(region, GEOMETRY), set[int]()
    try:
        for step, (slot, count) in steps:
            those = set(range(slot, slot + count))
            if step == "set":
                zeromap.set(slot, count)
                model |= those
            elif step == "clear":
                assert zeromap.clear(slot, count) == len(model & those)
                model -= those
            else:
                assert zeromap.run(slot, count) == expected_run(model, slot, count)
        for cluster in range(3):
            first = cluster * CLUSTER_SLOTS
            inside = model & set(range(first, first + CLUSTER_SLOTS))
            assert zeromap.counts[cluster] == len(inside)
    finally:
        region.close()


def test_a_new_one_holds_nothing(zeromap: Zeromap) -> None:
    assert [zeromap.run(cluster * CLUSTER_SLOTS, CLUSTER_SLOTS) for cluster in range(3)] == [
        (False, CLUSTER_SLOTS)
    ] * 3


def test_run_ends_where_the_state_changes(zeromap: Zeromap) -> None:
    zeromap.set(10, 5)
    assert zeromap.run(0, 100) == (False, 10)
    assert zeromap.run(10, 100) == (True, 5)
    assert zeromap.run(12, 100) == (True, 3)
    assert zeromap.run(15, 100) == (False, 100)


def test_run_does_not_look_beyond_its_range(zeromap: Zeromap) -> None:
    zeromap.set(10, 50)
    assert zeromap.run(10, 7) == (True, 7)
    assert zeromap.run(3, 7) == (False, 7)


def test_a_whole_cluster_can_be_one_run(zeromap: Zeromap) -> None:
    zeromap.set(CLUSTER_SLOTS, CLUSTER_SLOTS)
    assert zeromap.run(CLUSTER_SLOTS, CLUSTER_SLOTS) == (True, CLUSTER_SLOTS)


def test_clusters_are_independent(zeromap: Zeromap) -> None:
    zeromap.set(CLUSTER_SLOTS, CLUSTER_SLOTS)
    assert zeromap.run(0, CLUSTER_SLOTS) == (False, CLUSTER_SLOTS)
    assert zeromap.run(2 * CLUSTER_SLOTS, CLUSTER_SLOTS) == (False, CLUSTER_SLOTS)
    assert zeromap.counts.tolist() == [0, CLUSTER_SLOTS, 0]


def test_clear_leaves_the_neighbours(zeromap: Zeromap) -> None:
    zeromap.set(0, CLUSTER_SLOTS)
    assert zeromap.clear(1, CLUSTER_SLOTS - 2) == CLUSTER_SLOTS - 2
    assert zeromap.run(0, CLUSTER_SLOTS) == (True, 1)
    assert zeromap.run(CLUSTER_SLOTS - 1, 1) == (True, 1)


def test_setting_twice_counts_once(zeromap: Zeromap) -> None:
    zeromap.set(5, 3)
    zeromap.set(4, 3)
    assert zeromap.counts[0] == 4


def test_clearing_what_is_not_set_answers_zero(zeromap: Zeromap) -> None:
    zeromap.set(5, 3)
    assert zeromap.clear(8, 100) == 0
    assert zeromap.counts[0] == 3


def test_asking_an_unused_cluster_allocates_nothing(make_region: MakeRegion) -> None:
    region = make_region(Zeromap.region_size(GEOMETRY))
    zeromap = Zeromap(region, GEOMETRY)
    zeromap.run(0, CLUSTER_SLOTS)
    zeromap.clear(0, CLUSTER_SLOTS)
    assert region.allocated() == 0


def test_the_bits_are_in_the_region_slot_by_slot(make_region: MakeRegion) -> None:
    """What a later worker finds: bit n % 8 of byte n / 8 is slot n's."""
    region = make_region(Zeromap.region_size(GEOMETRY))
    Zeromap(region, GEOMETRY).set(CLUSTER_SLOTS + 9, 2)
    set_bytes = {at: octet for at, octet in enumerate(bytes(region.view)) if octet}
    assert set_bytes == {(CLUSTER_SLOTS + 8) // 8: 0b110}


def test_region_size_covers_a_partial_cluster() -> None:
    assert Zeromap.region_size(Geometry(PAGE_SIZE)) == CLUSTER_SLOTS // 8
