"""The ledger: how much of each segment is alive, exactly.

Invariant LOG-LIVE (named in the tests): `pages[s]` is the number of live pages in segment s,
plus those appended to it and not yet published, which are `staged` in all; `bytes[s]` is the
sum of their shares; `hot[s]` how many of these pages the cold codec might still make smaller.

Not locked: the log calls it with its lock held.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.store.entry import (
    ALIGNMENT,
    COLD,
    HUGE,
    NOT_HOT,
    SEGMENT_MASK,
    SEGMENT_OFFSET_SHIFT,
    SHARE_MASK,
    SHARE_SHIFT,
    end_of_segment,
    segment_of,
)
from vswap.store.select import segments_of
from vswap.store.tally import Tally

__all__ = ["Entries", "Ledger", "Totals"]

Entries = Sequence[int] | npt.NDArray[np.uint64]
"""Entries of one kind in any order: a list where there are few, an array where there are many."""


@dataclass(frozen=True)
class Totals:
    """Live pages and bytes in all, staged ones included; huge and cold pages among them."""

    live_pages: int
    live_bytes: int
    huge: int
    cold: int
    staged: int


class Ledger:
    """Live pages and bytes by segment, and their totals. Sizes in bytes."""

    def __init__(self, segments: int) -> None:
        """Nothing is alive yet."""
        self.pages: npt.NDArray[np.int32] = np.zeros(segments, np.int32)
        self.bytes: npt.NDArray[np.int32] = np.zeros(segments, np.int32)
        self.hot: npt.NDArray[np.int32] = np.zeros(segments, np.int32)
        self._pages = self.pages.data
        self._bytes = self.bytes.data
        self._hot = self.hot.data
        self.live_pages = 0
        self.live_bytes = 0
        self.huge = 0
        self.huge_since = 0
        self.cold = 0
        self.staged = 0

    def take_over(self, tally: Tally) -> None:
        """Count what an earlier worker left. Nothing has been counted yet."""
        self.pages[:] = tally.pages
        self.bytes[:] = tally.bytes
        self.hot[:] = tally.hot
        self.live_pages = int(self.pages.sum(dtype=np.int64))
        self.live_bytes = int(self.bytes.sum(dtype=np.int64))
        self.huge = self.huge_since = tally.huge
        self.cold = tally.cold

    def totals(self) -> Totals:
        """A copy of the sums."""
        return Totals(self.live_pages, self.live_bytes, self.huge, self.cold, self.staged)

    def is_empty(self, segment: int) -> bool:
        """Whether nothing lives in a segment and nothing is about to."""
        return not self._pages[segment]

    def add(self, segment: int, pages: int, size: int, hot: int, huge: int, cold: int) -> None:
        """Count pages that have been appended, of `size` bytes in all: staged, until `publish`.

        `hot`, `huge` and `cold` of them are of that sort; those neither huge nor cold are hot.
        """
        self._pages[segment] += pages
        self._bytes[segment] += size
        self._hot[segment] += hot
        self.live_pages += pages
        self.live_bytes += size
        self.huge += huge
        self.huge_since += huge
        self.cold += cold
        self.staged += pages

    def publish(self, pages: int) -> None:
        """So many of the staged pages are named by entries now, or are dead."""
        self.staged -= pages

    def mark_cold(self, entries: Sequence[int]) -> None:
        """The pages that these entries name have become cold where they are."""
        for entry in entries:
            self._hot[segment_of(entry)] -= not entry & NOT_HOT
        self.cold += len(entries)

    def drop(self, entries: Entries) -> list[int]:
        """The pages that these entries named are dead; answers the segments that emptied."""
        if isinstance(entries, np.ndarray):
            return self._drop_many(entries)
        if len(entries) == 1:
            return self._drop_one(entries[0])
        entries = sorted(entries)  # by segment, which is all that is above the offset
        emptied = []
        at = 0
        while at < len(entries):
            segment = segment_of(entries[at])
            end = bisect_left(entries, end_of_segment(entries[at]), at)
            emptied += self._drop_from(segment, entries[at:end])
            at = end
        return emptied

    def _drop_one(self, entry: int) -> list[int]:
        """The commonest case, as fast as it can be."""
        segment = entry >> SEGMENT_OFFSET_SHIFT & SEGMENT_MASK
        size = (entry >> SHARE_SHIFT & SHARE_MASK) * ALIGNMENT
        self._bytes[segment] -= size
        self._pages[segment] -= 1
        self.live_pages -= 1
        self.live_bytes -= size
        if entry & NOT_HOT:
            self.huge -= entry & HUGE
            self.cold -= (entry & COLD) // COLD
        else:
            self._hot[segment] -= 1
        return [] if self._pages[segment] else [segment]

    def _drop_from(self, segment: int, entries: Sequence[int]) -> list[int]:
        size = sum([entry >> SHARE_SHIFT & SHARE_MASK for entry in entries]) * ALIGNMENT
        self._bytes[segment] -= size
        self._pages[segment] -= len(entries)
        self._less(len(entries), size)
        sorts = [entry & NOT_HOT for entry in entries]
        if any(sorts):
            self._hot[segment] -= sorts.count(0)
            self.huge -= sum([sort & HUGE for sort in sorts])
            self.cold -= sum([sort & COLD for sort in sorts]) // COLD
        else:
            self._hot[segment] -= len(entries)
        return [] if self._pages[segment] else [segment]

    def _drop_many(self, entries: npt.NDArray[np.uint64]) -> list[int]:
        shares = (entries >> np.uint64(SHARE_SHIFT) & np.uint64(SHARE_MASK)) * np.uint64(ALIGNMENT)
        segments, where = np.unique(segments_of(entries), return_inverse=True)
        self.pages[segments] -= np.bincount(where).astype(np.int32)
        self.bytes[segments] -= np.bincount(where, shares).astype(np.int32)
        hot = entries & np.uint64(NOT_HOT) == 0
        self.hot[segments] -= np.bincount(where, hot).astype(np.int32)
        self._less(len(entries), int(shares.sum()))
        self.huge -= int(np.count_nonzero(entries & np.uint64(HUGE)))
        self.cold -= int(np.count_nonzero(entries & np.uint64(COLD)))
        emptied: list[int] = segments[self.pages[segments] == 0].tolist()
        return emptied

    def _less(self, pages: int, size: int) -> None:
        self.live_pages -= pages
        self.live_bytes -= size
