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

import numpy as np
import numpy.typing as npt

from vswap.geometry import CLUSTER_SHIFT, PAGE_SIZE, Geometry
from vswap.store.entry import EMPTY
from vswap.store.region import Region

__all__ = ["SwapTable"]


class SwapTable:
    """Entries in a region that outlives the worker, and how many are in use per cluster."""

    def __init__(self, region: Region, geometry: Geometry) -> None:
        """`region` must hold `region_size(geometry)` bytes."""
        self._region = region
        self._entries = region.view.cast("Q")
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

    def release(self, cluster: int) -> None:
        """Give the cluster's page back if it holds no entry any more."""
        if not self._counts[cluster]:
            self._region.punch(cluster * PAGE_SIZE, PAGE_SIZE)

    def next_cluster(self, cluster: int) -> int | None:
        """The first cluster in use from `cluster` on. Takes no lock: a snapshot."""
        used = np.flatnonzero(self.counts[cluster:])
        return cluster + int(used[0]) if used.size else None
