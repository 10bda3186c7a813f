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


def publish(table: SwapTable, slot: int, count: int) -> None:
    table.exchange(slot, [FIRST + (i << entry.INDEX_SHIFT) for i in range(count)])


@effort(200)
@given(
    st.sets(st.integers(0, 40)),
    st.integers(0, 40),
    st.integers(1, 50),
    st.sampled_from((0, CLUSTER_SLOTS)),
)
def test_presence_is_what_a_look_at_each_slot_says(
    offsets: set[int], start: int, count: int, cluster: int
) -> None:
    region = Region.create("table", SwapTable.region_size(GEOMETRY))
    try:
        table = SwapTable(region, GEOMETRY)
        here = {cluster + offset for offset in offsets}
        for slot in here:
            publish(table, slot, 1)
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
