"""Entries: what is packed comes out again, up to the limits of every field."""

from __future__ import annotations

from math import lcm

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.batch import sealed_size
from vswap.store.cipher import TAG_SIZE
from vswap.store.unit import HEADER, MAX_UNIT_SIZE, unit_size

MAX_SEGMENT = (1 << 24) - 1
LAST_POSITION = MAX_SEGMENT * SEGMENT_SIZE + SEGMENT_SIZE - entry.ALIGNMENT
STORED_SHARE = unit_size(PAGE_SIZE, 1)
"""The largest share there is: of a page that did not compress, in a unit of its own."""

FLAGS = (0, entry.HUGE, entry.COLD, entry.LOADED, entry.IDLE, 0xF)

positions = st.integers(0, LAST_POSITION // entry.ALIGNMENT).map(lambda n: n * entry.ALIGNMENT)
shares = st.integers(1, STORED_SHARE // entry.ALIGNMENT).map(lambda n: n * entry.ALIGNMENT)
segments = st.integers(0, MAX_SEGMENT)
offsets = st.integers(0, SEGMENT_SIZE // entry.BACKING_ALIGNMENT - 1).map(
    lambda n: n * entry.BACKING_ALIGNMENT
)
page_counts = st.integers(1, MAX_UNIT_PAGES)

LAST_OFFSET = SEGMENT_SIZE - entry.BACKING_ALIGNMENT
"""The last place in a disk segment at which a unit may begin."""


def packed(position: int, share: int, flags: int, index: int) -> int:
    return entry.pack(position, share, flags) + (index << entry.INDEX_SHIFT)


def on_disk(segment: int, offset: int, pages: int, share: int, flags: int, index: int) -> int:
    first = entry.pack_backing(segment, offset, pages, share, flags)
    return first + (index << entry.INDEX_SHIFT)


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
    assert entry.EMPTY < word < entry.FIRST_BACKING < entry.FIRST_FILL < 1 << 64
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
    """And is a word that sorts behind all that are in segments, on disk too."""
    word = entry.pack_fill(number)
    assert word >> 62 == entry.KIND_FILL
    assert entry.fill_of(word) == number
    assert entry.FIRST_FILL <= word < 1 << 64
    assert word & (1 << entry.UNIT_SHIFT) - 1 == 0
    assert word > packed(LAST_POSITION, STORED_SHARE, 0xF, MAX_UNIT_PAGES - 1)
    assert word > on_disk(MAX_SEGMENT, LAST_OFFSET, MAX_UNIT_PAGES, STORED_SHARE, 0xF, 15)


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
def test_the_end_of_a_segment_is_above_all_of_it(segment: int) -> None:
    """Whichever entry of it is asked about."""
    last = (segment + 1) * SEGMENT_SIZE - entry.ALIGNMENT
    lowest = entry.pack(segment * SEGMENT_SIZE, entry.ALIGNMENT, 0)
    highest = packed(last, entry.SHARE_MAX, entry.FLAGS_MASK, MAX_UNIT_PAGES - 1)
    assert lowest < highest < entry.end_of_segment(lowest) == entry.end_of_segment(highest)


@pytest.mark.parametrize("segment", [0, 1, 0xABCDEF, MAX_SEGMENT - 1])
def test_the_end_of_a_segment_is_below_all_of_the_next(segment: int) -> None:
    here = entry.pack(segment * SEGMENT_SIZE, entry.ALIGNMENT, 0)
    lowest = entry.pack((segment + 1) * SEGMENT_SIZE, entry.ALIGNMENT, 0)
    assert entry.end_of_segment(here) <= lowest


@pytest.mark.parametrize("segment", [0, 1, 0xABCDEF, MAX_SEGMENT - 1, MAX_SEGMENT])
def test_the_end_of_a_disk_segment_is_above_all_of_it(segment: int) -> None:
    lowest = entry.pack_backing(segment, 0, 1, entry.ALIGNMENT, 0)
    highest = on_disk(segment, LAST_OFFSET, MAX_UNIT_PAGES, entry.SHARE_MAX, entry.FLAGS_MASK, 15)
    assert lowest < highest < entry.end_of_segment(lowest) == entry.end_of_segment(highest)


@pytest.mark.parametrize("segment", [0, 1, 0xABCDEF, MAX_SEGMENT - 1])
def test_the_end_of_a_disk_segment_is_below_all_of_the_next(segment: int) -> None:
    here = entry.pack_backing(segment, 0, 1, entry.ALIGNMENT, 0)
    lowest = entry.pack_backing(segment + 1, 0, 1, entry.ALIGNMENT, 0)
    assert entry.end_of_segment(here) <= lowest


def test_the_end_of_the_last_segment_is_where_the_next_kind_begins() -> None:
    last = entry.pack(LAST_POSITION, entry.ALIGNMENT, 0)
    assert entry.end_of_segment(last) == entry.FIRST_BACKING
    last = entry.pack_backing(MAX_SEGMENT, LAST_OFFSET, 1, entry.ALIGNMENT, 0)
    assert entry.end_of_segment(last) == entry.FIRST_FILL


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


# --- On disk ----------------------------------------------------------------------------


@effort(500)
@given(segments, offsets, page_counts, shares, st.sampled_from(FLAGS), st.data())
def test_where_a_unit_is_on_disk_comes_out_again(
    segment: int, offset: int, pages: int, share: int, flags: int, data: st.DataObject
) -> None:
    """From the entry of any of its pages, and what is of the page with it."""
    index = data.draw(st.integers(0, pages - 1))
    word = on_disk(segment, offset, pages, share, flags, index)
    assert entry.extent_of(word) == entry.Extent(segment, offset, share * pages, pages)
    assert entry.segment_of(word) == segment
    assert entry.index_of(word) == index
    assert entry.share_of(word) == share
    assert word & entry.FLAGS_MASK == flags


@effort(200)
@given(segments, offsets, page_counts, shares, st.sampled_from(FLAGS), positions, st.data())
def test_entries_of_the_disk_sort_between_memory_and_fill_words(
    segment: int,
    offset: int,
    pages: int,
    share: int,
    flags: int,
    position: int,
    data: st.DataObject,
) -> None:
    """Whatever is in their fields."""
    word = on_disk(segment, offset, pages, share, flags, pages - 1)
    assert word >> 62 == entry.KIND_BACKING
    index = data.draw(st.integers(0, MAX_UNIT_PAGES - 1))
    number = data.draw(st.integers(0, entry.POSITION_MASK))
    in_memory, fill = packed(position, share, flags, index), entry.pack_fill(number)
    assert in_memory < entry.FIRST_BACKING <= word < entry.FIRST_FILL <= fill


@effort(200)
@given(st.lists(st.tuples(segments, offsets, page_counts, shares), min_size=2, max_size=5))
def test_entries_of_the_disk_sort_by_segment_and_then_by_offset(
    places: list[tuple[int, int, int, int]],
) -> None:
    """Which is the order that a disk is read in."""
    words = sorted(entry.pack_backing(*place, 0) for place in places)
    found = [entry.extent_of(word)[:2] for word in words]
    assert found == sorted(place[:2] for place in places)


@effort(200)
@given(segments, offsets, page_counts, shares)
def test_the_pages_of_one_unit_on_disk_are_equal_above_unit_shift(
    segment: int, offset: int, pages: int, share: int
) -> None:
    words = [on_disk(segment, offset, pages, share, 0, i) for i in range(pages)]
    assert len({word >> entry.UNIT_SHIFT for word in words}) == 1
    assert len({entry.extent_of(word) for word in words}) == 1


def test_all_fields_of_a_place_on_disk_at_their_limits_at_once() -> None:
    word = on_disk(MAX_SEGMENT, LAST_OFFSET, MAX_UNIT_PAGES, entry.SHARE_MAX, 0x1F, 15)
    extent = entry.extent_of(word)
    assert extent == (MAX_SEGMENT, LAST_OFFSET, entry.SHARE_MAX * MAX_UNIT_PAGES, MAX_UNIT_PAGES)
    assert entry.index_of(word) == MAX_UNIT_PAGES - 1
    assert word == entry.FIRST_FILL - 1


def test_the_layout_on_disk_is_the_one_described_in_the_module() -> None:
    word = on_disk(0xABCDEF, 0x2345 * 64, 6, 0x5A5 * 4, entry.HUGE, 0xC)
    place = 0x2345 << 4 | 5
    assert word == 2 << 62 | 0xABCDEF << 38 | place << 20 | 0xC << 16 | 0x5A5 << 5 | 1
    assert entry.BACKING_ALIGNMENT == 64


@pytest.mark.parametrize("pages", range(1, MAX_UNIT_PAGES + 1))
def test_the_share_of_every_unit_on_disk_fits_its_field(pages: int) -> None:
    """With its tag: page count times share is all that must be read, up to where the next begins.

    It is padded to no more than that.
    """
    step = lcm(entry.BACKING_ALIGNMENT, 4 * pages)
    for payload in (1, pages, PAGE_SIZE - 1, pages * PAGE_SIZE):
        plain = HEADER.size + payload
        size = sealed_size(plain, pages)
        assert plain + TAG_SIZE <= size < plain + TAG_SIZE + step
        assert size % step == 0
        found = entry.extent_of(entry.pack_backing(0, 0, pages, size // pages, 0))
        assert found.size == size


IN_MEMORY = entry.pack(64, 400, 0)
AWAY = entry.pack_backing(1, 64, 2, 400, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (entry.EMPTY, entry.EMPTY, False),
        (IN_MEMORY, entry.EMPTY, False),
        (IN_MEMORY, IN_MEMORY, True),
        (IN_MEMORY, IN_MEMORY | entry.LOADED, True),
        (IN_MEMORY | entry.IDLE, IN_MEMORY | entry.LOADED, True),
        (IN_MEMORY, IN_MEMORY | entry.COLD, False),
        (IN_MEMORY, entry.pack(68, 400, 0), False),
        (IN_MEMORY, packed(64, 400, 0, 1), False),
        (AWAY, AWAY | entry.LOADED, True),
        (AWAY, AWAY | entry.HUGE, False),
        (AWAY, entry.pack_backing(1, 64, 3, 400, 0), False),
        (AWAY, entry.pack_backing(1, 128, 2, 400, 0), False),
        (AWAY, entry.pack_backing(2, 64, 2, 400, 0), False),
        (AWAY, IN_MEMORY, False),
    ],
)
def test_only_marks_that_are_set_on_a_page_leave_it_the_same(
    one: int, other: int, same: bool
) -> None:
    assert entry.same_page(one, other) == same
