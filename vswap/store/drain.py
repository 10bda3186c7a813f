"""The drain: everything on disk comes back to memory, so that the backing can be taken away.

What swapoff should be (mm/swapfile.c once looked for each slot in every process): each used
cluster is visited once, to find what is on disk; then each disk segment is read once, in the
order of the disk. Nothing is written to the disk meanwhile, so when all have been read nothing
is there. The cost is linear in what is on disk, and counted (`Walk`).

It is done in pieces, one disk segment each, and may be given up between any two: what has not
come back is readable where it is. If memory runs short it goes on with the segment that it was
at, when there is room again.
"""

from __future__ import annotations

from collections.abc import Iterator

from vswap.geometry import CLUSTER_SHIFT
from vswap.store.parts import Parts
from vswap.store.relocate import Relocator
from vswap.store.unit import padded
from vswap.store.walk import LivingUnit, OnDisk, Walk

__all__ = ["Drain"]


class Drain:
    """One attempt to empty the disk. For one thread at a time."""

    def __init__(self, parts: Parts, relocator: Relocator) -> None:
        """`relocator` may be shared with others that run under the same lock."""
        self._parts = parts
        self._relocator = relocator
        self.walk = Walk(parts)
        self._found: OnDisk | None = None
        self._number = 0

    def pieces(self) -> Iterator[int]:
        """Bring back a disk segment at a time; yields pages moved.

        Raises `FullError`, with nothing lost; another iterator goes on where this one ended.
        """
        if self._found is None:
            self._found = self.walk.find()
            yield 0
        while self._number < len(self._found.starts) - 1:
            moved = 0
            for unit in self.walk.units(self._found, self._number):
                if unit.data is not None:
                    moved += self._bring_back(unit, unit.data)
            self._number += 1
            yield moved

    def _bring_back(self, unit: LivingUnit, data: bytes) -> int:
        """Append a unit to memory's log as it is; how many pages were moved."""
        with self._parts.locks[unit.slot >> CLUSTER_SHIFT]:
            entries = self._parts.still(unit.slot, unit.entries, unit.sequence)
            if not any(entries):
                return 0
            return self._relocator.put(unit.slot, entries, padded(data, len(entries)))
