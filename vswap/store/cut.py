"""Cutting ranges of slots: at cluster boundaries, and into units and runs of one fill word."""

from __future__ import annotations

from collections.abc import Iterator

from vswap.geometry import CLUSTER_SLOTS, PAGE_SHIFT, PAGE_SIZE

__all__ = ["WORD", "ZERO_WORD", "Run", "by_cluster", "fill_word", "runs"]

WORD = 8
"""Bytes of a fill word."""

ZERO_WORD = bytes(WORD)

Run = tuple[int, int, bytes | None]
"""First slot, count, and the word that fills all of these pages, if they are that empty."""

_LAST = PAGE_SIZE - WORD
_WORDS = PAGE_SIZE // WORD


def by_cluster(slot: int, count: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that lie in one cluster each, as (slot, count)."""
    end = slot + count
    while slot < end:
        stop = min((slot | (CLUSTER_SLOTS - 1)) + 1, end)
        yield slot, stop - slot
        slot = stop


def fill_word(page: memoryview) -> bytes | None:
    """The word that a page is again and again, if it is.

    Most pages are told by their ends. The rest are copied and compared as bytes, which is
    memcmp; memoryviews compare element by element.
    """
    if page[0] != page[_LAST] or page[WORD - 1] != page[-1]:
        return None
    word = bytes(page[:WORD])
    return word if bytes(page) == word * _WORDS else None


def runs(slot: int, data: memoryview, unit_pages: int) -> Iterator[Run]:
    """Cut the pages of `data`, which go to `slot` and on, into runs.

    A run of zero pages ends at a cluster's end; any other ends at a multiple of `unit_pages`, so
    that it makes one unit and large writes give aligned ones.
    """
    filled: dict[int, bytes] = {}
    for at in range(0, len(data), PAGE_SIZE):
        if data[at] == data[at + _LAST]:  # as most pages do not begin
            word = fill_word(data[at : at + PAGE_SIZE])
            if word is not None:
                filled[slot + (at >> PAGE_SHIFT)] = word
    end = slot + (len(data) >> PAGE_SHIFT)
    start = slot
    while start < end:
        word = filled.get(start)
        unit = CLUSTER_SLOTS if word == ZERO_WORD else unit_pages
        stop = min(start - start % unit + unit, end)
        if filled:
            stop = next((at for at in range(start + 1, stop) if filled.get(at) != word), stop)
        yield start, stop - start, word
        start = stop
