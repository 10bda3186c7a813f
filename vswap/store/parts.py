"""The parts of a store that its lanes share, and the one function that frees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vswap.geometry import Geometry
from vswap.store.cache import FrontCache
from vswap.store.locks import ClusterLocks
from vswap.store.log import Log
from vswap.store.table import SwapTable
from vswap.store.zeromap import Zeromap

__all__ = ["Parts"]


@dataclass(frozen=True)
class Parts:
    """What all lanes of one store work on.

    Invariant ONE-STATE: under its cluster's lock a slot is in exactly one state: empty, zero
    (its zeromap bit set), or stored (its table entry not empty).
    """

    geometry: Geometry
    memory: memoryview
    locks: ClusterLocks
    zeromap: Zeromap
    table: SwapTable
    cache: FrontCache
    log: Log

    def free(self, slot: int, count: int) -> int:
        """Make a range empty; answers how many of its slots were not.

        The only place where zeromap bits, table entries and live counts are cleared, for
        overwrites, discards and drains alike. The range lies in one cluster, whose lock the
        caller holds. An emptied cluster keeps its table page until `table.release`, because
        an overwrite fills it again at once.
        """
        zeros = self.zeromap.clear(slot, count)
        taken = self.table.take(slot, count)
        if len(taken):
            self.log.drop(taken)
        return zeros + len(taken)

    def clusters_in_use(self, first: int, last: int) -> list[int]:
        """The clusters from `first` to `last` that hold anything. Takes no lock: a snapshot."""
        window = slice(first, last + 1)
        used = self.table.counts[window] | self.zeromap.counts[window]
        clusters: list[int] = (np.flatnonzero(used) + first).tolist()
        return clusters
