"""Cutting: every slot once, no unit across a boundary, pages of one word told apart."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort
from model.pages import filled, noise

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store.cut import WORD, ZERO_WORD, by_cluster, fill_word, runs

UNIT_PAGES = (1, 2, 4, 8, 16)
ONES = b"\xff" * WORD
WORDS = {"z": ZERO_WORD, "o": ONES, "w": b"\x5a\0\0\0\0\0\0\x5a"}

page_kinds = st.lists(st.sampled_from("zzzoowdme"), min_size=1, max_size=70)
"""Pages of one word: z zeros, o ones, w another. Others: d data, m zeros but for a byte in the
middle, e zeros but for the last byte."""


def to_pages(kinds: list[str]) -> memoryview:
    data = bytearray(len(kinds) * PAGE_SIZE)
    for i, kind in enumerate(kinds):
        at = i * PAGE_SIZE
        if kind in WORDS:
            data[at : at + PAGE_SIZE] = WORDS[kind] * (PAGE_SIZE // WORD)
        elif kind == "d":
            data[at : at + PAGE_SIZE] = noise(1, i)
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
def test_runs_tell_the_word_of_each_page(slot: int, kinds: list[str], unit_pages: int) -> None:
    """And of none that is more than a word."""
    cut = runs(slot, to_pages(kinds), unit_pages)
    words = [word for _, count, word in cut for _ in range(count)]
    assert words == [WORDS.get(kind) for kind in kinds]


@effort(200)
@given(st.integers(440, 520), page_kinds, st.sampled_from(UNIT_PAGES))
def test_no_run_crosses_what_it_must_not(slot: int, kinds: list[str], unit_pages: int) -> None:
    """Zeros end at a cluster's end, others at a multiple of unit_pages."""
    for first, count, word in runs(slot, to_pages(kinds), unit_pages):
        boundary = CLUSTER_SLOTS if word == ZERO_WORD else unit_pages
        assert first // boundary == (first + count - 1) // boundary


@effort(200)
@given(st.integers(440, 520), page_kinds, st.sampled_from(UNIT_PAGES))
def test_runs_are_as_long_as_they_may_be(slot: int, kinds: list[str], unit_pages: int) -> None:
    """Each ends where the kind changes or a boundary is: otherwise units would be smaller."""
    cut = list(runs(slot, to_pages(kinds), unit_pages))
    for (_, _, before), (first, _, word) in pairwise(cut):
        boundary = CLUSTER_SLOTS if word == ZERO_WORD else unit_pages
        assert before != word or first % boundary == 0


def test_a_large_write_is_cut_into_aligned_units() -> None:
    cut = list(runs(6, to_pages(["d"] * 12), 4))
    assert cut == [(6, 2, None), (8, 4, None), (12, 4, None), (16, 2, None)]


def test_zeros_and_data_take_turns() -> None:
    cut = list(runs(0, to_pages(list("ddzzzd")), 4))
    assert cut == [(0, 2, None), (2, 3, ZERO_WORD), (5, 1, None)]


def test_words_and_data_take_turns() -> None:
    """Pages of one word are a run of their own, and never part of a unit."""
    cut = list(runs(0, to_pages(list("dooowwd")), 4))
    assert cut == [
        (0, 1, None),
        (1, 3, ONES),
        (4, 2, WORDS["w"]),
        (6, 1, None),
    ]


def test_a_run_of_zeros_is_cut_at_the_cluster() -> None:
    cut = list(runs(CLUSTER_SLOTS - 2, to_pages(["z"] * 5), 4))
    assert cut == [(CLUSTER_SLOTS - 2, 2, ZERO_WORD), (CLUSTER_SLOTS, 3, ZERO_WORD)]


def test_a_run_of_zeros_is_not_cut_at_a_unit() -> None:
    assert list(runs(3, to_pages(["z"] * 30), 4)) == [(3, 30, ZERO_WORD)]


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


# --- fill_word --------------------------------------------------------------------------


def test_the_word_of_a_page_of_zeros_is_zero() -> None:
    assert fill_word(memoryview(bytes(PAGE_SIZE))) == ZERO_WORD


@pytest.mark.parametrize("seed", range(5))
def test_the_word_of_a_page_that_is_one_again_and_again(seed: int) -> None:
    assert fill_word(memoryview(filled(1, seed))) == filled(1, seed)[:WORD]


def test_one_byte_anywhere_makes_a_page_more_than_a_word() -> None:
    for page in (bytes(PAGE_SIZE), filled()):
        data = bytearray(page)
        taken_for_one = []
        for at in range(PAGE_SIZE):
            data[at] ^= 1
            if fill_word(memoryview(data)) is not None:
                taken_for_one.append(at)
            data[at] ^= 1
        assert taken_for_one == []


def test_a_pattern_that_is_longer_than_a_word_is_none() -> None:
    pattern = random.Random(0).randbytes(2 * WORD)
    assert fill_word(memoryview(pattern * (PAGE_SIZE // len(pattern)))) is None


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_shorter_pattern_is_a_word_too(length: int) -> None:
    pattern = random.Random(length).randbytes(length)
    assert fill_word(memoryview(pattern * (PAGE_SIZE // length))) == pattern * (WORD // length)


def test_the_word_is_a_copy() -> None:
    """The buffer that it came from is received into again."""
    buffer = bytearray(filled())
    word = fill_word(memoryview(buffer))
    buffer[:] = bytes(PAGE_SIZE)
    assert word == filled()[:WORD]
