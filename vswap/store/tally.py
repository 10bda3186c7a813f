"""What lives in each segment, summed up from entries: many at a time, and in few passes.

Entries of the same unit stand side by side, so they are first made *runs*: slots whose entries
differ in nothing that is summed. That takes three passes over the entries, and all else is done
once for each run, of which there are three or four times fewer on a real device.

Entries are taken for signed numbers here, which is what numpy indexes with: entries of memory's
segments are positive then, and those of the disk and of fill words negative.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vswap.store.entry import (
    ALIGNMENT,
    COLD,
    FLAGS_MASK,
    HUGE,
    INDEX_MASK,
    INDEX_SHIFT,
    NOT_HOT,
    SEGMENT_MASK,
    SEGMENT_OFFSET_SHIFT,
    SHARE_MASK,
    SHARE_SHIFT,
)

__all__ = ["Runs", "Tally", "runs_in"]

Numbers = npt.NDArray[np.int64]

_FIELD = 21
"""Bits for each of three sums in one word: a segment has less than 2^20 pages, and bytes
divided by `ALIGNMENT`."""
_FIELD_MASK = (1 << _FIELD) - 1

_SAME = ~(INDEX_MASK << INDEX_SHIFT | FLAGS_MASK) | NOT_HOT
"""The bits of an entry by which runs are told apart: not its page's place, nor that it was read."""


class Runs(NamedTuple):
    """Runs of slots with the same entry but for page index and marks: that entry, and how many."""

    entries: Numbers
    lengths: Numbers

    def take(self, at: Numbers) -> Runs:
        """Those at these places."""
        return Runs(self.entries[at], self.lengths[at])


def runs_in(entries: Numbers) -> Runs:
    """The runs of consecutive slots' entries, of which there is at least one."""
    same = entries & _SAME
    begin = np.flatnonzero(same[1:] != same[:-1])
    bounds = np.empty(len(begin) + 2, np.int64)
    bounds[0], bounds[-1] = 0, len(same)
    np.add(begin, 1, out=bounds[1:-1])
    return Runs(same[bounds[:-1]], bounds[1:] - bounds[:-1])


class Tally:
    """Live pages and bytes by segment, and the last unit of each. Of entries of one kind."""

    def __init__(self, segments: int) -> None:
        """Nothing has been counted yet."""
        self._sums: Numbers = np.zeros(segments, np.int64)
        self._last: Numbers = np.full(segments, np.iinfo(np.int64).min)
        self.huge = self.cold = 0

    def add(self, runs: Runs) -> None:
        """Count the pages of these runs. Raises `IndexError` for a segment that there is not.

        Runs of length 0 count nothing; they must name a segment that there is.
        """
        entries, lengths = runs
        segments = entries >> SEGMENT_OFFSET_SHIFT
        segments &= SEGMENT_MASK
        sums = entries >> SHARE_SHIFT
        sums &= SHARE_MASK
        sums |= 1 << _FIELD | 1 << 2 * _FIELD
        flags = entries & NOT_HOT
        if flags.any():
            sums[flags != 0] ^= 1 << 2 * _FIELD
            self.huge += int(lengths[flags & HUGE != 0].sum())
            self.cold += int(lengths[flags & COLD != 0].sum())
        sums *= lengths
        np.add.at(self._sums, segments, sums)
        np.maximum.at(self._last, segments, entries)

    @property
    def segments(self) -> Numbers:
        """Those in which anything lives."""
        return np.flatnonzero(self._sums)

    @property
    def last(self) -> npt.NDArray[np.uint64]:
        """An entry of the unit behind all others that live, by segment; of use for `segments`."""
        return self._last.view(np.uint64)

    @property
    def bytes(self) -> npt.NDArray[np.int32]:
        """The sum of the live pages' shares, by segment."""
        return (self._sums & _FIELD_MASK).astype(np.int32) * np.int32(ALIGNMENT)

    @property
    def pages(self) -> npt.NDArray[np.int32]:
        """How many live, by segment."""
        return (self._sums >> _FIELD & _FIELD_MASK).astype(np.int32)

    @property
    def hot(self) -> npt.NDArray[np.int32]:
        """How many of these are neither huge nor cold."""
        return (self._sums >> 2 * _FIELD).astype(np.int32)
