"""The parts of a store that its lanes share, and the one function that changes what is where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vswap.geometry import CLUSTER_SHIFT, Geometry
from vswap.store.cache import FrontCache
from vswap.store.entry import EMPTY, INDEX_SHIFT
from vswap.store.locks import ClusterLocks
from vswap.store.log import Log
from vswap.store.table import SwapTable
from vswap.store.zeromap import Zeromap

__all__ = ["Parts", "Staged"]


Staged = tuple[int, int, int]
"""What a run of slots is to hold: first slot, count, and the entry of the first page, or EMPTY
for pages of zeros."""


@dataclass(frozen=True)
class Parts:
    """What all lanes of one store work on.

    Invariant ONE-STATE: under its cluster's lock a slot is in exactly one state: empty, zero
    (its zeromap bit set), or stored (its table entry not empty). A crash may leave both a bit
    and an entry; the entry counts.
    """

    geometry: Geometry
    memory: memoryview
    locks: ClusterLocks
    zeromap: Zeromap
    table: SwapTable
    cache: FrontCache
    log: Log

    def put(self, slot: int, count: int, staged: list[Staged]) -> int:
        """Make a range hold what is staged for it and be empty elsewhere.

        Answers how many pages that freed. The only place where zeromap bits, table entries
        and live counts are cleared, for overwrites, discards and drains alike. The range lies
        in one cluster, whose lock the caller holds; `staged` is in the order of slots and has
        been counted by the log.

        At any instant each slot reads as it did before or as it will: bits for zeros are set
        before their entries go, and other bits are cleared after entries have come.
        """
        entries = [EMPTY] * count
        zeros = []
        for first, pages, entry in staged:
            if entry:
                at = first - slot
                for i in range(pages):
                    entries[at + i] = entry + (i << INDEX_SHIFT)
            else:
                zeros.append((first, pages))
                self.zeromap.set(first, pages)
        old = self.table.exchange(slot, entries)
        freed = len(old) + self._clear_around(zeros, slot, count)
        if old:
            self.log.drop(old)
            self.table.release(slot >> CLUSTER_SHIFT)
        return freed

    def _clear_around(self, zeros: list[tuple[int, int]], slot: int, count: int) -> int:
        """Clear the range's zeromap bits except those of the runs `zeros`."""
        cleared = 0
        end = slot + count
        for first, pages in [*zeros, (end, 0)]:
            if slot < first:
                cleared += self.zeromap.clear(slot, first - slot)
            slot = first + pages
        return cleared

    def free(self, slot: int, count: int) -> int:
        """Make a range empty; answers how many pages that freed."""
        return self.put(slot, count, [])

    def clusters_in_use(self, first: int, last: int) -> list[int]:
        """The clusters from `first` to `last` that hold anything. Takes no lock: a snapshot."""
        window = slice(first, last + 1)
        used = self.table.counts[window] | self.zeromap.counts[window]
        clusters: list[int] = (np.flatnonzero(used) + first).tolist()
        return clusters
