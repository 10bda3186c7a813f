"""Cutting ranges of slots: at cluster boundaries, and into zero runs and units."""

from __future__ import annotations

from collections.abc import Iterator

from vswap.geometry import CLUSTER_SLOTS, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE

__all__ = ["by_cluster", "is_zero_page", "runs"]

_LAST = PAGE_SIZE - 1


def by_cluster(slot: int, count: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that lie in one cluster each, as (slot, count)."""
    end = slot + count
    while slot < end:
        stop = min((slot | (CLUSTER_SLOTS - 1)) + 1, end)
        yield slot, stop - slot
        slot = stop


def is_zero_page(data: memoryview, at: int) -> bool:
    """Whether the page at byte `at` of `data` is all zeros.

    Most pages are told apart by one of their end bytes. The rest are copied and compared as
    bytes, which is memcmp; memoryviews compare element by element.
    """
    if data[at] or data[at + _LAST]:
        return False
    return bytes(data[at : at + PAGE_SIZE]) == ZERO_PAGE


def runs(slot: int, data: memoryview, unit_pages: int) -> Iterator[tuple[int, int, bool]]:
    """Cut the pages of `data`, which go to `slot` and on, into (slot, count, is zero).

    A run of zero pages ends at a cluster's end; a run of others ends at a multiple of
    `unit_pages`, so that it makes one unit and large writes give aligned ones.
    """
    firsts = bytes(data[::PAGE_SIZE])
    end = slot + len(firsts)
    start, zero = slot, not firsts[0] and is_zero_page(data, 0)
    for at in range(slot + 1, end):
        first = firsts[at - slot]
        zero_here = not first and is_zero_page(data, at - slot << PAGE_SHIFT)
        if zero_here != zero or not at % (CLUSTER_SLOTS if zero else unit_pages):
            yield start, at - start, zero
            start, zero = at, zero_here
    yield start, end - start, zero
