"""Presence: what of a range is in the front cache, against looking slot by slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort
from model.memory import data_pages

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, Geometry
from vswap.store import entry
from vswap.store.cache import FrontCache, Presence
from vswap.store.region import Region
from vswap.store.table import SwapTable

MakeRegion = Callable[[int], Region]

GEOMETRY = Geometry(2 * CLUSTER_SLOTS * PAGE_SIZE)
FIRST = entry.pack(0, 400, 0)
AWAY = entry.pack_backing(3, 128, 16, 400, 0)
"""The first page's of a unit on disk."""


@pytest.fixture
def region(make_region: MakeRegion) -> Region:
    return make_region(SwapTable.region_size(GEOMETRY))


@pytest.fixture
def table(region: Region) -> SwapTable:
    return SwapTable(region, GEOMETRY)


def brute_force(here: set[int], slot: int, count: int) -> tuple[Presence, int]:
    states = [at in here for at in range(slot, slot + count)]
    run = next((i for i, state in enumerate(states) if state != states[0]), count)
    if all(states):
        return Presence.ALL, run
    return (Presence.MIXED if any(states) else Presence.NONE), run


def publish(table: SwapTable, slot: int, count: int, first: int = FIRST) -> None:
    table.exchange(slot, [first + (i << entry.INDEX_SHIFT) for i in range(count)])


@effort(200)
@given(
    st.dictionaries(st.integers(0, 40), st.sampled_from((FIRST, FIRST, AWAY, entry.pack_fill(9)))),
    st.integers(0, 40),
    st.integers(1, 50),
    st.sampled_from((0, CLUSTER_SLOTS)),
)
def test_presence_is_what_a_look_at_each_slot_says(
    offsets: dict[int, int], start: int, count: int, cluster: int
) -> None:
    """Pages in segments and fill words are here; those on disk are not."""
    region = Region.create("table", SwapTable.region_size(GEOMETRY))
    try:
        table = SwapTable(region, GEOMETRY)
        for offset, found in offsets.items():
            table.exchange(cluster + offset, [found])
        here = {cluster + offset for offset, found in offsets.items() if found != AWAY}
        expected = brute_force(here, cluster + start, count)
        assert FrontCache(table).presence(cluster + start, count) == expected
    finally:
        region.close()


def test_a_full_range_is_all(table: SwapTable) -> None:
    publish(table, 0, 16)
    assert FrontCache(table).presence(4, 8) == (Presence.ALL, 8)


def test_an_empty_range_of_a_used_cluster_is_none(table: SwapTable) -> None:
    publish(table, 0, 16)
    assert FrontCache(table).presence(16, 100) == (Presence.NONE, 100)


def test_partly_present_is_not_none(table: SwapTable) -> None:
    """The bug class of zswap: "not all of it" taken for "none of it" reads stale data."""
    publish(table, 8, 1)
    assert FrontCache(table).presence(0, 16) == (Presence.MIXED, 8)


def test_partly_present_is_not_all(table: SwapTable) -> None:
    publish(table, 0, 15)
    assert FrontCache(table).presence(0, 16) == (Presence.MIXED, 15)


def test_a_page_on_disk_is_not_present(table: SwapTable) -> None:
    publish(table, 0, 16, AWAY)
    assert FrontCache(table).presence(0, 16) == (Presence.NONE, 16)
    assert FrontCache(table).presence(7, 1) == (Presence.NONE, 1)


def test_the_highest_entries_of_the_disk_are_not_taken_for_others(table: SwapTable) -> None:
    """All that is between those of memory's last segment and of the first fill word."""
    publish(table, 0, 1, entry.FIRST_BACKING - 1)
    publish(table, 1, 1, entry.FIRST_BACKING)
    publish(table, 2, 1, entry.FIRST_FILL - 1)
    publish(table, 3, 1, entry.FIRST_FILL)
    cache = FrontCache(table)
    found = [cache.presence(slot, 1)[0] for slot in range(4)]
    assert found == [Presence.ALL, Presence.NONE, Presence.NONE, Presence.ALL]


@pytest.mark.parametrize("beside", [FIRST, entry.pack_fill(3)])
def test_a_page_on_disk_beside_one_in_memory_is_neither_all_nor_none(
    table: SwapTable, beside: int
) -> None:
    for slot in range(16):
        publish(table, slot, 1, beside if slot < 5 else AWAY)
    cache = FrontCache(table)
    assert cache.presence(0, 16) == (Presence.MIXED, 5)
    assert cache.presence(4, 2) == (Presence.MIXED, 1)
    assert cache.presence(5, 12) == (Presence.NONE, 12)


def test_a_page_on_disk_and_an_empty_slot_are_both_not_here(table: SwapTable) -> None:
    """As one run: where they are to be had is for others to tell."""
    publish(table, 4, 4, AWAY)
    assert FrontCache(table).presence(0, 16) == (Presence.NONE, 16)


def test_the_run_of_a_mixed_range_is_all_or_none(table: SwapTable) -> None:
    """What the docstring promises to who assembles run by run."""
    publish(table, 0, 3)
    publish(table, 7, 2)
    cache = FrontCache(table)
    slot, answers = 0, []
    while slot < 12:
        _, run = cache.presence(slot, 12 - slot)
        answers.append((cache.presence(slot, run)[0], run))
        slot += run
    assert answers == [
        (Presence.ALL, 3),
        (Presence.NONE, 4),
        (Presence.ALL, 2),
        (Presence.NONE, 3),
    ]


def test_asking_about_an_unused_cluster_allocates_nothing(region: Region, table: SwapTable) -> None:
    """TABLE-HOLE"""
    assert FrontCache(table).presence(0, CLUSTER_SLOTS) == (Presence.NONE, CLUSTER_SLOTS)
    assert data_pages(region) == set()
