"""The swap table: entries by slot, and a page of memory for each cluster in use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort
from model.memory import data_pages

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, Geometry
from vswap.store import entry
from vswap.store.region import Region
from vswap.store.table import SwapTable

MakeRegion = Callable[[int], Region]

CLUSTERS = 3
GEOMETRY = Geometry(CLUSTERS * CLUSTER_SLOTS * PAGE_SIZE)
FIRST = entry.pack(0x1234 * entry.ALIGNMENT, 400, 0)
"""The entry of some unit's first page."""


class Table(SwapTable):
    """A swap table that shows its region."""

    def __init__(self, region: Region) -> None:
        super().__init__(region, GEOMETRY)
        self.region = region

    def publish(self, slot: int, count: int, first: int) -> None:
        """Put a unit's entries where nothing is."""
        assert self.exchange(slot, pages_of(first, count)) == []

    def take(self, slot: int, count: int) -> list[int]:
        """Empty a range."""
        return self.exchange(slot, [entry.EMPTY] * count)

    def in_use(self) -> set[int]:
        """The clusters whose page has memory behind it."""
        return data_pages(self.region)


@pytest.fixture
def table(make_region: MakeRegion) -> Table:
    return Table(make_region(SwapTable.region_size(GEOMETRY)))


def pages_of(first: int, count: int) -> list[int]:
    return [first + (i << entry.INDEX_SHIFT) for i in range(count)]


def test_a_new_table_is_empty_and_costs_nothing(table: Table) -> None:
    assert table.entries(0, CLUSTER_SLOTS) == [entry.EMPTY] * CLUSTER_SLOTS
    assert table.get(2 * CLUSTER_SLOTS + 5) == entry.EMPTY
    assert table.in_use() == set()


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_a_first_use_of_any_size_allocates_the_clusters_page(table: Table, count: int) -> None:
    """TABLE-HOLE: one page comes into being, and only this cluster's."""
    table.publish(CLUSTER_SLOTS + 7, count, FIRST)
    assert table.in_use() == {1}
    assert table.region.allocated() == PAGE_SIZE


@pytest.mark.parametrize("slot", [0, CLUSTER_SLOTS - 1, CLUSTER_SLOTS, 3 * CLUSTER_SLOTS - 1])
def test_a_clusters_entries_fill_its_own_page(table: Table, slot: int) -> None:
    table.publish(slot, 1, FIRST)
    assert table.in_use() == {slot // CLUSTER_SLOTS}
    at = slot * 8
    assert int.from_bytes(table.region.view[at : at + 8], "little") == FIRST


def test_publish_numbers_the_pages_of_the_unit(table: Table) -> None:
    table.publish(10, 16, FIRST)
    assert table.entries(10, 16) == pages_of(FIRST, 16)
    assert table.get(12) == FIRST + (2 << entry.INDEX_SHIFT)
    assert (table.get(9), table.get(26)) == (entry.EMPTY, entry.EMPTY)


def test_publish_counts_its_slots(table: Table) -> None:
    """TABLE-COUNT"""
    table.publish(10, 4, FIRST)
    table.publish(CLUSTER_SLOTS, 3, FIRST)
    assert table.counts.tolist() == [4, 3, 0]


@pytest.mark.parametrize("count", [1, 5, 128, 129, CLUSTER_SLOTS])
def test_take_answers_the_entries_and_empties_the_range(table: Table, count: int) -> None:
    """TABLE-COUNT"""
    for slot in range(CLUSTER_SLOTS, 2 * CLUSTER_SLOTS, 2):
        table.publish(slot, 1, FIRST + slot * (1 << entry.UNIT_SHIFT))
    before = table.entries(CLUSTER_SLOTS, count)
    taken = table.take(CLUSTER_SLOTS, count)
    assert taken == [one for one in before if one]
    assert not any(table.entries(CLUSTER_SLOTS, count))
    assert table.counts.tolist() == [0, CLUSTER_SLOTS // 2 - len(taken), 0]


@pytest.mark.parametrize("count", [3, 200])
def test_take_leaves_the_neighbours(table: Table, count: int) -> None:
    for slot in (99, 100, 100 + count - 1, 100 + count):
        table.publish(slot, 1, FIRST)
    assert len(table.take(100, count)) == 2
    assert (table.get(99), table.get(100 + count)) == (FIRST, FIRST)


def test_take_of_an_unused_cluster_answers_nothing_and_allocates_nothing(table: Table) -> None:
    """TABLE-HOLE"""
    assert len(table.take(0, 10)) == len(table.take(0, CLUSTER_SLOTS)) == 0
    assert table.in_use() == set()


def test_take_keeps_the_page_for_what_comes_in_its_place(table: Table) -> None:
    table.publish(0, 1, FIRST)
    table.take(0, 1)
    assert table.in_use() == {0}


@pytest.mark.parametrize("count", [1, CLUSTER_SLOTS])
def test_release_gives_an_emptied_clusters_page_back(table: Table, count: int) -> None:
    """TABLE-HOLE: freed on empty, whatever the size of what emptied it."""
    table.publish(5, 1, FIRST)
    table.take(5 if count == 1 else 0, count)
    table.release(0)
    assert table.in_use() == set()


def test_release_keeps_a_page_that_holds_an_entry(table: Table) -> None:
    """TABLE-NULL"""
    table.publish(5, 2, FIRST)
    table.take(5, 1)
    table.release(0)
    assert table.get(6) == FIRST + (1 << entry.INDEX_SHIFT)
    assert table.in_use() == {0}


def test_release_leaves_the_other_clusters(table: Table) -> None:
    """TABLE-NULL"""
    for cluster in range(CLUSTERS):
        table.publish(cluster * CLUSTER_SLOTS, 1, FIRST)
    table.take(CLUSTER_SLOTS, 1)
    table.release(1)
    assert table.in_use() == {0, 2}
    assert (table.get(0), table.get(2 * CLUSTER_SLOTS)) == (FIRST, FIRST)


def test_looking_at_an_unused_cluster_allocates_nothing(table: Table) -> None:
    """TABLE-HOLE: the counts are asked before the region is."""
    table.publish(0, 1, FIRST)
    table.get(CLUSTER_SLOTS + 3)
    table.entries(2 * CLUSTER_SLOTS, CLUSTER_SLOTS)
    assert table.in_use() == {0}


def test_a_page_can_come_and_go_and_come_again(table: Table) -> None:
    """TABLE-HOLE"""
    for _ in range(2):
        table.publish(3, 2, FIRST)
        assert table.in_use() == {0}
        table.take(0, CLUSTER_SLOTS)
        table.release(0)
        assert table.in_use() == set()


def test_next_cluster_finds_the_first_in_use(table: Table) -> None:
    table.publish(2 * CLUSTER_SLOTS, 1, FIRST)
    assert [table.next_cluster(cluster) for cluster in range(CLUSTERS)] == [2, 2, 2]
    table.publish(CLUSTER_SLOTS, 1, FIRST)
    assert [table.next_cluster(cluster) for cluster in range(CLUSTERS)] == [1, 1, 2]


def test_next_cluster_is_none_when_no_other_follows(table: Table) -> None:
    table.publish(0, 1, FIRST)
    assert table.next_cluster(1) is None


def test_a_terabyte_device_costs_a_page_for_one_page(make_region: MakeRegion) -> None:
    geometry = Geometry(1 << 40)
    region = make_region(SwapTable.region_size(geometry))
    table = SwapTable(region, geometry)
    table.exchange(geometry.slots - 1, pages_of(FIRST, 1))
    assert table.get(geometry.slots - 1) == FIRST
    assert region.allocated() == PAGE_SIZE


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    """A range of slots that lies in one cluster; mostly short, now and then nearly all."""
    slot = draw(st.integers(0, CLUSTERS * CLUSTER_SLOTS - 1))
    room = CLUSTER_SLOTS - slot % CLUSTER_SLOTS
    return slot, min(draw(st.integers(1, 16) | st.integers(100, CLUSTER_SLOTS)), room)


@effort(150)
@given(st.lists(st.tuples(st.booleans(), ranges()), max_size=30))
def test_it_does_what_a_dict_does(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    """TABLE-COUNT, TABLE-HOLE and TABLE-NULL after each of any publishes and frees."""
    region = Region.create("table", SwapTable.region_size(GEOMETRY))
    table, model = Table(region), dict[int, int]()
    try:
        for number, (publish, (slot, count)) in enumerate(steps, 1):
            expected = [model.pop(at) for at in range(slot, slot + count) if at in model]
            assert table.take(slot, count) == expected
            if publish:
                pages = pages_of(FIRST + (number << entry.UNIT_SHIFT), min(count, 16))
                table.publish(slot, len(pages), pages[0])
                model.update(enumerate(pages, slot))
            table.release(slot // CLUSTER_SLOTS)
            clusters = [at // CLUSTER_SLOTS for at in model]
            assert table.counts.tolist() == [clusters.count(at) for at in range(CLUSTERS)]
            assert table.in_use() == set(clusters)
        for cluster in range(CLUSTERS):
            window = range(cluster * CLUSTER_SLOTS, (cluster + 1) * CLUSTER_SLOTS)
            found = table.entries(window[0], CLUSTER_SLOTS)
            assert found == [model.get(slot, entry.EMPTY) for slot in window]
    finally:
        region.close()
