"""The swap table: one entry per slot, one page of memory per cluster in use.

Invariants (each named in the tests):

TABLE-COUNT   `counts[c]` is the number of entries of cluster c that are not empty.
TABLE-HOLE    where `counts[c]` is 0, the cluster's page is a hole of the region, except for
              the time in which its cluster lock is held. So the counts are asked before the
              region is: reading a hole would allocate it.
TABLE-NULL    a page is given back only when all its entries are empty.

The kernel's counterpart is mm/swap_table.h, allocated when a cluster is first used by an
allocation of any order and freed when the cluster is empty. There the allocating path drops
its lock and may come back with another cluster; here there is nothing to come back with:
a page comes into being by being written to.

Every method must be called with the lock of the range's cluster held, and ranges must lie in
one cluster, unless it says otherwise.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS, PAGE_SIZE, Geometry
from vswap.store.entry import EMPTY
from vswap.store.region import Region

__all__ = ["SwapTable"]

_NOTHING: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)


class SwapTable:
    """Entries in a region that outlives the worker, and how many are in use per cluster."""

    def __init__(self, region: Region, geometry: Geometry, *, keep: bool = False) -> None:
        """`region` must hold `region_size(geometry)` bytes. With `keep` none are given back."""
        self._region = region
        self._keep = keep
        self._entries = region.view.cast("Q")
        self._array = np.frombuffer(region.view, np.uint64)
        self.pages = self._array.reshape(-1, CLUSTER_SLOTS)
        self.counts: npt.NDArray[np.uint16] = np.zeros(geometry.clusters, np.uint16)
        self._counts = self.counts.data

    @staticmethod
    def region_size(geometry: Geometry) -> int:
        """Bytes the entries take when every cluster is in use."""
        return geometry.clusters * PAGE_SIZE

    def get(self, slot: int) -> int:
        """The entry of `slot`."""
        if not self._counts[slot >> CLUSTER_SHIFT]:
            return EMPTY
        return self._entries[slot]

    def entries(self, slot: int, count: int) -> list[int]:
        """The entries of `count` slots from `slot`."""
        if not self._counts[slot >> CLUSTER_SHIFT]:
            return [EMPTY] * count
        return self._entries[slot : slot + count].tolist()

    def exchange(self, slot: int, entries: list[int]) -> list[int]:
        """Put `entries` into consecutive slots; answers those that stood there and were not empty.

        Each is one aligned store of 64 bits, so at any instant, and after a crash at any
        instant, a slot has its old entry or its new one. The cluster's page stays, even if
        nothing is left in it: see `release`.
        """
        cluster = slot >> CLUSTER_SHIFT
        if not self._counts[cluster] and not any(entries):
            return []
        table = self._entries
        old = []
        added = 0
        for at, new in enumerate(entries, slot):
            if before := table[at]:
                old.append(before)
            if new:
                added += 1
            if new != before:
                table[at] = new
        self._counts[cluster] += added - len(old)
        return old

    def empty(self, slot: int, count: int) -> npt.NDArray[np.uint64]:
        """As `exchange` with entries that are all empty, for many slots at once."""
        cluster = slot >> CLUSTER_SHIFT
        if not self._counts[cluster]:
            return _NOTHING
        window = self._array[slot : slot + count]
        old: npt.NDArray[np.uint64] = window[window != EMPTY]
        window[window != EMPTY] = EMPTY  # stores whole words, each slot its own
        self._counts[cluster] -= len(old)
        return old

    def replace(self, slot: int, entry: int) -> None:
        """Put an entry in the place of another one; neither is empty."""
        self._entries[slot] = entry

    def page(self, cluster: int) -> npt.NDArray[np.uint64]:
        """A copy of all entries of a cluster."""
        if not self._counts[cluster]:
            return np.zeros(CLUSTER_SLOTS, np.uint64)
        page: npt.NDArray[np.uint64] = self.pages[cluster].copy()
        return page

    def mark(self, cluster: int, chosen: npt.NDArray[np.bool_], flags: int) -> None:
        """Set `flags` in the entries of a cluster that are `chosen`; none of them is empty."""
        if chosen.any():
            self.pages[cluster][chosen] |= np.uint64(flags)

    def release(self, cluster: int) -> None:
        """Give the cluster's page back if it holds no entry any more.

        If the kernel refuses, it stays, all empty, until the cluster is emptied the next time.
        """
        if not self._counts[cluster] and not self._keep:
            with suppress(OSError):
                self._region.punch(cluster * PAGE_SIZE, PAGE_SIZE)

    def next_cluster(self, cluster: int) -> int | None:
        """The first cluster in use from `cluster` on. Takes no lock: a snapshot."""
        used = np.flatnonzero(self.counts[cluster:])
        return cluster + int(used[0]) if used.size else None
