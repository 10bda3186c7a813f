"""The zeromap: one bit per slot, set where a zero page was written.

Follows the kernel's zeromap (mm/page_io.c, `swap_zeromap_batch` in mm/swap.h): asked about
a range, it answers the state of the first slot and how many slots share it.

A cluster's 512 bits are 64 aligned bytes and are handled as one integer, so clusters never
share a byte, and the cluster lock is all the protection they need. Every method must be
called with the lock of the range's cluster held, and the range must lie in one cluster.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS, Geometry
from vswap.store.region import Region

__all__ = ["Zeromap"]

_BYTES = CLUSTER_SLOTS // 8
_IN_CLUSTER = CLUSTER_SLOTS - 1


def _mask(slot: int, count: int) -> int:
    return ((1 << count) - 1) << (slot & _IN_CLUSTER)


class Zeromap:
    """The bits, in a region that outlives the worker, and how many are set per cluster."""

    def __init__(self, region: Region, geometry: Geometry) -> None:
        """`region` must hold `region_size(geometry)` bytes."""
        self._bits = region.view
        size = self.region_size(geometry)
        self.pages = np.frombuffer(region.view, np.uint8, size).reshape(-1, _BYTES)
        self.counts: npt.NDArray[np.uint16] = np.zeros(geometry.clusters, np.uint16)
        self._counts = self.counts.data

    @staticmethod
    def region_size(geometry: Geometry) -> int:
        """Bytes the bits take when all of them have been touched."""
        return geometry.clusters * _BYTES

    def _load(self, cluster: int) -> int:
        at = cluster * _BYTES
        return int.from_bytes(self._bits[at : at + _BYTES], "little")

    def _save(self, cluster: int, bits: int) -> None:
        at = cluster * _BYTES
        self._bits[at : at + _BYTES] = bits.to_bytes(_BYTES, "little")
        self._counts[cluster] = bits.bit_count()

    def set(self, slot: int, count: int) -> None:
        """Record that `count` slots from `slot` hold zero pages."""
        cluster = slot >> CLUSTER_SHIFT
        self._save(cluster, self._load(cluster) | _mask(slot, count))

    def clear(self, slot: int, count: int) -> int:
        """Forget the range; answers how many of its bits were set."""
        cluster = slot >> CLUSTER_SHIFT
        if not self._counts[cluster]:
            return 0
        bits = self._load(cluster)
        hit = bits & _mask(slot, count)
        if hit:
            self._save(cluster, bits ^ hit)
        return hit.bit_count()

    def run(self, slot: int, count: int) -> tuple[bool, int]:
        """The first slot's state, and how many of `count` slots from there share it."""
        cluster = slot >> CLUSTER_SHIFT
        if not self._counts[cluster]:
            return False, count
        bits = self._load(cluster) >> (slot & _IN_CLUSTER)
        state = bool(bits & 1)
        differing = ~bits if state else bits
        differing &= (1 << count) - 1
        if not differing:
            return state, count
        return state, (differing & -differing).bit_length() - 1
