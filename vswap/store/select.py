"""Which pages to move down: chosen by their entries alone, many at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.store.entry import (
    ALIGNMENT,
    BACKING_ALIGNMENT,
    BACKING_PAGES_BITS,
    COLD,
    HUGE,
    IDLE,
    KIND_CACHE,
    KIND_SHIFT,
    LOADED,
    PLACE_MASK,
    SEGMENT_MASK,
    SEGMENT_OFFSET_SHIFT,
    SHARE_MASK,
    SHARE_SHIFT,
    UNIT_SHIFT,
)

__all__ = ["Selection", "ends_of_extents", "in_cache", "is_older", "segments_of"]

Entries = npt.NDArray[np.uint64]
Times = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """Pages in memory that have not been through the cold codec, or with `cold` those that have.

    Of these: `huge` those that did not compress (others are left alone), without it those that
    did; `idle` those marked idle; `threshold` those that cost at least so many bytes; `age` those
    written at least so many seconds ago; and whatever their age, with `loaded`, those that have
    been read; `slots` those of the slots from the first up to the second, which is not one of
    them. None for `huge` or `cold` is both.
    """

    huge: bool | None = False
    cold: bool | None = False
    slots: tuple[int, int] | None = None
    idle: bool = False
    threshold: int = 0
    age: float = 0.0
    loaded: bool = False

    def mask(self, entries: Entries, born: Times, now: float, slot: int = 0) -> Mask:
        """Which of `entries`, of slots from `slot` on, are chosen.

        `born` is by segment, as `Log.born`.
        """
        chosen: Mask = in_cache(entries)
        for wanted, flag in ((self.cold, COLD), (self.huge, HUGE)):
            if wanted is not None:
                chosen &= (entries & np.uint64(flag) != 0) == wanted
        if self.slots is not None:
            first, end = self.slots
            chosen[: max(0, first - slot)] = False
            chosen[max(0, end - slot) :] = False
        if self.idle:
            chosen &= entries & np.uint64(IDLE) != 0
        if self.threshold:
            shares = entries >> np.uint64(SHARE_SHIFT) & np.uint64(SHARE_MASK)
            chosen &= shares >= self.threshold / ALIGNMENT
        if self.age > 0:
            due = is_older(entries, born, now - self.age)
            if self.loaded:
                due |= entries & np.uint64(LOADED) != 0
            chosen &= due
        return chosen


def in_cache(entries: Entries) -> Mask:
    """Which entries are of pages in segments in memory."""
    found: Mask = entries >> np.uint64(KIND_SHIFT) == KIND_CACHE
    return found


def is_older(entries: Entries, born: Times, when: float) -> Mask:
    """Which are of a segment whose youngest page was written at `when` or before."""
    older: Mask = born[np.where(in_cache(entries), segments_of(entries), 0)] <= when
    return older


def segments_of(entries: Entries) -> npt.NDArray[np.int64]:
    """The number of each one's segment, in memory or on disk."""
    segments = entries >> np.uint64(SEGMENT_OFFSET_SHIFT) & np.uint64(SEGMENT_MASK)
    return segments.astype(np.int64)


def ends_of_extents(entries: Entries) -> npt.NDArray[np.int64]:
    """Where in their disk segments the units end that entries of the backing name, in bytes."""
    places = (entries >> np.uint64(UNIT_SHIFT) & np.uint64(PLACE_MASK)).astype(np.int64)
    shares = (entries >> np.uint64(SHARE_SHIFT) & np.uint64(SHARE_MASK)).astype(np.int64)
    pages = (places & (1 << BACKING_PAGES_BITS) - 1) + 1
    return (places >> BACKING_PAGES_BITS) * BACKING_ALIGNMENT + shares * ALIGNMENT * pages
