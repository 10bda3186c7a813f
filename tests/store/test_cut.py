"""Cutting: every slot once, no unit across a boundary, zeros told apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store.cut import by_cluster, is_zero_page, runs

UNIT_PAGES = (1, 2, 4, 8, 16)

page_kinds = st.lists(st.sampled_from("zzzdme"), min_size=1, max_size=70)
"""z zeros, d data, m a byte in the middle only, e a byte at the end only."""


def to_pages(kinds: list[str]) -> memoryview:
    data = bytearray(len(kinds) * PAGE_SIZE)
    for i, kind in enumerate(kinds):
        at = i * PAGE_SIZE
        if kind == "d":
            data[at : at + PAGE_SIZE] = b"\x5a" * PAGE_SIZE
        elif kind == "m":
            data[at + PAGE_SIZE // 2] = 1
        elif kind == "e":
            data[at + PAGE_SIZE - 1] = 1
    return memoryview(data)


# --- runs -------------------------------------------------------------------------------


@effort(200)
@given(st.integers(0, 2000), page_kinds, st.sampled_from(UNIT_PAGES))
def test_runs_cover_the_range_once_and_in_order(
    slot: int, kinds: list[str], unit_pages: int
) -> None:
    covered: list[int] = []
    for first, count, _ in runs(slot, to_pages(kinds), unit_pages):
        assert count > 0
        covered += range(first, first + count)
    assert covered == list(range(slot, slot + len(kinds)))


@effort(200)
@given(st.integers(0, 2000), page_kinds, st.sampled_from(UNIT_PAGES))
def test_runs_tell_zero_pages_from_others(slot: int, kinds: list[str], unit_pages: int) -> None:
    flags = [
        zero for _, count, zero in runs(slot, to_pages(kinds), unit_pages) for _ in range(count)
    ]
    assert flags == [kind == "z" for kind in kinds]


@effort(200)
@given(st.integers(440, 520), page_kinds, st.sampled_from(UNIT_PAGES))
def test_no_run_crosses_what_it_must_not(slot: int, kinds: list[str], unit_pages: int) -> None:
    """Zeros end at a cluster's end, others at a multiple of unit_pages."""
    for first, count, zero in runs(slot, to_pages(kinds), unit_pages):
        boundary = CLUSTER_SLOTS if zero else unit_pages
        assert first // boundary == (first + count - 1) // boundary


@effort(200)
@given(st.integers(440, 520), page_kinds, st.sampled_from(UNIT_PAGES))
def test_runs_are_as_long_as_they_may_be(slot: int, kinds: list[str], unit_pages: int) -> None:
    """Each ends where the kind changes or a boundary is: otherwise units would be smaller."""
    cut = list(runs(slot, to_pages(kinds), unit_pages))
    for (_, _, before), (first, _, zero) in pairwise(cut):
        boundary = CLUSTER_SLOTS if zero else unit_pages
        assert before != zero or first % boundary == 0


def test_a_large_write_is_cut_into_aligned_units() -> None:
    cut = list(runs(6, to_pages(["d"] * 12), 4))
    assert cut == [(6, 2, False), (8, 4, False), (12, 4, False), (16, 2, False)]


def test_zeros_and_data_take_turns() -> None:
    cut = list(runs(0, to_pages(list("ddzzzd")), 4))
    assert cut == [(0, 2, False), (2, 3, True), (5, 1, False)]


def test_a_run_of_zeros_is_cut_at_the_cluster() -> None:
    cut = list(runs(CLUSTER_SLOTS - 2, to_pages(["z"] * 5), 4))
    assert cut == [(CLUSTER_SLOTS - 2, 2, True), (CLUSTER_SLOTS, 3, True)]


def test_a_run_of_zeros_is_not_cut_at_a_unit() -> None:
    assert list(runs(3, to_pages(["z"] * 30), 4)) == [(3, 30, True)]


# --- by_cluster -------------------------------------------------------------------------


@effort(200)
@given(st.integers(0, 5000), st.integers(1, 3000))
def test_by_cluster_covers_the_range_cluster_by_cluster(slot: int, count: int) -> None:
    parts = list(by_cluster(slot, count))
    assert [at for first, n in parts for at in range(first, first + n)] == list(
        range(slot, slot + count)
    )
    clusters = [first // CLUSTER_SLOTS for first, _ in parts]
    assert clusters == sorted(set(clusters))
    for first, n in parts:
        assert first // CLUSTER_SLOTS == (first + n - 1) // CLUSTER_SLOTS


def test_by_cluster_of_nothing_is_nothing() -> None:
    assert list(by_cluster(CLUSTER_SLOTS, 0)) == []


def test_by_cluster_of_one_whole_cluster_is_it() -> None:
    assert list(by_cluster(CLUSTER_SLOTS, CLUSTER_SLOTS)) == [(CLUSTER_SLOTS, CLUSTER_SLOTS)]


# --- is_zero_page -----------------------------------------------------------------------


def test_a_page_of_zeros_is_zero() -> None:
    assert is_zero_page(memoryview(bytes(PAGE_SIZE)), 0)


def test_one_byte_anywhere_makes_a_page_not_zero() -> None:
    data = bytearray(PAGE_SIZE)
    taken_for_zero = []
    for at in range(PAGE_SIZE):
        data[at] = 1
        if is_zero_page(memoryview(data), 0):
            taken_for_zero.append(at)
        data[at] = 0
    assert taken_for_zero == []


@pytest.mark.parametrize("at", [PAGE_SIZE - 1, 2 * PAGE_SIZE])
def test_only_the_page_asked_about_matters(at: int) -> None:
    data = bytearray(3 * PAGE_SIZE)
    data[at] = 1
    assert is_zero_page(memoryview(data), PAGE_SIZE)
