"""Entries: what is packed comes out again, up to the limits of every field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.unit import MAX_UNIT_SIZE, unit_size

MAX_SEGMENT = (1 << 24) - 1
LAST_POSITION = MAX_SEGMENT * SEGMENT_SIZE + SEGMENT_SIZE - entry.ALIGNMENT
STORED_SHARE = unit_size(PAGE_SIZE, 1)
"""The largest share there is: of a page that did not compress, in a unit of its own."""

FLAGS = (0, entry.HUGE, entry.COLD, entry.LOADED, entry.IDLE, 0xF)

positions = st.integers(0, LAST_POSITION // entry.ALIGNMENT).map(lambda n: n * entry.ALIGNMENT)
shares = st.integers(1, STORED_SHARE // entry.ALIGNMENT).map(lambda n: n * entry.ALIGNMENT)


def packed(position: int, share: int, flags: int, index: int) -> int:
    return entry.pack(position, share, flags) + (index << entry.INDEX_SHIFT)


@effort(500)
@given(positions, shares, st.sampled_from(FLAGS), st.integers(0, MAX_UNIT_PAGES - 1))
def test_what_is_packed_comes_out_again(position: int, share: int, flags: int, index: int) -> None:
    word = packed(position, share, flags, index)
    assert entry.position_of(word) == position
    assert entry.segment_of(word) == position // SEGMENT_SIZE
    assert entry.index_of(word) == index
    assert entry.share_of(word) == share
    assert word & entry.FLAGS_MASK == flags


@effort(200)
@given(positions, shares, st.sampled_from(FLAGS), st.integers(0, MAX_UNIT_PAGES - 1))
def test_an_entry_is_a_word_that_is_not_empty(
    position: int, share: int, flags: int, index: int
) -> None:
    word = packed(position, share, flags, index)
    assert entry.EMPTY < word < entry.FIRST_FILL < 1 << 64
    assert word >> 62 == entry.KIND_CACHE


def test_all_fields_at_their_limits_at_once() -> None:
    """2**24 - 1 segments, the last word of the last, 16 pages, the share of a stored page."""
    word = packed(LAST_POSITION, STORED_SHARE, entry.HUGE, MAX_UNIT_PAGES - 1)
    assert entry.segment_of(word) == MAX_SEGMENT
    assert entry.position_of(word) == LAST_POSITION
    assert entry.index_of(word) == MAX_UNIT_PAGES - 1
    assert entry.share_of(word) == STORED_SHARE
    assert word < 1 << 64


def test_the_layout_is_the_one_drawn_in_the_module() -> None:
    position = 0xABCDEF * SEGMENT_SIZE + 0x23456 * 4
    word = packed(position, 0x5A5 * 4, entry.HUGE, 0xC)
    assert word == 1 << 62 | 0xABCDEF << 38 | 0x23456 << 20 | 0xC << 16 | 0x5A5 << 5 | 1


def test_the_flags_are_the_ones_drawn_in_the_module() -> None:
    assert (entry.HUGE, entry.COLD, entry.LOADED, entry.IDLE) == (1, 2, 4, 8)
    assert entry.NOT_HOT == entry.HUGE | entry.COLD
    assert entry.OF_PAGE == entry.LOADED | entry.IDLE


@pytest.mark.parametrize("number", [0, 1, 4095, (1 << 42) - 1])
def test_a_fill_entry_names_its_word(number: int) -> None:
    """And is a word that sorts behind all that are in segments."""
    word = entry.pack_fill(number)
    assert word >> 62 == entry.KIND_FILL
    assert entry.fill_of(word) == number
    assert entry.FIRST_FILL <= word < 1 << 64
    assert word & (1 << entry.UNIT_SHIFT) - 1 == 0
    assert word > packed(LAST_POSITION, STORED_SHARE, 0xF, MAX_UNIT_PAGES - 1)


def test_the_share_of_a_unit_of_which_little_lives_is_bounded() -> None:
    """SHARE_MAX is what the field holds."""
    assert entry.share_of(entry.pack(0, entry.SHARE_MAX, 0)) == entry.SHARE_MAX
    assert entry.segment_of(entry.pack(0, entry.SHARE_MAX, 0)) == 0
    assert entry.index_of(entry.pack(0, entry.SHARE_MAX, 0)) == 0


@effort(200)
@given(positions, shares, st.integers(1, MAX_UNIT_PAGES))
def test_the_pages_of_one_unit_are_equal_above_unit_shift(
    position: int, share: int, pages: int
) -> None:
    words = {packed(position, share, 0, i) >> entry.UNIT_SHIFT for i in range(pages)}
    assert len(words) == 1


def test_neighbouring_units_differ_above_unit_shift() -> None:
    here, there = (packed(at, STORED_SHARE, 0, 15) for at in (0, entry.ALIGNMENT))
    assert here >> entry.UNIT_SHIFT != there >> entry.UNIT_SHIFT


@pytest.mark.parametrize("segment", [0, 1, 0xABCDEF, MAX_SEGMENT - 1, MAX_SEGMENT])
def test_first_entry_after_is_above_all_of_a_segment(segment: int) -> None:
    last = (segment + 1) * SEGMENT_SIZE - entry.ALIGNMENT
    highest = packed(last, STORED_SHARE, entry.HUGE, MAX_UNIT_PAGES - 1)
    assert highest < entry.first_entry_after(segment)


@pytest.mark.parametrize("segment", [0, 1, 0xABCDEF, MAX_SEGMENT - 1])
def test_first_entry_after_is_below_all_of_the_next_segment(segment: int) -> None:
    lowest = entry.pack((segment + 1) * SEGMENT_SIZE, entry.ALIGNMENT, 0)
    assert entry.first_entry_after(segment) <= lowest


@pytest.mark.parametrize("pages", range(1, MAX_UNIT_PAGES + 1))
def test_the_share_of_every_unit_size_fits_its_field(pages: int) -> None:
    """Units are padded so that nothing is left over, and the worst share still fits."""
    for length in (1, pages, PAGE_SIZE - 1, pages * PAGE_SIZE):
        share, rest = divmod(unit_size(length, pages), pages)
        assert rest == 0
        assert entry.share_of(entry.pack(0, share, 0)) == share


def test_the_largest_unit_is_the_one_that_max_unit_size_says() -> None:
    sizes = [unit_size(pages * PAGE_SIZE, pages) for pages in range(1, MAX_UNIT_PAGES + 1)]
    assert max(sizes) == MAX_UNIT_SIZE <= SEGMENT_SIZE
