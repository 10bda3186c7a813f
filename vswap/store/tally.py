"""What lives in each segment, summed up from entries: many at a time, and in few passes.

Entries of the same unit stand side by side, so they are first made *runs*: slots whose entries
differ in nothing that is summed. That takes three passes over the entries, and all else is done
once for each run, of which there are three or four times fewer on a real device.
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
    SHARE_MASK,
    SHARE_SHIFT,
)
from vswap.store.select import segments_of

__all__ = ["Runs", "Tally", "runs_in"]

Array = npt.NDArray[np.uint64]

_FIELD = 21
"""Bits for each of three sums in one word: a segment has less than 2^20 pages, and bytes
divided by `ALIGNMENT`."""
_FIELD_MASK = np.uint64((1 << _FIELD) - 1)

_SAME = np.uint64(
    (1 << 64) - 1 & ~(INDEX_MASK << INDEX_SHIFT | FLAGS_MASK) | NOT_HOT,
)
"""The bits of an entry by which runs are told apart: not its page's place, nor that it was read."""


class Runs(NamedTuple):
    """Runs of slots with the same entry but for page index and marks: that entry, and how many."""

    entries: Array
    lengths: Array

    def between(self, first: int, end: int) -> Runs:
        """Those whose entries are at least `first` and below `end`, 2^64 being no bound."""
        chosen = self.entries >= np.uint64(first)
        if end < 1 << 64:
            chosen &= self.entries < np.uint64(end)
        return Runs(self.entries[chosen], self.lengths[chosen])


def runs_in(entries: Array) -> Runs:
    """The runs of consecutive slots' entries, of which there is at least one."""
    same = entries & _SAME
    begin = np.flatnonzero(same[1:] != same[:-1])
    begin += 1
    starts = np.concatenate([np.zeros(1, begin.dtype), begin])
    lengths = np.diff(starts, append=len(same))
    return Runs(same[starts], lengths.astype(np.uint64))


class Tally:
    """Live pages and bytes by segment, and the last unit of each. Of entries of one kind."""

    def __init__(self, segments: int) -> None:
        """Nothing has been counted yet."""
        self._sums: Array = np.zeros(segments, np.uint64)
        self.last: Array = np.zeros(segments, np.uint64)
        """An entry of the unit that lies behind all others which live; 0 where none does."""
        self.huge = self.cold = 0

    def add(self, runs: Runs) -> None:
        """Count the pages of these runs. Raises `IndexError` for a segment that there is not."""
        entries, lengths = runs
        segments = segments_of(entries)
        sums = (entries >> np.uint64(SHARE_SHIFT)) & np.uint64(SHARE_MASK)
        sums |= np.uint64(1 << _FIELD)
        sums |= (entries & np.uint64(NOT_HOT) == 0).astype(np.uint64) << np.uint64(2 * _FIELD)
        sums *= lengths
        np.add.at(self._sums, segments, sums)
        np.maximum.at(self.last, segments, entries)
        self.huge += int((lengths * (entries & np.uint64(HUGE))).sum())
        self.cold += int(lengths[entries & np.uint64(COLD) != 0].sum())

    @property
    def bytes(self) -> npt.NDArray[np.int32]:
        """The sum of the live pages' shares, by segment."""
        return (self._sums & _FIELD_MASK).astype(np.int32) * np.int32(ALIGNMENT)

    @property
    def pages(self) -> npt.NDArray[np.int32]:
        """How many live, by segment."""
        return (self._sums >> np.uint64(_FIELD) & _FIELD_MASK).astype(np.int32)

    @property
    def hot(self) -> npt.NDArray[np.int32]:
        """How many of these are neither huge nor cold."""
        return (self._sums >> np.uint64(2 * _FIELD)).astype(np.int32)
