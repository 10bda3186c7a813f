"""The swap table's entry: one 64-bit word that says where a page is.

::

     63 62 61        38 37       20 19   16 15      5 4     0
    +-----+------------+-----------+-------+---------+-------+
    |kind |  segment   | offset/4  | index | share/4 | flags |
    +-----+------------+-----------+-------+---------+-------+
       2       24           18         4       11        5

kind     0 empty (the whole word is 0), 1 in the front cache, 2 in the backing,
         3 filled with one word: bits 20 and up are its number in `FillWords`, the rest 0
segment  which 1 MiB piece of the log holds the page's unit
offset   where in the segment the unit's header starts, in bytes
index    the page's place in its unit, 0 to 15
share    the unit's bytes, header and padding included, divided by its page count; by that of
         its live pages, if it was moved when some had died
flags    bit 0  HUGE    the unit did not compress and is stored as it is
         bit 1  COLD    the page has been through the cold codec
         bit 2  LOADED  the page has been read since it was written
         bit 3  IDLE    marked by the `idle` command, and not read since

The share makes an entry tell what its page costs: the bytes that live in a segment are the
sum of its live entries' shares, with no look at the segment itself. Units are padded so that
the division leaves nothing over. COLD, LOADED and IDLE are of the page, and may be set in place.

An entry of the backing names a disk segment, and must tell what to read before anything of it
is known: there the offset's 18 bits are 14 of the unit's offset divided by 64, then 4 of its
page count less one. All of the unit's pages share in it equally, so page count times share is
its size.
"""

from __future__ import annotations

from typing import NamedTuple

from vswap.geometry import SEGMENT_SHIFT

__all__ = [
    "ALIGNMENT",
    "BACKING_ALIGNMENT",
    "BACKING_PAGES_BITS",
    "COLD",
    "EMPTY",
    "FIRST_BACKING",
    "FIRST_FILL",
    "FLAGS_MASK",
    "HUGE",
    "IDLE",
    "INDEX_MASK",
    "INDEX_SHIFT",
    "KIND_BACKING",
    "KIND_CACHE",
    "KIND_FILL",
    "KIND_SHIFT",
    "LOADED",
    "MAX_SEGMENTS",
    "NOT_HOT",
    "OF_PAGE",
    "PLACE_MASK",
    "POSITION_MASK",
    "SEGMENT_MASK",
    "SEGMENT_OFFSET_SHIFT",
    "SHARE_MASK",
    "SHARE_MAX",
    "SHARE_SHIFT",
    "UNIT_SHIFT",
    "Extent",
    "end_of_segment",
    "extent_of",
    "fill_of",
    "index_of",
    "pack",
    "pack_backing",
    "pack_fill",
    "position_of",
    "same_page",
    "segment_of",
    "share_of",
    "unit_flags",
]

EMPTY = 0
KIND_CACHE = 1
KIND_BACKING = 2
KIND_FILL = 3
KIND_SHIFT = 62

HUGE = 1
COLD = 2
LOADED = 4
IDLE = 8
FLAGS_MASK = (1 << 5) - 1
NOT_HOT = HUGE | COLD
"""Flags of pages that are not compressed again by themselves."""
OF_PAGE = LOADED | IDLE
"""Flags that may differ between two entries for one and the same page."""

ALIGNMENT = 4
SHARE_SHIFT = 5
SHARE_MASK = (1 << 11) - 1
SHARE_MAX = SHARE_MASK * ALIGNMENT
INDEX_SHIFT = 16
INDEX_MASK = (1 << 4) - 1
UNIT_SHIFT = 20
"""Two entries that are equal above this bit name pages of the same unit."""
SEGMENT_OFFSET_SHIFT = UNIT_SHIFT + SEGMENT_SHIFT - 2
SEGMENT_MASK = (1 << 24) - 1
MAX_SEGMENTS = 1 << 24
POSITION_MASK = (1 << 42) - 1
FIRST_BACKING = KIND_BACKING << KIND_SHIFT
"""Entries from here on are not of pages in memory's segments: those before it are, or empty."""
FIRST_FILL = KIND_FILL << KIND_SHIFT
"""Entries from here on are of pages filled with one word."""

BACKING_ALIGNMENT = 64
"""In disk segments units begin at multiples of so many bytes."""
BACKING_PAGES_BITS = 4
PLACE_MASK = (1 << SEGMENT_OFFSET_SHIFT - UNIT_SHIFT) - 1
"""Of an entry of the backing: the offset, and below it in so many bits the page count."""


def pack(position: int, share: int, flags: int) -> int:
    """The entry of a front-cache unit's first page; add ``i << INDEX_SHIFT`` for page i.

    `position` is the unit header's byte offset in the segments region; `share` is in bytes.
    """
    where = KIND_CACHE << KIND_SHIFT | (position // ALIGNMENT) << UNIT_SHIFT
    return where | (share // ALIGNMENT) << SHARE_SHIFT | flags


class Extent(NamedTuple):
    """Where a unit is in the backing: disk segment, byte offset in it, bytes, pages."""

    segment: int
    offset: int
    size: int
    pages: int


def pack_backing(segment: int, offset: int, pages: int, share: int, flags: int) -> int:
    """As `pack`, for a unit of `pages` at byte `offset` of a disk segment."""
    place = (offset // BACKING_ALIGNMENT) << BACKING_PAGES_BITS | pages - 1
    where = KIND_BACKING << KIND_SHIFT | segment << SEGMENT_OFFSET_SHIFT | place << UNIT_SHIFT
    return where | (share // ALIGNMENT) << SHARE_SHIFT | flags


def extent_of(entry: int) -> Extent:
    """Where in the backing the unit of a page is."""
    place = entry >> UNIT_SHIFT & PLACE_MASK
    pages = (place & (1 << BACKING_PAGES_BITS) - 1) + 1
    offset = (place >> BACKING_PAGES_BITS) * BACKING_ALIGNMENT
    return Extent(segment_of(entry), offset, share_of(entry) * pages, pages)


def pack_fill(number: int) -> int:
    """The entry of a page that is filled with word `number`."""
    return FIRST_FILL | number << UNIT_SHIFT


def fill_of(entry: int) -> int:
    """The number of the word that a page is filled with."""
    return entry >> UNIT_SHIFT & POSITION_MASK


def position_of(entry: int) -> int:
    """Byte offset of the unit's header in the segments region."""
    return (entry >> UNIT_SHIFT & POSITION_MASK) * ALIGNMENT


def segment_of(entry: int) -> int:
    """Number of the segment that holds the unit."""
    return entry >> SEGMENT_OFFSET_SHIFT & SEGMENT_MASK


def end_of_segment(entry: int) -> int:
    """A bound: entries of the same kind below it are of this one's segment or of one before."""
    return (entry >> SEGMENT_OFFSET_SHIFT) + 1 << SEGMENT_OFFSET_SHIFT


def same_page(entry: int, before: int) -> bool:
    """Whether `entry` is what `before` was, but for marks that were set on the page since.

    False if there was no entry.
    """
    return before != EMPTY and not (entry ^ before) & ~OF_PAGE


def unit_flags(entry: int) -> int:
    """Those of a page's flags that are its unit's."""
    return entry & FLAGS_MASK & ~OF_PAGE


def index_of(entry: int) -> int:
    """The page's place in its unit."""
    return entry >> INDEX_SHIFT & INDEX_MASK


def share_of(entry: int) -> int:
    """Bytes of the unit that count as this page's."""
    return (entry >> SHARE_SHIFT & SHARE_MASK) * ALIGNMENT
