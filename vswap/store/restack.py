"""Cleaning the disk: what lives in disk segments that are mostly dead is written together anew.

Only done when free disk segments become few: as long as there are some, dead space costs
nothing, and most of it goes by itself when the last page around it dies. Writing wears a disk.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, SEGMENT_SIZE
from vswap.store.decoder import Decoder
from vswap.store.disk_log import DiskLog
from vswap.store.entry import EMPTY, FLAGS_MASK, OF_PAGE, same_page
from vswap.store.parts import Origin, Parts
from vswap.store.relocate import runs_of
from vswap.store.walk import LivingUnit, Walk
from vswap.store.writeback import WriteBack

__all__ = ["Restack", "few_are_free", "sparsest"]

_FEW = 1 / 32
_AT_ONCE = 16
"""Disk segments that are emptied for one look at the table."""

_WORTH = 1 / 8
"""A disk segment of which less is dead is left alone: too much would be written for it."""


def few_are_free(log: DiskLog) -> bool:
    """Whether free disk segments are so few that it is time to clean."""
    return log.room() < max(3, log.size * _FEW)


def sparsest(log: DiskLog) -> npt.NDArray[np.int64] | None:
    """The disk segments to empty next: those of which most is dead.

    As many as fill one segment, so that at least one is won; None if there is not so much dead
    space.
    """
    full = log.full()
    dead = SEGMENT_SIZE - full.live
    at = np.argsort(dead, kind="stable")[::-1][:_AT_ONCE]
    at = at[dead[at] >= SEGMENT_SIZE * _WORTH]
    # One more than what their content fills, and the last one is filled.
    for count in range(2, len(at) + 1):
        if full.live[at[:count]].sum() <= (count - 1) * SEGMENT_SIZE * 0.95:
            return full.segments[at[:count]]
    return full.segments[at[:1]] if len(at) == 1 and not full.live[at[0]] else None


class Restack:
    """Cleans the disk, for one thread at a time."""

    def __init__(self, parts: Parts, decoder: Decoder, writeback: WriteBack) -> None:
        """`decoder` must be its own; `writeback` may be shared with others under the same lock."""
        self._parts = parts
        self._decoder = decoder
        self._writeback = writeback
        self._walk = Walk(parts)
        self.segments_cleaned = 0

    def empty(self, victims: npt.NDArray[np.int64]) -> Iterator[int]:
        """Move what lives in these disk segments to others; yields pages moved.

        May raise `FullError`, with nothing lost.
        """
        found = self._walk.find(victims)
        self._writeback.batch.begin()
        for number in range(len(found.starts) - 1):
            for unit in self._walk.units(found, number):
                if unit.data is not None and not self._stage(unit, unit.data):
                    yield self._writeback.flush(kept=0)
                    self._writeback.batch.begin()
                    self._stage(unit, unit.data)
            yield 0
        yield self._writeback.flush(kept=0)
        self.segments_cleaned += len(victims)

    def _stage(self, unit: LivingUnit, data: bytes) -> bool:
        """Put a unit into the batch, as it is or what is left of it; False if it does not fit."""
        origin = self._origin(unit.slot, unit.entries)
        if not origin:
            return True  # all of it has died or moved meanwhile
        if all(unit.entries):
            flags = unit.entries[0] & FLAGS_MASK & ~OF_PAGE
            return self._writeback.batch.add(unit.slot, unit.entries, origin, data, flags)
        try:
            alive = next(at for at, entry in enumerate(unit.entries) if entry)
            pages = self._decoder.decode(memoryview(data), 0, unit.slot, unit.slot + alive)
        except CorruptError:
            return True  # it stays where it is
        for at, run in runs_of(unit.entries):
            part = bytes(memoryview(pages)[at << PAGE_SHIFT : at + len(run) << PAGE_SHIFT])
            if not self._writeback.add_pages(unit.slot + at, run, part, origin):
                return False
        return True

    def _origin(self, slot: int, entries: list[int]) -> Origin:
        """What tells the unit for ever; empty if it is not what these slots name any more."""
        with self._parts.locks[slot >> CLUSTER_SHIFT]:
            current = self._parts.table.entries(slot, len(entries))
            same = [
                was if same_page(now, was) else EMPTY
                for now, was in zip(current, entries, strict=True)
            ]
            return self._parts.origin(same)
