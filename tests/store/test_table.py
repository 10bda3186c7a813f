"""The swap table: entries by slot, and a page of memory for each cluster in use."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
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


class Stubborn(Region):
    """A region that refuses to give back memory as often as `refuse` says."""

    refuse = 0

    def punch(self, offset: int, length: int) -> None:
        if self.refuse:
            self.refuse -= 1
            raise OSError(errno.EINTR, "interrupted")
        super().punch(offset, length)


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

    def contents(self) -> dict[int, int]:
        """Every entry that is not empty, by slot."""
        return {
            slot: found
            for cluster in range(CLUSTERS)
            for slot, found in enumerate(
                self.entries(cluster * CLUSTER_SLOTS, CLUSTER_SLOTS), cluster * CLUSTER_SLOTS
            )
            if found
        }

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


def test_a_page_that_could_not_be_given_back_is_used_again_or_given_back_later(
    make_region: MakeRegion,
) -> None:
    """TABLE-HOLE and TABLE-COUNT: whatever the kernel says, the entries are gone."""
    region = Stubborn.create("table", SwapTable.region_size(GEOMETRY))
    assert isinstance(region, Stubborn)
    table = Table(region)
    try:
        for again in (False, True):
            table.publish(3, 2, FIRST)
            table.take(3, 2)
            region.refuse = 1
            table.release(0)
            assert (table.counts[0], table.contents()) == (0, {})
            if again:
                table.release(0)
                assert table.in_use() == set()
    finally:
        region.close()


# --- Many at once -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 31, 32, CLUSTER_SLOTS])
def test_empty_answers_the_entries_and_empties_the_range(table: Table, count: int) -> None:
    """TABLE-COUNT: as `exchange` with entries that are all empty."""
    for slot in range(CLUSTER_SLOTS, 2 * CLUSTER_SLOTS, 2):
        table.publish(slot, 1, FIRST + slot * (1 << entry.UNIT_SHIFT))
    before = table.entries(CLUSTER_SLOTS, count)
    taken = table.empty(CLUSTER_SLOTS, count)
    assert taken.tolist() == [one for one in before if one]
    assert not any(table.entries(CLUSTER_SLOTS, count))
    assert table.counts.tolist() == [0, CLUSTER_SLOTS // 2 - len(taken), 0]


def test_empty_leaves_the_neighbours(table: Table) -> None:
    for slot in (99, 100, 299, 300):
        table.publish(slot, 1, FIRST)
    assert table.empty(100, 200).tolist() == [FIRST, FIRST]
    assert set(table.contents()) == {99, 300}


def test_empty_of_an_unused_cluster_answers_nothing_and_allocates_nothing(table: Table) -> None:
    """TABLE-HOLE"""
    assert table.empty(0, CLUSTER_SLOTS).tolist() == []
    assert table.in_use() == set()


def test_what_empty_answers_is_a_copy(table: Table) -> None:
    """The slots may be written again before the answer has been looked at."""
    table.publish(0, 2, FIRST)
    taken = table.empty(0, CLUSTER_SLOTS)
    table.publish(0, 2, FIRST + (9 << entry.UNIT_SHIFT))
    assert taken.tolist() == pages_of(FIRST, 2)


def test_page_is_a_copy_of_a_clusters_entries(table: Table) -> None:
    table.publish(CLUSTER_SLOTS + 3, 2, FIRST)
    page = table.page(1)
    assert {int(at): int(page[at]) for at in np.flatnonzero(page)} == {
        3: FIRST,
        4: FIRST + (1 << entry.INDEX_SHIFT),
    }
    table.take(CLUSTER_SLOTS, CLUSTER_SLOTS)
    assert page[3] == FIRST


def test_page_of_an_unused_cluster_is_empty_and_allocates_nothing(table: Table) -> None:
    """TABLE-HOLE"""
    assert table.page(1).tolist() == [entry.EMPTY] * CLUSTER_SLOTS
    assert table.in_use() == set()


def test_mark_sets_flags_of_what_is_chosen_and_of_nothing_else(table: Table) -> None:
    """TABLE-COUNT: they stay as many."""
    table.publish(CLUSTER_SLOTS, 16, FIRST)
    chosen = np.zeros(CLUSTER_SLOTS, bool)
    chosen[[2, 5]] = True
    table.mark(1, chosen, entry.IDLE)
    marked = [at for at, one in enumerate(table.entries(CLUSTER_SLOTS, 16)) if one & entry.IDLE]
    assert marked == [2, 5]
    assert [one & ~entry.IDLE for one in table.entries(CLUSTER_SLOTS, 16)] == pages_of(FIRST, 16)
    assert table.counts.tolist() == [0, 16, 0]


def test_to_mark_nothing_in_an_unused_cluster_allocates_nothing(table: Table) -> None:
    """TABLE-HOLE"""
    table.mark(1, np.zeros(CLUSTER_SLOTS, bool), entry.IDLE)
    assert table.in_use() == set()


def test_replace_changes_one_entry_and_no_count(table: Table) -> None:
    """TABLE-COUNT"""
    table.publish(7, 3, FIRST)
    table.replace(8, FIRST | entry.LOADED)
    assert [table.get(slot) for slot in (7, 9)] == pages_of(FIRST, 3)[::2]
    assert table.get(8) == FIRST | entry.LOADED
    assert table.counts.tolist() == [3, 0, 0]


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


# --- Any order of it all ----------------------------------------------------------------


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    """A range of slots that lies in one cluster; mostly short, now and then nearly all."""
    slot = draw(st.integers(0, CLUSTERS * CLUSTER_SLOTS - 1))
    room = CLUSTER_SLOTS - slot % CLUSTER_SLOTS
    return slot, min(draw(st.integers(1, 16) | st.integers(100, CLUSTER_SLOTS)), room)


def clusters_of(model: dict[int, int]) -> list[int]:
    return [at // CLUSTER_SLOTS for at in model]


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
            clusters = clusters_of(model)
            assert table.counts.tolist() == [clusters.count(at) for at in range(CLUSTERS)]
            assert table.in_use() == set(clusters)
        assert table.contents() == model
    finally:
        region.close()


entry_lists = st.lists(
    st.just(entry.EMPTY) | st.integers(0, 40).map(lambda n: FIRST + (n << entry.UNIT_SHIFT)),
    min_size=1,
    max_size=40,
)
steps_with_failures = st.lists(
    st.tuples(
        st.sampled_from(("exchange", "exchange", "empty", "replace", "mark")),
        ranges(),
        entry_lists,
        st.sampled_from((0, 0, 1)),
    ),
    max_size=30,
)


class Checked:
    """A table beside a dict; every step is done to both, and may fail to give back a page."""

    def __init__(self) -> None:
        region = Stubborn.create("table", SwapTable.region_size(GEOMETRY))
        assert isinstance(region, Stubborn)
        self.region = region
        self.table = Table(region)
        self.model: dict[int, int] = {}
        self.kept: set[int] = set()

    def step(self, name: str, slot: int, count: int, entries: list[int]) -> None:
        self.kept |= self.table.in_use()  # what it empties stays until it is released
        getattr(self, f"_{name}")(slot, count, entries[:count])

    def _exchange(self, slot: int, _count: int, entries: list[int]) -> None:
        expected = [self.model.pop(at, 0) for at in range(slot, slot + len(entries))]
        assert self.table.exchange(slot, entries) == [one for one in expected if one]
        self.model.update((at, one) for at, one in enumerate(entries, slot) if one)

    def _empty(self, slot: int, count: int, _entries: list[int]) -> None:
        expected = [self.model.pop(at, 0) for at in range(slot, slot + count)]
        assert self.table.empty(slot, count).tolist() == [one for one in expected if one]

    def _replace(self, slot: int, count: int, entries: list[int]) -> None:
        there = next((at for at in range(slot, slot + count) if at in self.model), None)
        if there is not None:
            self.model[there] = entries[0] or FIRST
            self.table.replace(there, self.model[there])

    def _mark(self, slot: int, count: int, _entries: list[int]) -> None:
        cluster = slot // CLUSTER_SLOTS
        chosen = np.zeros(CLUSTER_SLOTS, bool)
        for at in range(slot, slot + count):
            if at in self.model:
                chosen[at % CLUSTER_SLOTS] = True
                self.model[at] |= entry.IDLE
        self.table.mark(cluster, chosen, entry.IDLE)

    def release(self, cluster: int, refuse: int) -> None:
        """Give back the page; what the kernel refuses stays until it is asked again."""
        self.region.refuse = refuse
        was_there = cluster in self.table.in_use()
        self.table.release(cluster)
        if cluster not in clusters_of(self.model):
            self.kept.discard(cluster)
            if refuse and was_there:
                self.kept.add(cluster)
        self.region.refuse = 0

    def check(self) -> None:
        clusters = clusters_of(self.model)
        self.kept -= set(clusters)
        assert self.table.counts.tolist() == [clusters.count(at) for at in range(CLUSTERS)]
        assert self.table.in_use() == set(clusters) | self.kept


@effort(150)
@given(steps_with_failures)
def test_no_step_that_fails_changes_what_it_holds(
    steps: list[tuple[str, tuple[int, int], list[int], int]],
) -> None:
    """TABLE-COUNT, TABLE-HOLE and TABLE-NULL: any calls, with the kernel refusing at times."""
    checked = Checked()
    try:
        for name, (slot, count), entries, refuse in steps:
            checked.step(name, slot, count, entries)
            checked.check()
            checked.release(slot // CLUSTER_SLOTS, refuse)
            checked.check()
        assert checked.table.contents() == checked.model
        for cluster in range(CLUSTERS):
            checked.release(cluster, refuse=0)
        assert checked.table.in_use() == set(clusters_of(checked.model))
    finally:
        checked.region.close()


@effort(150)
@given(st.dictionaries(st.integers(0, CLUSTER_SLOTS - 1), st.integers(1, 1 << 20)), ranges())
def test_empty_does_what_exchange_with_empty_entries_does(
    entries: dict[int, int], where: tuple[int, int]
) -> None:
    """TABLE-COUNT: to the answer, the entries and the counts."""
    region, other = (Region.create("table", SwapTable.region_size(GEOMETRY)) for _ in range(2))
    try:
        slot, count = where[0] % CLUSTER_SLOTS, where[1]
        by_numpy, one_by_one = Table(region), Table(other)
        for table in (by_numpy, one_by_one):
            for at, number in entries.items():
                table.publish(at, 1, FIRST + (number << entry.UNIT_SHIFT))
        taken = by_numpy.empty(slot, count).tolist()
        assert taken == one_by_one.exchange(slot, [entry.EMPTY] * count)
        assert by_numpy.contents() == one_by_one.contents()
        assert by_numpy.counts.tolist() == one_by_one.counts.tolist()
        assert by_numpy.in_use() == one_by_one.in_use()
    finally:
        region.close()
        other.close()
