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
from vswap.store.entry import EMPTY, INDEX_SHIFT
from vswap.store.region import Region

__all__ = ["SwapTable"]

_NOTHING = memoryview(bytes(PAGE_SIZE)).cast("Q")


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

    def publish(self, slot: int, count: int, entry: int) -> None:
        """Point `count` empty slots at the pages of the unit whose first page has `entry`."""
        entries = self._entries
        for i in range(count):
            entries[slot + i] = entry + (i << INDEX_SHIFT)
        self._counts[slot >> CLUSTER_SHIFT] += count

    def take(self, slot: int, count: int) -> list[int]:
        """Empty the range; answers the entries that stood there.

        The cluster's page stays, even if this was its last entry: call `release` once the
        caller has put in whatever it frees the range for.
        """
        cluster = slot >> CLUSTER_SHIFT
        if not self._counts[cluster]:
            return []
        window = self._entries[slot : slot + count]
        taken = [entry for entry in window.tolist() if entry]
        if taken:
            window[:] = _NOTHING[:count]
            self._counts[cluster] -= len(taken)
        return taken

    def release(self, cluster: int) -> None:
        """Give the cluster's page back if it holds no entry any more."""
        if not self._counts[cluster]:
            self._region.punch(cluster * PAGE_SIZE, PAGE_SIZE)

    def next_cluster(self, cluster: int) -> int | None:
        """The first cluster in use from `cluster` on. Takes no lock: a snapshot."""
        used = np.flatnonzero(self.counts[cluster:])
        return cluster + int(used[0]) if used.size else None
